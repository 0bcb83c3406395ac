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


def test_the_tables_of_the_experiment_are_those_of_its_records(study):
    """What was published stands, though other columns of the tables have changed their meaning."""
    made = json.loads((FOLDER / "ablation.json").read_text())["tables"]
    for which, arms, before in (
        ("final", study["ARMS"], ""),
        ("follow", study["LONGER"], "Follow-up: "),
    ):
        runs = study["pooled_arms"](which, arms)
        for name, rows in study["tables"](runs, which).items():
            assert_alike(made.pop(before + name), rows, name)
    assert not made


def assert_alike(written: list[dict], again: list[dict], table: str):
    """Compare tables: texts are equal, numbers to a tenth of what is shown, for a bootstrap sums in another order elsewhere."""
    assert [list(row) for row in written] == [list(row) for row in again], table
    for old, new in zip(written, again):
        for name, value in old.items():
            near = (
                {"abs": 1e-4} if name not in ("p", "holm", "mcnemar") else {"rel": 1e-3, "abs": 0}
            )
            number = isinstance(value, float)
            assert new[name] == (pytest.approx(value, **near) if number else value), (table, name)


def test_tables_are_alike_where_only_the_processor_differs():
    written = [{"arm": "a", "low": 0.123456, "p": 1e-12, "n": 3, "high": None}]
    assert_alike(
        written, [{"arm": "a", "low": 0.123461, "p": 1.0002e-12, "n": 3, "high": None}], "t"
    )
    for change in ({"low": 0.1246}, {"p": 1.1e-12}, {"n": 4}, {"arm": "b"}, {"high": 0.1}):
        with pytest.raises(AssertionError):
            assert_alike(written, [written[0] | change], "t")


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


def cells(line: str) -> tuple[str, ...]:
    """Read a row of a Markdown table."""
    return tuple(cell.strip().replace("\\_", "_") for cell in line.strip().strip("|").split("|"))


def table_rows(path: Path) -> list[tuple[str, ...]]:
    """Read the rows of all tables of a page, but the rulers under their heads."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    return [cells(line) for line in lines if set(line) - set("|-: ")]


def test_every_number_of_the_results_page_stands_in_the_tables():
    made = {
        row
        for name in ("ablation.md", "prefix_intervention.md", "reinforcement.md")
        for row in table_rows(FOLDER / name)
    }
    rows = table_rows(FOLDER.parent / "RESULTS.md")
    assert len(rows) > 20 and not [row for row in rows if row not in made]
