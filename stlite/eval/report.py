"""What runs show, gathered for `render`: headline, where the numbers come from, tables, glossary.

report({"base": "runs/base", "st-r1": "runs/st-r1"})
{"title": "base · st-r1", "headline": "st-r1 answers 12.2 points more [5.9, 19.0] than base: ...",
 "notes": [...], "glossary": {"accuracy": ...}, "tables": {"base: Accuracy": [...], "Runs": [...]}}
"""

import os
from collections.abc import Mapping
from pathlib import Path

from stlite.eval.comparisons import compare_runs, compare_to_baseline
from stlite.eval.metrics import (
    accuracy_table,
    choices_of,
    forward_reverse_gap,
    routes,
    shortcuts,
    thinking,
)
from stlite.eval.records import read_records
from stlite.eval.run_folder import origin, records_path
from stlite.eval.sentences import doubts, glossary, losses, run_sentence
from stlite.eval.statistics import Records

Run = Records | str | os.PathLike
DIRECT = "direct"  # the folder of a run's answers without thinking
UNKNOWN = (
    "date, model, seed, command and versions are not known: give the run's folder to have them here"
)


def summary(records: Records, title: str = "run") -> dict:
    """Gather what one run shows."""
    tables = {
        "Accuracy": accuracy_table(records),
        "Forward minus reverse": forward_reverse_gap(records),
        "Routes": routes(records),
        "Thinking first": thinking(records),
        "Without looking": shortcuts(records),
    }
    tables = {name: rows for name, rows in tables.items() if rows}
    last = tables["Accuracy"][-1]
    return {
        "title": title,
        "headline": run_sentence(title, last),
        "notes": [losses(last), *doubts(last)],
        "tables": tables,
        "glossary": glossary(tables),
    }


def report(runs: Mapping[str, Run] | Run, *others: Run) -> dict:
    """Report on runs; of two or more, also on how each differs from the first.

    The headline sets the last run against the first. A run is a folder, a file of records, or
    records. `runs` may name them: {"base": "runs/base"}.
    """
    named = dict(runs) if isinstance(runs, Mapping) else _named([runs, *others])
    if not named:
        raise ValueError("report: expected at least one run, found none")
    records = {}
    origins = []
    parts = []
    for name, run in named.items():
        records[name] = _records(run)
        origins.append(f"{name}: {_origin(run)}")
        parts.append(summary(records[name], name))
    first, *rest = records
    for name in rest:
        parts.append(compare_runs(records[first], records[name], (first, name)))
    direct_notes, direct_rows = direct_answers(named)
    origins = direct_notes + origins
    if not rest:
        tables = parts[0]["tables"] | direct_rows
        notes = [*parts[0]["notes"], *origins]
        return parts[0] | {"notes": notes, "tables": tables, "glossary": glossary(tables)}
    gathered = merge_reports(*parts)
    gathered["headline"] = parts[-1]["headline"]  # the last run against the first
    gathered["notes"].remove(gathered["headline"])
    gathered["notes"] += origins
    if all(choices_of(rows) for rows in records.values()):
        gathered["tables"]["Runs"] = compare_to_baseline(records)
    gathered["tables"] |= direct_rows
    gathered["title"] = " · ".join(records)
    gathered["glossary"] = glossary(gathered["tables"])
    return gathered


def direct_answers(runs: Mapping[str, Run]) -> tuple[list[str], dict]:
    """Set each run's thinking beside its answers without: sentences, and a table where there are any.

    Answers without thinking are records in the folder "direct" of a run's folder, as
    `conditions.direct_answer` and `stlite evaluate --direct` write them.
    """
    sentences = []
    rows = []
    for name, run in runs.items():
        if not _is_path(run) or not records_path(Path(run) / DIRECT).is_file():
            continue
        without = f"{name}, without thinking"
        direct = choices_of(read_records(Path(run) / DIRECT))
        thinking_records = choices_of(read_records(run))
        if not direct or not thinking_records:
            continue
        compared = compare_runs(direct, thinking_records, (without, name))
        sentences.append(compared["headline"])
        rows += compare_to_baseline({without: direct, name: thinking_records})
    return sentences, {"With and without thinking": rows} if rows else {}


def merge_reports(*parts: dict) -> dict:
    """Put several reports into one; the headlines of all become its first notes."""
    tables = {}
    headlines = []
    notes = []
    for part in parts:
        title = part["title"]
        if part.get("headline"):
            headlines.append(part["headline"])
        notes += [f"{title}: {note}" for note in part["notes"]]
        for name, rows in part["tables"].items():
            tables[f"{title}: {name}"] = rows
    return {
        "title": " · ".join(part["title"] for part in parts),
        "notes": headlines + notes,
        "tables": tables,
        "glossary": glossary(tables),
    }


def _named(runs: list[Run]) -> dict[str, Run]:
    """Name runs by their folders, or by their whole paths where two folders are called the same."""
    paths = []
    for number, run in enumerate(runs, 1):
        paths.append(str(run) if _is_path(run) else f"run {number}")
    names = [Path(path).name for path in paths]
    if len(set(names)) < len(names):
        names = paths
    return dict(zip(names, runs))


def _is_path(run: Run) -> bool:
    return isinstance(run, (str, os.PathLike))


def _records(run: Run) -> Records:
    """Return the records of a run."""
    return read_records(run) if _is_path(run) else list(run)


def _origin(run: Run) -> str:
    """Say where the records of a run come from."""
    return origin(run) if _is_path(run) else UNKNOWN
