"""The temporal-contrast reward in training: shuffled replies are drawn by the model itself, and disturb nothing."""

import pandas
import pytest
import torch

from stlite.rewards.rewards import accuracy_reward, reward_columns
from stlite.train import temporal
from stlite.train.generation import generate
from stlite.train.grpo import GRPO, grpo

SAMPLING = {"max_new_tokens": 64, "temperature": 1.0}
SETTINGS = {**GRPO, "max_completion_length": 64}


def replies(samples, right: list[bool]) -> list[str]:
    """Write a reply for each sample, right or wrong."""
    written = []
    for sample, good in zip(samples, right, strict=True):
        letter = sample.answer if good else next(x for x in sample.letters if x != sample.answer)
        written.append(f"<think>I look.</think> <answer>{letter}</answer>")
    return written


def reward(tiny, training, videos, group, right):
    """Return the rewards of one group of replies to each sample."""
    function = temporal.make_temporal_reward(*tiny, training, videos, SETTINGS)
    columns = reward_columns(group)
    return function(replies(group, right), id=[sample.id for sample in group], **columns)


def test_right_replies_earn_where_shuffled_frames_mislead(tiny, training, videos):
    """By hand: the same shuffled replies are drawn again; their accuracy decides for each prompt."""
    choices = [sample for sample in training if sample.kind == "choice"][:2]
    group = [sample for sample in choices for _ in range(4)]
    found = reward(tiny, training, videos, group, [True, True, True, False] * 2)
    half = [sample for sample in choices for _ in range(2)]
    drawn = generate(*tiny, half, order="shuffled", videos=videos, seed=0, **SAMPLING)
    for place, sample in enumerate(choices):
        texts = [result["reply"] for result in drawn[2 * place : 2 * place + 2]]
        misled = sum(accuracy_reward(texts, **reward_columns([sample] * 2))) / 2
        bonus = 0.3 if 0.75 - misled > 0.05 else 0.0
        assert found[4 * place : 4 * place + 4] == pytest.approx([bonus, bonus, bonus, 0.0])


def test_wrong_replies_earn_nothing(tiny, training, videos):
    group = [next(sample for sample in training if sample.kind == "choice")] * 2
    assert reward(tiny, training, videos, group, [False, False]) == pytest.approx([0.0, 0.0])


def test_drawing_leaves_random_numbers_and_mode_as_they_were(tiny, training, videos):
    model = tiny[0]
    model.train()
    before = torch.get_rng_state()
    temporal.score_shuffled(*tiny, training[:1] * 2, videos, 0, SAMPLING)
    assert torch.equal(before, torch.get_rng_state())
    assert model.training
    model.eval()


def test_a_run_writes_what_was_earned(tiny, training, videos, tmp_path):
    choices = [sample for sample in training if sample.kind == "choice"][:4]
    grpo(
        *tiny, choices, tmp_path, videos=videos, temporal=True, num_generations=4, max_steps=1,
        per_device_train_batch_size=4, gradient_accumulation_steps=1, max_completion_length=48,
        disable_tqdm=True,
    )  # fmt: skip
    table = pandas.concat(map(pandas.read_parquet, (tmp_path / "completions").glob("*.parquet")))
    assert set(table["temporal_reward"].astype(float).round(3)) <= {0.0, 0.3}
    assert (table["temporal_reward"] <= table["accuracy_reward"]).all()
