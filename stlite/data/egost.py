"""Ego-ST data in and out: official files, released training rows and annotations of one's own videos."""

import csv
import json
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache, lru_cache, partial
from pathlib import Path, PurePosixPath
from statistics import fmean

from stlite.data import prompts, steps
from stlite.data.sample import (
    LETTERS,
    TASKS,
    Sample,
    SampleError,
    decode,
    from_dict,
    read_lines,
    safe_path,
    write_text,
)
from stlite.data.steps import quoted_steps

FOLDERS = {"part1": "part1", "part2": "part2", "part3": "part3_clip", "part4": "part4_clip"}
PARTS = {folder: part for part, folder in FOLDERS.items()}
KINDS = {"qa": "route", "mcq": "direction", "mcq_landmark": "landmark", "mcq_action": "action"}
FILE = re.compile(rf"Part([1-4])_(forward|reverse)_({'|'.join(KINDS)})\.json")
SOURCES = {
    "ADT": "Aria Digital Twin",
    "Aria": "Aria Everyday Activities",
    "Nymeria": "Nymeria",
    "sun3d": "SUN3D",
}
ANSWERS = (
    "answer",
    "correct_answer",
    "correct_option",
    "correct_choice",
    "correct",
    "ground_truth",
    "gt",
    "label",
)
TAIL = (
    "\n\nInstructions: Please select the most appropriate answer from the options above and return only the option "
    "number (e.g. A, B, C or D)."
)
SIGNS = {
    "route": "how to get", "direction": "what directions", "landmark": "which landmarks", "action": "which actions",
}  # fmt: skip
WAYS = {"forward": "your destination|final location", "reverse": "starting point"}
SLIPS = {
    ("landmark", "action"): "action",
    ("direction", "landmark"): "direction",
}  # (stem, trace): the task meant
ROW = ("problem", "solution", "video", "original_answer", "original_question", "sample")
COLUMNS = ("id", "video", "part", "source", "group", *TASKS, *(f"{task}_reverse" for task in TASKS))
NEEDED = {"id", "video", "task", "way", "question", "answer"}

Paths = Mapping[str, Sequence[str] | str]


def build(
    video: str, steps_forward: Paths, steps_reverse: Paths | None = None, *, id: str, part: str = "", source: str = "",
    group: str = "", pool: Paths | None = None, seed: int = 0, origin: str = "",
) -> list[Sample]:  # fmt: skip
    """Make up to eight samples with traces of one annotated video (paper section 3, its Figure 5).

    The mappings hold lists of steps under "direction", "landmark" and "action", a text or a list under "route". Without
    `steps_reverse` the lists are walked back by rule, and no reverse route is made. `pool` holds steps of other videos.
    Without `group` the recording is named after the video file. Raises SampleError.

    >>> [s.id for s in build("a.mp4", {"landmark": ["gate", "bridge"], "route": "Pass the gate."}, id="w1")]
    ['w1/route/forward', 'w1/landmark/forward', 'w1/landmark/reverse']
    """
    kept = {"part": part, "source": source, "group": group or recording(video), "origin": origin}
    forward = _checked(steps_forward, origin or id, "steps_forward")
    reverse = _walked_back(forward) if steps_reverse is None else steps_reverse
    ways = {"forward": forward, "reverse": _checked(reverse, origin or id, "steps_reverse")}
    made = []
    for task, way in ((task, way) for task in TASKS for way in WAYS if ways[way].get(task)):
        path, name = ways[way][task], f"{id}/{task}/{way}"
        both = {
            f"steps_{w}": () if isinstance(p := ways[w].get(task, ()), str) else p for w in WAYS
        }
        options, answer = [], path if isinstance(path, str) else ", then ".join(path)
        if task != "route":
            lists = steps.make_distractors(
                path, task, way, rng := random.Random(f"{seed}/{name}"), (pool or {}).get(task, ())
            )
            options = list(dict.fromkeys(map(" ".join, lists)))
            rng.shuffle(options)
            answer = LETTERS[options.index(" ".join(path))]
        sample = Sample(
            name, video, task, way, prompts.stem(task, way), answer, options, **both, **kept
        )
        made.append(replace(sample, trace=prompts.trace(sample)))
    return made


def _checked(paths: Paths, where: str, field: str) -> dict[str, tuple[str, ...] | str]:
    for task, path in paths.items():
        if task not in TASKS:
            raise SampleError(where, field, "keys among " + ", ".join(TASKS), task)
        if task == "route" and isinstance(path, str):
            continue
        if not isinstance(path, (list, tuple)) or not all(
            isinstance(s, str) and s.strip() for s in path
        ):
            raise SampleError(
                where, f"{field}.{task}", "a list of steps that are texts, none of them empty", path
            )
    return {task: path if isinstance(path, str) else tuple(path) for task, path in paths.items()}


def _walked_back(forward: Paths) -> dict[str, tuple[str, ...]]:
    return {
        task: steps.reverse_path(path, task)
        for task, path in forward.items()
        if path and task != "route"
    }


def recording(video: str) -> str:
    """Name the take a video was cut from, as its file name tells it: wearers, devices and clips of one take agree.

    >>> recording("part1/AriaEverydayActivities_1.0.0_loc2_script3_seq4_rec2_preview_rgb.mp4#t=1,2")
    'AriaEverydayActivities_1.0.0_loc2_script3_seq4'
    """
    return re.sub(
        r"(_seq\d+)_(M?\d+|rec\d+)$", r"\1", re.sub(r"_preview_rgb(_\d+)?$", "", _stem(video))
    )


def _stem(video: str) -> str:
    name = re.split(r"[/\\]", video.partition("#t=")[0])[-1]
    return name.rpartition(".")[0] or name


def _draft_of(video: str, name: str, task: str, way: str) -> dict:
    """Start a draft with what is asked, and with what the path of the video tells."""
    folder, _, file = video.rpartition("/")
    numbered = "numbered walks" if _stem(file).isdigit() else ""
    source = next((family for start, family in SOURCES.items() if file.startswith(start)), numbered)
    known = {
        "video": video,
        "group": recording(video),
        "source": source,
        "part": PARTS.get(folder, ""),
    }
    return known | {
        "id": f"{name}/{task}/{way}",
        "task": task,
        "way": way,
        "steps_forward": (),
        "steps_reverse": (),
    }


def _finder(videos: str | os.PathLike | None) -> Callable[[str, str], str]:
    """Return a function that finds a video under the root: where it is said to be, else by its file name alone."""
    known, places = {}, defaultdict(list)
    for folder, _, names in os.walk(videos) if videos is not None else ():
        for name in names:
            places[name].append(Path(folder, name).relative_to(videos).as_posix())

    def find(video: str, where: str) -> str:
        if video not in known:
            path, sign, span = video.partition("#t=")
            found = places.get(name := path.rpartition("/")[2], [])
            if (
                videos is not None
            ):  # an absolute path is one of another machine; nothing else is forgiven
                safe_path(video.lstrip("/"), where=where)
                if len(found) > 1 and path not in found:
                    raise SampleError(where, "video", "one file of this name under the root", found)
                path = (
                    path
                    if path in found
                    else found[0]
                    if found
                    else name
                    if path.startswith("/")
                    else path
                )
            safe_path(path + sign + span, videos, where)
            known[video] = path + sign + span
        return known[video]

    return find


def _errors(on_error: str) -> list[SampleError] | None:
    if on_error not in ("raise", "collect"):
        raise ValueError(f"on_error: expected raise or collect, found {on_error!r}")
    return [] if on_error == "collect" else None


def _each(make: Callable, items: Iterable[tuple], errors: list[SampleError] | None) -> Iterator:
    """Yield what `make` makes of each item; an error is raised, or put into the list where there is one."""
    for item in items:
        try:
            yield make(*item)
        except SampleError as error:
            if errors is None:
                raise
            errors.append(error)


def _samples(items: Iterable[tuple], videos: str | os.PathLike | None, on_error: str):
    errors, find, used = _errors(on_error), _finder(videos), set()
    drafts = list(
        _each(_draft, items, errors)
    )  # all of them first: a row's steps may stand in another row
    _fill([draft for draft, _ in drafts])
    samples = list(_each(partial(_sample, find, used), drafts, errors))
    return samples if errors is None else (samples, errors)


def _draft(parse: Callable[[dict, str], dict], row: object, where: str) -> tuple[dict, dict]:
    """Read what a row tells by the official fields, and what under our own field "sample"."""
    row = decode(row, where) if isinstance(row, bytes) else row
    if isinstance(row, SampleError):
        raise row
    if not isinstance(row, dict) or not isinstance(own := row.get("sample", {}), dict):
        raise SampleError(where, "row", "an object, as is its field 'sample' if it has one", row)
    try:
        return {**parse(row, where), "origin": where}, own
    except SampleError:
        if own.keys() >= NEEDED:  # written by us, for a sample that the official fields cannot tell
            return {"origin": where}, own
        raise


def _sample(find: Callable[[str, str], str], used: set[str], draft: dict, own: dict) -> Sample:
    row, where = {**draft, **own, "origin": draft["origin"]}, draft["origin"]
    row["video"] = find(said := _text(row, "video", where), where)
    if row["video"] != said:
        row["part"] = row.get("part") or PARTS.get(row["video"].rpartition("/")[0], "")
    sample = from_dict(row, where)
    if sample.id in used:
        sample.refuse("id", "an id that no earlier row has", sample.id)
    used.add(sample.id)
    return sample


def _text(row: dict, key: str, where: str) -> str:
    if not isinstance(row.get(key), str):
        raise SampleError(
            where, key, "text", row[key] if key in row else f"only the fields {sorted(row)}"
        )
    return row[key]


def _fill(drafts: Iterable[dict]):
    """Number ids met twice and fill in steps: from the trace of the video's other row, or cut from the right option."""
    drafts, known, met = [d for d in drafts if "task" in d], defaultdict(set), Counter()
    for d in drafts:
        met[d["id"]] += 1
        d["id"] += f"#{met[d['id']]}" if met[d["id"]] > 1 else ""
        for way in WAYS:
            known[d["video"], d["task"], way].add(d[f"steps_{way}"])
    for d in drafts:
        paths, there = (
            known[d["video"], d["task"], d["way"]] - {()},
            d["steps_forward"] + d["steps_reverse"],
        )
        if not d[(field := f"steps_{d['way']}")]:
            gold = dict(zip(LETTERS, d.get("options", ()))).get(d["answer"], "")
            d[field] = (
                next(iter(paths))
                if len(paths) == 1
                else cut_steps(gold, {*there, *map(steps.reverse_step, there)})
            )


def cut_steps(text: str, known: Iterable[str]) -> tuple[str, ...]:
    """Cut a space-joined list of at most 200 words into steps that are known, where there is exactly one way to do it.

    >>> cut_steps("gate car park gate", ["car park", "gate"]), cut_steps("gate bridge", ["gate"])
    (('gate', 'car park', 'gate'), ())
    """
    words, phrases = text.split(), {tuple(step.casefold().split()) for step in known} - {()}
    small = [word.casefold() for word in words]

    @cache
    def ways(at: int) -> list[tuple[str, ...]]:
        ends = [at + len(p) for p in phrases if small[at : at + len(p)] == [*p]]
        return (
            [(" ".join(words[at:end]), *way) for end in ends for way in ways(end)][:2]
            if words[at:]
            else [()]
        )

    found = ways(0) if len(words) <= 200 else []
    return found[0] if len(found) == 1 else ()  # two are as good as many: not one


@lru_cache(1 << 12)
def question_kind(question: str) -> tuple[str, str] | None:
    """Tell the task and the way that a question asks for, by its words; None where they do not tell."""
    tasks = [task for task, sign in SIGNS.items() if sign in question]
    ways = [way for way, sign in WAYS.items() if re.search(sign, question)]
    return (tasks[0], ways[0]) if len(tasks) == len(ways) == 1 else None


def read_trace(trace: str) -> tuple[tuple[str, str], tuple[str, str], tuple[str, ...]] | None:
    """Read a trace of the paper's form (section 3): what its two questions ask, and the path of the first, verbatim."""
    start = re.match(r"Let's start by thinking (forward|reverse) ([^?.]*[?.])", trace)
    path, _, then = (
        trace[start.end() :].rpartition(" And then think about ") if start else ("", "", "")
    )
    first, then = (
        question_kind(start[2] if start else ""),
        question_kind(then.partition(" Hence, the correct answer is ")[0]),
    )
    if not first or not then or first[1] != start[1]:
        return None
    if (path := path.strip()).startswith(
        "["
    ):  # the released traces of forward questions print a Python list
        return first, then, quoted_steps(path)
    return first, then, tuple(path.split(", ")) if path else ()


def read_rows(
    path: str | os.PathLike, videos: str | os.PathLike | None = None, on_error: str = "raise"
):
    """Read released training rows (JSONL) as a list of samples; steps are taken from traces and options (section 2).

    With `videos`, a path is looked up under that root, one of another machine by its file name; without it, absolute
    paths are refused. Raises SampleError; with on_error="collect" returns (samples, errors) instead.
    """
    return _samples(
        ((_parse_row, line, where) for where, line in read_lines(path)), videos, on_error
    )


def _parse_row(row: dict, where: str) -> dict:
    if unknown := sorted(set(row) - set(ROW)):
        raise SampleError(where, unknown[0], "one of the fields " + ", ".join(ROW), unknown[0])
    problem, solution, video, answer = (_text(row, key, where) for key in ROW[:4])
    if row.get("original_question", problem) != problem:
        raise SampleError(
            where, "original_question", "the text of 'problem'", row["original_question"]
        )
    head, _, said = solution.removesuffix("</answer>").rpartition("<answer>")
    trace = head.removeprefix("<think>").removesuffix("</think> ")
    if solution != prompts.reply(trace, said):
        raise SampleError(where, "solution", "<think>…</think> <answer>…</answer>", solution)
    if said != answer:
        raise SampleError(where, "solution", f"the original_answer {answer!r} as answer", said)
    question, options = split_problem(problem, where)
    if (ours := question_kind(question)) is None:
        raise SampleError(where, "problem", "the question of one of the eight tasks", question)
    (first, then, path), way = read_trace(trace) or (ours, ours, ()), ours[1]
    task = (
        ours[0]
        if then == ours
        else SLIPS.get((ours[0], then[0]))
        if way == then[1] == "forward"
        else None
    )
    if not task or first[0] != then[0]:
        raise SampleError(where, "solution", f"a trace of the task asked, {' '.join(ours)}", trace)
    draft = _draft_of(video, _stem(video), task, way) | {"question": question, "options": options}
    return draft | {"answer": answer, "trace": trace, f"steps_{first[1]}": path}


def split_problem(problem: str, where: str = "") -> tuple[str, tuple[str, ...]]:
    """Split a released problem text into its stem and its options, which must be lettered A., B., … once each.

    >>> split_problem("Which way? Options: A. left, then on., B. right" + TAIL)
    ('Which way?', ('left, then on.', 'right'))
    """
    question, sign, listed = problem.partition(" Options: ")
    if not sign:
        return question, ()
    starts = list(re.finditer(r"(?:^|, )([A-H])\. ", listed.removesuffix(TAIL)))
    if (
        not listed.endswith(TAIL)
        or "".join(m[1] for m in starts) != LETTERS[: len(starts)]
        or listed[:3] != "A. "
    ):
        raise SampleError(
            where, "problem", "options A. …, B. …, each letter once, and the instructions", problem
        )
    ends = [m.start() for m in starts[1:]] + [len(listed) - len(TAIL)]
    return question, tuple(listed[m.end() : end] for m, end in zip(starts, ends))


def write_rows(samples: Iterable[Sample], path: str | os.PathLike) -> Path:
    """Write samples as released training rows; what those fields cannot tell goes into one more, "sample"."""
    written = [(s, _row(s), _parse_row) for s in samples]
    _complete(written)
    return write_text(
        path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for _, row, _ in written)
    )


def _row(s: Sample) -> dict:
    problem = s.question + (
        f" Options: {prompts.options_text(s.options)}{TAIL}" if s.options else ""
    )
    row = {"problem": problem, "solution": prompts.reply(s.trace, s.answer), "video": s.video}
    return row | {"original_question": problem, "original_answer": s.answer}


def _complete(written: Sequence[tuple[Sample, dict, Callable[[dict, str], dict]]]):
    """Add to each row what reading it back would get wrong, so that read → write → read is the identity."""
    drafts, used = [], set()
    for sample, row, parse in written:
        if sample.id in used:
            sample.refuse("id", "an id that no earlier sample has", sample.id)
        used.add(sample.id)
        drafts += list(_each(parse, [(row, "")], [])) or [{}]
    _fill(drafts)
    for (sample, row, _), draft in zip(written, drafts):
        own = {f.name: getattr(sample, f.name) for f in fields(Sample) if f.name != "origin"}
        empty = {name: None if name in NEEDED else type(value)() for name, value in own.items()}
        if own := {
            name: value for name, value in own.items() if value != draft.get(name, empty[name])
        }:
            row["sample"] = own


def read_benchmark(
    folder: str | os.PathLike, videos: str | os.PathLike | None = None, on_error: str = "raise"
):
    """Read a folder of official files, Part1_forward_mcq.json and the like, as a list of samples (section 2).

    `videos` and `on_error` are those of read_rows. Samples have the ids "<part>/<id in the file>/<task>/<way>".
    """
    files = sorted(file for file in Path(folder).glob("Part*.json") if FILE.fullmatch(file.name))
    if not files:
        raise FileNotFoundError(f"{folder}: expected files like Part1_forward_mcq.json, found none")
    return _samples((item for file in files for item in _items(file)), videos, on_error)


def _items(file: Path) -> Iterator[tuple]:
    number, way, kind = FILE.fullmatch(file.name).groups()
    try:
        for where, key, entry in _entries(file):
            yield partial(_parse_entry, f"part{number}", way, KINDS[kind], key), entry, where
    except (
        SampleError
    ) as error:  # of the file as a whole; raised where the errors of its entries are
        yield _parse_entry, error, file.name


def _entries(file: Path) -> Iterator[tuple[str, str, object]]:
    """Stream the entries of a file that holds one JSON object: file:line, key, value."""
    with file.open("rb") as stream:
        data = stream.read(1 << 27)  # decode refuses more than 100 MB
    if not isinstance(decode(data, file.name), dict):
        raise SampleError(file.name, "file", "an object of id: entry", data[:50])
    text, read = (
        data.decode(json.detect_encoding(data), "surrogatepass"),
        json.JSONDecoder().raw_decode,
    )
    between = re.compile(r"[\s,:]*")  # safe to skip: the text is known to be valid
    at, line, last = between.match(text, text.index("{") + 1).end(), 1, 0
    while text[at] != "}":
        key, end = read(text, at)
        line, last = line + text.count("\n", last, at), at
        value, end = read(text, between.match(text, end).end())
        yield f"{file.name}:{line}", key, value
        at = between.match(text, end).end()


def _parse_entry(part: str, way: str, task: str, key: str, entry: dict, where: str) -> dict:
    video, name = _text(entry, "video", where), f"{way}_mcq"
    video = video if re.search(r"[/\\:]", video) else f"{FOLDERS[part]}/{video}"
    draft = _draft_of(video, f"{part}/{key}", task, way) | {"part": part}
    if task == "route":
        return draft | {
            "question": _text(entry, "question", where),
            "answer": _text(entry, f"{way}_answer", where),
        }
    inner = entry.get(name)
    if not isinstance(inner, dict):
        raise SampleError(
            where, name, "an object", inner if name in entry else f"only the fields {sorted(entry)}"
        )
    options = inner.get("options")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise SampleError(where, "options", "a list of texts", options)
    options = tuple(
        text.removeprefix(f"{letter}. ")
        for letter, text in zip(LETTERS + " " * len(options), options)
    )
    answer = _letter({**entry, **inner}, (*ANSWERS, f"{way}_answer"), options, where)
    return draft | {
        "question": _text(inner, "question", where),
        "options": options,
        "answer": answer,
    }


def _letter(entry: dict, names: Sequence[str], options: Sequence[str], where: str) -> str:
    """Find the one answer, "B", "(B)", "B.", "B. text" or the text of one option, under any of the names."""
    found = {str(entry[name]).strip() for name in names if entry.get(name) is not None}
    if len(found) != 1:
        wanted = f"one answer, under one of {', '.join(names)}"
        raise SampleError(where, "answer", wanted, f"the fields {sorted(entry)}")
    answer = found.pop()
    if bare := re.fullmatch(r"\(?([A-H])[).:]*", answer):
        return bare[1]
    meant = {
        letter
        for letter, text in zip(LETTERS, options)
        if answer in (text.strip(), f"{letter}. {text.strip()}")
    }
    if len(meant) != 1:
        raise SampleError(where, "answer", "a letter or the text of one option", answer)
    return meant.pop()


def write_benchmark(samples: Iterable[Sample], folder: str | os.PathLike) -> list[Path]:
    """Write samples as official files, one for each part, way and task; what these cannot tell goes under "sample"."""
    kinds, files, written = {task: kind for kind, task in KINDS.items()}, defaultdict(dict), []
    for s in samples:
        if s.part not in FOLDERS:
            s.refuse("part", "one of " + ", ".join(FOLDERS), s.part)
        key = s.id.removeprefix(f"{s.part}/").removesuffix(f"/{s.task}/{s.way}")
        file = files[f"Part{s.part[-1]}_{s.way}_{kinds[s.task]}.json"]
        if key in file:
            s.refuse("id", "an id that no earlier sample has", s.id)
        file[key] = _entry(s)
        written.append((s, file[key], partial(_parse_entry, s.part, s.way, s.task, key)))
    _complete(written)
    texts = {name: json.dumps(file, ensure_ascii=False, indent=1) for name, file in files.items()}
    return [write_text(Path(folder, name), text) for name, text in texts.items()]


def _entry(s: Sample) -> dict:
    named = {"video": PurePosixPath(s.video).name}
    if s.task == "route":
        return named | {"question": s.question, f"{s.way}_answer": s.answer}
    options = [f"{letter}. {text}" for letter, text in zip(LETTERS, s.options)]
    return named | {
        f"{s.way}_mcq": {"question": s.question, "options": options, "answer": s.answer}
    }


def annotations(
    path: str | os.PathLike, videos: str | os.PathLike | None = None, on_error: str = "raise"
):
    """Read a CSV or JSONL of annotated videos and build their samples; the other rows' steps serve as distractors.

    Columns: video, and any of direction, landmark, action (steps separated by ";"), route (a text), each also with
    `_reverse`; optionally id, part, source, group. A reverse list that is not given is walked back by rule.
    """
    errors, lines = _errors(on_error), list(read_lines(path))
    header = _cells(*lines.pop(0)) if lines and Path(path).suffix.lower() == ".csv" else None
    rows = list(_each(partial(_annotation, header, _finder(videos)), lines, errors))
    pool = {
        t: sorted({s for r in rows for w in WAYS for s in r[f"steps_{w}"].get(t, ())})
        for t in TASKS[1:]
    }
    built = _each(lambda row: build(**row, pool=pool), ((row,) for row in rows), errors)
    samples = [sample for made in built for sample in made]
    return samples if errors is None else (samples, errors)


def _annotation(
    header: list[str] | None, find: Callable[[str, str], str], where: str, line: bytes
) -> dict:
    row = (
        decode(line, where)
        if header is None
        else dict(zip(header, _cells(where, line, len(header))))
    )
    if not isinstance(row, dict) or not set(row) <= set(COLUMNS):
        raise SampleError(
            where, "row", "no columns but " + ", ".join(COLUMNS), list(row) if header else row
        )
    row = {name: value for name, value in row.items() if value not in ("", None)}
    kept = {name: _text(row, name, where) for name in COLUMNS[:5] if name in row or name == "video"}
    for name in set(row) & {name for name in COLUMNS[5:] if not name.startswith("route")}:
        row[name] = (
            [step.strip() for step in row[name].split(";")]
            if isinstance(row[name], str)
            else row[name]
        )
    forward = _checked({t: row[t] for t in TASKS if t in row}, where, "steps")
    reverse = _checked(
        {t: row[f"{t}_reverse"] for t in TASKS if f"{t}_reverse" in row}, where, "steps_reverse"
    )
    kept |= {
        "video": find(kept["video"], where),
        "id": kept.get("id", _stem(kept["video"])),
        "origin": where,
    }
    return kept | {"steps_forward": forward, "steps_reverse": _walked_back(forward) | reverse}


def _cells(where: str, line: bytes, wanted: int = 0) -> list[str]:
    try:
        cells = [
            cell.strip()
            for cell in next(csv.reader([line.decode("utf-8-sig").strip()], strict=True), [])
        ]
    except (csv.Error, UnicodeDecodeError) as error:
        raise SampleError(where, "row", "one line of CSV in UTF-8", error) from None
    if wanted and len(cells) != wanted:
        raise SampleError(where, "row", f"{wanted} cells", cells)
    return cells


def statistics(samples: Iterable[Sample]) -> list[dict]:
    """Count samples and videos, and average options, steps and words of the answer, by task and way (paper Figure 4)."""
    kinds = defaultdict(list)
    for s in samples:
        kinds[TASKS.index(s.task), s.way].append(s)
    return [
        {
            "task": TASKS[task],
            "way": way,
            "samples": len(some),
            "videos": len({s.video for s in some}),
        }
        | {"options": fmean(len(s.options) for s in some)}
        | {"steps": fmean([len(s.steps) for s in some if s.steps] or [0])}
        | {"words": fmean(len(s.gold.split()) for s in some)}
        for (task, way), some in sorted(kinds.items())
    ]


def download(
    folder: str | os.PathLike, revision: str, data: str = "openinterx/Ego-ST-bench"
) -> Path:
    """Fetch an official hub data set (or the videos, "openinterx/Ego-ST-video") at one commit; run again, it resumes.

    Raises ValueError where `revision` is not a commit's 40 hex digits, ConnectionError where the hub is out of reach.
    """
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError(f"revision: expected the 40 hex digits of a commit, found {revision!r}")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(data, repo_type="dataset", revision=revision, local_dir=folder)
        )
    except OSError as error:
        by_hand = (
            f"hf download {data} --repo-type dataset --revision {revision} --local-dir {folder}"
        )
        advice = f"Not fetched. Run this again, or where there is a network: {by_hand}"
        raise ConnectionError(f"{error}\n{advice}") from error
