"""The benchmarks themselves: a small point of each kind, and the page that `make bench` writes."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from stlite.data.egost import read_rows

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize(("axis", "size"), [("videos", 2), ("rows", 200)])
def test_a_point_of_scaling_is_measured(tmp_path, monkeypatch, axis, size):
    monkeypatch.delenv("STLITE_CACHE", raising=False)
    found = runpy.run_path(str(FOLDER / "scaling.py"))["one"](axis, size, str(tmp_path))
    assert found["size"] == size and found["seconds"] > 0 and found["peak_gb"] > 0


def test_bench_writes_a_page_and_keeps_what_was_not_run_again(tmp_path, monkeypatch):
    (tmp_path / "hello.py").write_text("print('42 a second')")
    names = runpy.run_path(str(FOLDER / "bench.py"))
    monkeypatch.setitem(names["main"].__globals__, "HERE", tmp_path)
    monkeypatch.setitem(names["main"].__globals__, "COMMANDS", {"hello": ["hello.py"]})
    monkeypatch.setattr(sys, "argv", ["bench.py", "hello"])
    (tmp_path / "results.json").write_text(json.dumps({"old": {"command": "python old.py", "took": "1 s", "machine": "m",
                                                               "date": "2026-01-01", "printed": ["7"]}}))  # fmt: skip
    names["main"]()
    page = (tmp_path / "RESULTS.md").read_text()
    assert "42 a second" in page and "## old" in page
    assert json.loads((tmp_path / "results.json").read_text())["hello"]["printed"] == [
        "42 a second"
    ]


@pytest.fixture(scope="module")
def study():
    return runpy.run_path(str(FOLDER / "ablation.py"))


STABLE = {"n", "accuracy", "difference", "gap", "mean", "same way", "other way"}


def same_value(value, expected) -> bool:
    """Compare numbers with a tolerance; what the statistics now leave empty may have been a number."""
    if isinstance(value, float) and isinstance(expected, float):
        return value == pytest.approx(expected, rel=1e-3, abs=1e-4, nan_ok=True)
    return value is None or value == expected


def test_the_tables_of_the_experiment_are_those_of_its_records(study):
    """What was published stands, though other columns of the tables have changed their meaning."""
    made = json.loads((FOLDER / "ablation.json").read_text())["tables"]
    for which, arms, before in (
        ("final", study["ARMS"], ""),
        ("follow", study["LONGER"], "Follow-up: "),
    ):
        runs = study["pooled_arms"](which, arms)
        for name, rows in study["tables"](runs, which).items():
            published = made.pop(before + name)
            assert len(rows) == len(published), name
            for row, expected in zip(rows, published):
                for column in set(row) & set(expected) & STABLE:
                    assert same_value(row[column], expected[column]), (name, column)
    assert not made


def test_every_recipe_was_run_with_its_seeds_on_the_same_questions(study):
    for which, arms in (("final", study["ARMS"]), ("follow", study["LONGER"])):
        asked = set()
        for arm in arms:
            files = sorted((FOLDER / "ablation" / which).glob(f"{arm}-[0-9].jsonl.gz"))
            assert len(files) == len(study["SEEDS"].get(arm, range(3))), arm
            for path in files:
                asked.add(tuple(r["id"] for r in study["kept"](path) if r["kind"] == "choice"))
        assert len(asked) == 1 and len(*asked) > 1200


def test_no_walk_of_the_experiments_is_one_that_something_was_trained_or_tuned_on(study):
    """Seeds 300,000… and 400,000… stand in the names; what happens in a walk decides who may draw it (test_walks)."""
    names = {which: {r["group"] for r in study["kept"](FOLDER / "ablation" / which / f"{arm}-0.jsonl.gz")}
             for which, arm in (("final", "st-r1"), ("follow", "st-r1-long"))}  # fmt: skip
    assert all(name.startswith("w03") for name in names["final"]) and all(
        name.startswith("w04") for name in names["follow"]
    )
    rows = read_rows(FOLDER.parent / "sample_data" / "train" / "total_test_mcq_630.jsonl")
    trained = {sample.group for sample in rows}
    assert not trained & (names["final"] | names["follow"])


def test_every_number_of_the_results_page_stands_in_the_tables():
    lines = {
        line.strip()
        for name in ("ablation.md", "prefix_intervention.md")
        for line in (FOLDER / name).read_text().splitlines()
    }
    rows = [
        x
        for x in (FOLDER.parent / "RESULTS.md").read_text().splitlines()
        if x.startswith("|") and "---" not in x
    ]
    assert len(rows) > 20 and not [
        row for row in rows if row.replace("\\_", "_") not in {x.replace("\\_", "_") for x in lines}
    ]
