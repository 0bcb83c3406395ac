"""Marks and notes of a reader, a line per sample: {"id": "w7/route/reverse", "mark": "good", "note": "", "time": …}."""

import json
from datetime import UTC, datetime
from pathlib import Path

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
    return isinstance(row, dict) and all(
        isinstance(row.get(key), str) for key in ("id", "mark", "note")
    )


def mark(path, sample_id: str, **change: str) -> dict[str, dict]:
    """Change the mark or the note of a sample on disk, atomically; what others wrote meanwhile is kept."""
    rows = read_marks(path)
    row = rows.get(sample_id, {"id": sample_id, "mark": "", "note": ""})
    rows[sample_id] = row | change | {"time": datetime.now(UTC).isoformat(timespec="seconds")}
    lines = [json.dumps(row) + "\n" for row in rows.values() if row["mark"] or row["note"]]
    write_text(path, "".join(lines))
    return rows
