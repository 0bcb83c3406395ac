"""Your own videos: a table of their steps → samples with traces.

A row of CSV: kitchen.mp4, turn left; go straight, gate; red door (video, direction, landmark).
"""

import csv
import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from stlite.data import prompts
from stlite.data.paths import file_stem, group_name, video_finder
from stlite.data.sample import (
    LETTERS,
    TASKS,
    WAYS,
    Sample,
    SampleError,
    collect,
    decode,
    error_list,
    read_lines,
    replace,
    text_field,
)
from stlite.data.steps import make_distractors, reverse_path

NAMES = ("id", "video", "part", "source", "group")
REVERSE = {f"{task}_reverse": task for task in TASKS}
COLUMNS = (*NAMES, *TASKS, *REVERSE)

Steps = tuple[str, ...]
Paths = Mapping[str, Sequence[str] | str]


def build(
    video: str, steps_forward: Paths, steps_reverse: Paths | None = None, *, id: str,
    part: str = "", source: str = "", group: str = "", pool: Paths | None = None, seed: int = 0,
    origin: str = "",
) -> list[Sample]:  # fmt: skip
    """Make up to eight samples with traces of one annotated video (paper section 3, its Figure 5).

    The mappings hold lists of steps under "direction", "landmark" and "action", a text or a list
    under "route". Without `steps_reverse` the lists are walked back by rule, and no reverse route
    is made. `pool` holds steps of other videos. Without `group` it is named after the video file.
    Raises SampleError.

    >>> [s.id for s in build("a.mp4", {"landmark": ["gate", "bridge"], "route": "Go."}, id="w1")]
    ['w1/route/forward', 'w1/landmark/forward', 'w1/landmark/reverse']
    """
    forward = _checked(steps_forward, origin or id, "steps_forward")
    if steps_reverse is None:
        steps_reverse = _walked_back(forward)
    reverse = _checked(steps_reverse, origin or id, "steps_reverse")
    row = {"id": id, "video": video, "part": part, "source": source, "origin": origin}
    row |= {"group": group or group_name(video), "forward": forward, "reverse": reverse}
    return _samples_of(row, _sorted_pool([pool or {}]), seed)


def _samples_of(row: dict, pool: dict[str, list[str]], seed: int = 0) -> list[Sample]:
    """Make the samples of one annotated video; the pool is sorted."""
    samples = []
    for task in TASKS:
        for way in WAYS:
            if row[way].get(task):
                samples.append(_sample_of(row, task, way, pool, seed))
    return samples


def _sample_of(row: dict, task: str, way: str, pool: dict[str, list[str]], seed: int) -> Sample:
    name = f"{row['id']}/{task}/{way}"
    path = row[way][task]
    if task == "route":
        options = ()
        answer = path if isinstance(path, str) else ", then ".join(path)
    else:
        rng = random.Random(f"{seed}/{name}")
        lists = make_distractors(path, task, way, rng, pool.get(task, ()))
        options = list(dict.fromkeys(map(" ".join, lists)))
        rng.shuffle(options)
        answer = LETTERS[options.index(" ".join(path))]
    sample = Sample(
        id=name,
        video=row["video"],
        task=task,
        way=way,
        question=prompts.stem(task, way),
        answer=answer,
        options=options,
        steps_forward=_as_steps(row["forward"].get(task, ())),
        steps_reverse=_as_steps(row["reverse"].get(task, ())),
        part=row["part"],
        source=row["source"],
        group=row["group"],
        origin=row["origin"],
    )
    return replace(sample, trace=prompts.trace(sample))


def _as_steps(path: Steps | str) -> Steps:
    """Return a path's steps; a route that is one text has none."""
    return () if isinstance(path, str) else path


def _sorted_pool(paths: Iterable[Paths]) -> dict[str, list[str]]:
    """Gather the steps of many paths by task, sorted and without repeats."""
    pool = {}
    for tasks in paths:
        for task, path in tasks.items():
            pool.setdefault(task, set()).update(_as_steps(path))
    return {task: sorted(steps) for task, steps in pool.items()}


def _checked(paths: Paths, where: str, field: str) -> dict[str, Steps | str]:
    checked = {}
    for task, path in paths.items():
        if task not in TASKS:
            raise SampleError(where, field, "keys among " + ", ".join(TASKS), task)
        if task == "route" and isinstance(path, str):
            checked[task] = path
            continue
        if not isinstance(path, (list, tuple)) or not all(map(_is_step, path)):
            expected = "a list of steps that are texts, none of them empty"
            raise SampleError(where, f"{field}.{task}", expected, path)
        checked[task] = tuple(path)
    return checked


def _is_step(step: object) -> bool:
    return isinstance(step, str) and bool(step.strip())


def _walked_back(forward: Paths) -> dict[str, Steps]:
    return {t: reverse_path(path, t) for t, path in forward.items() if path and t != "route"}


# ---- tables


def annotations(
    path: str | os.PathLike, videos: str | os.PathLike | None = None, on_error: str = "raise"
):
    """Read a CSV or JSONL of annotated videos and build their samples.

    Columns: video, and any of direction, landmark, action (steps separated by ";"), route (a
    text), each also with `_reverse`; optionally id, part, source, group. A reverse list that is
    not given is walked back by rule. Distractors are steps of the other rows.
    """
    errors = error_list(on_error)
    lines = list(read_lines(path))
    header = None
    if lines and Path(path).suffix.lower() == ".csv":
        header = _cells(*lines.pop(0))
    read = partial(_annotation, header, video_finder(videos))
    rows = list(collect(read, lines, errors))
    pool = _sorted_pool(row[way] for row in rows for way in WAYS)
    make = partial(_samples_of, pool=pool)
    samples = []
    for made in collect(make, ((row,) for row in rows), errors):
        samples += made
    return samples if errors is None else (samples, errors)


def _annotation(
    header: list[str] | None, find: Callable[[str, str], str], where: str, line: bytes
) -> dict:
    """Read one line of a table as the row that samples are made of."""
    cells = _row(header, where, line)
    row = {name: text_field(cells, name, where) for name in NAMES if name in cells}
    video = find(text_field(cells, "video", where), where)
    forward = _checked({task: cells[task] for task in TASKS if task in cells}, where, "steps")
    written = {task: cells[name] for name, task in REVERSE.items() if name in cells}
    reverse = _walked_back(forward) | _checked(written, where, "steps_reverse")
    return {
        "id": row.get("id", file_stem(video)),
        "video": video,
        "part": row.get("part", ""),
        "source": row.get("source", ""),
        "group": row.get("group", group_name(video)),
        "origin": where,
        "forward": forward,
        "reverse": reverse,
    }


def _row(header: list[str] | None, where: str, line: bytes) -> dict:
    """Read one line as a dictionary without empty cells, lists of steps split."""
    if header is None:
        row = decode(line, where)
    else:
        row = dict(zip(header, _cells(where, line, len(header))))
    if not isinstance(row, dict) or not set(row) <= set(COLUMNS):
        found = list(row) if header else row
        raise SampleError(where, "row", "no columns but " + ", ".join(COLUMNS), found)
    row = {name: value for name, value in row.items() if value not in ("", None)}
    for name, value in row.items():
        if name not in (*NAMES, "route", "route_reverse") and isinstance(value, str):
            row[name] = [step.strip() for step in value.split(";")]
    return row


def _cells(where: str, line: bytes, wanted: int = 0) -> list[str]:
    try:
        text = line.decode("utf-8-sig").strip()
        row = next(csv.reader([text], strict=True), [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise SampleError(where, "row", "one line of CSV in UTF-8", error) from None
    cells = [cell.strip() for cell in row]
    if wanted and len(cells) != wanted:
        raise SampleError(where, "row", f"{wanted} cells", cells)
    return cells
