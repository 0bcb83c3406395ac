"""What a table shows, said in plain words, and what its columns mean."""

from collections.abc import Mapping, Sequence

from stlite.eval.statistics import FEW, FEWEST

GLOSSARY = {
    "n": "questions",
    "groups": "groups: videos cut from one recording; intervals go by them, not by questions; "
    f"fewer than {FEW} make an interval rough, fewer than {FEWEST} give none",
    "accuracy": "right answers, in per cent; in a mean each task and way counts the same",
    "low": "low and high: the 95 % interval, by group; empty where it cannot be estimated",
    "wilson_low": "wilson_low, wilson_high: the interval if every question were its own group",
    "chance": "what guessing scores",
    "chance_adjusted": "accuracy stretched so that guessing is 0 and all right is 100",
    "unparsed": "replies without one clear answer, counted as wrong",
    "truncated": "replies cut before they ended, counted as wrong",
    "failed": "questions without a reply, as about unreadable videos, counted as wrong",
    "min_detectable": "the smallest true difference that 80 % of such comparisons would notice",
    "gap": "forward minus reverse accuracy, in points",
    "paired": "questions that this run and the first were both asked",
    "baseline": "accuracy of the first run on the questions of both",
    "compared": "accuracy of this run on the questions of both",
    "difference": "this run minus the first, in points, on the questions of both",
    "from": "from and to: the 95 % interval of the difference, by group",
    "gained": "gained and lost: answers that became right, and that became wrong",
    "mcnemar": "p of the change, by question, as if each were its own group",
    "p": "the chance of such a difference if nothing differed: mcnemar or, if larger, by group",
    "holm": "p corrected for the number of tasks compared (Holm)",
    "other way": "replies that think in the opposite direction first",
    "same way": "replies that think in the asked direction first",
}


def glossary(tables: Mapping[str, Sequence[Mapping]]) -> dict[str, str]:
    """Return the meaning of the columns that stand in these tables."""
    columns = {name for rows in tables.values() for row in rows for name in row}
    return {name: meaning for name, meaning in GLOSSARY.items() if name in columns}


def percent(row: Mapping) -> str:
    """Write an accuracy with its interval, where it has one.

    >>> percent({"accuracy": 0.728, "low": 0.678, "high": 0.775})
    '72.8 % [67.8, 77.5]'
    """
    if row["low"] is None:
        return f"{100 * row['accuracy']:.1f} %"
    return f"{100 * row['accuracy']:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def too_few(groups: int) -> str:
    """Say why there is no interval.

    >>> too_few(2)
    '2 groups are too few for an interval (at least 5, and 2 for each task)'
    >>> too_few(30)
    'One task has too few groups for an interval of the mean (at least 2)'
    """
    if groups >= FEWEST:
        return "One task has too few groups for an interval of the mean (at least 2)"
    noun = "1 group is" if groups == 1 else f"{groups} groups are"
    return f"{noun} too few for an interval (at least {FEWEST}, and 2 for each task)"


def run_sentence(name: str, row: Mapping) -> str:
    """Say what a run scores, from the last row of its accuracy table."""
    if row["chance"] is None:
        return f"{name} scores {percent(row)} on {row['n']} route questions."
    guessing = f"guessing scores {100 * row['chance']:.1f} %"
    return f"{name} answers {percent(row)} of {row['n']} choice questions right; {guessing}."


def doubts(row: Mapping) -> list[str]:
    """Say what could not be estimated, and how large a difference must be to show."""
    if row["low"] is None:
        return [f"{too_few(row['groups'])}."]
    if row["min_detectable"] is None:
        return [
            "All groups score the same, so no standard error can be estimated, nor how much "
            "another run must differ to be told apart."
        ]
    points = 100 * row["min_detectable"]
    size = f"Another run of this size must differ by {points:.1f} points to be told apart."
    return [size, *rough(row["groups"])]


def rough(groups: int) -> list[str]:
    """Warn of an interval from few groups."""
    if groups >= FEW:
        return []
    return [
        f"{groups} groups are few: such intervals hold the truth less often than in 95 of 100 runs "
        "(benchmarks/coverage.py)."
    ]


def difference_doubts(row: Mapping) -> list[str]:
    """Say what could not be estimated of a difference."""
    if row["low"] is None:
        return []
    if row["min_detectable"] is not None:
        return rough(row["groups"])
    return [
        "All groups change by the same, so no standard error can be estimated: p and "
        "min_detectable are empty where they would need it."
    ]


def losses(row: Mapping) -> str:
    """Say how many replies had no answer."""
    shares = [f"{name} {100 * row[name]:.1f} %" for name in ("unparsed", "truncated", "failed")]
    return f"Counted as wrong: {', '.join(shares)}."


def difference_sentence(first: str, second: str, row: Mapping) -> str:
    """Say how a run differs from the first, from a row of paired differences.

    >>> row = {"difference": 0.122, "low": 0.059, "high": 0.19, "n": 288, "groups": 64}
    >>> difference_sentence("base", "st-r1", row | {"baseline": 0.589, "accuracy": 0.711})[:59]
    'st-r1 answers 12.2 points more [5.9, 19.0] than base: 71.1 '
    """
    points = 100 * row["difference"]
    amount = f"{abs(points):.1f} points {'less' if points < 0 else 'more'}"
    if abs(points) < 0.05:
        amount = "as much"
    interval = ""
    doubt = ""
    if row["low"] is None:
        doubt = f" {too_few(row['groups'])}: this may be chance."
    else:
        ends = sorted(_ends(row))
        interval = f" [{ends[0]:.1f}, {ends[1]:.1f}]"
        if row["low"] <= 0 <= row["high"]:
            doubt = " This may be chance."
    than = "as" if amount == "as much" else "than"
    accuracies = f"{100 * row['accuracy']:.1f} % against {100 * row['baseline']:.1f} %"
    where = f"on {row['n']} questions of {row['groups']} groups"
    return f"{second} answers {amount}{interval} {than} {first}: {accuracies}, {where}.{doubt}"


def _ends(row: Mapping) -> tuple[float, float]:
    """Return the ends of the interval in points, turned round where the sentence says "less"."""
    sign = -100 if row["difference"] < 0 else 100
    return sign * row["low"], sign * row["high"]
