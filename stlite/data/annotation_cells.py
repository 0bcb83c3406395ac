"""One annotated film as a *walk*, a dictionary that is edited step by step, and as cells of a row.

    {"video": "a.mp4", "group": "", …, "head": None, "loose": {}, "more": {},
     "steps": {"direction": [{"text": "turn left", "second": 2.5, "back": None}], …}}

A step's "second" is None while nobody has set its moment, its "back" while the rule's way back
stands. "head" is the turn that begins the way back of the directions: None for the rule's, "" for
none. "loose" holds a way back that does not match step by step, "more" another's columns.
"""

import json
from collections.abc import Sequence
from contextlib import suppress

from stlite.data.cells import split_cell, split_seconds
from stlite.data.sample import TASKS, SampleError
from stlite.data.steps import reverse_path, reverse_step

LISTS = TASKS[1:]  # direction, landmark, action
TEXTS = ("video", "id", "part", "source", "group", "route", "route_reverse")
CELLS = ("", "_reverse", "_moments")
COLUMNS = (*TEXTS[:5], *(task + end for task in LISTS for end in CELLS), *TEXTS[5:])


def empty_walk(video: str) -> dict:
    """Return the walk of a film that nobody has annotated."""
    walk = dict.fromkeys(TEXTS, "")
    walk |= {"video": video, "head": None, "loose": {}, "more": {}}
    walk["steps"] = {task: [] for task in LISTS}
    return walk


def texts_of(walk: dict, task: str) -> list[str]:
    """List the texts of a task's steps."""
    return [step["text"] for step in walk["steps"][task]]


def is_empty(walk: dict) -> bool:
    """Tell whether nothing at all is annotated."""
    texts = map(walk.get, TEXTS[1:])
    return not any(walk["steps"].values()) and not any(texts)


# ---- the way back


def undone(text: str, task: str) -> str | None:
    """Return how a step is walked back by rule; None where no rule is sure."""
    return reverse_step(text, task)


def back_of(step: dict, task: str) -> str | None:
    """Return a step's way back: a person's, else the rule's; None where there is neither."""
    return undone(step["text"], task) if step["back"] is None else step["back"]


def head_of(walk: dict) -> str:
    """Return the turn that begins the way back of the directions; "" where there is none."""
    texts = texts_of(walk, "direction")
    if walk["head"] is None and texts:
        return reverse_path(texts, "direction")[0]
    return walk["head"] or ""


def way_back(walk: dict, task: str) -> list[str | None]:
    """List the way back of a task as it is walked; None where nobody said and no rule is sure."""
    if task in walk["loose"]:
        return list(walk["loose"][task])
    backs = [back_of(step, task) for step in reversed(walk["steps"][task])]
    starts = task == "direction" and backs and head_of(walk)
    return [head_of(walk), *backs] if starts else backs


# ---- walks and cells


def to_cells(walk: dict) -> dict[str, str]:
    """Write a walk as the cells of its row; a list that is not whole yet stays empty."""
    cells = dict(walk["more"])
    for name in TEXTS:
        cells[name] = walk[name]
    for task in LISTS:
        backs = way_back(walk, task)
        cells[task] = join_steps(texts_of(walk, task), task)
        cells[f"{task}_reverse"] = "" if None in backs else join_steps(backs, task)
        cells[f"{task}_moments"] = _join_moments(walk["steps"][task])
    return cells


def _join_moments(steps: list[dict]) -> str:
    seconds = [step["second"] for step in steps]
    if None in seconds:
        return ""
    return "; ".join(str(round(second, 3)) for second in seconds)


def from_cells(cells: dict[str, str]) -> tuple[dict, list[str]]:
    """Read a row as a walk, and say what of it could not be used."""
    walk = empty_walk(cells["video"])
    notes = []
    for name, text in cells.items():
        if name in TEXTS:
            walk[name] = text
        elif name not in COLUMNS:
            walk["more"][name] = text
    for task in LISTS:
        texts = _steps(cells, task, task, notes)
        seconds = _moments(cells, task, len(texts), notes)
        for text, second in zip(texts, seconds):
            walk["steps"][task].append({"text": text, "second": second, "back": None})
        _take_back(walk, task, _steps(cells, f"{task}_reverse", task, notes))
    return walk, notes


def doubts(walk: dict) -> list[str]:
    """Say which lists `annotations` will refuse, or read as other steps than these."""
    read, notes = from_cells(to_cells(walk))
    for task in LISTS:
        for mine, theirs in zip(texts_of(walk, task), texts_of(read, task)):
            if mine != theirs:
                notes.append(f"{task}: {mine} will be read as {theirs}")
    return notes


def _steps(cells: dict[str, str], column: str, task: str, notes: list[str]) -> list[str]:
    cell = cells.get(column, "")
    try:
        return split_cell(cell, task, "", column)
    except SampleError as error:
        notes.append(f"{column}: expected {error.expected}, found {error.found}")
        return split_steps(cell)


def _moments(cells: dict[str, str], task: str, count: int, notes: list[str]) -> list[float | None]:
    column = f"{task}_moments"
    cell = cells.get(column, "").strip()
    unknown = [None] * count
    if not cell:
        return unknown
    try:
        seconds = list(split_seconds(cell, "", column))
    except SampleError as error:
        notes.append(f"{column}: expected {error.expected}, found {error.found}")
        return unknown
    if len(seconds) != count or seconds != sorted(seconds):
        wanted = f"{count} moments, one a step and in their order"
        notes.append(f"{column}: expected {wanted}, found {cell}; set them again with m")
        return unknown
    return seconds


def _take_back(walk: dict, task: str, backs: list[str]):
    """Lay an annotated way back beside the way there; one that does not match stays as it is."""
    steps = walk["steps"][task]
    if not backs:
        return
    extra = len(backs) - len(steps)
    if extra != 0 and not (extra == 1 and task == "direction" and steps):
        walk["loose"][task] = backs
        return
    if task == "direction":
        head = backs[0] if extra else ""
        walk["head"] = None if head == head_of(walk) else head
    for step, back in zip(reversed(steps), backs[extra:]):
        step["back"] = None if back == undone(step["text"], task) else back


def split_steps(cell: str) -> list[str]:
    """Split a cell that `split_cell` refuses: at each ";", or as a JSON list."""
    if cell.lstrip().startswith("["):
        with suppress(ValueError, TypeError):
            return [str(step) for step in json.loads(cell)]
    return [step.strip() for step in cell.split(";") if step.strip()]


def join_steps(steps: Sequence[str], task: str) -> str:
    """Write steps as one cell, in the plainest form that reads back as these steps.

    >>> join_steps(["red, wooden door"], "landmark"), join_steps(["a; b", "c"], "landmark")
    ('red, wooden door;', '["a; b", "c"]')
    """
    joined = "; ".join(steps)
    listed = json.dumps(list(steps), ensure_ascii=False)
    for cell in (joined, f"{joined};", listed):
        with suppress(SampleError):
            if split_cell(cell, task, "", task) == list(steps):
                return cell
    return joined if split_steps(joined) == list(steps) else listed
