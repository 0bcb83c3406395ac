"""A benchmark as a task of lmms-eval 0.7: our prompt, our parser, our scorer.

`export_lmms_eval("sample_data/benchmark", "tasks/ego_st_bench")` writes three files:
`ego_st_bench.yaml`, which names the functions; `utils.py`, which imports them from here; and
`benchmark.jsonl`, the questions. stlite must be importable where lmms-eval runs.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from stlite.data.egost import read_benchmark
from stlite.data.prompts import problem
from stlite.data.sample import Sample, from_dict, safe_path, write_text
from stlite.rewards.rewards import score

TASK = "ego_st_bench"
DATA = "benchmark.jsonl"
COLUMNS = ("id", "video", "task", "way", "question", "answer", "options", "part", "group")
MEAN = "mean_over_choices"
MAX_NEW_TOKENS = 1024
HEADER = f"""\
task: {TASK}
dataset_path: json
dataset_kwargs:
  data_files:
    test: %s
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: !function utils.doc_to_target
process_results: !function utils.process_results
generation_kwargs:
  max_new_tokens: {MAX_NEW_TOKENS}
  temperature: 0
  do_sample: false
metadata:
  version: 1.0
metric_list:
"""
METRIC = """\
  - metric: %s
    aggregation: %s
    higher_is_better: true
"""
FUNCTIONS = '''\
"""Ego-ST Bench for lmms-eval; prompt, parser and scorer are imported from stlite."""

from stlite.eval.lmms_eval import doc_to_target as doc_to_target
from stlite.eval.lmms_eval import doc_to_text as doc_to_text
from stlite.eval.lmms_eval import mean_over_choices as mean_over_choices
from stlite.eval.lmms_eval import process_results as process_results
from stlite.eval.lmms_eval import video_path

VIDEOS = %s  # change it where the videos lie elsewhere


def doc_to_visual(doc):
    """Return the paths of a question's videos."""
    return [video_path(doc, VIDEOS)]
'''


def export_lmms_eval(
    folder: str | os.PathLike, out: str | os.PathLike, videos: str | os.PathLike | None = None
) -> Path:
    """Write a folder of official files as a task folder of lmms-eval; return the folder.

    `videos` is their root, by default the folder "videos" beside `folder`. Raises ValueError for a
    video with a time range: lmms-eval reads whole files. The yaml holds the full path of the data,
    so a folder that moved is exported again.
    """
    root = Path(folder).resolve().parent / "videos" if videos is None else Path(videos).resolve()
    samples = read_benchmark(folder, videos=root)
    _refuse_time_ranges(samples)
    out = Path(out).resolve()
    write_text(out / DATA, "".join(map(_line, samples)))
    write_text(out / "utils.py", FUNCTIONS % repr(str(root)))
    write_text(out / f"{TASK}.yaml", _yaml(out / DATA, samples))
    return out


def _refuse_time_ranges(samples: Iterable[Sample]) -> None:
    for sample in samples:
        if "#t=" in sample.video:
            sample.refuse("video", "a whole file, as lmms-eval cuts none (cut it)", sample.video)


def _line(sample: Sample) -> str:
    row = {name: getattr(sample, name) for name in COLUMNS}
    return json.dumps(row, ensure_ascii=False) + "\n"


def _yaml(data: Path, samples: Iterable[Sample]) -> str:
    """Write the task's settings: one metric a task and way, and their mean over the choices."""
    cells = sorted({_cell(sample) for sample in samples})
    text = HEADER % json.dumps(str(data))
    for cell in cells:
        text += METRIC % (cell, "mean")
    return text + METRIC % (MEAN, f"!function utils.{MEAN}")


def _cell(sample: Sample) -> str:
    return f"{sample.task}_{sample.way}"


# ---- what the task's utils.py imports ------------------------------------------------------------


def video_path(doc: Mapping, videos: str | os.PathLike) -> str:
    """Return the path of a question's video under its root."""
    return str(safe_path(doc["video"], videos, where=doc["id"]))


def doc_to_text(doc: Mapping, lmms_eval_specific_kwargs: Mapping | None = None) -> str:
    """Return the prompt of a question; a model's own additions to it are not taken."""
    return problem(from_dict(dict(doc)))


def doc_to_target(doc: Mapping) -> str:
    """Return the right answer: a letter, or the annotated route."""
    return doc["answer"]


def process_results(doc: Mapping, results: Sequence[str]) -> dict:
    """Score the one reply to a question: under its task and way, and for the mean over choices."""
    sample = from_dict(dict(doc))
    value = score(sample, results[0]).value
    metrics = {_cell(sample): value}
    if sample.kind == "choice":
        metrics[MEAN] = {"cell": _cell(sample), "value": value}
    return metrics


def mean_over_choices(rows: Iterable[Mapping]) -> float:
    """Average the accuracy of each task and way, so that each counts the same, as `report` does."""
    cells: dict[str, list[float]] = {}
    for row in rows:
        cells.setdefault(row["cell"], []).append(row["value"])
    return fmean(fmean(values) for values in cells.values())
