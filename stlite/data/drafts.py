"""From a row of an official file to a sample, and what a row cannot tell.

A draft is a dictionary of a sample's fields; several rows together may tell its steps.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial

from stlite.data.paths import file_stem, group_name, video_finder
from stlite.data.sample import (
    LETTERS,
    REQUIRED,
    WAYS,
    Sample,
    SampleError,
    collect,
    decode,
    from_dict,
    text_field,
)
from stlite.data.steps import cut_steps, reverse_step

FOLDERS = {"part1": "part1", "part2": "part2", "part3": "part3_clip", "part4": "part4_clip"}
PARTS = {folder: part for part, folder in FOLDERS.items()}
SOURCES = {
    "ADT": "Aria Digital Twin",
    "Aria": "Aria Everyday Activities",
    "Nymeria": "Nymeria",
    "sun3d": "SUN3D",
}

Parse = Callable[[dict, str], dict]  # (row, where) → a draft
Draft = tuple[dict, dict]  # what the official fields tell, and what our own field "sample" does


def make_draft(parse: Parse, row: object, where: str) -> Draft:
    """Read what a row tells by the official fields, and what under our own field "sample"."""
    if isinstance(row, bytes):
        row = decode(row, where)
    own = row.get("sample", {}) if isinstance(row, dict) else None
    if not isinstance(own, dict):
        raise SampleError(where, "row", "an object, as is its field 'sample' if it has one", row)
    try:
        return {**parse(row, where), "origin": where}, own
    except SampleError:
        if own.keys() >= set(
            REQUIRED
        ):  # written by us, for a sample the official fields cannot tell
            return {"origin": where}, own
        raise


def finish(drafts: list[Draft], videos: str | os.PathLike | None, errors: list | None):
    """Make samples of all drafts: the steps of one row may stand in another row."""
    _fill([draft for draft, _ in drafts])
    make = partial(_make_sample, video_finder(videos), set())
    samples = list(collect(make, drafts, errors))
    return samples if errors is None else (samples, errors)


def _make_sample(find: Callable[[str, str], str], used: set[str], draft: dict, own: dict) -> Sample:
    where = draft["origin"]
    row = {**draft, **own, "origin": where}
    written = text_field(row, "video", where)
    row["video"] = find(written, where)
    if row["video"] != written:
        row["part"] = row.get("part") or PARTS.get(row["video"].rpartition("/")[0], "")
    sample = from_dict(row, where)
    if sample.id in used:
        sample.refuse("id", "an id that no earlier row has", sample.id)
    used.add(sample.id)
    return sample


def start_draft(video: str, name: str, task: str, way: str) -> dict:
    """Start a draft with what is asked, and with what the path of the video tells."""
    folder, _, file = video.rpartition("/")
    return {
        "id": f"{name}/{task}/{way}",
        "video": video,
        "task": task,
        "way": way,
        "steps_forward": (),
        "steps_reverse": (),
        "part": PARTS.get(folder, ""),
        "source": _source(file),
        "group": group_name(video),
    }


def _source(file: str) -> str:
    for start, name in SOURCES.items():
        if file.startswith(start):
            return name
    return "numbered walks" if file_stem(file).isdigit() else ""


def _fill(drafts: Iterable[dict]):
    """Number ids that are met again, and fill in the steps of the way asked."""
    drafts = [draft for draft in drafts if "task" in draft]
    _number_repeated_ids(drafts)
    _fill_steps(drafts)


def _number_repeated_ids(drafts: Iterable[dict]):
    met = Counter()
    for draft in drafts:
        name = draft["id"]
        met[name] += 1
        if met[name] > 1:
            draft["id"] = f"{name}#{met[name]}"


def _fill_steps(drafts: Sequence[dict]):
    """Take steps from the trace of the video's other row or, without one, from the right option."""
    traced = defaultdict(set)  # (video, task, way) → the paths of all traces
    for draft in drafts:
        for way in WAYS:
            path = draft[f"steps_{way}"]
            if path:
                traced[draft["video"], draft["task"], way].add(path)
    for draft in drafts:
        field = f"steps_{draft['way']}"
        if not draft[field]:
            paths = traced.get((draft["video"], draft["task"], draft["way"]), ())
            draft[field] = next(iter(paths)) if len(paths) == 1 else _cut_gold(draft)


def _cut_gold(draft: dict) -> tuple[str, ...]:
    """Cut the right option into the steps of the trace, as they are or undone."""
    options = dict(zip(LETTERS, draft.get("options", ())))
    steps = draft["steps_forward"] + draft["steps_reverse"]
    undone = {reverse_step(step) for step in steps} - {None}
    return cut_steps(options.get(draft["answer"], ""), {*steps, *undone})


def add_own_fields(written: Sequence[tuple[Sample, dict, Parse]]):
    """Add to each row, as "sample", what reading it back would get wrong: nothing gets lost."""
    used = set()
    for sample, _, _ in written:
        if sample.id in used:
            sample.refuse("id", "an id that no earlier sample has", sample.id)
        used.add(sample.id)
    drafts = [_read_back(row, parse) for _, row, parse in written]
    _fill(drafts)
    for (sample, row, _), draft in zip(written, drafts):
        own = _differences(sample, draft)
        if own:
            row["sample"] = own


def _read_back(row: dict, parse: Parse) -> dict:
    try:
        return parse(row, "")
    except SampleError:
        return {}


def _differences(sample: Sample, draft: dict) -> dict:
    """List the fields of a sample that its draft lacks or has otherwise."""
    own = {}
    for name in (f.name for f in fields(Sample) if f.name != "origin"):
        value = getattr(sample, name)
        default = None if name in REQUIRED else type(value)()
        if value != draft.get(name, default):
            own[name] = value
    return own
