"""Marks and notes of a reader, in a file of one line per sample.

{"id": "w7/route/reverse", "mark": "good", "note": "", "time": "2026-11-25T18:52:07+00:00"}
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from stlite.data.annotation_file import locked
from stlite.data.sample import SampleError, decode, read_lines, write_text

MARKS = ("good", "wrong gold", "bad video")


def read_marks(path) -> dict[str, dict]:
    """Read marks and notes by sample id; a bad line raises SampleError with file:line."""
    rows = {}
    if not Path(path).exists():
        return rows
    for where, line in read_lines(path):
        row = decode(line, where)
        if not _is_mark(row):
            expected = "an object with the texts id, mark and note"
            raise SampleError(where, "annotation", expected, row)
        rows[row["id"]] = row
    return rows


def _is_mark(row: object) -> bool:
    if not isinstance(row, dict):
        return False
    return all(isinstance(row.get(key), str) for key in ("id", "mark", "note"))


def mark(path, sample_id: str, **change: str) -> dict[str, dict]:
    """Change the mark or the note of a sample on disk."""
    return change_marks(path, {sample_id: change})


def change_marks(path, changes: Mapping[str, Mapping[str, str]]) -> dict[str, dict]:
    """Change marks and notes, {sample id: {"mark" or "note": text}}, on disk, atomically.

    What others wrote to the file meanwhile is kept. A sample with neither mark nor note leaves it.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with locked(path):
        rows = read_marks(path)
        for sample_id, change in changes.items():
            row = rows.get(sample_id, {"id": sample_id, "mark": "", "note": ""})
            rows[sample_id] = row | change | {"time": now}
            if not rows[sample_id]["mark"] and not rows[sample_id]["note"]:
                del rows[sample_id]
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows.values()))
    return rows
