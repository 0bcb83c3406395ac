"""Means of records per task and way, with 95 % intervals that know a question's group.

A group is one recording: its questions succeed or fail together, so whole groups are resampled.

>>> cell = {"task": "action", "way": "forward"}
>>> rows = [cell | {"group": str(i), "value": i % 2} for i in range(50)]
>>> cell, records, estimate = task_means(rows)[0]
>>> {name: round(value, 2) for name, value in estimate.items()}
{'estimate': 0.5, 'low': 0.36, 'high': 0.64, 'se': 0.07, 'groups': 50}
"""

import math
from collections.abc import Iterable, Sequence
from itertools import product
from statistics import fmean

from stlite.data.sample import TASKS, WAYS

Records = Sequence[dict]
DRAWS = 2000
MEAN = "mean of choices"
NOTHING = 1e-9  # smaller than any difference that a question can make
FEWEST = 5  # groups, below which no interval is given: benchmarks/coverage.py shows how they fare
FEW = 20  # groups, below which an interval holds the truth in 84 to 94 % of runs rather than 95 %


def by_cell(records: Iterable[dict]) -> dict[tuple[str, str], list[dict]]:
    """Sort records into cells (task, way), in the order of TASKS and WAYS."""
    cells = {cell: [] for cell in product(TASKS, WAYS)}
    for r in records:
        cells[r["task"], r["way"]].append(r)
    return {cell: rows for cell, rows in cells.items() if rows}


def cluster_sums(records: Records) -> tuple:
    """Add values up inside groups: the cells, then sums and counts, both (groups, cells)."""
    import numpy as np

    if not records:
        raise ValueError("records: expected at least one record, found none")
    cells = list(by_cell(records))
    groups = sorted({r["group"] for r in records})
    column = {cell: i for i, cell in enumerate(cells)}
    row = {group: i for i, group in enumerate(groups)}
    sums = np.zeros((len(groups), len(cells)))
    counts = np.zeros((len(groups), len(cells)))
    for r in records:
        if not math.isfinite(r["value"]):
            name = r.get("id")
            raise ValueError(f"record {name!r}: expected a finite value, found {r['value']}")
        place = (row[r["group"]], column[r["task"], r["way"]])
        sums[place] += r["value"]
        counts[place] += 1
    return cells, sums, counts


def cell_means(records: Records) -> dict[tuple[str, str], float]:
    """Return the mean of each cell, and last the mean over the cells of choices."""
    means = {}
    for cell, rows in by_cell(records).items():
        means[cell] = fmean(r["value"] for r in rows)
    choices = [mean for (task, _), mean in means.items() if task != "route"]
    if choices:
        means[MEAN, ""] = fmean(choices)
    return means


def intervals(
    sums, counts, contrasts, lowest: float = 0.0, draws: int = DRAWS, seed: int = 0
) -> list[dict]:
    """Estimate sums of cell means, weighted by `contrasts`, with 95 % intervals by group.

    `sums` and `counts` are (groups, cells), `contrasts` (estimates, cells); `lowest` is the least
    value of a record, the largest is 1. Each result holds estimate, low, high, se and the groups
    that bear on it. What cannot be estimated is None: low, high and se of fewer than FEWEST groups
    or with a cell that only one group has, and se where all groups agree.
    """
    import numpy as np

    means = sums.sum(0) / counts.sum(0)
    groups_a_cell = (counts > 0).sum(0)
    drawn = bootstrap_means(sums, counts, draws, seed)
    influence = (sums - means * counts) / counts.sum(0)  # how far each group moves each mean
    results = []
    for weights in np.asarray(contrasts, float):
        used = int(counts[:, weights != 0].any(1).sum())
        result = {"estimate": float(weights @ means), "low": None, "high": None, "se": None}
        results.append(result | {"groups": used})
        shift = influence @ weights
        whole_draws = _weighted(drawn, weights)
        lone = (groups_a_cell[weights != 0] < 2).any()
        if used < FEWEST or lone or len(whole_draws) < draws / 20:
            continue
        if abs(shift).max() < NOTHING:
            margin = agreement_margin(weights, groups_a_cell, used)
            bottom, top = _bounds(weights, lowest)
            low = max(bottom, result["estimate"] - margin)
            high = min(top, result["estimate"] + margin)
        else:
            low, high = bca(result["estimate"], whole_draws, shift, used)
            results[-1]["se"] = standard_error(shift, used)
        results[-1] |= {"low": low, "high": high}
    return results


def bootstrap_means(sums, counts, draws: int = DRAWS, seed: int = 0):
    """Draw whole groups with replacement; means (draws, cells), NaN where a draw lacks a cell."""
    import numpy as np

    rng = np.random.default_rng(seed)
    size = len(sums)
    means = np.full((draws, sums.shape[1]), np.nan)
    for i in range(draws):
        times = np.bincount(rng.integers(0, size, size), minlength=size)
        total = times @ counts
        np.divide(times @ sums, total, out=means[i], where=total > 0)
    return means


def standard_error(shift, groups: int) -> float:
    """Return the standard error of a mean from the shifts of its groups, which are independent."""
    return math.sqrt((shift**2).sum() * groups / (groups - 1))


def _weighted(drawn, weights):
    """Weigh drawn means into one estimate a draw, without the draws that lack a cell in use."""
    import numpy as np

    in_use = weights != 0
    estimates = drawn[:, in_use] @ weights[in_use]
    return estimates[np.isfinite(estimates)]


def _bounds(weights, lowest: float) -> tuple[float, float]:
    """Return the least and the largest estimate that values from `lowest` to 1 allow."""
    plus = float(weights.clip(min=0).sum())
    minus = float(weights.clip(max=0).sum())
    return round(minus + lowest * plus, 12), round(plus + lowest * minus, 12)  # six sixths are one


def agreement_margin(weights, groups_a_cell, groups: int) -> float:
    """Return how far the truth may lie from an estimate whose groups all agree: nothing to draw.

    Wilson's interval of n questions answered alike is z² / (n + z²) wide. A mean is no surer than
    all of its groups make it, nor than the cell of fewest groups.
    """
    from scipy.stats import norm

    z_squared = norm.ppf(0.975) ** 2
    cells = abs(weights) * z_squared / (groups_a_cell + z_squared)
    return max(float(cells.max()), float(z_squared / (groups + z_squared)))


def bca(estimate: float, drawn, shift, groups: int) -> tuple[float, float]:
    """Return the BCa bootstrap interval (Efron 1987), widened by Student's t for few groups."""
    import numpy as np
    from scipy.stats import norm, t

    below = (drawn < estimate - NOTHING).mean()
    equal = (abs(drawn - estimate) <= NOTHING).mean()
    smallest = 1 / len(drawn)
    bias = norm.ppf(np.clip(below + equal / 2, smallest, 1 - smallest))
    bend = acceleration(shift)
    widening = math.sqrt(groups / (groups - 1))  # a bootstrap of few groups spreads too little
    reach = widening * t.ppf(0.975, groups - 1)
    levels = []
    for z in (bias - reach, bias + reach):
        levels.append(norm.cdf(bias + z / (1 - bend * z)))
    low, high = np.quantile(drawn, levels)
    return float(low), float(high)


def acceleration(shift) -> float:
    """Return how the standard error changes with the estimate, from the shifts of the groups."""
    return float((shift**3).sum() / (6 * (shift**2).sum() ** 1.5))


def task_means(records: Records, **options) -> list[tuple]:
    """Pair each cell, and last the mean over choices, with its records and its interval."""
    import numpy as np

    cells, sums, counts = cluster_sums(records)
    groups = by_cell(records)
    weights = list(np.eye(len(cells)))
    choices = [cell for cell in cells if cell[0] != "route"]
    if choices:
        weights.append([(cell in choices) / len(choices) for cell in cells])
        groups[MEAN, ""] = [r for r in records if r["task"] != "route"]
    return list(zip(groups, groups.values(), intervals(sums, counts, weights, **options)))
