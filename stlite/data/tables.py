"""Tables as people have them: CSV with any delimiter, Excel, JSON, JSONL → rows with their places.

A row is a dictionary of its columns, {"video": "kitchen.mp4", "direction": "turn left; …"}.
"""

import csv
import difflib
import io
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from stlite.data.sample import MAX_BYTES, SampleError, collect, decode

Row = tuple[str, dict]  # file:line, {column: value}

DELIMITERS = (",", ";", "\t", "|")
HEADER_ROWS = 12  # the header is looked for in as many rows: titles and remarks may precede it
ZIP = b"PK\x03\x04"  # how an .xlsx begins
OLD_EXCEL = b"\xd0\xcf\x11\xe0"  # how an .xls begins
SEP_LINE = re.compile(r"sep=(.)\r?\n", re.I)  # "sep=;", which Excel writes and reads
BETWEEN = re.compile(r"[\s,]*")  # between the rows of a JSON list
EXCEL_ADVICE = "in Excel, choose File, Save as, CSV UTF-8"
SYNONYMS = {
    "file": "video",
    "filename": "video",
    "file name": "video",
    "path": "video",
    "clip": "video",
    "name": "id",
    "directions": "direction",
    "turns": "direction",
    "steps": "direction",
    "objects": "landmark",
    "landmarks": "landmark",
    "actions": "action",
    "recording": "group",
}


def read_table(
    path: str | os.PathLike, columns: Sequence[str], errors: list[SampleError] | None = None
) -> list[Row]:
    """Read the rows of a table; `columns` are the names it may have, "video" among them.

    A row that cannot be read raises SampleError, or goes into `errors`; so does a whole file.
    """
    path = Path(path)
    rows = []
    for table in collect(_rows, [(path, columns, errors)], errors):
        rows += table
    return rows


def _rows(path: Path, columns: Sequence[str], errors: list[SampleError] | None) -> list[Row]:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise SampleError(f"{path.name}:1", "file", f"at most {MAX_BYTES} bytes", "more")
    if not data.strip(b"\0 \t\r\n\xef\xbb\xbf\xff\xfe"):
        wanted = "a table whose first row names its columns: " + ", ".join(columns)
        raise SampleError(f"{path.name}:1", "file", wanted, "an empty file")
    if data.startswith(OLD_EXCEL):
        raise SampleError(
            f"{path.name}:1", "file", f"CSV or JSON: {EXCEL_ADVICE}", "an old Excel file"
        )
    if data.startswith(ZIP):
        return _named(path.name, _excel_grid(path), columns, errors)
    text = _text(path.name, data)
    is_json = text.lstrip()[:1] in ("[", "{") or path.suffix.lower() == ".jsonl"
    if is_json:
        return _json_rows(path.name, text, columns, errors)
    return _csv_rows(path.name, text, columns, errors)


# ---- text


def _text(name: str, data: bytes) -> str:
    """Decode UTF-8 or UTF-16; other encodings cannot be told from one another and are refused."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _decode(name, data, "utf-16")
    if data[1:2] == b"\0":
        return _decode(name, data, "utf-16-le")
    if data[:1] == b"\0":
        return _decode(name, data, "utf-16-be")
    return _decode(name, data, "utf-8-sig")


def _decode(name: str, data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte {data[error.start]:#04x}, which is not {encoding.upper()}"
        wanted = f"text in UTF-8 ({EXCEL_ADVICE})"
        raise SampleError(f"{name}:{line}", "file", wanted, found) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise SampleError(f"{name}:{line}", "file", "text", "a NUL character")
    return text


# ---- CSV


def _csv_rows(
    name: str, text: str, columns: Sequence[str], errors: list[SampleError] | None
) -> list[Row]:
    sep = SEP_LINE.match(text)
    skipped = 0
    if sep:
        text = text[sep.end() :]
        skipped = 1
    delimiter = sep[1] if sep else _delimiter(text, columns)
    grid = _csv_grid(name, text, delimiter, skipped, errors)
    return _named(name, grid, columns, errors, delimiter)


def _delimiter(text: str, columns: Sequence[str]) -> str:
    """Choose the delimiter by which most known columns are read in one of the first rows."""
    lines = [line for line in text.splitlines() if line.strip()][:HEADER_ROWS]
    best = ","
    most = 0
    for delimiter in DELIMITERS:
        for line in lines:
            known = sum(_column(cell, columns) != "" for cell in line.split(delimiter))
            if known > most:
                best = delimiter
                most = known
    return best


def _csv_grid(
    name: str, text: str, delimiter: str, skipped: int, errors: list[SampleError] | None
) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line on which each row begins, and its cells."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    csv.field_size_limit(MAX_BYTES)
    while True:
        line = reader.line_num + 1 + skipped
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            wanted = "one line of CSV, every quote closed (a quote within a cell is doubled)"
            problem = SampleError(f"{name}:{line}", "row", wanted, error)
            if errors is None:
                raise problem from None
            errors.append(problem)
            continue
        yield line, [cell.strip() for cell in cells]


# ---- Excel


def _excel_grid(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Read the one sheet that has cells, through openpyxl."""
    try:
        import openpyxl
    except ImportError:
        wanted = f"CSV or JSON: {EXCEL_ADVICE}, or pip install openpyxl"
        raise SampleError(f"{path.name}:1", "file", wanted, "an Excel file") from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # openpyxl raises what its parsers do
        raise SampleError(f"{path.name}:1", "file", "an Excel file that is whole", error) from None
    sheets = [sheet for sheet in book.worksheets if _has_cells(sheet)]
    if len(sheets) != 1:
        titles = [sheet.title for sheet in sheets]
        raise SampleError(f"{path.name}:1", "file", "one sheet that is not empty", titles)
    return [(i, list(map(_cell, row))) for i, row in enumerate(sheets[0].values, 1)]


def _has_cells(sheet) -> bool:
    return any(cell is not None for row in sheet.values for cell in row)


def _cell(value: object) -> str:
    """Write a cell of Excel as text: whole numbers without a point."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


# ---- columns


def _named(
    name: str, grid: Iterator[tuple[int, list[str]]], columns: Sequence[str],
    errors: list[SampleError] | None, delimiter: str = ",",
) -> list[Row]:  # fmt: skip
    """Find the header of a grid, and make a dictionary of each row below it."""
    grid = iter(grid)
    header = _header(name, grid, columns)
    lines = [(line, cells) for line, cells in grid if any(cells)]
    spare = _spare(delimiter, header, lines)
    items = [(f"{name}:{line}", header, cells, spare, delimiter) for line, cells in lines]
    rows = list(collect(_row, items, errors))
    if not rows and not errors:
        raise SampleError(f"{name}:1", "file", "a row for each video below the header", "no row")
    return rows


def _header(name: str, grid: Iterator[tuple[int, list[str]]], columns: Sequence[str]) -> list[str]:
    """Return the columns' names, of the first row that names the videos' column."""
    first = None
    for _, (line, cells) in zip(range(HEADER_ROWS), grid):
        if not any(cells):
            continue
        first = first or (line, cells)
        names = [_column(cell, columns) for cell in cells]
        if "video" in names:
            _check_header(f"{name}:{line}", cells, names, columns)
            return names
    line, cells = first or (1, [])
    wanted = "a row that names the columns, video among them" + _did_you_mean(cells, columns)
    raise SampleError(f"{name}:{line}", "row", wanted, cells)


def _check_header(where: str, cells: list[str], names: list[str], columns: Sequence[str]):
    unknown = [cell for cell, column in zip(cells, names) if cell and not column]
    if unknown:
        wanted = "no columns but " + ", ".join(columns) + _did_you_mean(unknown, columns)
        raise SampleError(where, "row", wanted, unknown)
    known = [column for column in names if column]
    twice = sorted({column for column in known if known.count(column) > 1})
    if twice:
        raise SampleError(where, "row", "each column once", twice)


def _column(cell: str, columns: Sequence[str]) -> str:
    """Return the column a header cell names whatever its case and dashes, "" where none.

    >>> _column(" Direction-Reverse", ["video", "direction_reverse"])
    'direction_reverse'
    """
    plain = re.sub(r"[\s_-]+", "_", unicodedata.normalize("NFKC", cell).strip().casefold())
    plain = plain.strip("\"'\ufeff")
    return plain if plain in columns else ""


def _did_you_mean(cells: Sequence[str], columns: Sequence[str]) -> str:
    """Suggest the column for each cell that is nearly one."""
    meant = []
    for cell in cells:
        plain = cell.strip().casefold()
        if _column(cell, columns):
            continue
        close = difflib.get_close_matches(plain.replace(" ", "_"), columns, 1, 0.75)
        column = SYNONYMS.get(plain) or (close[0] if close else "")
        if column:
            meant.append(f"{column} for {cell}")
    return f" (did you mean {', '.join(meant)}?)" if meant else ""


def _row(where: str, header: list[str], cells: list[str], spare: int, delimiter: str) -> Row:
    """Name the cells of a row; `spare` empty ones may stand beyond the header."""
    count = len(header)
    beyond = cells[count:]
    if len(cells) < count or any(beyond) or len(beyond) > spare:
        wanted = f"{count} cells, as the header has (one with {delimiter!r} in it stands in quotes)"
        raise SampleError(where, "row", wanted, cells)
    row = {}
    for column, cell in zip(header, cells):
        if not column and cell:
            wanted = "no text below an empty header cell (row numbers? save without them)"
            raise SampleError(where, "row", wanted, cell)
        if column:
            row[column] = cell
    return where, row


def _spare(delimiter: str, header: list[str], lines: list[tuple[int, list[str]]]) -> int:
    """Return how many empty cells may follow; steps hold ";" too, so of ";" all rows the same."""
    widths = {len(cells) for _, cells in lines}
    if delimiter != ";":
        return max(widths, default=0)
    return max(widths) - len(header) if len(widths) == 1 else 0


# ---- JSON


def _json_rows(
    name: str, text: str, columns: Sequence[str], errors: list[SampleError] | None
) -> list[Row]:
    """Read a list of rows, or a row a line."""
    rows = _whole_json(name, text)
    if rows is None:
        lines = []
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                lines.append((line.encode("utf-8", "surrogatepass"), f"{name}:{number}"))
        rows = list(collect(_json_line, lines, errors))
    return list(collect(_json_row, [(*row, columns) for row in rows], errors))


def _json_line(line: bytes, where: str) -> tuple[str, object]:
    return where, decode(line, where)


def _whole_json(name: str, text: str) -> list[tuple[str, object]] | None:
    """Read a text that is one JSON value: a list of rows, each with its line, or one row."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(whole, list):
        return [(f"{name}:1", whole)]
    read_value = json.JSONDecoder().raw_decode
    rows = []
    at = BETWEEN.match(text, text.index("[") + 1).end()
    while text[at] != "]":
        line = text.count("\n", 0, at) + 1
        value, end = read_value(text, at)
        rows.append((f"{name}:{line}", value))
        at = BETWEEN.match(text, end).end()
    return rows


def _json_row(where: str, row: object, columns: Sequence[str]) -> Row:
    if not isinstance(row, dict):
        raise SampleError(where, "row", "an object with the columns " + ", ".join(columns), row)
    named = {}
    for key, value in row.items():
        column = _column(key, columns)
        if not column:
            wanted = "no columns but " + ", ".join(columns) + _did_you_mean([key], columns)
            raise SampleError(where, "row", wanted, list(row))
        if column in named:
            raise SampleError(where, "row", "each column once", list(row))
        named[column] = value
    return where, named
