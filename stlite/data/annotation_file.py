"""Annotation files as they are written: a row a film, saved after every change, and merged.

    video,direction,direction_reverse,direction_moments
    kitchen.mp4,turn left; go straight,turn around; go straight; turn right,2.5; 7.0

`annotations` reads the same files as samples.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from stlite.data import tables
from stlite.data.annotation_cells import (
    COLUMNS,
    from_cells,
    is_empty,
    to_cells,
)
from stlite.data.sample import write_bytes, write_text

MARKS = re.compile(r"[,;\t|]")  # between the cells of a line
SUFFIXES = (".csv", ".jsonl")  # what can be written

# ---- rows


def annotation_path(path) -> Path:
    """Return the path of a table that can be written. Raises ValueError for another kind.

    >>> annotation_path("walks.xlsx")
    Traceback (most recent call last):
    ValueError: expected a table named .csv or .jsonl, found walks.xlsx; save it as CSV UTF-8 first
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES or path.is_dir():
        expected = "expected a table named .csv or .jsonl"
        raise ValueError(f"{expected}, found {path.name}; save it as CSV UTF-8 first")
    return path


def read_table(path) -> tuple[list[dict[str, str]], list[str]]:
    """Read the rows of a file, and say which cannot be read and why.

    Read as `annotations` does; or line by line, if that saves more rows or columns of another's.
    """
    path = Path(path)
    if _is_blank(path):
        return [], []
    errors = []
    rows = []
    for _, row in tables.read_table(path, COLUMNS, errors):
        if row.get("video"):
            rows.append(_as_cells(row))
    if not errors or (not rows and _is_header_alone(path)):
        return rows, []
    plain, faults = _read_lines(path)
    if len(plain) > len(rows):
        return plain, faults
    return rows, [str(error) for error in errors]


def _is_blank(path) -> bool:
    return not Path(path).exists() or not Path(path).stat().st_size


def _is_header_alone(path: Path) -> bool:
    with _opened(path) as file:
        return _names_columns(file.readline()) and not file.read().strip()


def _opened(path: Path):
    return path.open(encoding="utf-8-sig", errors="replace")


def _names_columns(line: str) -> bool:
    cells = MARKS.split(line.lower())
    return "video" in (cell.strip(' "\n') for cell in cells)


def _read_lines(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return [], [f"{path.name}: expected text in UTF-8, found byte {error.start} that is not"]
    lines = text.splitlines(keepends=True)
    read = _json_rows if path.suffix.lower() == ".jsonl" else _csv_rows
    rows = []
    faults = []
    for number, row in read(lines):
        if isinstance(row, str):
            faults.append(f"{path.name}:{number}: {row}")
        else:
            rows.append(row)
    return rows, faults


def _csv_rows(lines: list[str]) -> Iterator[tuple[int, dict | str]]:
    """Yield (line number, cells or what is wrong); a broken line does not hide those after it."""
    header = None
    for number, cells in _records(lines):
        if isinstance(cells, str):
            yield number, cells
        elif header is None:
            header = [cell.strip() for cell in cells]
            if "video" not in header:
                yield number, f"expected a header with the column video, found {header}"
                return
        elif len(cells) != len(header):
            yield number, f"expected {len(header)} cells, found {len(cells)}"
        else:
            yield number, dict(zip(header, (cell.strip() for cell in cells)))


def _records(lines: list[str]) -> Iterator[tuple[int, list[str] | str]]:
    """Yield (line number, cells) of each record; a quote never closed ends with its line."""
    at = 0
    while at < len(lines):
        reader = csv.reader(lines[at:], strict=True)
        try:
            cells = next(reader)
        except csv.Error as error:
            yield at + 1, f"not a line of CSV ({error})"
            at += 1
            continue
        if cells:
            yield at + 1, cells
        at += reader.line_num


def _json_rows(lines: list[str]) -> Iterator[tuple[int, dict | str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            yield number, _as_cells({"video": row["video"], **row})
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            yield number, "expected a JSON object with the text video"


def _as_cells(row: dict) -> dict[str, str]:
    """Return a row's values as text; lists as JSON."""
    cells = {}
    for name, value in row.items():
        if isinstance(value, list):
            value = json.dumps(value, ensure_ascii=False)
        cells[name] = "" if value is None else str(value)
    return cells


def write_table(path, rows: Sequence[dict[str, str]]) -> Path:
    """Write rows as CSV or JSONL, atomically. Raises OSError, for a file marked read-only too."""
    path = Path(path)
    if path.exists() and not path.stat().st_mode & 0o222:
        raise PermissionError(f"{path.name} is read-only")
    if path.suffix.lower() == ".jsonl":
        lines = [json.dumps(_full(row), ensure_ascii=False) + "\n" for row in rows]
        return write_text(path, "".join(lines))
    header = list(dict.fromkeys(chain(COLUMNS, *rows)))
    file = io.StringIO()
    writer = csv.DictWriter(file, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_text(path, file.getvalue())


def keys_of(rows: Sequence[dict]) -> list[str]:
    """Name each row by its video, its id, and how many rows before it say the same."""
    met = Counter()
    keys = []
    for row in rows:
        name = (row["video"], row.get("id", ""))
        keys.append(json.dumps([*name, met[name]]))
        met[name] += 1
    return keys


@contextmanager
def locked(path):
    """Keep other writers of a file waiting; a killed process lets go by itself."""
    try:
        import fcntl
    except ImportError:  # Windows: writes stay atomic, two at once are not kept apart
        yield
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# ---- walks on disk


def drafts_path(path) -> Path:
    """Return the file beside an annotation file that holds what its cells cannot say yet."""
    return Path(path).with_suffix(".unfinished.json")


def read_drafts(path) -> dict[str, dict]:
    """Read the unfinished walks by their rows' keys."""
    with suppress(OSError, ValueError):
        drafts = json.loads(drafts_path(path).read_text("utf-8"))
        if isinstance(drafts, dict):
            return drafts
    return {}


def read_walks(path) -> tuple[list[dict], list[dict[str, str]], list[str]]:
    """Read an annotation file: its walks, their rows as they are, and what could not be read."""
    rows, notes = read_table(path)
    drafts = read_drafts(path)
    walks = []
    for key, row in zip(keys_of(rows), rows):
        walk, doubts = from_cells(row)
        draft = drafts.get(key, {})
        if _full(row) in draft.get("cells", ()):  # the row is as it was when the draft was made
            walk = draft["walk"]
            doubts = []
        walks.append(walk)
        notes += [f"{row['video']}: {doubt}" for doubt in doubts]
    return walks, rows, notes


def _full(row: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in row.items() if text}


def save_walk(
    path,
    key: str,
    walk: dict,
    before: dict[str, str] | None,
    known: Mapping[str, dict] | None = None,
) -> tuple[dict, str]:
    """Put one walk into its file, and leave every other row as it stands there now.

    `before` are the row's cells as last seen (None: there was no row). Returns the cells written,
    and what was done about a row that somebody else has changed meanwhile, or about lines that
    cannot be read. `known` are all rows as last seen, by their keys: they are written again where
    the file is gone or cannot be read whole. Raises OSError.
    """
    cells = to_cells(walk)
    with locked(path):
        rows, faults = read_table(path)
        faults = faults or _form_faults(path)
        told = [_set_aside(path, faults)] if faults else []
        found = dict(zip(keys_of(rows), rows))
        if known and (faults or _is_blank(path)):
            others = {name: row for name, row in known.items() if name != key}
            told += _put_back(path, found, others)
        there = found.get(key)
        if there is not None and _full(there) not in (_full(before or {}), _full(cells)):
            told.append(_keep_theirs(path, there))
        found[key] = cells
        if is_empty(walk):
            del found[key]
        _save_draft(path, key, walk, cells, there)
        write_table(path, list(found.values()))
        _forget_draft(path, key, walk, cells)
    return cells, " ".join(told)


def _put_back(path, found: dict, known: Mapping[str, dict]) -> list[str]:
    """Put rows back that went with a file that is gone or broken; say how many."""
    lost = {key: row for key, row in known.items() if key not in found}
    found |= lost
    if not lost:
        return []
    return [f"{Path(path).name} had lost {len(lost)} rows: they are written again."]


def _save_draft(path, key: str, walk: dict, cells: dict, there: dict | None):
    """Keep what the cells cannot say, before they are written: it is newer than either row."""
    if from_cells(cells)[0] == walk:
        return
    drafts = read_drafts(path)
    drafts[key] = {"cells": [_full(cells), _full(there or {})], "walk": walk}
    write_text(drafts_path(path), json.dumps(drafts, ensure_ascii=False))


def _forget_draft(path, key: str, walk: dict, cells: dict):
    drafts = read_drafts(path)
    if key not in drafts or from_cells(cells)[0] != walk:
        return
    del drafts[key]
    if drafts:
        write_text(drafts_path(path), json.dumps(drafts, ensure_ascii=False))
    else:
        drafts_path(path).unlink(missing_ok=True)


def _form_faults(path) -> list[str]:
    """Say what of a table that can be read is lost when its rows are written again."""
    path = Path(path)
    if path.suffix.lower() == ".jsonl" or _is_blank(path):
        return []
    with _opened(path) as file:
        if _names_columns(file.readline()):
            return []
    return [f"{path.name}: its first line does not name the columns; only its rows are written"]


def _set_aside(path, faults: list[str]) -> str:
    """Keep a copy of a file that cannot be read whole, before it is written again."""
    path = Path(path)
    data = path.read_bytes()
    number = 1
    while (copy := path.with_name(f"{path.stem}.unread{number}{path.suffix}")).exists():
        if copy.read_bytes() == data:
            break
        number += 1
    write_bytes(copy, [data])
    return f"{faults[0]}. The file as it was is kept as {copy.name}."


def _keep_theirs(path, row: dict) -> str:
    path = Path(path)
    other = path.with_name(f"{path.stem}.theirs{path.suffix}")
    rows, _ = read_table(other)
    write_table(other, [*rows, row])
    return f"Somebody else changed this film's row meanwhile: theirs is kept in {other.name}."
