"""How often the 95 % intervals of the report hold the truth, in simulated runs whose groups differ in difficulty.

python benchmarks/coverage.py 1000        simulated runs of each design; half a minute each
"""

import sys

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from stlite.data.checks import format_table
from stlite.eval.statistics import intervals

CONTRASTS = {  # over the cells (task, way) of three tasks, ways alternating
    "one cell": [1, 0, 0, 0, 0, 0],
    "mean of 6": [1 / 6] * 6,
    "gap": [1 / 3, -1 / 3] * 3,
}
GROUPS = (5, 20, 64, 200)
SHARES = (0.5, 0.9, 1.0)
SPREAD = 1.0  # standard deviation of the groups' difficulty, in logits


def truth(share: float) -> float:
    """Integrate the accuracy over groups: the mean of logistic(logit(share) + SPREAD · normal)."""
    points, weights = np.polynomial.hermite_e.hermegauss(61)
    return float((weights / weights.sum()) @ chance(share, points))


def chance(share: float, normal):
    """Return the chance to be right in groups of this difficulty."""
    return 1 / (1 + (1 / share - 1) * np.exp(-SPREAD * normal))


def simulate(rng, groups: int, share: float) -> tuple:
    """Draw sums and counts, (groups, 6): 2 to 10 questions a group, one chance to be right for all of them."""
    counts = rng.multinomial(rng.integers(2, 11, groups), [1 / 6] * 6)
    return rng.binomial(counts, chance(share, rng.standard_normal((groups, 1)))), counts.astype(
        float
    )


def measure(groups: int, share: float, runs: int) -> dict:
    """Return how many per cent of the intervals hold the truth, and of Wilson's, which know no groups."""
    rng = np.random.default_rng(0)
    true = truth(share)
    wanted = {"one cell": true, "mean of 6": true, "gap": 0.0}
    held = dict.fromkeys(CONTRASTS, 0)
    given = dict.fromkeys(CONTRASTS, 0)
    width = 0.0
    plain = 0
    for seed in range(runs):
        sums, counts = simulate(rng, groups, share)
        if (counts.sum(0) == 0).any():  # a task that nobody was asked has no row in a report
            continue
        estimates = intervals(sums, counts, list(CONTRASTS.values()), seed=seed)
        for name, estimate in zip(CONTRASTS, estimates):
            if estimate["low"] is not None:
                given[name] += 1
                low = estimate["low"] - 1e-9  # rounding is no miss
                held[name] += low <= wanted[name] <= estimate["high"] + 1e-9
                width += (estimate["high"] - estimate["low"]) * (name == "mean of 6")
        low, high = proportion_confint(sums.sum(), counts.sum(), method="wilson")
        plain += low <= true <= high
    row = {"groups": groups, "share": share}
    for name in CONTRASTS:
        row[name] = 100 * held[name] / given[name] if given[name] else None
    row["given, % of runs"] = 100 * given["mean of 6"] / runs
    row["width of mean of 6, points"] = 100 * width / max(given["mean of 6"], 1)
    row["Wilson, without groups"] = 100 * plain / runs
    return {name: round(value, 1) for name, value in row.items() if value is not None}


def main() -> None:
    """Measure every design and print one table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rows = [measure(groups, share, runs) for groups in GROUPS for share in SHARES]
    print(format_table([{name: f"{value:g}" for name, value in row.items()} for row in rows]))


if __name__ == "__main__":
    main()
