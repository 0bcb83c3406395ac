"""What runs show, gathered: {"title", "notes": [text], "tables": {name: rows}}, for `render`."""

from collections.abc import Mapping

from stlite.eval.comparisons import compare_runs, compare_to_baseline
from stlite.eval.metrics import accuracy_table, forward_reverse_gap, routes, shortcuts, thinking
from stlite.eval.render import cell
from stlite.eval.statistics import MEAN, Records

HEADLINE = (
    "Mean of choices {accuracy} % [{low}, {high}] on {n} questions of {groups} groups, chance {chance} %. "
    "Unparsed {unparsed} %, truncated {truncated} %, failed {failed} %, all counted as wrong. "
    "Another run of this size must differ by {min_detectable} points to be told apart."
)


def summary(
    records: Records, title: str = "run", others: Mapping[str, Records] | None = None
) -> dict:
    """Gather what a run shows, with `others` beside it."""
    tables = {
        "Accuracy": accuracy_table(records),
        "Forward minus reverse": forward_reverse_gap(records),
        "Routes": routes(records),
        "Thinking first": thinking(records),
        "Without looking": shortcuts(records),
        "Beside it": compare_to_baseline({title: records, **others}) if others else [],
    }
    notes = []
    last = tables["Accuracy"][-1]
    if last["task"] == MEAN:
        notes.append(HEADLINE.format(**{name: cell(name, value) for name, value in last.items()}))
    tables = {name: rows for name, rows in tables.items() if rows}
    return {"title": title, "notes": notes, "tables": tables}


def report(runs: Mapping[str, Records]) -> dict:
    """Report on runs by name; of two or more, also on how each differs from the first."""
    (first, records), *others = runs.items()
    if not others:
        return summary(records, first)
    reports = [summary(records, first, dict(others))]
    reports += [summary(rows, name) for name, rows in others]
    reports += [compare_runs(records, rows, (first, name)) for name, rows in others]
    return merge_reports(*reports)


def merge_reports(*reports: dict) -> dict:
    """Put several reports into one."""
    tables = {}
    notes = []
    for part in reports:
        notes += [f"{part['title']}: {note}" for note in part["notes"]]
        for name, rows in part["tables"].items():
            tables[f"{part['title']}: {name}"] = rows
    return {
        "title": " · ".join(part["title"] for part in reports),
        "notes": notes,
        "tables": tables,
    }
