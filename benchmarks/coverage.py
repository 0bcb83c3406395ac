"""How often the 95 % intervals of the report hold the truth, in simulated runs whose recordings differ in difficulty.

python benchmarks/coverage.py 2000        the number of simulated runs of each design; about a minute a design
"""

import sys
import time

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from stlite.eval.statistics import intervals

CONTRASTS = {  # over the cells (task, way) of three tasks, ways alternating
    "one cell": [1, 0, 0, 0, 0, 0],
    "mean of 6": [1 / 6] * 6,
    "gap": [1 / 3, -1 / 3] * 3,
}
DESIGNS = ((200, 0.7, 1.0), (200, 0.9, 1.0), (50, 0.7, 1.0), (50, 0.9, 1.0))


def truth(rate: float, spread: float) -> float:
    """Integrate the accuracy over recordings: the mean of logistic(logit(rate) + spread · normal)."""
    points, weights = np.polynomial.hermite_e.hermegauss(61)
    return float((weights / weights.sum()) @ (1 / (1 + (1 / rate - 1) * np.exp(-spread * points))))


def simulate(rng, recordings: int, rate: float, spread: float) -> tuple:
    """Draw sums and counts, (recordings, 6): 2 to 10 questions a recording, one chance to be right for all of them."""
    counts = rng.multinomial(rng.integers(2, 11, recordings), [1 / 6] * 6)
    chance = 1 / (1 + (1 / rate - 1) * np.exp(-spread * rng.standard_normal((recordings, 1))))
    return rng.binomial(counts, chance), counts.astype(float)


def measure(recordings: int, rate: float, spread: float, runs: int) -> dict:
    """Return how many per cent of the intervals hold the truth, and of Wilson's, which know no recordings."""
    rng, p = np.random.default_rng(0), truth(rate, spread)
    wanted, hits, plain, width = [p, p, 0.0], np.zeros(3), 0, np.zeros(3)
    for seed in range(runs):
        sums, counts = simulate(rng, recordings, rate, spread)
        found = intervals(sums, counts, list(CONTRASTS.values()), seed=seed)
        hits += [f["low"] <= w <= f["high"] for f, w in zip(found, wanted)]
        width += [f["high"] - f["low"] for f in found]
        low, high = proportion_confint(sums.sum(), counts.sum(), method="wilson")
        plain += low <= p <= high
    row = {name: round(100 * float(h) / runs, 1) for name, h in zip(CONTRASTS, hits)}
    row |= {"mean without recordings (Wilson)": round(100 * plain / runs, 1)}
    return row | {"mean width of 'mean of 6', points": round(100 * float(width[1]) / runs, 1)}


if __name__ == "__main__":
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    for design in DESIGNS:
        start = time.perf_counter()
        row = measure(*design, runs)
        print(
            "{} recordings, rate {}, spread {}:".format(*design),
            row,
            f"{time.perf_counter() - start:.0f} s",
            flush=True,
        )
