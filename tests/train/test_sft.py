"""SFT on the tiny model: labels, unreadable videos, resume."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from stlite.data import prompts
from stlite.data.video import ClipError
from stlite.rewards.parse import parse
from stlite.train import checkpoints
from stlite.train import sft as train
from stlite.train.models import load

SMALL = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "disable_tqdm": True}


def adapter(out) -> dict:
    """Read the adapter that a run saved."""
    return load_file(out / "adapter" / "adapter_model.safetensors")


def test_labels_are_the_reply_alone(tiny, training, videos):
    _, processor = tiny
    rows = [
        training[0],
        next(s for s in training if len(s.steps_forward) != len(training[0].steps_forward)),
    ]
    for recipe in ("st-cot", "forward-cot", "label"):
        batch = train.Collator(processor, recipe, videos=videos)(rows)
        for sample, ids, labels in zip(rows, batch["input_ids"], batch["labels"]):
            told = processor.decode(labels[labels != -100], skip_special_tokens=False)
            assert told.strip() == prompts.target(sample, recipe) + "<|im_end|>"
            assert parse(told.removesuffix("\n").removesuffix("<|im_end|>")).answer == sample.answer
            assert (ids[labels != -100] == labels[labels != -100]).all()
    assert batch["pixel_values_videos"].shape[0] == 2 * 8 * 6 * 6


def test_labels_can_be_taught_under_the_direct_question(tiny, training, videos):
    _, processor = tiny
    for direct, asked, not_asked in (
        (True, prompts.DIRECT_INSTRUCTION, prompts.INSTRUCTION),
        (False, prompts.INSTRUCTION, prompts.DIRECT_INSTRUCTION),
    ):
        batch = train.Collator(processor, "label", direct=direct, videos=videos)(training[:1])
        labels = batch["labels"][0]
        text = processor.decode(batch["input_ids"][0])
        reply = processor.decode(labels[labels != -100])
        assert asked in text and not_asked not in text
        assert reply.strip() == prompts.target(training[0], "label") + "<|im_end|>"


def test_an_unreadable_video_stops_training_by_name(tiny, training, videos):
    _, processor = tiny
    lost = replace(training[0], video="part1/lost.mp4")
    with pytest.raises(ClipError, match="part1/lost.mp4"):
        train.Collator(processor, "label", videos=videos)([lost])


def test_sft_learns_and_resumes_where_it_stopped(training, videos, tmp_path):
    """Six steps in one go, and four then two after an interruption and a half-written newer checkpoint, end the same."""
    how = {
        "videos": videos,
        "learning_rate": 2e-3,
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 3,
        **SMALL,
    }
    rows = training[:8]
    train.sft(*load("tiny"), rows, tmp_path / "whole", **how)
    log = [
        row["loss"]
        for row in json.loads((tmp_path / "whole" / "log.json").read_text())
        if "loss" in row
    ]
    assert log[-1] < log[0]
    stopped = tmp_path / "parted"
    with pytest.raises(KeyboardInterrupt):
        train.sft(*load("tiny"), rows, stopped, callbacks=[StopAt(4)], **how)
    assert not (stopped / "adapter").exists()
    assert checkpoints.last_checkpoint(stopped).endswith(
        "checkpoint-4"
    )  # saved by the interruption
    (stopped / "checkpoints" / "checkpoint-5").mkdir()
    (stopped / "checkpoints" / "checkpoint-5" / "trainer_state.json").write_text(
        '{"global_step": 5, "log_his'
    )
    train.sft(*load("tiny"), rows, stopped, **how)
    for name, value in adapter(tmp_path / "whole").items():
        assert torch.allclose(value, adapter(stopped)[name], atol=1e-6), name


class StopAt(TrainerCallback):
    """Interrupt training in the middle of a step."""

    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        """Raise KeyboardInterrupt once enough steps are done."""
        if state.global_step == self.step:
            raise KeyboardInterrupt
