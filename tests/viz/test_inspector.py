"""The views as data and on disk; what a browser makes of them is tested in test_browser."""

import asyncio
import csv
import io
import json
import re
import subprocess
import sys
import threading
import warnings

import pytest

from stlite.data.sample import SampleError
from stlite.viz import plots
from stlite.viz.inspector import inspect, runs_of
from stlite.viz.marks import mark, read_marks
from tests.viewed import OPTIONS, said, samples


@pytest.fixture
def inspector(videos, tmp_path):
    rows = samples()
    runs = {
        "base": [said(s, a) for s, a in zip(rows, "ABAAB")] + [said(rows[5], "")],
        "tuned": [said(s, "A") for s in rows[:4]],
    }
    findings = [{"code": "dull", "ids": ["s1", "s3"]}]
    return inspect(rows, runs, videos, findings, tmp_path / "marks.jsonl")


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
    assert inspector.widget.view == {"kind": "empty", "text": "No sample passes these filters."}


def test_keys_move_and_the_ends_say_so(inspector):
    press = lambda **message: inspector._on_message(inspector.widget, message)  # noqa: E731
    press(do="move", by=1)
    assert inspector.widget.view["id"] == "s1"
    press(do="wrong")
    assert inspector.widget.view["id"] == "s4"
    press(do="wrong")
    press(do="wrong")
    assert inspector.widget.view["id"] == "s1"  # round again
    press(do="move", by=-5)
    assert (inspector.widget.view["id"], inspector.widget.said["message"]) == (
        "s1",
        "there is none further this way",
    )


def test_a_view_holds_frames_times_gold_replies_and_why(inspector):
    inspector.show(1)
    view = inspector.widget.view
    assert (len(view["frames"]), view["indices"][0], view["indices"][-1]) == (16, 0, 39)
    assert view["seconds"][-1] == pytest.approx(1.3)
    assert view["options"] == [["A", OPTIONS[0], True], ["B", OPTIONS[1], False]]
    assert [(r["name"], r["answer"], r["reason"]) for r in view["runs"]] == [
        ("base", "B", "wrong"),
        ("tuned", "A", "right"),
    ]
    assert [x["name"] for x in view["tracks"]] == [
        "forward path",
        "reverse path",
        "base thought",
        "tuned thought",
    ]
    assert view["findings"] == ["dull"]
    assert plots.png(inspector.picture()).startswith(b"\x89PNG")


def test_marks_are_on_disk_at_once_and_what_others_wrote_is_kept(inspector, tmp_path):
    press = lambda **message: inspector._on_message(inspector.widget, message)  # noqa: E731
    path = tmp_path / "marks.jsonl"
    press(do="mark", text="wrong gold")
    mark(path, "other", mark="good")
    press(do="note", text='"no"\n\u2028 </script>')
    found = read_marks(path)
    assert {k: found["s0"][k] for k in ("mark", "note")} == {
        "mark": "wrong gold",
        "note": '"no"\n\u2028 </script>',
    }
    assert found["other"]["mark"] == "good"
    assert shown(inspector, mark="wrong gold") == ["s0"]
    press(do="mark", text="")
    press(do="note", text="")
    assert list(read_marks(path)) == ["other"]


def test_a_torn_annotation_names_its_line_and_is_not_overwritten(inspector, tmp_path):
    path = tmp_path / "marks.jsonl"
    path.write_text('{"id": "s0", "mark": "good", "note": ""}\n{"id": "s1", "mark": 3}\n')
    inspector._on_message(inspector.widget, {"do": "mark", "text": "good"})
    assert inspector.widget.said["message"].startswith(
        "not saved: marks.jsonl:2: field 'annotation'"
    )
    assert path.read_text().endswith('"mark": 3}\n')
    with pytest.raises(SampleError, match=r"marks\.jsonl:2"):
        inspect(samples(), annotations=path)


def test_exports_hold_what_passes_the_filters(inspector, tmp_path):
    mark(tmp_path / "marks.jsonl", "s1", mark="good", note="=1+1")
    inspector.marks = read_marks(tmp_path / "marks.jsonl")
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
    assert inspector.widget.said["message"] == "2 samples written to inspected.csv"


def test_an_unreadable_video_is_an_error_in_the_view_not_an_exception(videos, tmp_path):
    (videos / "torn.mp4").write_bytes(b"not a video")
    for name in ("none.mp4", "torn.mp4"):
        made = inspect(samples(1, name), None, videos, annotations=tmp_path / "m")
        assert name in made.widget.view["error"]
        assert "image/png" not in made.widget._repr_mimebundle_()[0]


def test_no_sample_at_all_is_said(tmp_path):
    made = inspect([], annotations=tmp_path / "m")
    assert made.widget.view == {"kind": "empty", "text": "There is no sample."}
    made._on_message(made.widget, {"do": "mark", "text": "good"})
    made._repr_mimebundle_()
    assert not (tmp_path / "m").exists()


def test_two_records_of_one_sample_in_a_run_are_refused():
    rows = [said(samples()[0], "A")] * 2
    assert len(runs_of([rows[0]])["run"]) == 1
    with pytest.raises(ValueError, match="two for 's0'"):
        runs_of([*rows, dict(rows[0])])


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
    assert inspector.widget.view["id"] == "s1" and len(inspector.widget.view["frames"]) == 16
    shown(inspector, task="action")
    assert inspector.widget.view["id"] == "s4"


def test_looking_needs_no_torch():
    code = "import sys; from stlite.viz import inspector, plots; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
