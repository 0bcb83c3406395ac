"""Two runs on the same questions, compared question by question."""

from collections.abc import Mapping, Sequence

from stlite.eval.metrics import accuracy_table, choices_of, min_detectable
from stlite.eval.sentences import difference_doubts, difference_sentence, glossary
from stlite.eval.statistics import MEAN, Records, cell_means, task_means

Pairs = Sequence[tuple[dict, dict]]
PAIRED_COLUMNS = {  # of `compare_to_baseline`: those of `paired_differences`
    "paired": "n",
    "baseline": "baseline",
    "compared": "accuracy",
    "difference": "difference",
    "from": "low",
    "to": "high",
    "p": "p",
    "min_detectable": "min_detectable",
}


def compare_runs(a: Records, b: Records, names: Sequence[str] = ("a", "b")) -> dict:
    """Report how `b` differs from `a` on the questions of both, and which answers changed.

    Runs without a common question, or with other answers or options under one id, raise
    ValueError.
    """
    pairs = paired(a, b)
    only_a = len(a) - len(pairs)
    only_b = len(b) - len(pairs)
    note = (
        f"{names[1]} minus {names[0]}: {len(pairs)} questions in both, "
        f"{only_a} only in {names[0]}, {only_b} only in {names[1]}."
    )
    tables = {"Difference": paired_differences(pairs), "Flips": flips(pairs)}
    last = tables["Difference"][-1]
    return {
        "title": " and ".join(names),
        "headline": difference_sentence(*names, last),
        "notes": [note, *difference_doubts(last)],
        "tables": tables,
        "glossary": glossary(tables),
    }


def paired(a: Records, b: Records) -> list[tuple[dict, dict]]:
    """Pair the records of the questions that both runs were asked."""
    second = {r["id"]: r for r in b}
    pairs = []
    for r in a:
        other = second.get(r["id"])
        if other is None:
            continue
        if r["gold"] != other["gold"] or list(r["options"]) != list(other["options"]):
            raise ValueError(
                f"compare: expected one question under the id {r['id']!r}, "
                "found other answers or options"
            )
        pairs.append((r, other))
    if not pairs:
        raise ValueError("compare: expected some id in both runs, found none")
    return pairs


def flips(pairs: Pairs) -> list[dict]:
    """List the questions whose value changed."""
    rows = []
    for before, after in pairs:
        if before["value"] == after["value"]:
            continue
        row = {name: before[name] for name in ("id", "task", "way", "gold")}
        row |= {"before": before["answer"], "after": after["answer"]}
        rows.append(row | {"change": f"{before['reason']} to {after['reason']}"})
    return rows


def paired_differences(pairs: Pairs) -> list[dict]:
    """Return second minus first by task and way, then their mean, with both accuracies.

    `p` is the larger of the exact McNemar test's, which knows no groups, and that of the t-test
    over groups; `holm` is p corrected for the number of tasks. None: it cannot be estimated.
    """
    changes = []
    for before, after in pairs:
        changes.append(before | {"value": after["value"] - before["value"]})
    baselines = cell_means([before for before, _ in pairs])
    rows = []
    for (task, way), group, estimate in task_means(changes, lowest=-1.0):
        gained = sum(r["value"] > 0 for r in group)
        lost = sum(r["value"] < 0 for r in group)
        exact = None if task == "route" else mcnemar_p(gained, lost)
        first = baselines[task, way]
        row = {"task": task, "way": way, "n": len(group), "groups": estimate["groups"]}
        row |= {"baseline": first, "accuracy": first + estimate["estimate"]}
        row |= {"difference": estimate["estimate"]}
        row |= {"low": estimate["low"], "high": estimate["high"], "gained": gained, "lost": lost}
        row |= {"mcnemar": exact, "p": larger_p(exact, clustered_p(estimate))}
        rows.append(row | {"min_detectable": min_detectable(estimate["se"])})
    add_holm(rows)
    return rows


def mcnemar_p(gained: int, lost: int) -> float:
    """Return the exact two-sided p of so many answers that became right and wrong."""
    from statsmodels.stats.contingency_tables import mcnemar

    return float(mcnemar([[0, lost], [gained, 0]], exact=True).pvalue)


def clustered_p(estimate: dict) -> float | None:
    """Return the two-sided p of a t-test over groups; None without a standard error."""
    from scipy.stats import t

    if estimate["se"] is None:
        return None
    return float(2 * t.sf(abs(estimate["estimate"]) / estimate["se"], estimate["groups"] - 1))


def larger_p(exact: float | None, clustered: float | None) -> float | None:
    """Return the p that claims less; None without a test over groups, unless it is 1.

    >>> larger_p(0.03, 0.07), larger_p(None, 0.07), larger_p(0.03, None), larger_p(1.0, None)
    (0.07, 0.07, None, 1.0)
    """
    if exact == 1.0:
        return 1.0
    if clustered is None:
        return None
    return max(clustered, exact or 0.0)


def add_holm(rows: list[dict]) -> None:
    """Add to each task's row its p, corrected by Holm's method for the number of tasks tested."""
    from statsmodels.stats.multitest import multipletests

    tasks = [row for row in rows if row["task"] != MEAN]
    tested = [row for row in tasks if row["p"] is not None]
    for row in tasks:
        row["holm"] = None
    corrected = multipletests([row["p"] for row in tested], method="holm")[1]
    for row, p in zip(tested, corrected):
        row["holm"] = float(p)


def compare_to_baseline(runs: Mapping[str, Records]) -> list[dict]:
    """Set the mean of choices of runs side by side, with the paired difference from the first.

    `accuracy` is over all questions of a run; `baseline`, `compared` and `difference` are over
    those that the first run was asked too.
    """
    first = None
    rows = []
    for name, records in runs.items():
        choices = choices_of(records)
        mean = accuracy_table(choices)[-1]
        row = {"run": name}
        for column in ("n", "accuracy", "low", "high", "chance", "unparsed", "failed"):
            row[column] = mean[column]
        change = {} if first is None else paired_differences(paired(first, choices))[-1]
        for column, source in PAIRED_COLUMNS.items():
            row[column] = change.get(source)
        rows.append(row)
        first = first or choices
    return rows
