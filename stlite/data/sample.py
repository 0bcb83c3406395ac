"""One question about one video, and files of them.

A line of JSONL: {"id": "w7/route/reverse", "video": "part1/w7.mp4", …}
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from dataclasses import replace as replace
from pathlib import Path

TASKS = ("route", "direction", "landmark", "action")
WAYS = ("forward", "reverse")
LETTERS = "ABCDEFGH"
REQUIRED = ("id", "video", "task", "way", "question", "answer")
TUPLES = ("options", "steps_forward", "steps_reverse", "moments")
MAX_BYTES = 100 * 2**20
SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can spell a lone one, and no file can hold it


class SampleError(ValueError):
    """A field is wrong: where (file:line), which, what was expected, what was found."""

    def __init__(self, where: str, field: str, expected: str, found: object):
        self.where = where
        self.field = field
        self.expected = expected
        self.found = found
        place = where or "sample"
        super().__init__(
            f"{place}: field '{field}': expected {expected}, found {str(found)[:200]!r}"
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One question about one video; building one that is wrong raises SampleError.

    >>> s = Sample("1", "a.mp4", "direction", "forward", "Where?", "B", ("turn left", "turn right"))
    >>> s.kind, s.letters, s.gold
    ('choice', 'AB', 'turn right')
    """

    id: str
    video: str  # relative to a root, optionally with a time range: "a.mp4#t=3.0,9.5"
    task: str
    way: str
    question: str  # the stem, verbatim
    answer: str  # a letter; for a route, text
    options: tuple[str, ...] = ()  # texts without letters
    steps_forward: tuple[str, ...] = ()
    steps_reverse: tuple[str, ...] = ()
    trace: str = ""  # the reverse-thinking chain, verbatim
    part: str = ""
    source: str = ""
    group: str = ""  # videos cut from one recording share it: splits and intervals go by it
    moments: tuple[float, ...] = ()  # seconds at which each forward step happens, if known
    origin: str = ""  # file:line

    def __post_init__(self):
        for name in TUPLES:
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)):
                self.refuse(name, "a list", value)
            object.__setattr__(self, name, tuple(value))
            self._check_items(name, value)
        for name in self.__slots__:
            if name not in TUPLES:
                self._check_items(name, (getattr(self, name),))
        self._check_values()
        self._check_answer()
        safe_path(self.video, where=self.origin)

    def _check_items(self, name: str, items: Iterable):
        """Refuse what is no text, and moments that are no finite numbers."""
        if name == "moments":
            if not all(map(_is_finite, items)):
                self.refuse(name, "finite numbers", items)
        elif not all(map(_is_text, items)):
            self.refuse(name, "text (Unicode without lone surrogates)", items)

    def _check_values(self):
        for name, allowed in (("task", TASKS), ("way", WAYS)):
            if getattr(self, name) not in allowed:
                self.refuse(name, "one of " + ", ".join(allowed), getattr(self, name))
        for name in ("id", "video", "question"):
            if not getattr(self, name).strip():
                self.refuse(name, "text that is not empty", getattr(self, name))

    def _check_answer(self):
        most = len(LETTERS)
        fits = 1 <= len(self.options) <= most if self.kind == "choice" else not self.options
        if not fits:
            self.refuse("options", f"1 to {most} texts, none for a route", self.options)
        if self.kind == "choice" and self.answer not in tuple(self.letters):
            self.refuse("answer", f"one of the letters {self.letters}", self.answer)

    def refuse(self, field: str, expected: str, found: object):
        """Raise SampleError for one field of this sample."""
        raise SampleError(self.origin or f"sample {self.id!r}", field, expected, found)

    @property
    def kind(self) -> str:
        """ "choice" or "route"."""
        return "route" if self.task == "route" else "choice"

    @property
    def letters(self) -> str:
        """The letters of the options."""
        return LETTERS[: len(self.options)]

    @property
    def gold(self) -> str:
        """The text of the right answer: the right option, or the route."""
        if self.kind == "route":
            return self.answer
        return self.options[LETTERS.index(self.answer)]

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps of the way asked for."""
        return self.steps_forward if self.way == "forward" else self.steps_reverse


def _is_text(value: object) -> bool:
    return isinstance(value, str) and (value.isascii() or not SURROGATE.search(value))


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) < float("inf")


TIME_RANGE = re.compile(r"#t=[^#/]*$")  # "#t=3.0,9.5"
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")  # "https:", "C:"


def safe_path(path: str, root: str | os.PathLike | None = None, where: str = "") -> Path:
    """Resolve a path from a data file under its root.

    Absolute paths, "..", NUL, URLs and links that lead out raise SampleError.

    >>> safe_path("walks/a.mp4#t=1,2").as_posix()
    'walks/a.mp4'
    """
    bare = TIME_RANGE.sub("", path)
    parts = bare.replace("\\", "/").split("/")
    absolute = parts[0] in ("", "~") or SCHEME.match(bare)
    if "\0" in path or absolute or ".." in parts:
        raise SampleError(where, "video", "a relative path under its root, no URL, no '..'", path)
    if root is None:
        return Path(bare)
    full = Path(root).resolve() / bare
    if not full.resolve().is_relative_to(Path(root).resolve()):
        raise SampleError(where, "video", "a path that stays under its root", path)
    return full


def from_dict(row: dict, origin: str = "") -> Sample:
    """Make a Sample of a dictionary; unknown or missing keys raise SampleError."""
    if not isinstance(row, dict):
        raise SampleError(origin, "row", "an object", row)
    names = [f.name for f in fields(Sample)]
    for name in [*row, *REQUIRED]:
        if name not in names or name not in row:
            wanted = "the fields of Sample, the first six present: " + ", ".join(names)
            raise SampleError(origin, name, wanted, list(row))
    return Sample(**{"origin": origin, **row})


def read_lines(path: str | os.PathLike) -> Iterator[tuple[str, bytes]]:
    """Stream the lines of a file that are not blank, each with its place (file:line)."""
    with open(path, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_BYTES + 1), b""), 1):
            if line.strip():
                yield f"{Path(path).name}:{number}", line


def decode(text: bytes, where: str) -> object:
    """Read one JSON value; text that is broken, too long or nested too deep raises SampleError."""
    if len(text) > MAX_BYTES:
        raise SampleError(where, "row", f"at most {MAX_BYTES} bytes of JSON", f"{len(text)} bytes")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SampleError(where, "row", "a JSON value", error) from None


def text_field(row: dict, key: str, where: str) -> str:
    """Return a text of a row; one that is missing or of another type raises SampleError."""
    if not isinstance(row.get(key), str):
        value = row[key] if key in row else f"only the fields {sorted(row)}"
        raise SampleError(where, key, "text", value)
    return row[key]


def error_list(on_error: str) -> list[SampleError] | None:
    """Return the list that `collect` puts errors into, or None where the first is raised."""
    if on_error not in ("raise", "collect"):
        raise ValueError(f"on_error: expected raise or collect, found {on_error!r}")
    return [] if on_error == "collect" else None


def collect(make: Callable, items: Iterable[tuple], errors: list[SampleError] | None) -> Iterator:
    """Yield what `make` makes of each item; an error is raised, or goes into the list if given."""
    for item in items:
        try:
            yield make(*item)
        except SampleError as error:
            if errors is None:
                raise
            errors.append(error)


def read_jsonl(path: str | os.PathLike) -> Iterator[Sample]:
    """Stream the samples of a JSONL file; a bad line raises SampleError with file:line."""
    return (from_dict(decode(line, where), where) for where, line in read_lines(path))


def write_jsonl(samples: Iterable[Sample], path: str | os.PathLike) -> Path:
    """Write samples as JSONL, atomically; empty fields that need not be there are left out."""
    lines = []
    for sample in samples:
        row = {}
        for name, value in asdict(sample).items():
            if name in REQUIRED or value not in ("", ()):
                row[name] = value
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return write_text(path, "".join(lines))


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write a text file in UTF-8, atomically."""
    return write_bytes(path, [text.encode("utf-8")])


def write_bytes(path: str | os.PathLike, parts: Iterable[bytes]) -> Path:
    """Write a file atomically: a temporary file beside it, fsync, rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
