"""Means of records per task and way, with 95 % intervals that know which recording a question comes from.

>>> rows = [{"task": "action", "way": "forward", "group": str(i), "value": i % 2} for i in range(50)]
>>> {name: round(value, 2) for name, value in intervals(*cluster_sums(rows)[1:], [[1.0]])[0].items()}
{'estimate': 0.5, 'low': 0.36, 'high': 0.64, 'se': 0.07, 'groups': 50}
"""

from collections.abc import Iterable, Sequence

from stlite.data.sample import TASKS, WAYS

Records = Sequence[dict]
DRAWS = 2000
MEAN = "mean of choices"


def by_cell(records: Iterable[dict]) -> dict[tuple[str, str], list[dict]]:
    """Sort records into cells (task, way), in the order of TASKS and WAYS."""
    cells = {(task, way): [] for task in TASKS for way in WAYS}
    for r in records:
        cells[r["task"], r["way"]].append(r)
    return {cell: found for cell, found in cells.items() if found}


def cluster_sums(records: Records) -> tuple:
    """Add values up: the cells (task, way), then sums and counts of shape (recordings, cells)."""
    import numpy as np

    if not records:
        raise ValueError("records: expected at least one record, found none")
    cells = list(by_cell(records))
    column = {cell: i for i, cell in enumerate(cells)}
    row = {name: i for i, name in enumerate(sorted({r["group"] for r in records}))}
    flat = np.array([row[r["group"]] * len(cells) + column[r["task"], r["way"]] for r in records])
    sums, counts = (
        np.bincount(flat, w, len(row) * len(cells)) for w in ([r["value"] for r in records], None)
    )
    return cells, sums.reshape(len(row), -1), counts.reshape(len(row), -1).astype(float)


def intervals(
    sums, counts, contrasts, lowest: float = 0.0, draws: int = DRAWS, seed: int = 0
) -> list[dict]:
    """Estimate sums of cell means weighted by the rows of `contrasts`, with 95 % intervals by recording.

    Whole recordings are drawn with replacement, which keeps what is paired inside them paired; `lowest` is the least
    value a record can have. Each result holds estimate, low, high, se, and the recordings that bear on it.
    """
    import numpy as np

    contrasts, found = np.asarray(contrasts, float), []
    means = sums.sum(0) / counts.sum(0)
    rng, size, both = np.random.default_rng(seed), len(sums), np.hstack([sums, counts])
    parts = [np.bincount(rng.integers(0, size, size), minlength=size) @ both for _ in range(draws)]
    top, total = np.split(np.array(parts), 2, axis=1)
    drawn = np.divide(top, total, out=np.zeros_like(total), where=total > 0) @ contrasts.T
    drawn[(total == 0) @ (contrasts != 0).T] = np.nan  # a draw that leaves a cell empty
    influence = (sums - means * counts) / counts.sum(0) @ contrasts.T
    for weights, column, pull in zip(contrasts, drawn.T, influence.T):
        used = int(counts[:, weights != 0].any(1).sum())
        plus, minus = weights.clip(min=0).sum(), weights.clip(max=0).sum()
        bounds = (minus + lowest * plus, plus + lowest * minus)
        low, high = _interval(weights @ means, column[np.isfinite(column)], pull, used, bounds)
        se = float(np.sqrt((pull**2).sum() * used / max(used - 1, 1)))
        found.append(
            {
                "estimate": float(weights @ means),
                "low": low,
                "high": high,
                "se": se,
                "groups": used,
            }
        )
    return found


def _interval(
    estimate: float, drawn, pull, used: int, bounds: tuple[float, float]
) -> tuple[float, float]:
    """BCa bootstrap interval (Efron 1987), its levels widened by Student's t because recordings may be few.

    Recordings that all agree give the bootstrap nothing to draw: then the Wilson margin of so many questions.
    """
    import numpy as np
    from scipy.stats import norm, t

    if used < 2 or not len(drawn):
        return bounds
    if np.abs(pull).max() < 1e-12:
        margin = norm.ppf(0.975) ** 2 / (used + norm.ppf(0.975) ** 2)
        return max(bounds[0], estimate - margin), min(bounds[1], estimate + margin)
    z = np.sqrt(used / (used - 1)) * t.ppf(0.975, used - 1) * np.array([-1, 1])
    below = (drawn < estimate - 1e-12).mean() + (np.abs(drawn - estimate) <= 1e-12).mean() / 2
    bias = norm.ppf(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn)))
    bend = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5)
    low, high = np.quantile(drawn, norm.cdf(bias + (bias + z) / (1 - bend * (bias + z))))
    return float(low), float(high)


def task_means(records: Records, **options) -> list[tuple]:
    """Pair each cell, and last the mean over the cells of choices, with its records and its interval."""
    cells, sums, counts = cluster_sums(records)
    groups, choice = by_cell(records), [cell for cell in cells if cell[0] != "route"]
    weights = [[float(cell == other) for other in cells] for cell in cells]
    if choice:
        weights.append([(cell in choice) / len(choice) for cell in cells])
        groups[MEAN, ""] = [r for cell in choice for r in groups[cell]]
    return list(zip(groups, groups.values(), intervals(sums, counts, weights, **options)))
