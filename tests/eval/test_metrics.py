"""Tables of one run: accuracy, forward minus reverse, routes, thinking, shortcuts."""

import numpy as np
import pytest
from answers import TASKS, WAYS, drawn, record

from stlite.eval import metrics, report, statistics


def mean(records) -> dict:
    return metrics.accuracy_table(records)[-1]


def test_a_cell_of_8_in_10():
    rows = metrics.accuracy_table([record(i, "action", "forward", i < 8) for i in range(10)])
    assert rows[0]["accuracy"] == pytest.approx(0.8) and rows[0]["n"] == rows[0]["groups"] == 10
    assert (rows[0]["wilson_low"], rows[0]["wilson_high"]) == pytest.approx(
        (0.4902, 0.9433), abs=1e-4
    )
    assert rows[0]["chance"] == pytest.approx(0.25) and rows[0]["chance_adjusted"] == pytest.approx(
        0.55 / 0.75
    )


def test_the_mean_weighs_cells_alike_and_leaves_routes_out():
    rows = [record(i, "action", "forward", 1) for i in range(30)]
    rows += [record(i, "action", "reverse", 0) for i in range(10)]
    route = {"kind": "route", "options": [], "route": {"direction": 0.5, "tau": None}}
    rows += [record(i, "route", "forward", 0.9, **route) for i in range(5)]
    made = metrics.accuracy_table(rows)
    assert (
        made[-1]["task"] == statistics.MEAN
        and made[-1]["accuracy"] == pytest.approx(0.5)
        and made[-1]["n"] == 40
    )
    assert (
        made[0]["task"] == "route" and made[0]["wilson_low"] is None and made[0]["chance"] is None
    )


def test_failures_stay_in_the_denominator():
    reasons = [
        "right",
        "wrong",
        "failed",
        "truncated",
        "absent",
        "ambiguous",
        "unreadable",
        "right",
    ]
    row = metrics.accuracy_table(
        [record(i, "action", "forward", r == "right", reason=r) for i, r in enumerate(reasons)]
    )[0]
    shares = [row[name] for name in ("accuracy", "unparsed", "truncated", "failed")]
    assert shares == pytest.approx([0.25, 0.375, 0.125, 0.125])


def test_asking_a_recording_the_same_five_times_adds_no_knowledge():
    once = drawn(80)
    five = [r | {"id": f"{r['id']}#{i}"} for r in once for i in range(5)]
    a, b = mean(once), mean(five)
    assert (a["low"], a["high"]) == pytest.approx((b["low"], b["high"]), abs=1e-9)
    width = (
        metrics.accuracy_table(five)[0]["wilson_high"]
        - metrics.accuracy_table(five)[0]["wilson_low"]
    )
    assert width < 0.6 * (
        metrics.accuracy_table(five)[0]["high"] - metrics.accuracy_table(five)[0]["low"]
    )


def test_with_one_question_each_the_interval_is_the_textbook_one():
    rows = [record(i, "action", "forward", i % 10 < 7) for i in range(1000)]
    half = 1.96 * (0.7 * 0.3 / 1000) ** 0.5
    assert (mean(rows)["low"], mean(rows)["high"]) == pytest.approx(
        (0.7 - half, 0.7 + half), abs=0.003
    )
    assert mean(rows)["min_detectable"] == pytest.approx(2.8 * 2**0.5 * half / 1.96, rel=0.01)


def test_agreement_of_all_is_no_certainty():
    row = metrics.accuracy_table([record(i, "action", "forward", 1) for i in range(20)])[0]
    assert row["low"] == pytest.approx(row["wilson_low"]) and row["high"] == pytest.approx(1)
    one = metrics.accuracy_table([record(0, "action", "forward", 1, str(i)) for i in range(20)])[0]
    assert (one["low"], one["high"], one["groups"]) == (None, None, 1)


def test_the_gap_is_paired_inside_recordings():
    easy = [record(g, "action", w, g % 2) for g in range(60) for w in WAYS]
    assert (
        metrics.forward_reverse_gap(easy)[0]["high"]
        < 0.07
        < metrics.accuracy_table(easy)[0]["high"] - 0.5
    )
    loose = [r | {"group": r["id"]} for r in easy]
    assert metrics.forward_reverse_gap(loose)[0]["high"] > 0.15
    three = [
        record(g, t, w, w == "forward" or g % 4 > 0) for g in range(40) for t in TASKS for w in WAYS
    ]
    rows = metrics.forward_reverse_gap(three)
    assert [r["gap"] for r in rows] == pytest.approx([0.25] * 4) and rows[-1]["low"] > 0.1


def test_intervals_do_not_depend_on_the_order_of_questions_within_recordings():
    rows = drawn(30)
    turned = sorted(rows, key=lambda r: (int(r["group"]), r["task"], r["way"]), reverse=False)
    assert mean(rows) == pytest.approx(mean(turned), nan_ok=True)


def test_guesses_that_need_no_video_stand_beside_the_score():
    rows = [
        record(i // 2, "action", WAYS[i % 2], i % 2, gold="ABCD"[min(i % 5, 3)]) for i in range(100)
    ]
    rows = [r | {"options": ["ab" * (1 + 3 * (x == r["gold"])) for x in "ABCD"]} for r in rows]
    found = {r["baseline"]: r for r in report.summary(rows)["tables"]["Without looking"]}
    assert (
        found["always D"]["accuracy"] == pytest.approx(0.4)
        and found["always D"]["low"] < 0.4 < found["always D"]["high"]
    )
    assert [found[name]["accuracy"] for name in ("longest", "shortest")] == pytest.approx([1, 0])
    assert found["text classifier"]["accuracy"] > 0.9 and found["longest"][
        "chance"
    ] == pytest.approx(0.25)


def test_shortcuts_of_a_large_run_are_tried_on_whole_recordings_of_it(monkeypatch):
    monkeypatch.setattr(metrics, "LARGE", 100)
    assert (
        100 <= metrics.shortcuts(drawn(60))[0]["n"] < 106
        and metrics.shortcuts(drawn(10))[0]["n"] == 60
    )


def test_routes_are_reported_by_what_they_are_made_of():
    made = [
        {"direction": d, "landmark_f1": f, "tau": None}
        for d, f in ((1.0, None), (0.5, 0.4), (0.0, 0.0))
    ]
    rows = [
        record(i, "route", "reverse", 0.5, kind="route", options=[], route=m)
        for i, m in enumerate(made)
    ]
    made = report.summary(rows)["tables"]
    assert [*made] == ["Accuracy", "Routes"] and len(made["Accuracy"]) == 1
    wanted = {
        "task": "route",
        "way": "reverse",
        "n": 3,
        "direction": 0.5,
        "landmark_f1": 0.2,
        "tau": None,
    }
    assert made["Routes"] == [pytest.approx(wanted)]


def test_thinking_the_other_way_is_counted_by_the_way_that_was_asked():
    said = {
        "forward": "Let's start by thinking reverse a, b",
        "reverse": "Let's start by thinking reverse a, b",
        "": "I look.",
    }
    rows = [r | {"reply": f"<think>{said[r['way']]}</think> <answer>A</answer>"} for r in drawn(3)]
    assert [(row["way"], row["other way"], row["same way"]) for row in metrics.thinking(rows)] == [
        ("forward", 1.0, 0.0), ("reverse", 0.0, 1.0)
    ]  # fmt: skip
    silent = [r | {"reply": f"<think>{said['']}</think> <answer>A</answer>"} for r in drawn(3)]
    assert {(row["other way"], row["same way"]) for row in metrics.thinking(silent)} == {(0.0, 0.0)}


def test_in_the_mean_every_column_weighs_tasks_alike():
    rows = [record(i, "action", "forward", 1) for i in range(30)]
    rows += [record(i, "action", "reverse", 0, reason="absent") for i in range(10)]
    rows += [
        record(i, "landmark", "reverse", 0, reason="failed", options=["x", "y"]) for i in range(10)
    ]
    table = metrics.accuracy_table(rows)
    assert [row["unparsed"] for row in table] == pytest.approx([0, 0, 1, 1 / 3])
    assert [row["failed"] for row in table] == pytest.approx([1, 0, 0, 1 / 3])
    assert [row["accuracy"] for row in table] == pytest.approx([0, 1, 0, 1 / 3])
    assert table[-1]["chance"] == pytest.approx((0.5 + 0.25 + 0.25) / 3)


def test_pictures_get_a_number_for_every_end_of_an_interval():
    few = metrics.accuracy_by_task(drawn(3))
    assert all(isinstance(x, float) for cell in few.values() for x in cell)
    assert all(np.isnan(low) and np.isnan(high) for _, low, high in few.values())
    many = metrics.accuracy_by_task(drawn(30))
    assert all(low <= accuracy <= high for accuracy, low, high in many.values())
    assert len(few) == len(many) == 6
