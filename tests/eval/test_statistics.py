"""Means and intervals by group against values worked by hand, by statsmodels and by scipy."""

import numpy as np
import pytest
import scipy.stats
from answers import drawn, record

from stlite.eval import statistics

# six groups of unequal size, and whether each question was answered right
GROUPS = {"a": [1, 1, 0], "b": [0, 0], "c": [1], "d": [1, 1, 1, 1], "e": [0, 1], "f": [1, 0, 0]}


def rows(groups=GROUPS, way="forward") -> list[dict]:
    made = []
    for group, values in groups.items():
        for value in values:
            made.append({"task": "action", "way": way, "group": group, "value": value})
    return made


def test_the_standard_error_is_that_of_a_regression_with_clustered_errors():
    import statsmodels.api

    values = [r["value"] for r in rows()]
    clusters = [ord(r["group"]) for r in rows()]
    regression = statsmodels.api.OLS(values, np.ones(len(values)))
    fitted = regression.fit(cov_type="cluster", cov_kwds={"groups": clusters})
    estimate = statistics.task_means(rows())[0][2]
    assert estimate["estimate"] == pytest.approx(9 / 15)
    assert estimate["se"] == pytest.approx(float(fitted.bse[0]))
    unclustered = regression.fit().bse[0]
    assert abs(estimate["se"] - unclustered) > 0.005


def test_the_standard_error_by_hand():
    """Means of 0 and 1, five groups of one: deviations −.2 four times and .8, each over 5; times 5/4."""
    sums = np.array([[0.0], [0], [0], [0], [1]])
    counts = np.ones((5, 1))
    estimate = statistics.intervals(sums, counts, [[1.0]])[0]
    by_hand = ((4 * 0.2**2 + 0.8**2) / 25 * 5 / 4) ** 0.5
    assert estimate["se"] == pytest.approx(by_hand) == pytest.approx(0.2)


def test_the_acceleration_by_hand():
    """Deviations −.2 four times and .8: the sum of cubes is .48, of squares .8."""
    shift = np.array([-0.2, -0.2, -0.2, -0.2, 0.8])
    assert statistics.acceleration(shift) == pytest.approx(0.48 / (6 * 0.8**1.5))
    assert statistics.acceleration(-shift) == pytest.approx(-0.48 / (6 * 0.8**1.5))
    assert statistics.acceleration(3 * shift) == pytest.approx(0.48 / (6 * 0.8**1.5))


def test_the_interval_by_hand_where_draws_tie_with_the_estimate():
    """Below .3, equal .2: bias Φ⁻¹(.4) = −.25335; reach √(5/4) · 2.77645 = 3.10417; levels .000153 and .99530."""
    drawn = np.concatenate([np.linspace(0, 0.3, 300), [0.4] * 200, np.linspace(0.5, 1, 500)])
    even = np.array([-0.1, -0.1, 0.0, 0.1, 0.1])  # no acceleration
    low, high = statistics.bca(0.4, drawn, even, 5)
    assert low == pytest.approx(0.000153, abs=2e-5) and high == pytest.approx(0.99530, abs=1e-4)
    assert statistics.bca(2.0, drawn, even, 5) == pytest.approx((1.0, 1.0), abs=0.01)
    assert statistics.bca(-1.0, drawn, even, 5) == pytest.approx((0.0, 0.0), abs=0.01)


@pytest.mark.parametrize(("weights", "lowest", "bounds"), [([1.0], 0.0, (0, 1)), ([1.0], -1.0, (-1, 1)), ([1.0, -1.0], 0.0, (-1, 1)),
                                                           ([0.5, 0.5], -1.0, (-1, 1)), ([1.0, -1.0], -1.0, (-2, 2))])  # fmt: skip
def test_an_estimate_is_no_further_than_its_values_allow(weights, lowest, bounds):
    assert statistics._bounds(np.array(weights), lowest) == pytest.approx(bounds)


def test_one_question_drawn_once_is_a_mean():
    means = statistics.bootstrap_means(np.eye(3), np.eye(3), draws=200)
    once = (~np.isnan(means)).mean()
    assert once == pytest.approx(1 - (2 / 3) ** 3, abs=0.08)


def test_fewer_than_five_groups_give_no_interval():
    for count in range(1, 8):
        groups = {str(i): [i % 2, 1] for i in range(count)}
        estimate = statistics.task_means(rows(groups))[0][2]
        empty = [estimate[name] is None for name in ("low", "high", "se")]
        assert empty == [count < 5] * 3 and estimate["groups"] == count
        assert estimate["estimate"] == pytest.approx(np.mean([r["value"] for r in rows(groups)]))


def test_a_mean_over_a_task_that_one_group_alone_has_gives_no_interval():
    many = {str(i): [i % 2, 1] for i in range(10)}
    lone = rows(many) + rows({"0": [1, 0]}, "reverse")
    forward, reverse, mean = (estimate for _, _, estimate in statistics.task_means(lone))
    assert forward["low"] is not None and reverse["low"] is None and mean["low"] is None
    two = rows(many) + rows({"0": [1, 0], "1": [1]}, "reverse")
    assert statistics.task_means(two)[-1][2]["low"] is not None


@pytest.mark.parametrize(("value", "groups"), [(1, 20), (1, 5), (0, 20)])
def test_groups_that_all_agree_have_wilsons_margin_and_no_standard_error(value, groups):
    from statsmodels.stats.proportion import proportion_confint

    estimate = statistics.task_means(rows({str(i): [value] for i in range(groups)}))[0][2]
    low, high = proportion_confint(value * groups, groups, method="wilson")
    assert (estimate["low"], estimate["high"]) == pytest.approx((low, high))
    assert estimate["se"] is None


def test_agreement_of_differences_reaches_both_ways():
    estimate = statistics.task_means(rows({str(i): [0] for i in range(20)}), lowest=-1.0)[0][2]
    margin = 1.959964**2 / (20 + 1.959964**2)
    assert (estimate["low"], estimate["high"]) == pytest.approx((-margin, margin))


def test_a_mean_of_groups_that_agree_is_no_surer_than_the_task_of_few_groups():
    """Ten groups all wrong in one task, ninety all right in the other: Wilson's margins are 27.8 and 4.1 points."""
    few = rows({str(i): [0] for i in range(10)})
    mean = statistics.task_means(few + rows({str(i): [1] for i in range(90)}, "reverse"))[-1][2]
    assert (mean["low"], mean["high"]) == pytest.approx((0.5 - 0.1388, 0.5 + 0.1388), abs=1e-3)
    assert mean["se"] is None and mean["groups"] == 90
    both = rows({str(i): [0] for i in range(10)}, "reverse")
    same = statistics.task_means(few + both)[-1][2]
    assert same["high"] == pytest.approx(0.2775, abs=1e-3)  # the same ten groups in both


def test_a_perfect_mean_of_six_reaches_one():
    perfect = [r | {"value": 1.0} for r in drawn(20)]
    assert statistics.task_means(perfect)[-1][2]["high"] >= 1.0


def test_whole_groups_are_drawn_and_a_draw_without_a_cell_is_empty():
    sums = np.array([[3.0, 0], [0, 2], [1, 0]])
    counts = np.array([[3.0, 0], [2, 2], [2, 0]])
    means = statistics.bootstrap_means(sums, counts, draws=300, seed=1)
    possible = set()
    for a in range(4):
        for b in range(4 - a):
            c = 3 - a - b
            possible.add(round((3 * a + c) / (3 * a + 2 * b + 2 * c), 9))
    assert {round(float(m), 9) for m in means[:, 0]} == possible
    empty = np.isnan(means[:, 1]).mean()
    assert empty == pytest.approx((2 / 3) ** 3, abs=0.1)
    assert set(means[~np.isnan(means[:, 1]), 1]) == {1.0}
    again = statistics.bootstrap_means(sums, counts, draws=300, seed=1)
    assert np.array_equal(means, again, equal_nan=True)
    assert not np.array_equal(means, statistics.bootstrap_means(sums, counts, 300, 2), True)


def test_contrasts_are_estimated_each_by_the_groups_that_bear_on_it():
    both = rows({str(i): [1, 1] for i in range(6)}) + rows(
        {str(i): [0, 1] for i in range(8)}, "reverse"
    )
    cells, sums, counts = statistics.cluster_sums(both)
    assert cells == [("action", "forward"), ("action", "reverse")]
    assert (
        sums.tolist() == [[2, 1]] * 6 + [[0, 1]] * 2
        and counts.tolist() == [[2, 2]] * 6 + [[0, 2]] * 2
    )
    forward, gap = statistics.intervals(sums, counts, [[1, 0], [1, -1]], lowest=0.0)
    assert (forward["estimate"], forward["groups"]) == (pytest.approx(1.0), 6)
    assert (gap["estimate"], gap["groups"]) == (pytest.approx(0.5), 8)
    margin = 1.959964**2 / (6 + 1.959964**2)  # no surer than forward, which six groups have
    assert (gap["low"], gap["high"]) == pytest.approx((0.5 - margin, 0.5 + margin))


def test_the_mean_of_choices_is_over_tasks_and_leaves_routes_out():
    made = [record(i, "action", "forward", 1) for i in range(30)]
    made += [record(i, "action", "reverse", 0) for i in range(10)]
    made += [record(i, "route", "forward", 0.9) for i in range(5)]
    *cells, (name, records, estimate) = statistics.task_means(made)
    assert [cell for cell, _, _ in cells] == [
        ("route", "forward"),
        ("action", "forward"),
        ("action", "reverse"),
    ]
    assert name == (statistics.MEAN, "") and len(records) == 40
    assert estimate["estimate"] == pytest.approx(0.5)
    means = statistics.cell_means(made)
    assert [*means.values()] == pytest.approx([0.9, 1, 0, 0.5])
    routes = [r for r in made if r["task"] == "route"]
    assert len(statistics.task_means(routes)) == len(statistics.cell_means(routes)) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match=r"record 'x': expected a finite value, found (nan|inf)"):
        statistics.task_means(
            [{"task": "action", "way": "forward", "group": "g", "id": "x", "value": value}]
        )
    with pytest.raises(ValueError, match="at least one record, found none"):
        statistics.task_means([])


@pytest.mark.parametrize("groups", [60, 200])
def test_intervals_cover_the_truth(groups):
    truth, hits = 0.5, 0
    for seed in range(120):
        sums, counts = statistics.cluster_sums(drawn(groups, truth, seed))[1:]
        found = statistics.intervals(sums, counts, [[1 / 6] * 6], draws=400)[0]
        hits += found["low"] <= truth <= found["high"]
    assert 108 <= hits < 120


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_the_interval_is_scipys_bca_at_the_level_of_students_t(share):
    rng = np.random.default_rng(5)
    means = rng.binomial(10, np.clip(rng.normal(share, 0.15, 12), 0, 1)) / 10
    reach = (12 / 11) ** 0.5 * scipy.stats.t.ppf(0.975, 11)
    level = 2 * scipy.stats.norm.cdf(reach) - 1
    theirs = scipy.stats.bootstrap(
        (means,), np.mean, confidence_level=level, n_resamples=20000, rng=rng
    ).confidence_interval
    ours = statistics.intervals(10 * means[:, None], np.full((12, 1), 10.0), [[1.0]], draws=20000)
    assert (ours[0]["low"], ours[0]["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    normal = scipy.stats.bootstrap((means,), np.mean, n_resamples=20000, rng=rng)
    width = normal.confidence_interval.high - normal.confidence_interval.low
    assert ours[0]["high"] - ours[0]["low"] > width + 0.02
