"""The rules of walking back, and options that give nothing away."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stlite.data.steps import make_distractors, naive_reversal, reverse_path, reverse_step

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
    [("Turn left at the gate", "Turn right at the gate"), ("switch off the lamp", "switch on the lamp"), ("sit", "sit"),
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
