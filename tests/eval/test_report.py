"""Reports: the first line says it in plain words, then where the numbers come from, then tables."""

import pytest
from answers import WAYS, drawn, questions, record, seeing

from stlite.__main__ import main
from stlite.eval import comparisons, render, report, sentences
from stlite.eval.evaluate import evaluate


def test_a_run_of_one_question_is_reported_without_certainty():
    made = report.summary([record(0, "action", "forward", 1)], "mine")
    row = made["tables"]["Accuracy"][0]
    assert [row[name] for name in ("low", "high", "min_detectable")] == [None] * 3
    assert made["headline"].startswith("mine answers 100.0 % of 1 choice questions right")
    assert "1 group is too few for an interval" in render.text(made)


def test_a_perfect_run_says_that_nothing_can_be_told_apart():
    made = report.summary([record(i, "action", "forward", 1) for i in range(20)], "mine")
    assert made["tables"]["Accuracy"][0]["min_detectable"] is None
    assert "All groups score the same" in render.text(made)
    assert "must differ by 0.0 points" not in render.text(made)


def test_a_run_says_what_it_scores_and_what_was_lost():
    rows = [record(i, "action", WAYS[i % 2], i % 3 > 0) for i in range(60)]
    rows[0]["reason"] = "truncated"
    made = report.summary(rows, "mine")
    row = made["tables"]["Accuracy"][-1]
    words = f"mine answers 66.7 % [{100 * row['low']:.1f}, {100 * row['high']:.1f}] of 60 choice"
    assert made["headline"].startswith(words) and "guessing scores 25.0 %" in made["headline"]
    assert "unparsed 0.0 %, truncated 1.7 %, failed 0.0 %" in made["notes"][0]
    assert f"by {100 * row['min_detectable']:.1f} points" in made["notes"][1]


@pytest.mark.parametrize(("groups", "said"), [(5, True), (19, True), (20, False)])
def test_intervals_of_few_groups_are_called_rough(groups, said):
    one = drawn(groups)
    warning = f"{groups} groups are few"
    assert (warning in " ".join(report.summary(one)["notes"])) == said
    two = drawn(groups, seed=1)
    assert (warning in " ".join(comparisons.compare_runs(one, two)["notes"])) == said


def test_routes_alone_are_reported_and_compared():
    parts = {"direction": 0.5, "tau": None}
    one = [
        record(i, "route", "forward", 0.1 * i, kind="route", options=[], route=parts)
        for i in range(9)
    ]
    two = [r | {"value": min(1.0, r["value"] + 0.1 + 0.01 * i)} for i, r in enumerate(one)]
    made = report.report({"one": one, "two": two})
    assert "on 9 questions of 9 groups" in made["headline"] and "two answers" in made["headline"]
    assert "one scores 40.0 %" in render.text(made) and "Runs" not in made["tables"]


def test_the_first_line_says_who_is_better_and_the_last_table_sets_all_beside_one_another(tmp_path):
    for name, skill in (("base", 0.3), ("middle", 0.6), ("trained", 0.9)):
        settings = {"model": "tiny", "sampling": {"temperature": 0}}
        evaluate(
            questions(), seeing(skill=skill), tmp_path / name, settings=settings, progress=False
        )
    folders = {name: tmp_path / name for name in ("base", "middle", "trained")}
    made = report.report(folders)
    lines = render.text(made).splitlines()
    row = made["tables"]["Runs"][-1]
    ends = f"[{100 * row['from']:.1f}, {100 * row['to']:.1f}]"
    assert lines[0].startswith(
        f"trained answers {100 * row['difference']:.1f} points more {ends} than base: "
    )
    assert f"{100 * row['compared']:.1f} % against {100 * row['baseline']:.1f} %" in lines[0]
    assert row["compared"] - row["baseline"] == pytest.approx(row["difference"])
    of_middle = [line for line in lines if line.startswith("middle answers ")]
    assert len(of_middle) == 2  # itself, and beside base
    assert list(made["tables"])[-1] == "Runs" and lines[-1].startswith("trained")
    for name in folders:
        (line,) = [line for line in lines if line.startswith(f"{name}: evaluated 20")]
        for part in (
            "model tiny",
            "adapter none",
            "seed 0",
            "'temperature': 0",
            "numpy ",
            "command: ",
        ):
            assert part in line
    assert "min_detectable: the smallest" in render.text(made)
    assert set(made["glossary"]) <= {c for rows in made["tables"].values() for r in rows for c in r}


def test_runs_are_named_by_their_folders_and_records_by_their_place(tmp_path):
    for name in ("a/run", "b/run"):
        evaluate(questions(), seeing(), tmp_path / name, progress=False)
    made = report.report(tmp_path / "a" / "run", tmp_path / "b" / "run")
    assert made["title"] == f"{tmp_path}/a/run · {tmp_path}/b/run"
    made = report.report(drawn(10), drawn(10, seed=1))
    assert made["title"] == "run 1 · run 2" and "not known" in made["notes"][-1]
    single = report.report(tmp_path / "a" / "run")
    assert single["title"] == "run" and "evaluated 20" in single["notes"][-1]
    with pytest.raises(ValueError, match="expected at least one run, found none"):
        report.report({})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "b answers 10.0 points more [2.0, 18.0] than a: 60.0 % against 50.0 %"),
        ({"difference": -0.1, "low": -0.18, "high": -0.02, "accuracy": 0.4}, "10.0 points less [2.0, 18.0] than a: 40.0 % against"),
        ({"low": -0.02}, "more [-2.0, 18.0] than a: 60.0 % against 50.0 %, on 20 questions of 9 groups. This may be chance."),
        ({"low": None, "high": None}, "on 20 questions of 9 groups. One task has too few groups for an interval of the mean"),
        ({"low": None, "high": None, "groups": 4}, "more than a: 60.0 % against 50.0 %, on 20 questions of 4 groups. 4 groups are too few"),
        ({"difference": 0.0, "low": -0.1, "high": 0.1, "accuracy": 0.5}, "b answers as much [-10.0, 10.0] as a: 50.0 % against 50.0 %"),
    ],
)  # fmt: skip
def test_a_difference_in_plain_words(change, said):
    row = {"difference": 0.1, "low": 0.02, "high": 0.18, "baseline": 0.5, "accuracy": 0.6}
    assert said in sentences.difference_sentence("a", "b", row | {"n": 20, "groups": 9} | change)


def test_answers_without_thinking_stand_beside_the_run_that_has_them(tmp_path):
    """In the folder "direct" of a run."""
    samples = questions()
    for name, right in (("base", 1 / 2), ("st-r1", 3 / 4)):
        evaluate(samples, seeing(skill=right), tmp_path / name, progress=False)
    evaluate(samples, seeing(skill=1 / 4), tmp_path / "st-r1" / "direct", progress=False)
    made = report.report(tmp_path / "base", tmp_path / "st-r1")
    rows = made["tables"]["With and without thinking"]
    assert [row["run"] for row in rows] == ["st-r1, without thinking", "st-r1"]
    assert rows[1]["difference"] == pytest.approx(rows[1]["accuracy"] - rows[0]["accuracy"])
    assert rows[1]["difference"] > 0
    said = [note for note in made["notes"] if "than st-r1, without thinking" in note]
    assert len(said) == 1 and "more" in said[0]
    alone = report.report(tmp_path / "st-r1")
    assert alone["tables"]["With and without thinking"] == rows
    assert "With and without thinking" not in report.report(tmp_path / "base")["tables"]


def test_the_command_reports_on_two_runs(tmp_path, capsys):
    for name, skill in (("base", 0.3), ("trained", 0.9)):
        evaluate(questions(), seeing(skill=skill), tmp_path / name, progress=False)
    page, (base, trained) = tmp_path / "out.html", (tmp_path / name for name in ("base", "trained"))
    main(["report", str(base), str(trained), "--html", str(page)])
    said = capsys.readouterr().out
    for title in (
        "base: Accuracy",
        "base: Without looking",
        "Runs",
        "base and trained: Difference",
    ):
        assert title in said and title in page.read_text()
    main(
        ["report", str(base / "records.jsonl"), str(trained / "records.jsonl")]
    )  # two files of one name
    assert f"{base}/records.jsonl and {trained}/records.jsonl: Flips" in capsys.readouterr().out
