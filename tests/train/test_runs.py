"""Run folders: all that decides a run's course must agree; what is finished is not done again; a stopped model is as before."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from stlite.eval.evaluate import evaluate
from stlite.eval.run_folder import RECORDS, fingerprint, records_name
from stlite.train import runs
from stlite.train.generation import generate
from stlite.train.models import add_lora, load
from stlite.train.presets import PRESETS
from stlite.train.sft import sft

SMALL = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "max_steps": 2, "save_steps": 1,
         "disable_tqdm": True, "learning_rate": 1e-2}  # fmt: skip


class Stop(TrainerCallback):
    """Press the stop button before a step."""

    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        """Raise KeyboardInterrupt once enough steps are done."""
        if state.global_step == self.step:
            raise KeyboardInterrupt


class NoStep(TrainerCallback):
    """Fail where a step is taken."""

    def on_step_begin(self, args, state, control, **kwargs):
        """Raise AssertionError."""
        raise AssertionError("a step was taken")


@pytest.fixture(scope="module")
def model():
    """Load the tiny model in float32."""
    return load("tiny", four_bit=False)


@pytest.fixture
def describe(model, training, videos):
    """Describe a run of the tiny model, with what is given in place of the usual."""
    base, processor = model

    def described(
        samples=training[:3], settings=SMALL, reading=None, lora="default", root=videos, **stage
    ):
        plain = processor.reading
        adapted = add_lora(base, lora)
        processor.reading = {**plain, **(reading or {})}
        try:
            stage = {"stage": "sft", "recipe": "st-cot", "seed": 0, **stage}
            return runs.describe(adapted, processor, samples, root, settings, **stage)
        finally:
            processor.reading = plain
            adapted.unload()

    return described


def test_the_same_run_is_described_the_same(describe):
    assert runs.differences(describe(), describe()) == []
    assert json.loads(json.dumps(describe())) == describe()


def test_what_does_not_change_a_run_may_change(describe, training):
    harmless = {"disable_tqdm": False, "save_steps": 7, "logging_steps": 3, "save_total_limit": 9, "report_to": "all",
                "dataloader_num_workers": 2, "gradient_checkpointing": True}  # fmt: skip
    assert runs.differences(describe(), describe(settings=SMALL | harmless)) == []
    halved = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    assert runs.differences(describe(), describe(settings=SMALL | halved)) == []
    elsewhere = [replace(sample, origin="another.jsonl:7") for sample in training[:3]]
    assert runs.differences(describe(), describe(samples=elsewhere)) == []


@pytest.mark.parametrize("setting", ["learning_rate", "weight_decay", "optim", "temperature", "top_p", "reward_weights",
                                     "num_iterations", "label_smoothing_factor", "max_steps"])  # fmt: skip
def test_any_other_setting_differs_by_name(describe, setting):
    (different,) = runs.differences(describe(), describe(settings={**SMALL, setting: 0.123}))
    assert different.startswith(f"{setting} (") and different.endswith("then, 0.123 now)")


@pytest.mark.parametrize(("what", "named"), [
    ({"recipe": "label"}, "recipe (st-cot then, label now)"),
    ({"seed": 1}, "seed (0 then, 1 now)"),
    ({"lora": "paper"}, "r (16 then, 8 now)"),
    ({"reading": {"frames": 8}}, "frames (16 then, 8 now)"),
    ({"reading": {"max_pixels": 56 * 56}}, "max_pixels (7056 then, 3136 now)"),
    ({"settings": SMALL | {"per_device_train_batch_size": 3}}, "rows_a_step (2 then, 3 now)"),
])  # fmt: skip
def test_stage_lora_and_reading_differ_by_name(describe, what, named):
    assert named in runs.differences(describe(), describe(**what))


def changed(samples: list, how: str) -> list:
    """Return samples changed in one way."""
    first, *rest = samples
    if how == "an answer":
        letter = next(letter for letter in first.letters if letter != first.answer)
        return [replace(first, answer=letter), *rest]
    if how == "a chain":
        return [replace(first, trace="Let's start by thinking of something else"), *rest]
    if how == "a row gone":
        return rest
    return [*rest, first]  # the order


@pytest.mark.parametrize("how", ["an answer", "a chain", "a row gone", "the order"])
def test_other_rows_under_the_same_ids_differ(describe, training, how):
    different = runs.differences(describe(), describe(samples=changed(training[:3], how)))
    assert any(name.startswith("rows_hash") for name in different)


def test_videos_count_by_content_and_not_by_place(describe, training, videos, tmp_path):
    for sample in training[:3]:
        (tmp_path / sample.video).parent.mkdir(exist_ok=True)
        shutil.copy(videos / sample.video, tmp_path / sample.video)
    assert runs.differences(describe(), describe(root=tmp_path)) == []
    with open(tmp_path / training[0].video, "ab") as file:
        file.write(b"0")
    (different,) = runs.differences(describe(), describe(root=tmp_path))
    assert different.startswith("videos_hash")


def test_a_model_is_known_by_its_weights_and_not_by_its_folder(model, tmp_path):
    source = Path(PRESETS["tiny"]["source"])
    shutil.copytree(source, tmp_path / "moved")
    expected = runs.fingerprint_base(add_lora(load("tiny", four_bit=False)[0]))
    moved = load(str(tmp_path / "moved"), four_bit=False)[0]
    assert runs.fingerprint_base(add_lora(moved)) == expected
    quantised = load("tiny", four_bit=True)[0]
    assert runs.fingerprint_base(add_lora(quantised)) != expected
    other = load("tiny", four_bit=False)[0]
    other.lm_head.weight.data[0, 0] += 1
    assert runs.fingerprint_base(add_lora(other)) != expected


@pytest.fixture(scope="module")
def finished(training, videos, tmp_path_factory):
    """Finish an SFT run of two steps."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    sft(*load("tiny", four_bit=False), training[:3], out, videos=videos, **SMALL)
    return out


@pytest.fixture(scope="module")
def begun(training, videos, tmp_path_factory):
    """Stop the same run after its first step."""
    out = tmp_path_factory.mktemp("runs") / "begun"
    with pytest.raises(KeyboardInterrupt):
        sft(
            *load("tiny", four_bit=False),
            training[:3],
            out,
            videos=videos,
            callbacks=[Stop(1)],
            **SMALL,
        )
    return out


def test_a_saved_adapter_has_the_fingerprint_that_evaluation_gives_it(finished):
    model = load("tiny", four_bit=False, adapter=finished / "adapter")[0]
    assert runs.fingerprint_adapter(model) == fingerprint(finished / "adapter")
    assert runs.read_training(finished)["result"]["adapter"] == fingerprint(finished / "adapter")
    assert runs.fingerprint_adapter(add_lora(load("tiny", four_bit=False)[0])) == "none"


def test_records_of_an_adapter_that_nobody_named_are_not_those_of_the_base(
    finished, training, videos, tmp_path
):
    """The same cell before and after training: the name of the model is the same."""
    for times in (1, 2):
        for adapter in (None, finished / "adapter"):
            model, processor = load("tiny", four_bit=False, adapter=adapter)
            query = partial(generate, model, processor, videos=videos, max_new_tokens=3)
            settings = {"model": "tiny", "adapter": None}
            evaluate(training[:times], query, tmp_path, settings=settings, progress=False)
    names = {path.name for path in tmp_path.glob("*.jsonl")}
    assert names == {RECORDS, records_name(fingerprint(finished / "adapter"))}
    assert all(len((tmp_path / name).read_text().splitlines()) == 2 for name in names)


def test_a_finished_stage_is_not_done_again(finished, training, videos, capsys):
    model, processor = load("tiny", four_bit=False)
    how = {"videos": videos, "callbacks": [NoStep()], **SMALL}
    trained = sft(model, processor, training[:3], finished, **how)
    assert "this stage is finished" in capsys.readouterr().out
    saved = load_file(finished / "adapter" / "adapter_model.safetensors")
    weights = runs.adapter_weights(trained)
    assert all(torch.equal(weights[name], saved[name]) for name in saved)
    assert not trained.training
    again = sft(trained, processor, training[:3], finished, **how)  # the same cell, run again
    assert again is trained


def test_evaluation_may_stand_beside_training_in_run_json(finished, training, videos, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    run = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**run, "evaluation": {"settings": {"tokens": 8}}}))
    how = {"videos": videos, "resume": False, **SMALL}
    sft(*load("tiny", four_bit=False), training[:3], out, **how)
    assert json.loads((out / "run.json").read_text())["evaluation"] == {"settings": {"tokens": 8}}


@pytest.mark.parametrize("state", ["finished", "begun"])
@pytest.mark.parametrize(("other", "named"), [
    ({"learning_rate": 1e-4}, r"learning_rate \(0.01 then, 0.0001 now\)"),
    ({"max_steps": 3}, "max_steps"),
    ({"lora": "paper"}, r"r \(16 then, 8 now\)"),
    ({"adapter": True}, r"starting_adapter \(none then, [0-9a-f]{16} now\)"),
    ({"frames": 8}, r"frames \(16 then, 8 now\)"),
    ({"four_bit": True}, "model"),
    ({"rows": 2}, r"rows \(3 then, 2 now\)"),
])  # fmt: skip
def test_other_settings_are_refused_before_anything_runs(
    state, other, named, request, training, videos, tmp_path
):
    """Formerly another starting adapter was dropped without a word, and another LoRA was a raw error about sizes."""
    out = request.getfixturevalue(state)
    before = sorted(str(path) for path in out.rglob("*"))
    other = dict(other)
    adapter = None
    if other.pop("adapter", None):
        adapter = shutil.copytree(
            request.getfixturevalue("finished") / "adapter", tmp_path / "adapter"
        )
        weights = load_file(adapter / "adapter_model.safetensors")
        half = {name: weight / 2 for name, weight in weights.items()}
        from safetensors.torch import save_file

        save_file(half, adapter / "adapter_model.safetensors", {"format": "pt"})
    frames, four_bit = other.pop("frames", None), other.pop("four_bit", False)
    rows = training[: other.pop("rows", 3)]
    loaded = load("tiny", four_bit=four_bit, adapter=adapter, frames=frames)
    how = {"videos": videos, "callbacks": [NoStep()], **SMALL | other}
    with pytest.raises(
        ValueError, match=f"begun with other .*{named}.*; use another folder, or resume=False"
    ):
        sft(*loaded, rows, out, **how)
    assert sorted(str(path) for path in out.rglob("*")) == before


def test_a_run_that_did_not_reach_a_checkpoint_may_be_begun_otherwise(training, videos, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        sft(
            *load("tiny", four_bit=False),
            training[:3],
            tmp_path,
            videos=videos,
            callbacks=[Stop(0)],
            **SMALL,
        )
    sft(*load("tiny", four_bit=False), training[:2], tmp_path, videos=videos, **SMALL)
    assert runs.read_training(tmp_path)["made_by"]["rows"] == 2


def test_an_adapter_of_unknown_origin_is_not_written_over(finished, training, videos, tmp_path):
    shutil.copytree(finished / "adapter", tmp_path / "adapter")
    how = {"videos": videos, "callbacks": [NoStep()], **SMALL}
    with pytest.raises(ValueError, match="expected run.json to say what made the adapter"):
        sft(*load("tiny", four_bit=False), training[:3], tmp_path, **how)


def test_a_finished_run_with_another_adapter_in_its_place_is_refused(
    finished, training, videos, tmp_path
):
    out = shutil.copytree(finished, tmp_path / "run")
    path = out / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes() + b"0")
    how = {"videos": videos, "callbacks": [NoStep()], **SMALL}
    with pytest.raises(ValueError, match="expected the adapter this run ended with"):
        sft(*load("tiny", four_bit=False), training[:3], out, **how)


def test_a_finished_run_whose_adapter_is_gone_is_trained_again(
    finished, training, videos, tmp_path, capsys
):
    out = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(out / "adapter")
    sft(*load("tiny", four_bit=False), training[:3], out, videos=videos, **SMALL)
    assert "its adapter is gone" in capsys.readouterr().out
    assert fingerprint(out / "adapter") == fingerprint(finished / "adapter")


def test_a_stopped_run_leaves_the_model_as_it_came_and_its_cell_may_be_run_again(
    finished, training, videos, tmp_path
):
    model, processor = load("tiny", four_bit=False)
    how = {"videos": videos, **SMALL}
    with pytest.raises(KeyboardInterrupt):
        sft(model, processor, training[:3], tmp_path, callbacks=[Stop(1)], **how)
    assert not hasattr(model, "peft_config")
    assert not [name for name, _ in model.named_parameters() if "lora" in name]
    trained = sft(model, processor, training[:3], tmp_path, **how)
    assert fingerprint(tmp_path / "adapter") == fingerprint(finished / "adapter")
    before = runs.adapter_weights(trained)
    with pytest.raises(KeyboardInterrupt):  # from an adapter, the model keeps that one
        sft(trained, processor, training[:3], tmp_path / "next", callbacks=[Stop(1)], **how)
    after = runs.adapter_weights(trained)
    assert all(torch.equal(before[name], after[name]) for name in before)
