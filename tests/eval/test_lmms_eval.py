"""The task for lmms-eval: its files, and the same scores for the same replies as ours."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from stlite.data.egost import read_benchmark
from stlite.data.prompts import problem
from stlite.data.sample import SampleError
from stlite.eval.lmms_eval import COLUMNS, MEAN, TASK, export_lmms_eval, mean_over_choices
from stlite.eval.metrics import accuracy_table
from stlite.eval.records import record

BENCHMARK = Path(__file__).parents[2] / "sample_data" / "benchmark"
REPLIES = Path(__file__).parents[1] / "rewards" / "replies.jsonl"
INSTALL = "python -m venv lmms && lmms/bin/pip install 'lmms-eval==0.7.*' . pytest"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return export_lmms_eval(BENCHMARK, tmp_path_factory.mktemp("tasks") / TASK)


@pytest.fixture(scope="module")
def samples() -> list:
    return read_benchmark(BENCHMARK)


def functions(folder: Path):
    """Import utils.py as lmms-eval does, by its path."""
    spec = importlib.util.spec_from_file_location("exported_utils", folder / "utils.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings(folder: Path) -> dict:
    class Loader(yaml.SafeLoader):
        """Reads a tag !function as the name behind it."""

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    return yaml.load((folder / f"{TASK}.yaml").read_text("utf-8"), Loader)


def documents(folder: Path) -> list[dict]:
    lines = (folder / "benchmark.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def kept_replies(samples) -> list[tuple]:
    """Give every question some replies: right ones, wrong ones, and what replies look like."""
    replies = [json.loads(line)["reply"] for line in REPLIES.read_text("utf-8").splitlines()]
    pairs = []
    for number, sample in enumerate(samples):
        pairs.append((sample, f"<think>I walk.</think> <answer>{sample.answer}</answer>"))
        pairs.append((sample, replies[2 * number % len(replies)]))
    return pairs


def assert_scored_as_ours(process_results, mean, documents, samples) -> int:
    """Compare each score, and the mean over choices; return how many replies were compared."""
    by_id = {doc["id"]: doc for doc in documents}
    records = []
    means = []
    for sample, reply in kept_replies(samples):
        ours = record(sample, {"reply": reply})
        theirs = process_results(by_id[sample.id], [reply])
        assert theirs[f"{sample.task}_{sample.way}"] == pytest.approx(ours["value"]), reply
        assert (MEAN in theirs) == (sample.kind == "choice")
        records.append(ours)
        if MEAN in theirs:
            means.append(theirs[MEAN])
    assert {row["value"] for row in records if row["kind"] == "choice"} == {0.0, 1.0}
    assert mean(means) == pytest.approx(accuracy_table(records)[-1]["accuracy"])
    return len(records)


def test_the_yaml_names_the_data_and_functions_that_exist(folder):
    task = settings(folder)
    assert task["task"] == TASK
    assert Path(task["dataset_kwargs"]["data_files"][task["test_split"]]).is_file()
    module = functions(folder)
    names = [task[key] for key in ("doc_to_visual", "doc_to_text", "doc_to_target")]
    names += [task["process_results"], task["metric_list"][-1]["aggregation"]]
    for name in names:
        assert callable(getattr(module, name.removeprefix("utils."))), name


def test_every_question_is_asked_in_our_words_about_a_video_that_is_there(folder, samples):
    module = functions(folder)
    rows = documents(folder)
    assert [row["id"] for row in rows] == [sample.id for sample in samples]
    for row, sample in zip(rows, samples):
        assert module.doc_to_text(row, {"post_prompt": "Answer briefly."}) == problem(sample)
    assert all(Path(path).is_file() for row in rows for path in module.doc_to_visual(row))


def test_nothing_but_the_target_gives_the_answer_away(folder):
    for row in documents(folder):
        assert set(row) == set(COLUMNS)
        if not row["options"]:
            assert row["answer"] not in row["question"]


def test_replies_are_scored_as_here(folder, samples):
    module = functions(folder)
    compared = assert_scored_as_ours(
        module.process_results, module.mean_over_choices, documents(folder), samples
    )
    assert compared >= 300


def test_a_small_cell_counts_as_much_as_a_large_one():
    rows = [{"cell": "direction_forward", "value": 1.0}] * 9
    rows.append({"cell": "landmark_forward", "value": 0.0})
    assert mean_over_choices(rows) == pytest.approx(0.5)


def test_a_video_outside_its_root_is_refused(folder):
    row = documents(folder)[0] | {"video": "../secret.mp4"}
    with pytest.raises(SampleError, match="relative path under its root"):
        functions(folder).doc_to_visual(row)


def test_a_part_of_a_video_is_refused(tmp_path):
    file = BENCHMARK / "Part1_forward_qa.json"
    text = file.read_text("utf-8").replace(".mp4", ".mp4#t=0,2")
    assert "#t=" in text
    (tmp_path / file.name).write_text(text, "utf-8")
    with pytest.raises(SampleError, match="cut it"):
        export_lmms_eval(tmp_path, tmp_path / "task", videos=BENCHMARK.parent / "videos")


def test_lmms_eval_itself_scores_as_we_do(folder, samples):
    pytest.importorskip("lmms_eval", reason=f"lmms-eval is missing; for this test: {INSTALL}")
    from lmms_eval.tasks import TaskManager, get_task_dict

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    task = get_task_dict([TASK], manager)[TASK]
    rows = list(task.test_docs())
    assert task.doc_to_text(rows[0]) == problem(samples[0])
    mean = task.aggregation()[MEAN]
    assert assert_scored_as_ours(task.process_results, mean, rows, samples) >= 300
