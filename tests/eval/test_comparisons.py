"""Two runs compared: pairs that are paired, p that knows groups, and nothing claimed that cannot be estimated."""

import random

import numpy as np
import pytest
from answers import drawn, record
from scipy import stats

from stlite.eval import comparisons, metrics, statistics


def test_a_report_of_nothing_says_so():
    with pytest.raises(ValueError, match="at least one record"):
        metrics.accuracy_table([])
    with pytest.raises(ValueError, match="one question under the id '0/direction/forward'"):
        comparisons.compare_runs(drawn(2), [r | {"options": ["w", "x"]} for r in drawn(2)])
    with pytest.raises(ValueError, match="some id in both"):
        comparisons.compare_runs(drawn(2), [r | {"id": r["id"] + "x"} for r in drawn(2)])


def test_comparing_is_paired_exact_and_the_same_from_both_sides():
    a = drawn(80, seed=1)
    better = random.Random(0)
    b = [
        r if r["value"] or better.random() < 0.6 else record(r["group"], r["task"], r["way"], 1)
        for r in a
    ]
    forth, back = comparisons.compare_runs(a, b), comparisons.compare_runs(b, a)
    for x, y in zip(forth["tables"]["Difference"], back["tables"]["Difference"]):
        assert (
            x["difference"] == pytest.approx(-y["difference"])
            and x["gained"] == y["lost"]
            and x["lost"] == 0
        )
        assert x["mcnemar"] == pytest.approx(
            stats.binomtest(x["gained"], x["gained"] + x["lost"]).pvalue
        )
        assert x["low"] > 0 and y["high"] < 0 and x["mcnemar"] <= x["p"] <= x.get("holm", 1)
    flips = forth["tables"]["Flips"]
    assert (
        len(flips) == sum(x["value"] != y["value"] for x, y in zip(a, b))
        and flips[0]["change"] == "wrong to right"
    )


def test_a_run_compared_with_itself_differs_in_nothing():
    rows = drawn(40)
    made = comparisons.compare_runs(rows, rows[6:])
    assert (
        "234 questions in both, 6 only in a, 0 only in b" in made["notes"][0]
        and not made["tables"]["Flips"]
    )
    assert all(
        r["difference"] == 0 and r["p"] == 1 and r["low"] < 0 < r["high"]
        for r in made["tables"]["Difference"]
    )


def changed(gains: dict[int, list[int]]) -> list[tuple[dict, dict]]:
    """Pairs of records by group: 1 became right, -1 became wrong, 0 stayed wrong."""
    pairs = []
    for group, values in gains.items():
        for i, value in enumerate(values):
            before = record(group, "action", "forward", value < 0, f"/{i}")
            pairs.append((before, record(group, "action", "forward", value > 0, f"/{i}")))
    return pairs


def test_p_is_that_of_a_t_test_over_groups_and_not_of_a_normal():
    gains = {0: [1, 1, 1, 1], 1: [1, 1, 0, 0], 2: [0, 0, 0, 1], 3: [-1, 0, 0, 0], 4: [1, 1, 1, 0]}
    gains |= {5: [0, 0, 0, 0], 6: [1, 0, 0, 0]}
    row = comparisons.paired_differences(changed(gains))[0]
    means = [np.mean(values) for values in gains.values()]
    theirs = stats.ttest_1samp(means, 0)
    assert row["difference"] == pytest.approx(np.mean(means))
    assert row["p"] == pytest.approx(theirs.pvalue)
    assert abs(row["p"] - 2 * stats.norm.sf(abs(theirs.statistic))) > 0.005
    assert row["min_detectable"] == pytest.approx(2.8 * np.std(means, ddof=1) / 7**0.5)


def test_p_knows_that_answers_inside_a_group_go_together():
    """Three groups gain four answers each, two lose four: 12 against 8 would be less sure by question alone."""
    gains = {i: [1] * 40 for i in range(4)} | {4: [-1] * 40, 5: [0] * 40}
    row = comparisons.paired_differences(changed(gains))[0]
    assert row["gained"] == 160 and row["lost"] == 40
    assert (
        row["mcnemar"] == pytest.approx(stats.binomtest(40, 200).pvalue) and row["mcnemar"] < 1e-9
    )
    assert (
        row["p"] == pytest.approx(stats.ttest_1samp([1, 1, 1, 1, -1, 0], 0).pvalue)
        and row["p"] > 0.1
    )


def test_every_task_has_its_holm_and_the_mean_has_none():
    rows = comparisons.paired_differences(list(zip(drawn(20, seed=1), drawn(20, seed=2))))
    by_hand = sorted(row["p"] for row in rows[:-1])
    smallest = min(rows[:-1], key=lambda row: row["p"])
    assert smallest["holm"] == pytest.approx(min(1, 6 * by_hand[0]))
    assert all(row["holm"] >= row["p"] for row in rows[:-1]) and "holm" not in rows[-1]


def test_what_stood_still_is_no_flip():
    pairs = changed({0: [1, 0], 1: [0, 0], 2: [-1, 0]})
    rows = comparisons.flips(pairs)
    assert [(r["id"], r["change"]) for r in rows] == [
        ("0/action/forward/0", "wrong to right"),
        ("2/action/forward/0", "right to wrong"),
    ]
    assert rows[0] | {"gold": "A", "before": "B", "after": "A"} == rows[0]


def test_holm_by_hand():
    """.01 × 3; .03 × 2 = .06; .04 × 1, but no less than the one before; a p that is missing counts for nothing."""
    rows = [{"task": str(i), "p": p} for i, p in enumerate((0.01, 0.04, 0.03, None))]
    comparisons.add_holm([*rows, {"task": statistics.MEAN, "p": 0.001}])
    assert [row["holm"] for row in rows[:3]] == pytest.approx([0.03, 0.06, 0.06])
    assert rows[3]["holm"] is None
    nothing = [{"task": "a", "p": None}]
    comparisons.add_holm(nothing)
    assert nothing == [{"task": "a", "p": None, "holm": None}]


@pytest.mark.parametrize("gain", [1, -1])
def test_groups_that_all_change_alike_give_no_p_and_no_smallest_difference(gain):
    rows = comparisons.paired_differences(changed({i: [gain] for i in range(20)}))
    for row in rows:
        assert row["p"] is None and row["min_detectable"] is None and row.get("holm") is None
        margin = 1.959964**2 / (20 + 1.959964**2)
        ends = (1 - margin, 1.0) if gain == 1 else (-1.0, margin - 1)
        assert (row["low"], row["high"]) == pytest.approx(ends) and row["mcnemar"] < 0.01
    made = comparisons.compare_runs(*zip(*changed({i: [gain] for i in range(20)})))
    assert "no standard error can be estimated" in " ".join(made["notes"])


def test_two_groups_give_no_interval_and_say_so():
    made = comparisons.compare_runs(*zip(*changed({0: [1, 1], 1: [0, 1]})))
    row = made["tables"]["Difference"][-1]
    assert [row[name] for name in ("low", "high", "p", "min_detectable")] == [None] * 4
    assert "2 groups are too few for an interval" in made["headline"]


def test_both_accuracies_stand_beside_their_difference():
    a = drawn(30, seed=1)
    b = [r | {"value": drawn(30, seed=2)[i]["value"]} for i, r in enumerate(a)]
    for row in comparisons.paired_differences(list(zip(a, b))):
        assert row["accuracy"] - row["baseline"] == pytest.approx(row["difference"])
    first, second = comparisons.compare_to_baseline({"a": a, "b": b[:-6]})
    assert first["baseline"] is None and first["difference"] is None and first["paired"] is None
    assert second["baseline"] == pytest.approx(metrics.accuracy_table(a[:-6])[-1]["accuracy"])
    assert second["compared"] == pytest.approx(metrics.accuracy_table(b[:-6])[-1]["accuracy"])
    assert second["paired"] == len(a) - 6 == second["n"]
    assert (second["from"], second["to"]) == pytest.approx(
        [comparisons.paired_differences(list(zip(a[:-6], b)))[-1][k] for k in ("low", "high")]
    )


def test_the_second_run_goes_by_its_ids_and_routes_have_no_mcnemar():
    a = [record(i, "route", "forward", 0.1 * i, kind="route", options=[]) for i in range(8)]
    b = [r | {"value": r["value"] + 0.1 * (i % 3)} for i, r in enumerate(a)]
    (row,) = comparisons.compare_runs(a, b[::-1])["tables"]["Difference"]
    assert row["mcnemar"] is None and row["difference"] == pytest.approx(0.0875)
    assert row["p"] == pytest.approx(stats.ttest_1samp([0.1 * (i % 3) for i in range(8)], 0).pvalue)
