"""The benchmarks themselves: a small point of each kind, and the page that `make bench` writes."""

import gzip
import json
import runpy
import sys
from pathlib import Path

import pytest

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
    assert json.loads((tmp_path / "results.json").read_text())["hello"]["printed"] == ["42 a second"]


def test_the_tables_of_the_experiment_are_those_of_its_records():
    names = runpy.run_path(str(FOLDER / "ablation.py"))
    runs = {arm: rows for arm in names["ARMS"] if (rows := names["pooled"]("final", arm))}
    made = json.loads((FOLDER / "ablation.json").read_text())
    assert json.loads(json.dumps(names["tables"](runs, "final"))) == made["tables"]


def test_every_recipe_was_run_with_its_seeds_on_the_same_questions():
    names = runpy.run_path(str(FOLDER / "ablation.py"))
    asked = set()
    for arm in names["ARMS"]:
        files = sorted((FOLDER / "ablation" / "final").glob(f"{arm}-[0-9].jsonl.gz"))
        assert len(files) == len(names["SEEDS"].get(arm, range(3))), arm
        for path in files:
            lines = gzip.decompress(path.read_bytes()).decode().splitlines()
            asked.add(tuple(json.loads(line)["id"] for line in lines))
    assert len(asked) == 1 and len(*asked) > 1200
