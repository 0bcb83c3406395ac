"""Cells read as the lists they are, or refused: a table of right values, and every accepted mark."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stlite.data.cells import split_cell, split_seconds
from stlite.data.moves import count_moves
from stlite.data.sample import SampleError

CELLS = Path(__file__).parent / "annotation_cells.jsonl"  # right values, written by hand
ROWS = [json.loads(line) for line in CELLS.read_text("utf-8").splitlines()]


def split(cell, task, separator=None):
    return split_cell(cell, task, "own.csv:2", task, separator)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['task']}: {row['cell']!r}")
def test_a_cell_is_its_list_or_refused_with_a_remedy(row):
    if "steps" in row:
        assert split(row["cell"], row["task"]) == row["steps"]
    else:
        with pytest.raises(SampleError) as error:
            split(row["cell"], row["task"])
        assert str(error.value).startswith(f"own.csv:2: field '{row['task']}': expected ")


MOVES = [
    "turn left",
    "turn right",
    "go straight",
    "turn left at the gate",
    "go upstairs",
    "左转",
    "直行",
]
THINGS = ["gate", "car park", "red door", "St. Mary's church", "open-plan office", "门", "café"]
HARD = ["; ", ";", "\n", "\r\n", "；", " ;\n", "<br>"]
MARKS = [" -> ", "->", " => ", " → ", "➜", " > ", " | ", "|", "\t", "、", "，", " • "]
SOFT = [", ", " / ", " – ", " - ", ", then ", " then ", ". "]
ENDS = ["", ";", " ", "\n"]


@given(st.lists(st.sampled_from(THINGS), min_size=2, max_size=6), st.sampled_from(HARD + MARKS))
def test_things_joined_by_a_mark_read_back(steps, mark):
    assert split(mark.join(steps), "landmark") == steps


@given(
    st.lists(st.sampled_from(MOVES), min_size=2, max_size=6),
    st.sampled_from(HARD + MARKS + SOFT),
)
def test_moves_joined_by_a_mark_read_back(steps, mark):
    assert split(mark.join(steps), "direction") == steps


@given(
    st.lists(st.sampled_from(THINGS), min_size=1, max_size=9),
    st.sampled_from(["{n}. {step}", "{n}) {step}", "({n}) {step}", "{step}"]),
    st.sampled_from(["; ", "\n", " "]),
    st.sampled_from(ENDS),
)
def test_numbered_things_read_back(steps, form, mark, end):
    if form == "{step}" and mark == " ":
        return  # nothing parts them
    cell = mark.join(form.format(n=n, step=step) for n, step in enumerate(steps, 1))
    assert split(cell + end, "landmark") == steps


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5))
def test_a_list_in_json_reads_back_whatever_its_texts_hold(steps):
    try:
        read = split(json.dumps(steps), "action")
    except SampleError:
        return
    assert len(read) == len(steps)


@given(st.text(max_size=40), st.sampled_from(["direction", "landmark", "action"]))
def test_any_text_is_a_list_of_texts_or_refused(text, task):
    try:
        steps = split(text, task)
    except SampleError:
        return
    assert all(step == step.strip() != "" for step in steps)
    assert task != "direction" or all(count_moves(step) == 1 for step in steps)


def test_a_separator_that_is_given_parts_exactly_there():
    assert split("gate, red; bridge", "landmark", ",") == ["gate", "red; bridge"]
    assert split("gate\tbridge", "landmark", "\\t") == ["gate", "bridge"]
    with pytest.raises(SampleError, match="no moves"):
        split("turn left, gate", "direction", ",")


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [("1; 2.5", (1, 2.5)), ("1,5; 2", (1.5, 2)), ("1.5 s; 1:02.5", (1.5, 62.5)), ([1, 2.5], (1, 2.5)), (3, (3,)),
     ("[1, 2]", (1, 2)), ("1:00:01", (3601,))],
)  # fmt: skip
def test_moments_are_seconds(cell, seconds):
    assert split_seconds(cell, "own.csv:2", "direction_moments") == pytest.approx(seconds)


@pytest.mark.parametrize("cell", ["soon", "1; two", "-1", "1e3", "", [True], [None], "nan"])
def test_what_is_no_moment_is_refused(cell):
    with pytest.raises(SampleError, match="seconds like 1.5"):
        split_seconds(cell, "own.csv:2", "direction_moments")
