"""The views as data and on disk; what a browser makes of them is tested in test_browser."""

import asyncio
import csv
import io
import json
import re
import subprocess
import sys
import threading
import time
import warnings
from types import SimpleNamespace

import pandas
import pytest

from stlite.data import prompts
from stlite.data.sample import Sample, SampleError
from stlite.eval.evaluate import record
from stlite.viz import inspector as widgets
from stlite.viz import plots
from tests import clips

OPTIONS = ("turn around turn left", "turn around turn right")


def samples(count: int = 6, video: str = "a.mp4") -> list[Sample]:
    steps = ("turn right",), ("turn around", "turn left")
    tasks = ["direction"] * 4 + ["action"] * 2
    asked = [(f"s{i}", video, tasks[i], "reverse", f"Back? {i}", "A") for i in range(count)]
    return [Sample(*some, OPTIONS, *steps, part=f"p{i % 2}") for i, some in enumerate(asked)]


def said(s: Sample, answer: str) -> dict:
    return record(s, {"reply": prompts.reply(prompts.trace(s), answer) if answer else "well"})


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    clips.encode(folder / "a.mp4", range(40), size=(160, 120))
    return folder


@pytest.fixture
def inspector(videos, tmp_path):
    rows = samples()
    runs = {
        "base": [said(s, a) for s, a in zip(rows, "ABAAB")] + [said(rows[5], "")],
        "tuned": [said(s, "A") for s in rows[:4]],
    }
    findings = [{"code": "dull", "ids": ["s1", "s3"]}]
    return widgets.inspect(rows, runs, videos, findings, tmp_path / "marks.jsonl")


def shown(inspector, **filters) -> list[str]:
    """Ids of the samples that pass the filters."""
    for name, widget in inspector.filters.items():
        widget.value = filters.get(name, "")
    inspector.text.value = filters.get("text", "")
    return [s.id for s in inspector.shown]


def test_each_filter_shows_what_it_names(inspector):
    assert shown(inspector) == ["s0", "s1", "s2", "s3", "s4", "s5"]
    assert shown(inspector, task="action") == ["s4", "s5"]
    assert shown(inspector, part="p1") == ["s1", "s3", "s5"]
    assert shown(inspector, outcome="wrong") == ["s1", "s4"]
    assert shown(inspector, outcome="unreadable") == ["s5"]
    assert shown(inspector, outcome="runs disagree") == ["s1"]
    assert shown(inspector, finding="dull") == ["s1", "s3"]
    assert shown(inspector, text="back? 2") == ["s2"]
    assert shown(inspector, task="action", outcome="right") == []
    assert inspector.strip.view == {"kind": "empty", "text": "No sample passes these filters."}


def test_keys_move_and_the_ends_say_so(inspector):
    press = lambda **message: inspector._on_message(inspector.strip, message)  # noqa: E731
    press(do="move", by=1)
    assert inspector.strip.view["id"] == "s1"
    press(do="wrong")
    assert inspector.strip.view["id"] == "s4"
    press(do="wrong")
    press(do="wrong")
    assert inspector.strip.view["id"] == "s1"  # round again
    press(do="move", by=-5)
    assert (inspector.strip.view["id"], inspector.strip.said["message"]) == (
        "s1",
        "there is none further this way",
    )


def test_a_view_holds_frames_times_gold_replies_and_why(inspector):
    inspector.show(1)
    view = inspector.strip.view
    assert (len(view["frames"]), view["indices"][0], view["indices"][-1]) == (16, 0, 39)
    assert view["seconds"][-1] == pytest.approx(1.3)
    assert view["options"] == [["A", OPTIONS[0], True], ["B", OPTIONS[1], False]]
    assert [(r["name"], r["answer"], r["reason"]) for r in view["runs"]] == [
        ("base", "B", "wrong"),
        ("tuned", "A", "right"),
    ]
    assert [x["name"] for x in view["lanes"]] == [
        "forward path",
        "reverse path",
        "base thought",
        "tuned thought",
    ]
    assert view["findings"] == ["dull"]
    assert plots.png(inspector.picture()).startswith(b"\x89PNG")


def test_marks_are_on_disk_at_once_and_what_others_wrote_is_kept(inspector, tmp_path):
    press = lambda **message: inspector._on_message(inspector.strip, message)  # noqa: E731
    path = tmp_path / "marks.jsonl"
    press(do="mark", text="wrong gold")
    widgets.mark(path, "other", mark="good")
    press(do="note", text='"no"\n\u2028 </script>')
    found = widgets.read_marks(path)
    assert {k: found["s0"][k] for k in ("mark", "note")} == {
        "mark": "wrong gold",
        "note": '"no"\n\u2028 </script>',
    }
    assert found["other"]["mark"] == "good"
    assert shown(inspector, mark="wrong gold") == ["s0"]
    press(do="mark", text="")
    press(do="note", text="")
    assert list(widgets.read_marks(path)) == ["other"]


def test_a_torn_annotation_names_its_line_and_is_not_overwritten(inspector, tmp_path):
    path = tmp_path / "marks.jsonl"
    path.write_text('{"id": "s0", "mark": "good", "note": ""}\n{"id": "s1", "mark": 3}\n')
    inspector._on_message(inspector.strip, {"do": "mark", "text": "good"})
    assert inspector.strip.said["message"].startswith(
        "not saved: marks.jsonl:2: field 'annotation'"
    )
    assert path.read_text().endswith('"mark": 3}\n')
    with pytest.raises(SampleError, match=r"marks\.jsonl:2"):
        widgets.inspect(samples(), annotations=path)


def test_exports_hold_what_passes_the_filters(inspector, tmp_path):
    widgets.mark(tmp_path / "marks.jsonl", "s1", mark="good", note="=1+1")
    inspector.marks = widgets.read_marks(tmp_path / "marks.jsonl")
    shown(inspector, finding="dull")
    rows = [
        json.loads(line) for line in inspector.save(tmp_path / "x.jsonl").read_text().splitlines()
    ]
    assert [(r["id"], r["base: answer"], r["tuned: reason"], r["findings"]) for r in rows] == [
        ("s1", "B", "right", ["dull"]), ("s3", "A", "right", ["dull"]),
    ]  # fmt: skip
    table = list(csv.DictReader(io.StringIO(inspector.save(tmp_path / "x.csv").read_text())))
    assert [(r["id"], r["mark"], r["note"]) for r in table] == [
        ("s1", "good", "'=1+1"),
        ("s3", "", ""),
    ]
    page = inspector.save(tmp_path / "x.html").read_text()
    assert len(json.loads(re.search(r'id="views">(.*?)</script>', page)[1])) == 2
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    with pytest.raises(ValueError, match=r"found 'x\.xml'"):
        inspector.save(tmp_path / "x.xml")
    inspector._export(None)
    assert inspector.strip.said["message"] == "2 samples written to inspected.csv"


def test_an_unreadable_video_is_an_error_in_the_view_not_an_exception(videos, tmp_path):
    (videos / "torn.mp4").write_bytes(b"not a video")
    for name in ("none.mp4", "torn.mp4"):
        made = widgets.inspect(samples(1, name), None, videos, annotations=tmp_path / "m")
        assert name in made.strip.view["error"]
        assert "image/png" not in made.strip._repr_mimebundle_()[0]


def test_no_sample_at_all_is_said(tmp_path):
    made = widgets.inspect([], annotations=tmp_path / "m")
    assert made.strip.view == {"kind": "empty", "text": "There is no sample."}
    made._on_message(made.strip, {"do": "mark", "text": "good"})
    made._repr_mimebundle_()
    assert not (tmp_path / "m").exists()


def test_two_records_of_one_sample_in_a_run_are_refused():
    rows = [said(samples()[0], "A")] * 2
    assert len(widgets.runs_of([rows[0]])["run"]) == 1
    with pytest.raises(ValueError, match="two for 's0'"):
        widgets.runs_of([*rows, dict(rows[0])])


def test_noise_of_any_size_stays_under_300_kb():
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 256, (16, 256, 256, 3), np.uint8)
    assert sum(map(len, widgets.jpegs(noise))) <= widgets.LIMIT < 300_000


def test_show_chain_pays_as_the_rewards_do_and_is_saved_three_ways(videos, tmp_path):
    s = samples()[0]
    strip = widgets.show_chain(s, prompts.reply(prompts.trace(s), "A"), videos)
    (run,) = strip.view["runs"]
    assert run["rewards"] == {
        "accuracy": 1.0,
        "format": 1.0,
        "reverse_steps": 1.0,
        "consistency": 1.0,
    }
    assert [c["state"] for c in strip.view["lanes"][-1]["cells"]] == ["right"]
    assert strip.save(tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert strip.save(tmp_path / "c.svg").read_text("utf-8").rstrip().endswith("</svg>")
    assert "turn around" in strip.save(tmp_path / "c.html").read_text("utf-8")
    shown, _ = strip._repr_mimebundle_()
    assert "image/png" in shown and len(shown["text/plain"]) < 80


def test_show_group_marks_what_differs_from_the_best():
    rows = [{"reply": "go left now", "accuracy": 0.0}, {"reply": "go right now", "accuracy": 1.0}]
    view = widgets.show_group(rows, "where?").view
    assert view["rows"][0]["pieces"] == [("go", False), (" left", True), (" now", False)]
    assert view["rows"][1]["pieces"] == [("go right now", False)]
    assert "teaches nothing" in widgets.group_view([rows[0]] * 2)["caption"]


def completions(folder, step: int, prompt: str = "where?"):
    """A file as rollouts.Completions writes it: two prompts, two rollouts each."""
    table = {"step": [step] * 4, "prompt": ["other", "other", prompt, prompt]}
    table |= {"completion": [f"reply {step}.{i}" for i in range(4)]}
    table |= {"accuracy_reward": [0.0, 1.0, 1.0, 0.0], "advantage": [-0.7, 0.7, 0.7, -0.7]}
    (folder / "completions").mkdir(parents=True, exist_ok=True)
    pandas.DataFrame(table).to_parquet(folder / "completions" / f"completions_{step:05d}.parquet")


def test_a_training_view_follows_a_real_trainer_and_shows_the_same_from_disk(tmp_path):
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_callback import CallbackHandler

    view = widgets.TrainingView(tmp_path / "run")
    assert view.strip.view["caption"] == "training, 0 entries"
    handler = CallbackHandler([view], None, None, None, None)
    args, state, control = TrainingArguments(tmp_path), TrainerState(), TrainerControl()
    handler.on_train_begin(args, state, control)
    for step in (1, 2):
        completions(tmp_path / "run", step)
        state.log_history.append({"step": step, "reward": 0.5, "kl": 0.1})
        handler.on_step_end(args, state, control)
        view.next = 0
        handler.on_log(args, state, control, {"reward": 0.5})
        assert view.strip.view["caption"] == f"training, {step} entries"
    handler.on_train_end(args, state, control)
    assert [row["text"] for row in view.strip.view["group"]["rows"]] == ["reply 2.2", "reply 2.3"]
    assert view.strip.view["group"]["rows"][0]["rewards"] == {"accuracy_reward": 1.0}
    assert view.strip.view["group"]["prompt"] == "where?"
    (tmp_path / "run" / "log.json").write_text(json.dumps(state.log_history))
    assert widgets.TrainingView(tmp_path / "run").strip.view == view.strip.view
    assert [row["completion"] for row in widgets.read_rollouts(tmp_path / "run", 1)] == [
        "reply 1.2",
        "reply 1.3",
    ]


def test_two_videos_asked_in_the_same_words_are_two_groups(tmp_path):
    (tmp_path / "completions").mkdir()
    table = {
        "prompt": list("aabbbb"),
        "completion": list("uvwxyz"),
        "accuracy_reward": [0.0, 1.0] * 3,
    }
    pandas.DataFrame(table).to_parquet(tmp_path / "completions" / "completions_00001.parquet")
    assert [row["completion"] for row in widgets.read_rollouts(tmp_path)] == ["y", "z"]


def test_a_training_view_never_takes_more_than_a_twentieth_of_the_time(tmp_path):
    view = widgets.TrainingView(tmp_path)
    assert view.next > time.monotonic()
    view.next, drawn = time.monotonic() + 60, view.strip.view
    view.on_log(None, SimpleNamespace(log_history=[{"step": 1, "loss": 1.0}]), None)
    assert view.strip.view is drawn
    view.on_train_end(None, None, None)
    assert view.strip.view["caption"] == "training, 1 entries"


def test_a_log_of_a_run_still_in_training_is_its_newest_checkpoints(tmp_path):
    for step in (5, 10):
        (tmp_path / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
        state = {"global_step": step, "log_history": [{"step": step}]}
        (tmp_path / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json").write_text(
            json.dumps(state)
        )
    assert widgets.read_log(tmp_path) == [{"step": 10}]


def test_no_file_stays_open_and_no_thread_is_left(videos, inspector):
    import os

    inspector.show(0)
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for at in range(6):
            inspector.show(at)
    assert len(os.listdir("/proc/self/fd")) == files and threading.active_count() == threads


def test_the_next_sample_is_read_while_this_one_is_looked_at(inspector):
    read, own = [], inspector.clip_of
    inspector.clip_of = lambda video, **more: read.append(video) or own(video, **more)

    async def look():
        inspector.show(0)
        await asyncio.sleep(0)
        before = len(read)
        inspector.show(1)
        return len(read) - before

    assert asyncio.run(look()) == 0
    assert inspector.strip.view["id"] == "s1" and len(inspector.strip.view["frames"]) == 16
    shown(inspector, task="action")
    assert inspector.strip.view["id"] == "s4"


def test_looking_needs_no_torch():
    code = "import sys; from stlite.viz import inspector, plots; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
