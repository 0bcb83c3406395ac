"""The inspector's kernel side: what it sends, what it writes; what a browser makes of it is in test_browser."""

import csv
import io
import json
import os
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
    inspector = inspect(rows, runs, videos, findings, tmp_path / "marks.jsonl")
    inspector.sent = []
    inspector.send = lambda content, buffers=None: inspector.sent.append((content, buffers))
    return inspector


def press(inspector, **message) -> str:
    """Do what the front end asks for; return what is said."""
    inspector._on_message(inspector, message, [])
    return inspector.status.get("text", "")


def ids(found) -> list[str]:
    return [s.id for s in found]


def test_each_filter_finds_what_it_names(inspector):
    assert ids(inspector.find()) == ["s0", "s1", "s2", "s3", "s4", "s5"]
    assert ids(inspector.find(task="action")) == ["s4", "s5"]
    assert ids(inspector.find(part="p1")) == ["s1", "s3", "s5"]
    assert ids(inspector.find(outcome="wrong")) == ["s1", "s4"]
    assert ids(inspector.find(outcome="unreadable")) == ["s5"]
    assert ids(inspector.find(outcome="runs disagree")) == ["s1"]
    assert ids(inspector.find(finding="dull")) == ["s1", "s3"]
    assert ids(inspector.find("back? 2")) == ["s2"]
    assert inspector.find(task="action", outcome="right") == []
    base_wrong = {"reply of base": "wrong", "reply of tuned": "right"}
    assert ids(inspector.find(**base_wrong)) == ["s1"]
    with pytest.raises(ValueError, match=r"expected a filter among task, .*found 'colour'"):
        inspector.find(colour="red")


def test_a_sample_is_sent_with_frames_times_gold_replies_and_why(inspector):
    press(inspector, do="open", index=1)
    ((content, frames),) = inspector.sent
    view = content["view"]
    assert content["index"] == 1 and "frames" not in view
    assert (len(frames), view["indices"][0], view["indices"][-1]) == (16, 0, 39)
    assert view["seconds"][-1] == pytest.approx(1.3)
    assert view["options"] == [["A", OPTIONS[0], True], ["B", OPTIONS[1], False]]
    assert [(r["name"], r["answer"], r["reason"]) for r in view["runs"]] == [
        ("base", "B", "wrong"),
        ("tuned", "A", "right"),
    ]
    assert [track["name"] for track in view["tracks"]] == [
        "forward path",
        "reverse path",
        "base thought",
        "tuned thought",
    ]
    assert view["findings"] == ["dull"]


def test_a_text_is_looked_for_in_questions_replies_and_notes(inspector):
    press(inspector, do="mark", indices=[4], note="Too Dark")
    for text, found in (("BACK? 2", [2]), ("well", [5]), ("too dark", [4]), ("no such text", [])):
        press(inspector, do="search", text=text)
        assert inspector.sent.pop() == ({"found": found, "text": text}, None)


def test_marks_are_on_disk_at_once_and_what_others_wrote_is_kept(inspector, tmp_path):
    path = tmp_path / "marks.jsonl"
    assert press(inspector, do="mark", indices=[0], mark="wrong gold") == "saved in marks.jsonl"
    mark(path, "other", mark="good")
    press(inspector, do="mark", indices=[0], note='"no"\n\u2028 </script>')
    rows = read_marks(path)
    assert rows["s0"]["mark"] == "wrong gold" and rows["s0"]["note"] == '"no"\n\u2028 </script>'
    assert rows["other"]["mark"] == "good"
    assert ids(inspector.find(mark="wrong gold")) == ["s0"]
    press(inspector, do="mark", indices=[0], mark="", note="")
    assert list(read_marks(path)) == ["other"]


def test_many_samples_are_marked_in_one_go_with_a_mark_of_ones_own_and_it_is_undone(
    inspector, tmp_path
):
    path = tmp_path / "marks.jsonl"
    press(inspector, do="mark", indices=[1], mark="good", note="seen")
    before = inspector.marks
    said = press(inspector, do="mark", indices=[0, 1, 2], mark="too dark")
    assert said == "3 samples saved in marks.jsonl"
    assert {name: row["mark"] for name, row in read_marks(path).items()} == dict.fromkeys(
        ("s1", "s0", "s2"), "too dark"
    )
    mark(path, "other", mark="good")  # by somebody else: an undo leaves it alone
    assert press(inspector, do="undo") == "undone: 3 samples"
    assert inspector.marks == before | {"other": {"mark": "good", "note": ""}}
    assert press(inspector, do="undo") == "undone: s1"
    assert press(inspector, do="undo") == "There is nothing to undo."
    assert list(read_marks(path)) == ["other"]


def test_a_torn_annotation_names_its_line_and_is_not_overwritten(inspector, tmp_path):
    path = tmp_path / "marks.jsonl"
    path.write_text('{"id": "s0", "mark": "good", "note": ""}\n{"id": "s1", "mark": 3}\n')
    said = press(inspector, do="mark", indices=[0], mark="good")
    assert said.startswith("not saved: marks.jsonl:2: field 'annotation'")
    assert path.read_text().endswith('"mark": 3}\n')
    assert press(inspector, do="undo") == "There is nothing to undo."
    with pytest.raises(SampleError, match=r"marks\.jsonl:2"):
        inspect(samples(), annotations=path)


def test_a_mark_that_cannot_be_written_is_said_and_not_shown(inspector, tmp_path):
    inspector.annotations = tmp_path / "marks.jsonl" / "below"
    (tmp_path / "marks.jsonl").write_text("")
    assert press(inspector, do="mark", indices=[0], mark="good").startswith("not saved: ")
    assert inspector.marks == {}


def test_exports_hold_the_samples_asked_for(inspector, tmp_path):
    press(inspector, do="mark", indices=[1], mark="good", note="=1+1")
    dull = inspector.find(finding="dull")
    text = inspector.save(tmp_path / "x.jsonl", dull).read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [(r["id"], r["base: answer"], r["tuned: reason"], r["findings"]) for r in rows] == [
        ("s1", "B", "right", ["dull"]), ("s3", "A", "right", ["dull"]),
    ]  # fmt: skip
    table = list(csv.DictReader(io.StringIO(inspector.save(tmp_path / "x.csv", dull).read_text())))
    assert [(r["id"], r["mark"], r["note"]) for r in table] == [
        ("s1", "good", "'=1+1"),
        ("s3", "", ""),
    ]
    page = inspector.save(tmp_path / "x.html", dull).read_text()
    content = json.loads(re.search(r'id="views">(.*?)</script>', page)[1])
    assert [view["id"] for view in content["views"]] == content["table"]["ids"] == ["s1", "s3"]
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert len(inspector.save(tmp_path / "all.jsonl").read_text().splitlines()) == 6
    with pytest.raises(ValueError, match=r"found 'x\.xml'"):
        inspector.save(tmp_path / "x.xml")


def test_an_export_is_what_was_asked_for_whatever_else_goes_on(inspector, tmp_path):
    """JupyterLab runs a widget's handlers on a second thread, beside the cells."""
    started, go_on = threading.Event(), threading.Event()
    read = inspector.clip_of

    def slow(video, **more):
        started.set()
        assert go_on.wait(30)
        return read(video, **more)

    inspector.clip_of = slow
    ask = {"do": "export", "indices": [4, 1, 3], "ending": "html"}
    export = threading.Thread(target=press, args=(inspector,), kwargs=ask)
    export.start()
    assert started.wait(30)
    others = [
        threading.Thread(target=press, args=(inspector,), kwargs={"do": "open", "index": 5}),
        threading.Thread(
            target=inspector.save, args=(tmp_path / "cell.csv", inspector.samples[:1])
        ),
    ]
    for thread in others:
        thread.start()
    go_on.set()
    for thread in (export, *others):
        thread.join(30)
    assert inspector.status["text"] == "3 samples written to inspected.html"
    page = (tmp_path / "inspected.html").read_text()
    content = json.loads(re.search(r'id="views">(.*?)</script>', page)[1])
    assert [view["id"] for view in content["views"]] == ["s4", "s1", "s3"]
    assert len((tmp_path / "cell.csv").read_text().splitlines()) == 2


def test_what_happens_in_one_handler_waits_for_the_other(inspector):
    """Two handlers at once would each read the marks, and one would lose the other's."""
    inside, overlaps = [], []
    view = inspector.sample_view

    def watched(sample):
        overlaps.append(len(inside))
        inside.append(sample)
        made = view(sample)
        inside.remove(sample)
        return made

    inspector.sample_view = watched
    threads = [
        threading.Thread(target=press, args=(inspector,), kwargs={"do": "open", "index": i % 6})
        for i in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert overlaps == [0] * 24


def test_a_page_holds_no_number_that_json_lacks(videos, tmp_path):
    rows = samples(1)
    record = said(rows[0], "A") | {"value": float("nan"), "rewards": {"x": float("inf")}}
    page = inspect(rows, [record], videos, annotations=tmp_path / "m").save(tmp_path / "x.html")

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    text = re.search(r'id="views">(.*?)</script>', page.read_text())[1]
    (view,) = json.loads(text, parse_constant=refuse)["views"]
    assert view["runs"][0]["value"] is None and view["runs"][0]["rewards"] == {"x": None}


def test_an_unreadable_video_is_an_error_in_the_view_not_an_exception(videos, tmp_path):
    (videos / "torn.mp4").write_bytes(b"not a video")
    for name in ("none.mp4", "torn.mp4"):
        inspector = inspect(samples(1, name), None, videos, annotations=tmp_path / "m")
        assert name in inspector.sample_view(inspector.samples[0])["error"]
        assert "image/png" not in inspector._repr_mimebundle_()[0]


def test_no_sample_at_all_is_no_error(tmp_path):
    inspector = inspect([], annotations=tmp_path / "m")
    assert inspector.find(task="action") == []
    inspector._repr_mimebundle_()
    assert inspector.save(tmp_path / "x.html").exists()
    assert not (tmp_path / "m").exists()


def test_the_picture_is_of_the_sample_named(inspector):
    assert plots.png(inspector.picture("s3")).startswith(b"\x89PNG")
    assert any("Back? 3" in text for text in titles(inspector.picture("s3")))
    with pytest.raises(ValueError, match="expected the id of one of 6 samples, found 'none'"):
        inspector.picture("none")


def test_it_opens_on_the_sample_named(videos, tmp_path):
    assert inspect(samples(), None, videos, annotations=tmp_path / "m", start="s4").start == "s4"
    with pytest.raises(ValueError, match="expected the id of one of 6 samples, found 's9'"):
        inspect(samples(), None, videos, annotations=tmp_path / "m", start="s9")


def test_replies_to_other_samples_are_not_dropped_in_silence(videos, tmp_path):
    rows = samples()
    runs = {"base": [said(s, "A") for s in rows], "tuned": [said(s, "A") for s in rows[:2]]}
    inspector = inspect(rows[:2], runs, videos, annotations=tmp_path / "m")
    assert inspector.status["text"] == "base: 4 replies are to samples that are not here."


def titles(figure) -> list[str]:
    return [axis.get_title(loc="left") for axis in figure.axes]


def test_two_records_of_one_sample_in_a_run_are_refused():
    rows = [said(samples()[0], "A")] * 2
    assert len(runs_of([rows[0]])["run"]) == 1
    with pytest.raises(ValueError, match="two for 's0'"):
        runs_of([*rows, dict(rows[0])])


def test_no_file_stays_open_and_no_thread_is_left(inspector):
    press(inspector, do="open", index=0)
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for index in range(6):
            press(inspector, do="open", index=index)
    assert len(os.listdir("/proc/self/fd")) == files and threading.active_count() == threads


def test_looking_needs_no_torch():
    code = "import sys; from stlite.viz import inspector, plots; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


WRITER = """
import sys
from stlite.viz.marks import mark
for i in range(30):
    mark(sys.argv[1], f"{sys.argv[2]}{i}", mark="good")
"""


def test_two_kernels_that_mark_at_once_lose_nothing(tmp_path):
    path = tmp_path / "marks.jsonl"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in ("a", "b")
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    assert set(read_marks(path)) == {f"{name}{i}" for name in "ab" for i in range(30)}
