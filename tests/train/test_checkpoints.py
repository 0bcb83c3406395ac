"""Checkpoints by hand: which of them is gone on from, when one may be saved, and what is done where nothing is left."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from trl.trainer.utils import RepeatSampler

from stlite.data.sample import Sample
from stlite.train import checkpoints
from stlite.train.checkpoints import CheckpointCallback, is_whole, last_checkpoint, row_id

FILES = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json",
         "processor_config.json")  # fmt: skip


def write_checkpoint(run, step: int, last: int = 9):
    """Write the files of a whole checkpoint; return its folder."""
    folder = run / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file({"lora_A": torch.ones(4, 4)}, folder / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"values": torch.arange(100)}, folder / name)
    state = {"global_step": step, "max_steps": last, "log_history": []}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    (folder / "processor_config.json").write_text("{}")
    return folder


def test_the_newest_checkpoint_is_taken_by_its_number(tmp_path):
    assert last_checkpoint(tmp_path) is None
    for step in (9, 100, 20):
        write_checkpoint(tmp_path, step)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoints" / "checkpoint-100")


def test_folders_that_only_look_like_checkpoints_are_passed_over(tmp_path):
    write_checkpoint(tmp_path, 2)
    for name in ("checkpoint-", "checkpoint-3.tmp", "checkpoint-x"):
        write_checkpoint(tmp_path, 7).rename(tmp_path / "checkpoints" / name)
    assert last_checkpoint(tmp_path).endswith("checkpoint-2")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_a_checkpoint_of_which_a_part_is_torn_is_passed_over(tmp_path, name, damage):
    write_checkpoint(tmp_path, 1)
    path = write_checkpoint(tmp_path, 2) / name
    assert last_checkpoint(tmp_path).endswith("checkpoint-2")
    if damage == "gone":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        os.truncate(path, path.stat().st_size - 1)
    assert not is_whole(path.parent)
    assert last_checkpoint(tmp_path).endswith("checkpoint-1")


@pytest.mark.parametrize("name", ["more.json", "more.bin", "more.safetensors", "inner/more.pt"])
def test_every_file_must_be_there_to_its_end_and_other_kinds_pass(tmp_path, name):
    folder = write_checkpoint(tmp_path, 1)
    (folder / "inner").mkdir()
    (folder / "README.md").write_text("{")
    assert is_whole(folder)
    (folder / name).write_text("{")
    assert not is_whole(folder)


def test_every_process_saves_its_random_state_and_deepspeed_its_optimizer(tmp_path):
    folder = write_checkpoint(tmp_path, 1)
    (folder / "rng_state.pth").rename(folder / "rng_state_1.pth")
    assert is_whole(folder)
    (folder / "optimizer.pt").unlink()
    (folder / "scheduler.pt").unlink()
    assert not is_whole(folder)
    (folder / "global_step1").mkdir()
    assert is_whole(folder)


def test_a_row_is_known_by_its_samples_id():
    sample = Sample("a", "a.mp4", "route", "forward", "Where?", "there")
    assert row_id(sample) == "a"
    assert row_id({"id": "b"}) == "b"


# ---- when one may be saved -----------------------------------------------------------------------


class Recorder:
    """Stands for a trainer: notes which of its methods are called, in order."""

    def __init__(self, step: int = 0):
        self._step = step
        self.calls = []
        self.model = "model"
        self.state = SimpleNamespace(global_step=1)

    def __getattr__(self, name):
        if not name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, *args))


def end_steps(callback, trainer, steps: int, wanted: list[int], **args) -> list[int]:
    """End optimizer steps one after another, a save being asked for after some; return after which it may be."""
    saved = []
    for step in range(1, steps + 1):
        trainer._step = step
        control = SimpleNamespace(should_save=step in wanted)
        callback.on_pre_optimizer_step(None, None, None)
        assert not callback.whole
        callback.on_step_end(SimpleNamespace(**args), None, control)
        if control.should_save:
            saved.append(step)
    return saved


def test_a_save_waits_for_the_end_of_the_generation():
    trainer = Recorder()
    callback = CheckpointCallback(trainer)
    how = {"steps_per_generation": 2, "num_iterations": 2}
    assert end_steps(callback, trainer, 12, [1, 6, 7], **how) == [4, 8]
    assert [name for name, *_ in trainer.calls] == ["_save_rng_state"] * 3


def test_a_stage_without_generations_saves_at_once():
    trainer = Recorder()
    callback = CheckpointCallback(trainer)
    assert end_steps(callback, trainer, 4, [2, 3]) == [2, 3]
    assert len(trainer.calls) == 4
    folder = trainer.calls[0][1]
    assert os.path.isdir(folder)


def test_a_trainer_that_counts_no_steps_is_always_at_the_end_of_one():
    trainer = SimpleNamespace(_save_rng_state=lambda folder: None)
    callback = CheckpointCallback(trainer)
    control = SimpleNamespace(should_save=True)
    callback.on_step_end(SimpleNamespace(steps_per_generation=3), None, control)
    assert callback.whole and control.should_save


def test_an_interruption_is_saved_with_the_random_state_of_the_last_whole_step():
    trainer = Recorder()
    callback = CheckpointCallback(trainer)
    callback.save_where_whole()
    assert not trainer.calls  # before the first step
    end_steps(callback, trainer, 2, [], steps_per_generation=2)
    trainer.calls.clear()
    callback.save_where_whole()
    folder = callback.random_state.name
    assert trainer.calls == [("_load_rng_state", folder), ("_save_checkpoint", "model")]
    trainer.calls.clear()
    callback.on_pre_optimizer_step(None, None, None)
    callback.save_where_whole()
    trainer.state.global_step = 0
    callback.whole = True
    callback.save_where_whole()
    assert not trainer.calls


@pytest.mark.parametrize("epoch", [None, 0, 0.5, 2.0, 2.5])
@pytest.mark.parametrize("wrapped", [True, False])
def test_the_orders_of_the_epochs_that_are_done_are_drawn_again(epoch, wrapped):
    def sampler():
        return RepeatSampler(
            list(range(20)), mini_repeat_count=1, batch_size=4, shuffle=True, seed=3
        )

    resumed, whole = sampler(), sampler()
    for _ in range(int(epoch or 0)):
        list(whole)
    batches = SimpleNamespace(sampler=resumed)
    loader = SimpleNamespace(
        batch_sampler=SimpleNamespace(batch_sampler=batches) if wrapped else batches
    )
    callback = CheckpointCallback(Recorder())
    callback.on_train_begin(None, SimpleNamespace(epoch=epoch), None, train_dataloader=loader)
    assert list(resumed) == list(whole)


def test_a_sampler_of_another_kind_is_left_alone():
    generator = torch.Generator().manual_seed(1)
    other = SimpleNamespace(num_samples=5, generator=generator)
    loader = SimpleNamespace(batch_sampler=SimpleNamespace(sampler=other))
    before = generator.get_state()
    callback = CheckpointCallback(Recorder())
    callback.on_train_begin(None, SimpleNamespace(epoch=3), None, train_dataloader=loader)
    assert torch.equal(generator.get_state(), before)


# ---- train ---------------------------------------------------------------------------------------


class Trainer(Recorder):
    """Stands for a trainer that is stopped in the middle, after a whole step, or runs to its end."""

    def __init__(self, ends=None):
        super().__init__()
        self.ends = ends
        self.callbacks = []
        self.accelerator = SimpleNamespace(wait_for_everyone=lambda: self.calls.append(("wait",)))

    def add_callback(self, callback):
        """Keep a callback."""
        self.callbacks.append(callback)

    def train(self, resume_from_checkpoint):
        """Take one whole step, and end as asked."""
        self.calls.append(("train", resume_from_checkpoint))
        self.callbacks[0].on_step_end(SimpleNamespace(), None, SimpleNamespace(should_save=False))
        if self.ends:
            raise self.ends


def test_training_goes_on_from_the_last_whole_checkpoint(tmp_path):
    write_checkpoint(tmp_path, 3)
    trainer = Trainer()
    checkpoints.train(trainer, tmp_path)
    last = str(tmp_path / "checkpoints" / "checkpoint-3")
    assert [call for call in trainer.calls if call[0] in ("wait", "train")] == [
        ("wait",),
        ("train", last),
    ]
    fresh = Trainer()
    checkpoints.train(fresh, tmp_path / "elsewhere")
    assert ("train", None) in fresh.calls


@pytest.mark.parametrize(
    ("step", "last", "taken"),
    [(9, 9, False), (10, 9, False), (8, 9, True), (3, -1, True), (0, 0, True)],
)
def test_where_no_step_is_left_none_is_taken(tmp_path, step, last, taken):
    """transformers takes one more, where the last checkpoint is in the middle of an epoch."""
    folder = write_checkpoint(tmp_path, step, last)
    trainer = Trainer()
    checkpoints.train(trainer, tmp_path)
    assert (("train", str(folder)) in trainer.calls) == taken
    if not taken:
        assert ("_load_from_checkpoint", str(folder)) in trainer.calls
        assert trainer.state.global_step == step


def test_the_stop_button_saves_and_still_stops(tmp_path):
    trainer = Trainer(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        checkpoints.train(trainer, tmp_path)
    assert "_save_checkpoint" in [name for name, *_ in trainer.calls]


def test_an_error_does_not_save(tmp_path):
    trainer = Trainer(RuntimeError("out of luck"))
    with pytest.raises(RuntimeError):
        checkpoints.train(trainer, tmp_path)
    assert "_save_checkpoint" not in [name for name, *_ in trainer.calls]
