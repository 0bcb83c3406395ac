"""The reinforcement experiment: whose rows train what, and intervals by walk and by seed."""

import json
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def study():
    return runpy.run_path(str(FOLDER / "reinforcement.py"))


def records(values_by_walk: dict[str, list[float]], task: str = "direction") -> list[dict]:
    rows = []
    for walk, values in values_by_walk.items():
        for i, value in enumerate(values):
            way = "forward" if i % 2 == 0 else "reverse"
            rows.append({"group": walk, "task": task, "way": way, "value": value})
    return rows


def test_rows_of_grpo_come_from_walks_that_sft_does_not_see(study):
    taught, fresh = study["training_rows"]()
    assert len(taught) == study["SFT_ROWS"]
    assert len(fresh) > 300
    assert not {s.group for s in taught} & {s.group for s in fresh}


def test_a_difference_that_every_walk_and_seed_shares_has_no_width(study):
    before = [records({"a": [0.0, 0.5], "b": [0.5, 0.0]})] * 2
    after = [records({"a": [0.5, 1.0], "b": [1.0, 0.5]})] * 2
    row = study["two_level_difference"](before, after)
    assert row["difference"] == pytest.approx(0.5)
    assert row["low"] == pytest.approx(0.5)
    assert row["high"] == pytest.approx(0.5)


def test_every_cell_counts_the_same_however_many_questions_it_has(study):
    """Four direction questions gain 1 each, one action question gains nothing: cells 1, 1, 0."""
    flat = {"a": [0.0, 0.0, 0.0, 0.0]}
    action = {"group": "a", "task": "action", "way": "forward", "value": 0.0}
    before = [[*records(flat), action]]
    after = [[*records({"a": [1.0] * 4}), action]]
    assert study["two_level_difference"](before, after)["difference"] == pytest.approx(2 / 3)


def test_seeds_that_disagree_widen_the_interval(study):
    walks = {f"w{i}": [0.0, 0.0] for i in range(8)}
    gained = {name: [1.0, 1.0] for name in walks}
    before = [records(walks)] * 4
    agreeing = [records({name: [0.5, 0.5] for name in walks})] * 4
    disagreeing = [records(walks), records(gained)] * 2
    same = study["two_level_difference"](before, agreeing)
    other = study["two_level_difference"](before, disagreeing)
    assert same["difference"] == pytest.approx(other["difference"])
    assert other["high"] - other["low"] > same["high"] - same["low"] + 0.3


def test_kept_records_hold_what_the_tables_need_and_no_reply(study, tmp_path):
    reply = "<think>Let's start by thinking reverse turn left</think> <answer>A</answer>"
    row = {"id": "w1", "value": 1.0, "reply": reply, "explanation": "", "seconds": 1.0, "key": "k"}
    study["keep"]([row], tmp_path / "a.jsonl.gz")
    assert study["read_kept"](tmp_path / "a.jsonl.gz") == [
        {"id": "w1", "value": 1.0, "thought": "reverse"}
    ]


def test_no_walk_asked_about_was_trained_or_tuned_on(study):
    """Seeds from 500,000 stand in the names; what happens in a walk decides who may draw it (test_walks)."""
    taught, fresh = study["training_rows"]()
    trained = {sample.group for sample in [*taught, *fresh]}
    asked = set()
    for arm in study["ARMS"]:
        for records_ in study["runs_of"](arm):
            asked |= {record["group"] for record in records_}
    assert len(asked) == 72
    assert all("w0500000" <= name < "w0501000" for name in asked)
    assert not asked & trained


def test_published_tables_are_those_of_the_records(study):
    published = json.loads((FOLDER / "reinforcement.json").read_text())["tables"]
    again = study["tables"]()
    assert set(again) == set(published)
    for name in ("Seeds", "By task and way", "Reward while training", "Planned comparisons"):
        for row, expected in zip(again[name], published[name], strict=True):
            for column, value in expected.items():
                close = pytest.approx(value, abs=1e-3) if isinstance(value, float) else value
                assert row[column] == close, (name, column)


def test_every_seed_of_every_arm_was_asked_the_same_questions(study):
    asked = set()
    for arm in study["ARMS"]:
        for records_ in study["runs_of"](arm):
            asked.add(tuple(record["id"] for record in records_))
    assert len(asked) == 1
