"""One annotated film as a *walk*, a dictionary that is edited step by step, and as the cells of its row.

A walk holds the row's texts, and the steps of each task: {"text", "second": when it happens, or None, "back": its way
back as a person wrote it, or None for the rule's}. "head" is the turn that begins the way back of the directions;
"loose" holds a way back that does not match step by step; "more" the columns that are not ours.
"""

import json
import math
from collections.abc import Sequence
from contextlib import suppress

from stlite.data.sample import TASKS
from stlite.data.steps import AROUND, reverse_step

LISTS = TASKS[1:]  # direction, landmark, action
TEXTS = ("video", "id", "part", "source", "group", "route", "route_reverse")
CELLS = ("", "_reverse", "_moments")
COLUMNS = (*TEXTS[:5], *(task + end for task in LISTS for end in CELLS), *TEXTS[5:])


def empty_walk(video: str) -> dict:
    """Return the walk of a film that nobody has annotated."""
    walk = dict.fromkeys(TEXTS, "") | {"video": video}
    return walk | {"steps": {task: [] for task in LISTS}, "head": AROUND, "loose": {}, "more": {}}


def is_empty(walk: dict) -> bool:
    """Tell whether nothing at all is annotated."""
    return not any(walk["steps"].values()) and not any(walk[name] for name in TEXTS[1:])


# ---- the way back -----------------------------------------------------------------------------------------------------


def undone(text: str, task: str) -> str | None:
    """Return how a step is walked back by rule; None where no rule is sure."""
    return reverse_step(text, task)


def back_of(step: dict, task: str) -> str | None:
    """Return a step's way back: a person's, else the rule's; None where there is neither."""
    return undone(step["text"], task) if step["back"] is None else step["back"]


def way_back(walk: dict, task: str) -> list[str | None]:
    """List the way back of a task, in the order it is walked; None where nobody has said and no rule is sure."""
    if task in walk["loose"]:
        return list(walk["loose"][task])
    backs = [back_of(step, task) for step in reversed(walk["steps"][task])]
    starts = task == "direction" and walk["steps"][task] and walk["head"]
    return [walk["head"], *backs] if starts else backs


# ---- walks and cells --------------------------------------------------------------------------------------------------


def to_cells(walk: dict) -> dict[str, str]:
    """Write a walk as the cells of its row; a list that is not whole yet stays empty."""
    cells = {name: walk[name] for name in TEXTS} | walk["more"]
    for task in LISTS:
        steps = walk["steps"][task]
        backs = way_back(walk, task)
        seconds = [step["second"] for step in steps]
        cells[task] = join_steps([step["text"] for step in steps])
        cells[f"{task}_reverse"] = "" if None in backs else join_steps(backs)
        timed = None not in seconds
        cells[f"{task}_moments"] = "; ".join(str(round(s, 3)) for s in seconds) if timed else ""
    return cells


def from_cells(cells: dict[str, str]) -> tuple[dict, list[str]]:
    """Read a row as a walk, and say what of it could not be used."""
    walk = empty_walk(cells["video"])
    notes = []
    for name in TEXTS:
        walk[name] = cells.get(name, "")
    walk["more"] = {name: text for name, text in cells.items() if name not in COLUMNS}
    for task in LISTS:
        texts = split_steps(cells.get(task, ""))
        seconds = [None] * len(texts)
        try:
            seconds = _moments(cells.get(f"{task}_moments", ""), len(texts))
        except ValueError as error:
            notes.append(f"{task}_moments: {error}; set them again with m")
        steps = [{"text": t, "second": s, "back": None} for t, s in zip(texts, seconds)]
        walk["steps"][task] = steps
        _take_back(walk, task, split_steps(cells.get(f"{task}_reverse", "")))
    return walk, notes


def _moments(cell: str, count: int) -> list[float | None]:
    if not cell.strip():
        return [None] * count
    seconds = [float(part) for part in split_steps(cell)]
    if not all(map(math.isfinite, seconds)):
        raise ValueError(f"expected seconds, found {cell!r}")
    if len(seconds) != count:
        raise ValueError(f"expected {count}, one a step, found {len(seconds)}")
    return seconds


def _take_back(walk: dict, task: str, backs: list[str]):
    """Lay an annotated way back beside the way there; one that does not match step by step stays as it is."""
    steps = walk["steps"][task]
    if not backs:
        return
    extra = len(backs) - len(steps)
    if extra != 0 and not (extra == 1 and task == "direction" and steps):
        walk["loose"][task] = backs
        return
    if task == "direction":
        walk["head"] = backs[0] if extra else ""
    for step, back in zip(reversed(steps), backs[extra:]):
        step["back"] = None if back == undone(step["text"], task) else back


def split_steps(cell: str) -> list[str]:
    """Read a cell of steps: parted by ";", or a JSON list.

    >>> split_steps("turn left; go straight"), split_steps('["gate; open", "door"]')
    (['turn left', 'go straight'], ['gate; open', 'door'])
    """
    if cell.lstrip().startswith("["):
        with suppress(ValueError):
            return [str(step) for step in json.loads(cell)]
    return [step.strip() for step in cell.split(";") if step.strip()]


def join_steps(steps: Sequence[str]) -> str:
    """Write steps as one cell, so that `split_steps` reads them back."""
    cell = "; ".join(steps)
    return cell if split_steps(cell) == list(steps) else json.dumps(steps, ensure_ascii=False)
