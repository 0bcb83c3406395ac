"""Records of one run → tables: accuracy, forward minus reverse, routes, thinking, shortcuts.

task             way      n    groups  accuracy  low   high  wilson_low  wilson_high  chance  ...
direction        forward  60   60      71.7      58.3  83.3  59.2        81.5         25.0
mean of choices           360  60      72.8      67.8  77.5                           25.0
"""

import math
import random
from collections import defaultdict
from collections.abc import Collection, Iterable
from statistics import fmean

from stlite.data.sample import TASKS, WAYS, Sample
from stlite.eval import shortcuts as without_video
from stlite.eval.statistics import MEAN, Records, by_cell, cluster_sums, intervals, task_means
from stlite.rewards.parse import parse

LARGE = (
    4000  # questions; shortcuts are tried on no more: their classifier takes a second for so many
)
POWER = 2.8  # standard errors that 80 % of runs show at the 5 % level: 1.96 + 0.84
REASONS = {  # column: the reasons it counts, all of value 0
    "unparsed": ("ambiguous", "unreadable", "absent"),
    "truncated": ("truncated",),
    "failed": ("failed",),
}


def accuracy_table(records: Records) -> list[dict]:
    """Return accuracy, chance and what went wrong by task and way, then of the mean over choices.

    In the mean every task and way counts the same, in all columns. `min_detectable` is the
    difference from another run of this size that 80 % of such runs would show (5 % level). None:
    it cannot be estimated.
    """
    rows = []
    for (task, way), group, estimate in task_means(records):
        accuracy = estimate["estimate"]
        choices = [row for row in rows if row["task"] != "route"]
        chance = _chance(task, group, choices)
        row = {"task": task, "way": way, "n": len(group), "groups": estimate["groups"]}
        row |= {"accuracy": accuracy, "low": estimate["low"], "high": estimate["high"]}
        row |= _wilson(task, group)
        row |= {"chance": chance, "chance_adjusted": _chance_adjusted(accuracy, chance)}
        for name, reasons in REASONS.items():
            row[name] = _share(group, reasons)
            if task == MEAN:
                row[name] = fmean(cell[name] for cell in choices)
        rows.append(row | {"min_detectable": min_detectable(estimate["se"], runs=2)})
    return rows


def min_detectable(se: float | None, runs: int = 1) -> float | None:
    """Return the difference that 80 % of runs would show, from the standard error of each."""
    return None if se is None else POWER * math.sqrt(runs) * se


def _share(records: Records, reasons: Collection[str]) -> float:
    """Return the share of records with one of these reasons."""
    return sum(r["reason"] in reasons for r in records) / len(records)


def _chance(task: str, records: Records, choices: list[dict]) -> float | None:
    """Return what guessing scores; None for a route."""
    if task == "route":
        return None
    if task == MEAN:
        return fmean(row["chance"] for row in choices)
    return fmean(1 / len(r["options"]) for r in records)


def _chance_adjusted(accuracy: float, chance: float | None) -> float | None:
    """Stretch accuracy so that guessing is 0 and all right is 1."""
    if chance is None or chance == 1:
        return None
    return (accuracy - chance) / (1 - chance)


def _wilson(task: str, records: Records) -> dict[str, float | None]:
    """Return Wilson's interval, which knows no groups; None but for one task of choices."""
    from statsmodels.stats.proportion import proportion_confint

    if task in ("route", MEAN):
        return {"wilson_low": None, "wilson_high": None}
    right = sum(r["value"] for r in records)
    low, high = proportion_confint(right, len(records), method="wilson")
    return {"wilson_low": float(low), "wilson_high": float(high)}


def accuracy_by_task(records: Records) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Give each task and way its (accuracy, low, high), for pictures; NaN without an interval."""
    cells = {}
    for row in accuracy_table(records):
        if row["task"] != MEAN:
            low = math.nan if row["low"] is None else row["low"]
            high = math.nan if row["high"] is None else row["high"]
            cells[row["task"], row["way"]] = (row["accuracy"], low, high)
    return cells


def forward_reverse_gap(records: Records) -> list[dict]:
    """Subtract reverse from forward accuracy, by choice task and in their mean, inside groups."""
    choices = choices_of(records)
    cells = by_cell(choices)
    tasks = [task for task in TASKS if (task, WAYS[0]) in cells and (task, WAYS[1]) in cells]
    if not tasks:
        return []
    cells, sums, counts = cluster_sums(choices)
    contrasts = []
    for task in tasks:
        signs = {(task, "forward"): 1.0, (task, "reverse"): -1.0}
        contrasts.append([signs.get(cell, 0.0) for cell in cells])
    contrasts.append([fmean(column) for column in zip(*contrasts)])
    rows = []
    for task, estimate in zip([*tasks, MEAN], intervals(sums, counts, contrasts)):
        row = {"task": task, "gap": estimate["estimate"]}
        rows.append(row | {"low": estimate["low"], "high": estimate["high"]})
    return rows


def routes(records: Records) -> list[dict]:
    """Average what route scores are made of, by way; a reply not read counts as 0."""
    rows = []
    for (task, way), group in by_cell(records).items():
        if task != "route":
            continue
        row = {"task": task, "way": way, "n": len(group)}
        for name in group[0]["route"]:
            values = [r["route"][name] for r in group if r["route"][name] is not None]
            row[name] = fmean(values) if values else None
        rows.append(row)
    return rows


def thinking(records: Iterable[dict]) -> list[dict]:
    """Say how many replies think the other way first (paper section 3), or the way asked."""
    thought_by_way = defaultdict(list)
    for r in choices_of(records):
        if "thought" in r:
            thought = r["thought"]
        else:
            thought = parse(r["reply"], r.get("thinking_opened")).way
        thought_by_way[r["way"]].append(thought)
    rows = []
    for way, thoughts in thought_by_way.items():
        n = len(thoughts)
        same = thoughts.count(way) / n
        none = thoughts.count("") / n
        rows.append({"way": way, "n": n, "other way": 1 - same - none, "same way": same})
    return rows


def shortcuts(records: Records) -> list[dict]:
    """Score answers that need no video on a run's questions, or on whole groups of a large one."""
    groups = defaultdict(list)
    for r in choices_of(records):
        groups[r["group"]].append(r)
    samples = []
    for name in random.Random(0).sample(sorted(groups), len(groups)):
        if len(samples) < LARGE:
            samples += [_sample(r) for r in groups[name]]
    return without_video.shortcuts(samples)


def _sample(r: dict) -> Sample:
    """Make the sample of a record again, but for the words of its question."""
    names = ("id", "video", "task", "way", "group", "options")
    return Sample(question="-", answer=r["gold"], **{name: r[name] for name in names})


def choices_of(records: Iterable[dict]) -> list[dict]:
    """Keep the records of choice questions."""
    return [r for r in records if r["kind"] == "choice"]
