"""Your own videos: a table of their steps → samples with traces.

A row of CSV: kitchen.mp4, turn left; go straight, gate; red door (video, direction, landmark).
"""

import os
import random
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from stlite.data import prompts
from stlite.data.cells import check_steps, is_nothing, split_cell, split_seconds
from stlite.data.paths import distinct_groups, distinct_names, group_name, video_finder
from stlite.data.sample import (
    LETTERS,
    TASKS,
    WAYS,
    Sample,
    SampleError,
    collect,
    error_list,
    text_field,
)
from stlite.data.steps import make_distractors, reverse_path, uncertain_steps
from stlite.data.tables import read_table

NAMES = ("id", "video", "part", "source", "group")
REVERSE = {f"{task}_reverse": task for task in TASKS}
STEP_TASKS = TASKS[1:]
RANGE = re.compile(  # "3.0,9.5", "3.0", ",9.5"
    r"(?P<start>\d+(?:\.\d*)?)?(?:,(?P<end>\d+(?:\.\d*)?))?"
)
COLUMNS = (*NAMES, *TASKS, *REVERSE, *(f"{task}_moments" for task in STEP_TASKS))

Steps = tuple[str, ...]
Paths = Mapping[str, Sequence[str] | str]


def build(
    video: str, steps_forward: Paths, steps_reverse: Paths | None = None, *, id: str,
    part: str = "", source: str = "", group: str = "", pool: Paths | None = None, seed: int = 0,
    origin: str = "",
) -> list[Sample]:  # fmt: skip
    """Make up to eight samples with traces of one annotated video (paper section 3, its Figure 5).

    The mappings hold lists of steps under "direction", "landmark" and "action", a text or a list
    under "route". Without `steps_reverse` the lists are walked back by rule, where each step has a
    certain one, and no reverse route is made. `pool` holds steps of other videos. Without
    `group` it is named after the video file. Raises SampleError.

    >>> [s.id for s in build("a.mp4", {"landmark": ["gate", "bridge"], "route": "Go."}, id="w1")]
    ['w1/route/forward', 'w1/landmark/forward', 'w1/landmark/reverse']
    """
    forward = _checked(steps_forward, origin or id, "steps_forward")
    if steps_reverse is None:
        steps_reverse = _walked_back(forward)
    reverse = _checked(steps_reverse, origin or id, "steps_reverse")
    row = {"id": id, "video": video, "part": part, "source": source, "origin": origin}
    row |= {"group": group or group_name(video), "forward": forward, "reverse": reverse}
    row["moments"] = {}
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
    steps = {w: _as_steps(row[w].get(task, ())) for w in WAYS}
    opposite = prompts.OPPOSITE[way]
    return Sample(
        id=name,
        video=row["video"],
        task=task,
        way=way,
        question=prompts.stem(task, way),
        answer=answer,
        options=options,
        steps_forward=steps["forward"],
        steps_reverse=steps["reverse"],
        trace=prompts.chain(task, way, opposite, steps[opposite], answer),
        moments=row["moments"].get(task, ()),
        part=row["part"],
        source=row["source"],
        group=row["group"],
        origin=row["origin"],
    )


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
    """Walk lists back by rule, those in which every step has a certain one."""
    reverse = {}
    for task, path in forward.items():
        if task != "route" and path and not uncertain_steps(path, task):
            reverse[task] = reverse_path(path, task)
    return reverse


# ---- tables


def annotations(
    path: str | os.PathLike, videos: str | os.PathLike | None = None, on_error: str = "raise",
    separator: str | None = None,
):  # fmt: skip
    """Read a table of annotated videos (CSV, Excel, JSON, JSONL) and build their samples.

    Columns: video, and any of direction, landmark, action (steps with ";" between them: see
    `cells`), route (a text), each also with `_reverse`, the first three with `_moments` (a second
    for each forward step); optionally id, part, source, group. `separator` is what stands between
    steps, if it is no mark that `cells` reads. A reverse list that is not given is walked back by
    rule where every rule is certain; `check` names the columns to write otherwise. With `videos`,
    each video must be under that root. Distractors are steps of the other rows.
    """
    errors = error_list(on_error)
    table = read_table(path, COLUMNS, errors)
    read = partial(_annotation, video_finder(videos, strict=True), separator)
    rows = _named(list(collect(read, table, errors)), errors)
    _warn_of_empty(rows)
    pool = _sorted_pool(row[way] for row in rows for way in WAYS)
    samples = []
    for made in collect(partial(_samples_of, pool=pool), ((row,) for row in rows), errors):
        samples += made
    return samples if errors is None else (samples, errors)


def _annotation(
    find: Callable[[str, str], str], separator: str | None, where: str, cells: dict
) -> dict:
    """Read one row as what samples are made of; id and group may still be missing."""
    cells = {name: value for name, value in cells.items() if not _is_empty(value)}
    row = {name: text_field(cells, name, where) for name in NAMES if name in cells}
    _check_range(row.get("video", ""), where)
    row["video"] = find(unicodedata.normalize("NFC", text_field(cells, "video", where)), where)
    read = partial(_path, cells, separator, where)
    forward = {task: read(task, task) for task in TASKS if task in cells}
    written = {task: read(name, task) for name, task in REVERSE.items() if name in cells}
    moments = {t: _moments(cells, t, forward, where) for t in STEP_TASKS if f"{t}_moments" in cells}
    return (
        {"part": "", "source": "", "origin": where}
        | row
        | {
            "forward": forward,
            "reverse": _walked_back(forward) | written,
            "moments": moments,
        }
    )


def _check_range(video: str, where: str):
    """Refuse a range that is not written like #t=3.0,9.5 or that ends before it starts."""
    _, mark, span = video.partition("#t=")
    bounds = RANGE.fullmatch(span)
    if mark and (not bounds or float(bounds["start"] or 0) >= float(bounds["end"] or "inf")):
        raise SampleError(
            where, "video", "a range like #t=3.0,9.5, its start before its end", video
        )


def _warn_of_empty(rows: Sequence[dict]):
    """Warn of the rows that annotate nothing: no sample comes of them."""
    empty = [row["origin"] for row in rows if not row["forward"] and not row["reverse"]]
    if empty:
        first = ", ".join(empty[:5])
        warnings.warn(
            f"{len(empty)} rows annotate nothing, and give no sample: {first}", stacklevel=3
        )


def _is_empty(value: object) -> bool:
    return value is None or value == [] or (isinstance(value, str) and is_nothing(value))


def _path(cells: dict, separator: str | None, where: str, column: str, task: str) -> Steps | str:
    """Read the steps of one cell, or the text of a route."""
    value = cells[column]
    if task == "route":
        return _checked({task: value}, where, column)[task]
    if isinstance(value, str):
        return tuple(split_cell(value, task, where, column, separator))
    return tuple(check_steps(value, task, where, column))


def _moments(cells: dict, task: str, forward: Paths, where: str) -> tuple[float, ...]:
    """Read the seconds of the forward steps: one each, in their order."""
    column = f"{task}_moments"
    moments = split_seconds(cells[column], where, column)
    count = len(forward.get(task, ()))
    if len(moments) != count:
        wanted = f"{count} moments, one for each step of {task}"
        raise SampleError(where, column, wanted, f"{len(moments)}: {cells[column]}")
    if list(moments) != sorted(moments):
        raise SampleError(where, column, "moments in the order of the steps", cells[column])
    return moments


# ---- ids and groups


def _named(rows: list[dict], errors: list[SampleError] | None) -> list[dict]:
    """Give rows without them ids and groups, of as much of the path as tells the videos apart."""
    videos = dict.fromkeys(row["video"] for row in rows)
    files = dict.fromkeys(video.partition("#t=")[0] for video in videos)
    names = distinct_names(files)
    groups = distinct_groups(files)
    met = {}
    named = []
    for row in rows:
        file, mark, span = row["video"].partition("#t=")
        default = {"id": names[file] + mark + span, "group": groups[file]}
        row = default | row
        for _ in collect(_note_tasks, [(row, met)], errors):
            named.append(row)
    return named


def _note_tasks(row: dict, met: dict[tuple[str, str], str]):
    """Note which row annotates which task of a video; refuse a second one."""
    for task in row["forward"] | row["reverse"]:
        key = (row["id"], task)
        if key in met:
            wanted = (
                f"one row a video, or ids that tell them apart ({met[key]} has this {task} too)"
            )
            raise SampleError(row["origin"], "video", wanted, f"{row['video']} (id {row['id']})")
    for task in row["forward"] | row["reverse"]:
        met[row["id"], task] = row["origin"]
