"""The script that makes the tiny model: its lessons, its habit of slipping, and going on where it stopped."""

import random

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl import modeling_qwen2_vl as qwen

from sample_data import tiny_lessons, tiny_parts, tiny_training
from stlite.data.steps import naive_reversal
from stlite.rewards.parse import parse

STAGE = {**tiny_training.STAGE, "text": 2, "describe": 1, "video": 2, "rate": 1e-3, "warm": 1}


def questions(count: int) -> list:
    rng = random.Random(0)
    made = []
    for seed in range(1_000_000, 1_000_000 + count):
        made.append(tiny_lessons.any_question(tiny_lessons.base_walk(seed), rng))
    return made


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, None),
        ({"avx512_bf16": False, "amx_bf16": False}, None),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
    ],
)
def test_bfloat16_is_used_only_where_the_processor_has_it(monkeypatch, found, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert tiny_training.autocast_type() == expected


def test_a_slip_lists_the_path_the_other_way_and_takes_the_letter_of_that():
    offered = 0
    for sample in questions(60):
        slip = tiny_lessons.slipped(sample, random.Random(1))
        for way in ("forward", "reverse"):
            steps = getattr(sample, f"steps_{way}")
            assert getattr(slip, f"steps_{way}") == naive_reversal(steps, sample.task, way)
        listed = " ".join(getattr(slip, f"steps_{sample.way}"))
        if listed in sample.options:
            offered += 1
            assert slip.gold == listed
    assert offered > 20


def test_slips_follow_the_way_a_chain_says_it_thinks():
    """With every reverse chain slipping and no forward one, the way said tells which lists are right."""
    stage = {**STAGE, "forward_first": 0.5, "slips": dict.fromkeys(tiny_lessons.TASKS, (0.0, 1.0))}
    rng = random.Random(2)
    said = set()
    for seed in range(1_000_000, 1_000_040):
        walk = tiny_lessons.base_walk(seed)
        chat = tiny_lessons.video_chat(walk, "landmark", rng, stage)
        chain = parse(chat[1]["content"][0]["text"])
        said.add(chain.way)
        assert chain.steps == tuple(walk["landmarks"])  # reversed twice where it says reverse
    assert said == {"forward", "reverse"}


@pytest.fixture
def library_kernels(monkeypatch):
    """Put the library's own attention back after `speed_up`, which other tests must not meet."""
    monkeypatch.setattr(qwen.VisionAttention, "forward", qwen.VisionAttention.forward)
    monkeypatch.setattr(qwen.PatchEmbed, "forward", qwen.PatchEmbed.forward)


def test_training_goes_on_where_it_was_saved(tmp_path, library_kernels):
    tiny_lessons.render_pool(tmp_path / "pool.npy", 6, 1_000_000)
    pool = tiny_lessons.Pool([tmp_path / "pool.npy"], held_out=1)
    assert len(pool.training) == 5
    lessons = tiny_training.Lessons(pool, STAGE)
    through = tiny_training.Trainer(pool, tmp_path / "through.pt")
    for at in range(2):
        through._train_step(lessons, at)
    stopped = tiny_training.Trainer(pool, tmp_path / "stopped.pt")
    stopped._train_step(lessons, 0)
    stopped.save()
    resumed = tiny_training.Trainer(pool, tmp_path / "stopped.pt")
    assert resumed.step == 1
    resumed._train_step(lessons, 1)
    for name, weight in through.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[name], weight)


def test_the_faster_attention_has_the_library_s_numbers(library_kernels):
    """One vision tower, the frames of two clips: with the library's kernels, then with ours."""
    made = tiny_parts.processor()
    network = tiny_parts.model(made.tokenizer).eval()
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 84, 84, 3), np.uint8)
    pixels = tiny_training.patches(made, frames)
    grid = torch.tensor([[8, 6, 6]] * 2)
    with torch.no_grad():
        theirs = network.model.visual(pixels, grid_thw=grid).pooler_output
        tiny_training.speed_up(network)
        ours = network.model.visual(pixels, grid_thw=grid).pooler_output
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
