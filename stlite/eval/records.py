"""Records: one scored reply a line, in files that are whole again after kill -9.

A line of `runs/<name>/records.jsonl`:
`{"id": "w7/direction/reverse", "task": "direction", "way": "reverse", "kind": "choice",
  "video": "w7.mp4", "group": "w7", "reply": "<think>...</think> <answer>B</answer>", "answer": "B",
  "gold": "B", "value": 1.0, "reason": "right", ...}`
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from stlite.data.sample import Sample, write_text
from stlite.data.splits import group_of
from stlite.eval.run_folder import read_run, records_path, write_run
from stlite.rewards.rewards import score
from stlite.rewards.route import compare_routes, ngrams

FROM_SAMPLE = ("id", "task", "way", "kind", "part", "video")


def record(sample: Sample, result: dict, order: str = "forward", seconds: float = 0.0) -> dict:
    """Score one result of `generate` into a record; an `error` in it makes the record a failure."""
    error = result.get("error", "")
    row = {name: getattr(sample, name) for name in FROM_SAMPLE}
    row["group"] = group_of(sample)
    row["gold"] = sample.answer
    row["options"] = list(sample.options)
    row["reply"] = result.get("reply", "")
    row |= {"answer": "", "value": 0.0, "reason": "failed", "explanation": ""}
    if not error:
        opened = result.get("thinking_opened")  # by the prompt; None where nobody said so
        row |= asdict(score(sample, result["reply"], opened))
        if opened is not None:
            row["thinking_opened"] = opened
    if sample.kind == "route":
        row["route"] = route_parts(sample.answer, row["answer"])
    row |= {"tokens": result.get("tokens", 0), "seconds": round(seconds, 4)}
    return row | {"order": order, "error": error}


def route_parts(gold: str, answer: str) -> dict[str, float | None]:
    """Say what a route's value is made of; without an answer, 0 for all that the annotation has."""
    parts = compare_routes(gold, answer or gold) | ngrams(gold, answer or gold)
    del parts["value"]
    if not answer:
        for name, value in parts.items():
            parts[name] = None if value is None else 0.0
    return parts


def read_records(run: str | os.PathLike) -> list[dict]:
    """Read the records of a run folder or a file; a last line being written does not count."""
    path = records_path(run)
    rows: dict[str, dict] = {}
    with open(path, encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                break
            row = _parse(line)
            if row is None or row["id"] in rows:
                raise ValueError(
                    f"{path}:{number}: expected a record with an id of its own, found {line[:80]!r}"
                )
            rows[row["id"]] = row
    return list(rows.values())


def _parse(line: str) -> dict | None:
    """Read one line; None where it is no record."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("id"), str):
        return None
    return row


def by_id(records: Iterable[dict]) -> dict[str, dict]:
    """Find records by their id."""
    return {r["id"]: r for r in records}


def lines_of(records: Iterable[dict]) -> str:
    """Write records as lines of JSON."""
    return "".join(json.dumps(r) + "\n" for r in records)


def append(path: Path, rows: Iterable[dict]) -> None:
    """Add records to a file, on disk when this returns.

    The text is ASCII: a reply may hold half a surrogate pair, which no UTF-8 file can.
    """
    with open(path, "ab") as file:
        file.write(lines_of(rows).encode("ascii"))
        file.flush()
        os.fsync(file.fileno())


def resume(path: Path, keys: dict[str, str], retry: bool = False) -> dict[str, dict]:
    """Return the records of the samples asked for, once a torn last line is cut off.

    `keys` hold the id and the hash of each sample: a record of another question under its id
    raises ValueError. With `retry`, failed records of these samples leave the file.
    """
    path.touch()
    whole = path.read_bytes().rfind(b"\n") + 1
    os.truncate(path, whole)
    rows = by_id(read_records(path))
    for name in keys.keys() & rows:
        if rows[name].get("key") != keys[name]:
            raise ValueError(
                f"{path}: sample {name!r} is not the one recorded here; use another run folder"
            )
    if retry:
        for name in keys.keys() & rows:
            if rows[name]["reason"] == "failed":
                del rows[name]
        write_text(path, lines_of(rows.values()))
    return {name: row for name, row in rows.items() if name in keys}


def shard(out: str | os.PathLike, rank: int, count: int) -> Path:
    """Return the run folder of one of several processes."""
    return Path(out, f"shard-{rank}-of-{count}") if count > 1 else Path(out)


def join(samples: Iterable[Sample], out: str | os.PathLike, count: int) -> bool:
    """Write the records of `count` shards as one run, once every sample has its record."""
    rows = {}
    for rank in range(count):
        path = records_path(shard(out, rank, count))
        if path.exists():
            rows |= by_id(read_records(path))
    ids = [s.id for s in samples]
    if not rows.keys() >= set(ids):
        return False
    run = read_run(shard(out, 0, count))
    run["name"] = Path(out).name
    name = run["evaluation"]["records"]
    write_text(Path(out, name), lines_of(map(rows.get, ids)))
    write_run(out, read_run(out) | run)
    return True
