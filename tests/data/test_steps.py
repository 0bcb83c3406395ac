"""The rules of walking back, and options that give nothing away."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stlite.data.steps import (
    make_distractors,
    naive_reversal,
    reverse_path,
    reverse_step,
    uncertain_steps,
)

TURNS = ("turn left", "turn right", "go straight")
ACTIONS = (
    "open the door",
    "close the door",
    "pick up the box",
    "put down the box",
    "switch on the lamp",
    "raise the flag",
)
STEPS = {"direction": TURNS, "landmark": ("gate", "bin", "red car", "tree"), "action": ACTIONS}
PATHS = st.sampled_from(list(STEPS)).flatmap(
    lambda task: st.tuples(
        st.just(task), st.lists(st.sampled_from(STEPS[task]), min_size=1, max_size=6).map(tuple)
    )
)


@given(PATHS)
def test_walking_back_twice_is_where_one_began(path):
    task, steps = path
    assert reverse_path(reverse_path(steps, task), task, "reverse") == steps


@pytest.mark.parametrize(
    ("step", "undone"),
    [("Turn left at the gate", "Turn right at the gate"), ("switch off the lamp", "switch on the lamp"),
     ("leave the room", "enter the room"), ("pick up a bright box", "put down a bright box")],
)  # fmt: skip
def test_a_step_is_undone(step, undone):
    assert reverse_step(step) == undone
    assert reverse_step(undone) == step


@given(PATHS, st.sampled_from(("forward", "reverse")), st.integers())
def test_options_are_different_and_begin_with_the_truth(path, way, seed):
    task, steps = path
    four = make_distractors(steps, task, way, random.Random(seed), STEPS[task])
    assert four[0] == steps
    assert len(set(four)) == len(four) <= 4


def test_the_other_way_keeps_the_turn_at_the_start_of_a_way_back():
    assert naive_reversal(("turn around", "turn left", "go straight"), "direction", "reverse") == (
        "turn around", "go straight", "turn right")  # fmt: skip


TABLE = Path(__file__).parent / "reversed_steps.jsonl"  # right values, written by hand
ROWS = [json.loads(line) for line in TABLE.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['task']}: {row['step']}")
def test_a_step_is_undone_for_certain_or_not_at_all(row):
    assert reverse_step(row["step"], row["task"]) == row["reverse"]


def test_a_list_is_walked_back_where_it_is_certain_and_names_the_steps_where_not():
    path = ("turn left", "walk to the gate", "turn right")
    assert uncertain_steps(path, "direction") == ("walk to the gate",)
    assert reverse_path(path, "direction") == (
        "turn around", "turn left", "walk to the gate", "turn right")  # fmt: skip
    assert reverse_path(("左转", "直行"), "direction") == ("掉头", "直行", "右转")
    assert reverse_path(("掉头", "直行", "右转"), "direction", "reverse") == ("左转", "直行")
    assert reverse_path(("gate", "shop on the left"), "landmark") == ("shop on the right", "gate")


@given(st.text(max_size=30), st.sampled_from(["direction", "landmark", "action"]))
def test_any_text_is_undone_or_not(text, task):
    undone = reverse_step(text, task)
    assert undone is None or isinstance(undone, str)


def test_a_pool_is_drawn_from_without_a_copy():
    """Count what is looked at: the drawing of ten thousand lists' distractors must stay linear."""

    class Counted(list):
        looked = 0

        def __getitem__(self, place):
            Counted.looked += 1
            return super().__getitem__(place)

    pool = Counted(f"thing {i:06}" for i in range(10_000))
    make_distractors(
        ("thing 000005", "thing 000009", "x"), "landmark", "forward", random.Random(0), pool
    )
    assert Counted.looked < 400
