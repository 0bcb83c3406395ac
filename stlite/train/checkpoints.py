"""Checkpoints: a run that was stopped or killed goes on from the last whole one, and ends as if it had not been.

train(trainer, "runs/st-r1")        # again after a crash: the same order, random state and optimizer
"""

import json
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from stlite.train import backend  # noqa: F401  before transformers and trl: it imports Unsloth

# isort: split
from transformers import TrainerCallback, TrainerState
from trl.trainer.utils import RepeatSampler

from stlite.data.sample import Sample

PARTS = (
    "adapter_model.safetensors",
    "rng_state*.pth",
    "trainer_state.json",
    "processor_config.json",
)


def row_id(row) -> str:
    """Return the sample's id of a row of either stage."""
    return row.id if isinstance(row, Sample) else row["id"]


def train(trainer, out) -> None:
    """Train, from the last whole checkpoint if there is one.

    Interrupting (the notebook's stop button) saves one.
    """
    trainer.accelerator.wait_for_everyone()
    checkpoint = last_checkpoint(out)
    if checkpoint and _is_last_step(checkpoint):
        trainer._load_from_checkpoint(checkpoint)
        trainer.state = TrainerState.load_from_json(Path(checkpoint, "trainer_state.json"))
        return
    callback = CheckpointCallback(trainer)
    trainer.add_callback(callback)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except KeyboardInterrupt:
        callback.save_where_whole()
        raise


def _is_last_step(checkpoint: str) -> bool:
    """Say whether nothing is left to train.

    Transformers would take one step more, in the middle of an epoch.
    """
    state = json.loads(Path(checkpoint, "trainer_state.json").read_text("utf-8"))
    return state["global_step"] >= state["max_steps"] > 0


class CheckpointCallback(TrainerCallback):
    """Let checkpoints be saved between whole steps alone, and keep the random state of the last such place.

    A GRPO trainer resumes by generating: where several optimizer steps share a generation, it saves
    after the last.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self.whole = False  # the weights are those after a whole generation's steps
        self.save_pending = False
        self.random_state = tempfile.TemporaryDirectory()

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        """Draw the orders of the epochs that are done.

        TRL's sampler would begin with the first one's again.
        """
        batches = train_dataloader.batch_sampler
        batches = getattr(batches, "batch_sampler", batches)  # accelerate wraps it
        sampler = batches.sampler
        if not isinstance(sampler, RepeatSampler):
            return
        for _ in range(int(state.epoch or 0)):
            torch.randperm(sampler.num_samples, generator=sampler.generator)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """From here to the step's end the weights belong to no step."""
        self.whole = False

    def on_step_end(self, args, state, control, **kwargs):
        """Put a save off to the end of the generation, and note the random state there."""
        steps = getattr(args, "steps_per_generation", 1) * getattr(args, "num_iterations", 1)
        self.whole = getattr(self.trainer, "_step", 0) % steps == 0
        self.save_pending = self.save_pending or control.should_save
        control.should_save = self.save_pending and self.whole
        if self.whole:
            self.save_pending = False
            self.trainer._save_rng_state(self.random_state.name)

    def save_where_whole(self) -> None:
        """Save a checkpoint where training was interrupted, if the weights there belong to a step."""
        if self.whole and self.trainer.state.global_step:
            self.trainer._load_rng_state(self.random_state.name)
            self.trainer._save_checkpoint(self.trainer.model, trial=None)


def last_checkpoint(out) -> str | None:
    """Return the newest whole checkpoint of a run folder; half-written ones are passed over."""
    folders = {}
    for folder in (Path(out) / "checkpoints").glob("checkpoint-*"):
        step = folder.name.removeprefix("checkpoint-")
        if step.isdigit():
            folders[int(step)] = folder
    for step in sorted(folders, reverse=True):
        if is_whole(folders[step]):
            return str(folders[step])
    return None


def is_whole(folder: Path) -> bool:
    """Say whether adapter, optimizer, random and trainer state are there, and every file of them to its end."""
    for part in PARTS:
        if not any(folder.glob(part)):
            return False
    has_optimizer = any(folder.glob("optimizer*")) and (folder / "scheduler.pt").exists()
    if not has_optimizer and not any(folder.glob("global_step*")):  # where DeepSpeed keeps both
        return False
    return all(_is_readable(path) for path in folder.rglob("*"))


def _is_readable(path: Path) -> bool:
    """Say whether a file is there to its end, by its kind; files of other kinds pass."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt"):  # its header says how long it is
                pass
        elif path.suffix in (".pt", ".pth", ".bin"):
            zipfile.ZipFile(path).close()  # its directory comes last
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile):
        return False
    return True
