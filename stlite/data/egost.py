"""Official Ego-ST files in and out: the benchmark's JSON files and released training rows.

A training row: {"problem": "Please take … Options: A. turn left go straight, …",
"solution": "<think>…</think> <answer>A</answer>", "video": "…/w7.mp4", …}
"""

import json
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from stlite.data import prompts
from stlite.data.drafts import FOLDERS, Parse, add_own_fields, finish, make_draft, start_draft
from stlite.data.paths import file_stem
from stlite.data.prompts import question_kind, read_trace
from stlite.data.sample import (
    LETTERS,
    MAX_BYTES,
    Sample,
    SampleError,
    collect,
    decode,
    error_list,
    read_lines,
    text_field,
    write_text,
)

TASK_OF = {"qa": "route", "mcq": "direction", "mcq_landmark": "landmark", "mcq_action": "action"}
KIND_OF = {task: kind for kind, task in TASK_OF.items()}
FILE = re.compile(rf"Part([1-4])_(forward|reverse)_({'|'.join(TASK_OF)})\.json")
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
    "\n\nInstructions: Please select the most appropriate answer from the options above "
    "and return only the option number (e.g. A, B, C or D)."
)
OPTION_START = re.compile(r"(?:^|, )([A-H])\. ")  # "A. " first, then ", B. "
BARE_LETTER = re.compile(r"\(?([A-H])[).:]*")  # "B", "(B)", "B.", "B)."
LETTER_MARK = re.compile(  # "A. ", "A) ", "(A) ", "[A] ", "A: ", "A - "
    r"\s*[(\[]?(?P<letter>[A-Ha-h])(?:[)\]][.:]?|[.:：、]|\s[-–])(?:\s+|(?=[^\x00-\x7f]))"
)
LOOKALIKE = re.compile(r"part[\s_-]*\d.*(?:mcq|qa)|.*(?:mcq|qa).*\.json", re.I)
BETWEEN = re.compile(r"[\s,:]*")  # between the parts of a JSON object known to be valid
SLIPS = {  # known slips of the released rows, (stem, trace): the task meant
    ("landmark", "action"): "action",
    ("direction", "landmark"): "direction",
}
ROW = ("problem", "solution", "video", "original_answer", "original_question", "sample")


# ---- released training rows


def read_rows(
    path: str | os.PathLike, videos: str | os.PathLike | None = None, on_error: str = "raise"
):
    """Read released training rows (JSONL) as a list of samples (paper section 2).

    Steps come from traces and options. With `videos`, a path is looked up under that root, one of
    another machine by its file name; without it, absolute paths are refused. Raises SampleError;
    with on_error="collect" returns (samples, errors) instead.
    """
    errors = error_list(on_error)
    items = ((_parse_row, line, where) for where, line in read_lines(path))
    drafts = list(collect(make_draft, items, errors))
    return finish(drafts, videos, errors)


def _parse_row(row: dict, where: str) -> dict:
    unknown = sorted(set(row) - set(ROW))
    if unknown:
        raise SampleError(where, unknown[0], "one of the fields " + ", ".join(ROW), unknown[0])
    problem, solution, video, answer = (text_field(row, key, where) for key in ROW[:4])
    original = row.get("original_question", problem)
    if original != problem:
        raise SampleError(where, "original_question", "the text of 'problem'", original)
    trace = _split_solution(solution, answer, where)
    question, options = split_problem(problem, where)
    asked = question_kind(question)
    if asked is None:
        raise SampleError(where, "problem", "the question of one of the eight tasks", question)
    task, traced = _read_row_trace(trace, asked, where)
    draft = start_draft(video, file_stem(video), task, asked[1])
    told = {"question": question, "options": options, "answer": answer, "trace": trace}
    return draft | told | traced


def _split_solution(solution: str, answer: str, where: str) -> str:
    """Return the trace of a solution that ends in the answer."""
    head, _, written = solution.removesuffix("</answer>").rpartition("<answer>")
    trace = head.removeprefix("<think>").removesuffix("</think> ")
    if solution != prompts.reply(trace, written):
        raise SampleError(where, "solution", "<think>…</think> <answer>…</answer>", solution)
    if written != answer:
        expected = f"the original_answer {answer!r} as answer"
        raise SampleError(where, "solution", expected, written)
    return trace


def _read_row_trace(trace: str, asked: tuple[str, str], where: str) -> tuple[str, dict]:
    """Return the task meant, and the path of the trace as the field it fills."""
    first, then, path = read_trace(trace) or (asked, asked, ())
    task = asked[0]
    if then != asked:
        forward = asked[1] == then[1] == "forward"
        task = SLIPS.get((asked[0], then[0])) if forward else None
    if not task or first[0] != then[0]:
        expected = f"a trace of the task asked, {' '.join(asked)}"
        raise SampleError(where, "solution", expected, trace)
    return task, {f"steps_{first[1]}": path}


def split_problem(problem: str, where: str = "") -> tuple[str, tuple[str, ...]]:
    """Split a released problem text into its stem and its options, lettered A., B., … once each.

    >>> split_problem("Which way? Options: A. left, then on., B. right" + TAIL)
    ('Which way?', ('left, then on.', 'right'))
    """
    question, sign, listed = problem.partition(" Options: ")
    if not sign:
        return question, ()
    body = listed.removesuffix(TAIL)
    starts = list(OPTION_START.finditer(body))
    letters = "".join(start[1] for start in starts)
    ordered = letters == LETTERS[: len(starts)] and listed.startswith("A. ")
    if not ordered or not listed.endswith(TAIL):
        expected = "options A. …, B. …, each letter once, and the instructions"
        raise SampleError(where, "problem", expected, problem)
    ends = [start.start() for start in starts[1:]] + [len(body)]
    options = tuple(body[start.end() : end] for start, end in zip(starts, ends))
    return question, options


def write_rows(samples: Iterable[Sample], path: str | os.PathLike) -> Path:
    """Write samples as released training rows.

    What those fields cannot tell goes into one more, "sample".
    """
    written = [(sample, _row(sample), _parse_row) for sample in samples]
    add_own_fields(written)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for _, row, _ in written]
    return write_text(path, "".join(lines))


def _row(s: Sample) -> dict:
    problem = s.question
    if s.options:
        problem += f" Options: {prompts.options_text(s.options)}{TAIL}"
    return {
        "problem": problem,
        "solution": prompts.reply(s.trace, s.answer),
        "video": s.video,
        "original_question": problem,
        "original_answer": s.answer,
    }


# ---- the benchmark


def read_benchmark(
    folder: str | os.PathLike, videos: str | os.PathLike | None = None, on_error: str = "raise"
):
    """Read a folder of official files, Part1_forward_mcq.json and the like, as a list of samples.

    `videos` and `on_error` are those of read_rows. Ids are "<part>/<id in the file>/<task>/<way>".
    """
    files = _official_files(Path(folder))
    errors = error_list(on_error)
    drafts = []
    for file in files:
        for entries in collect(_entries, [(file,)], errors):
            drafts += collect(make_draft, entries, errors)
    return finish(drafts, videos, errors)


def _official_files(folder: Path) -> list[Path]:
    """List the files to read, and warn of others that look like them."""
    every = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [file for file in every if FILE.fullmatch(file.name)]
    others = [file.name for file in every if file not in files and LOOKALIKE.match(file.name)]
    note = f"; not read: {', '.join(others)}" if others else ""
    if not files:
        raise FileNotFoundError(
            f"{folder}: expected files like Part1_forward_mcq.json, found none{note}"
        )
    if others:
        warnings.warn(f"{folder}: expected names like Part1_forward_mcq.json{note}", stacklevel=3)
    return files


def _entries(file: Path) -> Iterator[tuple[Parse, object, str]]:
    """List the entries of a file, each with how to read it and its file:line."""
    number, way, kind = FILE.fullmatch(file.name).groups()
    items = []
    for where, key, entry in _read_object(file):
        parse = partial(_parse_entry, f"part{number}", way, TASK_OF[kind], key)
        items.append((parse, entry, where))
    return items


def _read_object(file: Path) -> Iterator[tuple[str, str, object]]:
    """Stream the entries of a file that holds one JSON object: file:line, key, value."""
    with file.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)  # decode refuses more than MAX_BYTES
    if not isinstance(decode(data, file.name), dict):
        raise SampleError(file.name, "file", "an object of id: entry", data[:50])
    text = data.decode(json.detect_encoding(data), "surrogatepass")
    read_value = json.JSONDecoder().raw_decode
    at = BETWEEN.match(text, text.index("{") + 1).end()
    line = 1
    counted = 0
    while text[at] != "}":
        line += text.count("\n", counted, at)
        counted = at
        key, end = read_value(text, at)
        value, end = read_value(text, BETWEEN.match(text, end).end())
        yield f"{file.name}:{line}", key, value
        at = BETWEEN.match(text, end).end()


def _parse_entry(part: str, way: str, task: str, key: str, entry: dict, where: str) -> dict:
    video = text_field(entry, "video", where)
    if not re.search(r"[/\\:]", video):
        video = f"{FOLDERS[part]}/{video}"
    draft = start_draft(video, f"{part}/{key}", task, way) | {"part": part}
    if task == "route":
        question = text_field(entry, "question", where)
        answer = text_field(entry, f"{way}_answer", where)
        return draft | {"question": question, "answer": answer}
    return draft | _parse_choice(entry, way, where)


def _parse_choice(entry: dict, way: str, where: str) -> dict:
    name = f"{way}_mcq"
    inner = entry.get(name)
    if not isinstance(inner, dict):
        value = inner if name in entry else f"only the fields {sorted(entry)}"
        raise SampleError(where, name, "an object", value)
    listed = inner.get("options")
    if not isinstance(listed, list) or not all(isinstance(option, str) for option in listed):
        raise SampleError(where, "options", "a list of texts", listed)
    options = _without_letters(listed)
    answer = _letter({**entry, **inner}, (*ANSWERS, f"{way}_answer"), options, where)
    question = text_field(inner, "question", where)
    return {"question": question, "options": options, "answer": answer}


def _without_letters(listed: Sequence[str]) -> tuple[str, ...]:
    """Take off the options' letters, "A. ", "A) ", "(A) " or "A: ", where each has its own.

    >>> _without_letters(["(A) turn left", "(B) turn right"]), _without_letters(["A: left", "B"])
    (('turn left', 'turn right'), ('A: left', 'B'))
    """
    marks = [LETTER_MARK.match(text) for text in listed]
    letters = "".join(mark["letter"] for mark in marks if mark)
    if len(letters) == len(listed) and letters.upper() == LETTERS[: len(letters)]:
        return tuple(text[mark.end() :] for text, mark in zip(listed, marks))
    expected = LETTERS + " " * len(listed)
    return tuple(text.removeprefix(f"{letter}. ") for letter, text in zip(expected, listed))


def _letter(entry: dict, names: Sequence[str], options: Sequence[str], where: str) -> str:
    """Find the one answer under any of the names: "B", "(B)", "B. text" or an option's text."""
    answers = {str(entry[name]).strip() for name in names if entry.get(name) is not None}
    if len(answers) != 1:
        expected = f"one answer, under one of {', '.join(names)}"
        raise SampleError(where, "answer", expected, f"the fields {sorted(entry)}")
    (answer,) = answers
    bare = BARE_LETTER.fullmatch(answer)
    if bare:
        return bare[1]
    letters = set()
    for letter, text in zip(LETTERS, options):
        if answer in (text.strip(), f"{letter}. {text.strip()}"):
            letters.add(letter)
    if len(letters) != 1:
        raise SampleError(where, "answer", "a letter or the text of one option", answer)
    return letters.pop()


def write_benchmark(samples: Iterable[Sample], folder: str | os.PathLike) -> list[Path]:
    """Write samples as official files, one for each part, way and task.

    What those cannot tell goes under "sample".
    """
    files = defaultdict(dict)
    written = []
    for s in samples:
        if s.part not in FOLDERS:
            s.refuse("part", "one of " + ", ".join(FOLDERS), s.part)
        key = s.id.removeprefix(f"{s.part}/").removesuffix(f"/{s.task}/{s.way}")
        file = files[f"Part{s.part[-1]}_{s.way}_{KIND_OF[s.task]}.json"]
        if key in file:
            s.refuse("id", "an id that no earlier sample has", s.id)
        file[key] = _entry(s)
        parse = partial(_parse_entry, s.part, s.way, s.task, key)
        written.append((s, file[key], parse))
    add_own_fields(written)
    return [_write_file(Path(folder, name), file) for name, file in files.items()]


def _write_file(path: Path, file: dict) -> Path:
    return write_text(path, json.dumps(file, ensure_ascii=False, indent=1))


def _entry(s: Sample) -> dict:
    video = PurePosixPath(s.video).name
    if s.task == "route":
        return {"video": video, "question": s.question, f"{s.way}_answer": s.answer}
    options = [f"{letter}. {text}" for letter, text in zip(LETTERS, s.options)]
    choice = {"question": s.question, "options": options, "answer": s.answer}
    return {"video": video, f"{s.way}_mcq": choice}


def download(
    folder: str | os.PathLike, revision: str, data: str = "openinterx/Ego-ST-bench"
) -> Path:
    """Fetch an official data set (or the videos, "openinterx/Ego-ST-video") at one commit.

    Run again, it resumes. Raises ValueError where `revision` is not a commit's 40 hex digits,
    ConnectionError where the hub is out of reach.
    """
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError(f"revision: expected the 40 hex digits of a commit, found {revision!r}")
    from huggingface_hub import snapshot_download

    try:
        local = snapshot_download(data, repo_type="dataset", revision=revision, local_dir=folder)
    except OSError as error:
        options = f"--repo-type dataset --revision {revision} --local-dir {folder}"
        command = f"hf download {data} {options}"
        advice = f"Not fetched. Run this again, or where there is a network: {command}"
        raise ConnectionError(f"{error}\n{advice}") from error
    return Path(local)
