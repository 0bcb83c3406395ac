"""Predicted durations: their parts by hand, and what makes them longer."""

import pytest

from stlite.train.durations import CARDS, find_card, minutes, seconds, table
from stlite.train.shapes import CONFIGS, count_weights, shape


def test_the_backward_of_an_sft_step_by_hand():
    """Two operations a weight and token, three passes with checkpointing, half of a 4090's 165 TFLOP/s."""
    tokens = 16 * (8 / 2 * 360 * 420 / 16**2 / 4 + 400 + 150)
    weights = count_weights(shape("qwen3-vl-4b"))["packed"]
    expected = 3 * 2 * tokens * weights / (0.5 * 165e12)
    step = seconds("qwen3-vl-4b", "RTX 4090", generations=0, completion=150, rows=16)
    assert step["backward"] == pytest.approx(expected, rel=0.02)
    assert step["decoding"] == 0 and step["prefill"] == 0


def test_a_seven_billion_step_is_of_the_size_that_was_estimated_before():
    """On a 4070: about 91 s with every copy read, about 40 with each prompt once; on a 4090: 42 and 24."""
    for card, plain, shared in (("RTX 4070", 91, 40), ("RTX 4090", 42, 24)):
        assert seconds("qwen2-vl-7b", card, packed=False)["total"] == pytest.approx(plain, rel=0.35)
        assert seconds("qwen2-vl-7b", card)["total"] == pytest.approx(shared, rel=0.35)


def test_what_makes_a_step_longer():
    step = seconds("qwen3-vl-4b", "RTX 4070")["total"]
    for more in ({"frames": 32}, {"completion": 512}, {"rows": 64}, {"packed": False}):
        assert seconds("qwen3-vl-4b", "RTX 4070", **more)["total"] > step, more
    assert seconds("qwen3-vl-4b", "RTX 4070", checkpointing=False)["total"] < step
    assert seconds("qwen3-vl-4b", "RTX 3060")["total"] > step


@pytest.mark.parametrize("card", CARDS)
def test_minutes_of_every_preset_and_card(card):
    for preset in CONFIGS:
        stages = minutes(preset, card)
        assert set(stages) == {"sft", "grpo", "evaluation"} and min(stages.values()) > 0
        assert minutes(preset, card, steps=300)["grpo"] == pytest.approx(
            2 * stages["grpo"], rel=0.1
        )


def test_a_card_is_found_by_the_name_it_gives():
    assert find_card("NVIDIA A100-SXM4-40GB") == "A100"
    assert find_card("NVIDIA L4") == "L4"
    assert find_card("NVIDIA L40S") is None


def test_the_table_has_a_row_for_each_preset():
    rows = table(("RTX 4070",))
    assert [row["preset"] for row in rows] == list(CONFIGS)
    assert rows[0]["RTX 4070"].count("+") == 2
