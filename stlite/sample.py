"""One question about one video.

A row of a samples file (JSONL):
`{"id": "w0007/direction/reverse", "video": "part1/w0007.mp4", "task": "direction", "way": "reverse",
  "question": "Please take ...", "options": ["turn around turn left", "turn around turn right"], "answer": "B", ...}`
"""

import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

TASKS = ("route", "direction", "landmark", "action")
WAYS = ("forward", "reverse")
LETTERS = "ABCDEFGH"
TUPLES = ("options", "steps_forward", "steps_reverse", "moments")
MAX_BYTES = 100 * 2**20

__all__ = ["LETTERS", "TASKS", "WAYS", "Sample", "SampleError", "read_jsonl", "replace", "safe_path", "write_jsonl"]


class SampleError(ValueError):
    """A field of a sample is wrong; says where (file:line), which field, what was expected and what was found."""

    def __init__(self, where: str, field: str, expected: str, found: object):
        self.where, self.field, self.expected, self.found = where, field, expected, found
        super().__init__(f"{where or 'sample'}: field '{field}': expected {expected}, found {str(found)[:200]!r}")


@dataclass(frozen=True, slots=True)
class Sample:
    """One question about one video; building one that is wrong raises SampleError.

    >>> s = Sample("1", "a.mp4", "direction", "forward", "Where?", "B", ("turn left", "turn right"))
    >>> s.kind, s.gold
    ('choice', 'turn right')
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
    group: str = ""  # the recording: splits and intervals go by it
    moments: tuple[float, ...] = ()  # seconds at which each forward step happens, for rendered walks
    origin: str = ""  # file:line

    def __post_init__(self):
        for name in TUPLES:
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)):
                self.refuse(name, "a list", value)
            object.__setattr__(self, name, tuple(value))
        self._check_texts()
        self._check_answer()

    def _check_texts(self):
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "moments":
                if not all(_is_number(v) for v in value):
                    self.refuse(f.name, "finite numbers", value)
            elif not all(_is_text(v) for v in (value if f.name in TUPLES else (value,))):
                self.refuse(f.name, "text (Unicode without lone surrogates)", value)
        for name, allowed in (("task", TASKS), ("way", WAYS)):
            if getattr(self, name) not in allowed:
                self.refuse(name, "one of " + ", ".join(allowed), getattr(self, name))
        for name in ("id", "video", "question"):
            if not getattr(self, name).strip():
                self.refuse(name, "text that is not empty", getattr(self, name))
        safe_path(self.video, where=self.origin)

    def _check_answer(self):
        if self.kind == "route":
            if self.options:
                self.refuse("options", "none, for a route", self.options)
            return
        if not 1 <= len(self.options) <= len(LETTERS):
            self.refuse("options", f"1 to {len(LETTERS)} texts", self.options)
        if len(self.answer) != 1 or self.answer not in self.letters:
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
        """The letters of the options, "ABCD" for four."""
        return LETTERS[: len(self.options)]

    @property
    def gold(self) -> str:
        """The text of the right answer: the right option, or the route."""
        return self.answer if self.kind == "route" else self.options[LETTERS.index(self.answer)]

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps of the way asked for."""
        return self.steps_forward if self.way == "forward" else self.steps_reverse


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell and no file can hold
        return False


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


def safe_path(path: str, root: str | os.PathLike | None = None, where: str = "") -> Path:
    """Resolve a path from a data file under its root; absolute, "..", NUL, URL and links that lead out raise SampleError.

    >>> safe_path("walks/a.mp4#t=1,2").as_posix()
    'walks/a.mp4'
    """
    bare = re.sub(r"#t=[^#/]*$", "", path)
    parts = bare.replace("\\", "/").split("/")
    if "\0" in path or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", bare) or not parts[0] or parts[0] == "~" or ".." in parts:
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
    if unknown := [k for k in row if k not in names]:
        raise SampleError(origin, unknown[0], "a field of Sample: " + ", ".join(names), unknown[0])
    if missing := [n for n in names[:6] if n not in row]:
        raise SampleError(origin, missing[0], "this field to be present", sorted(row))
    return Sample(**{"origin": origin, **row})


def read_lines(path: str | os.PathLike) -> Iterator[tuple[str, bytes]]:
    """Stream the lines of a file that are not blank, each with its place (file:line)."""
    with open(path, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_BYTES + 1), b""), 1):
            if line.strip():
                yield f"{Path(path).name}:{number}", line


def decode(text: bytes, where: str) -> object:
    """Read one JSON value; text that is broken, over 100 MB or nested too deep raises SampleError."""
    if len(text) > MAX_BYTES:
        raise SampleError(where, "row", f"at most {MAX_BYTES} bytes of JSON", f"{len(text)} bytes")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SampleError(where, "row", "a JSON value", error) from None


def read_jsonl(path: str | os.PathLike) -> Iterator[Sample]:
    """Stream the samples of a JSONL file; a bad line raises SampleError with file:line."""
    return (from_dict(decode(line, where), where) for where, line in read_lines(path))


def write_jsonl(samples: Iterable[Sample], path: str | os.PathLike) -> Path:
    """Write samples as JSONL, atomically; empty fields are left out."""
    lines = (json.dumps({k: v for k, v in asdict(s).items() if v not in ("", ())}, ensure_ascii=False) for s in samples)
    return write_text(path, "".join(line + "\n" for line in lines))


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write a text file atomically: a temporary file beside it, fsync, rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
