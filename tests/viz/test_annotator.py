"""The annotator without a browser: what a key does, what is on disk after it, and what a kill leaves."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stlite.data.annotation_file import read_table, read_walks
from stlite.data.annotations import annotations
from stlite.viz.annotator import annotate
from tests import clips

KILLS = int(os.environ.get("STLITE_KILLS", 4))
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for name in ("a.mp4", "b.mp4"):
        clips.encode(folder / name, range(40), size=(64, 48))
    (folder / "no_film.mp4").write_bytes(b"this is text")
    return folder


@pytest.fixture
def widget(films, tmp_path):
    widget = annotate(films, tmp_path / "walks.csv")
    yield widget
    widget.close()


def press(widget, task, text, second):
    widget.receive({"do": "add", "task": task, "text": text, "second": second})


def rows_on_disk(widget):
    return {row["video"]: row for row in read_table(widget.path)[0]}


def test_every_key_is_on_disk_at_once(widget):
    for count, text in enumerate(("turn left", "go straight", "turn right"), 1):
        press(widget, "direction", text, count)
        assert len(rows_on_disk(widget)["a.mp4"]["direction"].split("; ")) == count
    row = rows_on_disk(widget)["a.mp4"]
    assert row["direction"] == "turn left; go straight; turn right"
    assert row["direction_reverse"] == "turn around; turn left; go straight; turn right"
    assert row["direction_moments"] == "1.0; 2.0; 3.0"
    assert widget.state["told"] == {"text": "Saved in walks.csv.", "trouble": False}


def test_steps_stand_in_the_order_of_their_moments(widget):
    press(widget, "direction", "turn right", 5.0)
    press(widget, "direction", "turn left", 1.0)
    press(widget, "landmark", "lamp", 3.0)
    assert [row["text"] for row in widget.state["rows"]] == ["turn left", "lamp", "turn right"]
    edit = {"do": "edit", "task": "direction", "index": 0, "field": "second", "value": 9.0}
    widget.receive(edit)
    assert rows_on_disk(widget)["a.mp4"]["direction"] == "turn right; turn left"


def test_undo_goes_back_step_by_step_to_the_empty_file(widget):
    press(widget, "direction", "turn left", 1.0)
    first = widget.path.read_bytes()
    press(widget, "landmark", "lamp", 2.0)
    widget.receive({"do": "film", "by": 1})
    press(widget, "direction", "go straight", 1.0)
    widget.receive({"do": "undo"})
    widget.receive({"do": "undo"})
    assert widget.path.read_bytes() == first and widget.state["video"] == "a.mp4"
    widget.receive({"do": "undo"})
    assert rows_on_disk(widget) == {}
    widget.receive({"do": "undo"})
    assert widget.state["told"]["text"] == "There is nothing to undo."
    press(widget, "landmark", "lamp", 2.0)  # into a file that is a header alone by now
    assert widget.state["told"] == {"text": "Saved in walks.csv.", "trouble": False}


def test_a_way_back_can_be_written_and_given_back_to_the_rule(widget):
    press(widget, "direction", "turn left", 1.0)
    change = {"do": "edit", "task": "direction", "index": 0, "field": "back"}
    widget.receive({**change, "value": "bear right"})
    assert rows_on_disk(widget)["a.mp4"]["direction_reverse"] == "turn around; bear right"
    assert not widget.state["rows"][0]["by_rule"]
    widget.receive({**change, "value": ""})
    assert rows_on_disk(widget)["a.mp4"]["direction_reverse"] == "turn around; turn right"
    widget.receive({"do": "back", "task": "head", "index": 0, "text": "turn back"})
    assert rows_on_disk(widget)["a.mp4"]["direction_reverse"] == "turn back; turn right"


def test_an_unsure_step_is_marked_and_leaves_the_way_back_open(widget, monkeypatch):

    def rule(step, task):  # that is not sure of anything else
        return {"sit down": "stand up"}.get(step)

    monkeypatch.setattr("stlite.data.annotation_cells.reverse_step", rule)
    press(widget, "action", "juggle", 1.0)
    press(widget, "action", "sit down", 2.0)
    assert widget.state["unsure"] == 1
    assert [row["unsure"] for row in widget.state["rows"]] == [True, False]
    assert rows_on_disk(widget)["a.mp4"]["action_reverse"] == ""
    widget.receive({"do": "edit", "task": "action", "index": 1, "field": "back", "value": "get up"})
    again = annotate(widget.root, widget.path)
    again.receive({"do": "film", "at": 0})
    assert [row["back"] for row in again.state["rows"]] == ["", "get up"]
    again.receive({"do": "edit", "task": "action", "index": 0, "field": "back", "value": "juggle"})
    assert rows_on_disk(again)["a.mp4"]["action_reverse"] == "get up; juggle"
    again.close()


def test_existing_rows_load_and_are_mended(films, tmp_path):
    path = tmp_path / "walks.csv"
    path.write_text(
        "video,direction,direction_reverse,landmark\n"
        "b.mp4,turn left; go straight,go on; turn; walk; stop; rest,lamp\n"
    )
    widget = annotate(films, path)
    assert widget.state["video"] == "a.mp4"  # the first film that nobody has annotated
    widget.receive({"do": "film", "at": 1})
    assert widget.state["loose"] == {"direction": ["go on", "turn", "walk", "stop", "rest"]}
    widget.receive({"do": "derive", "task": "direction"})
    assert (
        rows_on_disk(widget)["b.mp4"]["direction_reverse"] == "turn around; go straight; turn right"
    )
    for index, second in enumerate((0.5, 1.0)):
        widget.receive(
            {"do": "edit", "task": "direction", "index": index, "field": "second", "value": second}
        )
    assert rows_on_disk(widget)["b.mp4"]["direction_moments"] == "0.5; 1.0"
    assert widget.state["told"] == {"text": "Saved in walks.csv.", "trouble": False}
    widget.receive({"do": "edit", "task": "landmark", "index": 0, "field": "text", "value": "door"})
    assert rows_on_disk(widget)["b.mp4"]["landmark"] == "door"
    widget.close()


def test_what_the_reader_of_samples_will_refuse_is_told(widget):
    press(widget, "direction", "turn left", 1.0)
    assert widget.state["doubts"] == []
    press(widget, "direction", "past the shop", 2.0)
    assert len(widget.state["doubts"]) == 1 and "past the shop" in widget.state["doubts"][0]


def test_words_typed_before_are_offered_the_most_frequent_first(widget):
    for second, text in enumerate(("lamp", "door", "door")):
        press(widget, "landmark", text, second)
    widget.receive({"do": "film", "by": 1})
    assert widget.state["words"]["landmark"] == ["door", "lamp"]


def test_a_film_that_cannot_be_shown_says_so_and_takes_no_step(widget):
    widget.receive({"do": "film", "at": 2})
    assert widget.state["video"] == "no_film.mp4"
    assert "damaged, or not a video" in widget.film["error"]
    press(widget, "landmark", "lamp", 0.0)
    assert widget.state["told"]["trouble"] and not widget.path.exists()


def test_it_opens_on_the_first_film_that_can_be_shown(films, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for name in ("1.mp4", "4.mp4"):
        shutil.copy(films / "no_film.mp4", root / name)
    for name in ("2.mp4", "3.mp4"):
        shutil.copy(films / "a.mp4", root / name)
    path = tmp_path / "walks.csv"
    for expected in ("2.mp4", "3.mp4", "1.mp4"):  # at last none is open that can be shown
        widget = annotate(root, path)
        assert widget.state["video"] == expected
        press(widget, "landmark", "lamp", 0.5)
        widget.close()


NAMES = ("a;b.mp4", 'q"x".mp4', "new\nline.mp4", "=cmd.mp4", "a, b.MP4", "cafe\u0301.mp4", "~.mp4")
UNFIT = (" lead.mp4", "x\udcff.mp4", "a#t=1,2.mp4", "a:b.mp4", "\\back.mp4")


@pytest.mark.parametrize("name", NAMES + UNFIT, ids=ascii)
def test_a_film_of_any_name_is_written_and_read_or_left_out_aloud(films, tmp_path, name):
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(films / "a.mp4", root / name)
    path = tmp_path / "walks.csv"
    widget = annotate(root, path)
    if name in UNFIT:
        told = widget.state["told"]
        assert told["trouble"] and told["text"].endswith("rename the file")
        json.dumps([widget.state, widget.film], ensure_ascii=False).encode()
    else:
        press(widget, "direction", "turn left", 0.1)
        assert {sample.video for sample in annotations(path, videos=root)} == {name}
        again = annotate(root, path)
        assert (again.state["of"], again.state["annotated"], again.film["error"]) == (1, 1, "")
        again.close()
    widget.close()


def test_paths_stay_under_the_root(films, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(films / "a.mp4", tmp_path / "secret.mp4")
    (root / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    path = tmp_path / "walks.csv"
    names = (
        "../secret.mp4",
        str(tmp_path / "secret.mp4"),
        "file:secret.mp4",
        "https://x.org/a.mp4",
    )
    path.write_text("video,direction\n" + "".join(f"{name},turn left\n" for name in names))
    widget = annotate(root, path)
    for at in range(len(widget.walks)):
        widget.receive({"do": "film", "at": at})
        assert widget.film["error"] and "duration" not in widget.film
    widget.close()


HOSTILE = (
    {"do": "add", "task": "route", "text": "x", "second": 1},
    {"do": "add", "task": "direction", "text": ["x"], "second": 1},
    {"do": "add", "task": "direction", "text": "x", "second": "nan"},
    {"do": "add", "task": "direction", "text": "x", "second": -1},
    {"do": "add", "task": "direction", "text": "\ud800", "second": 1},
    {"do": "edit", "task": "direction", "index": 7, "field": "text", "value": "x"},
    {"do": "edit", "task": "direction", "index": -1, "field": "text", "value": "x"},
    {"do": "edit", "task": "direction", "index": 0, "field": "__class__", "value": "x"},
    {"do": "remove", "task": "direction", "index": 3},
    {"do": "describe", "name": "video", "text": "../x"},
    {"do": "back", "task": "landmark", "index": 0, "text": "x"},
    {"do": "film", "at": "x"},
)


@pytest.mark.parametrize("message", HOSTILE, ids=str)
def test_a_message_that_makes_no_sense_changes_nothing(widget, message):
    press(widget, "direction", "turn left", 1.0)
    before = widget.path.read_bytes()
    widget.receive(message)
    assert widget.state["told"]["trouble"]
    assert widget.path.read_bytes() == before
    widget.receive({"do": "undo"})
    assert rows_on_disk(widget) == {}


def test_what_cannot_be_saved_is_kept_and_saved_later(widget):
    press(widget, "direction", "turn left", 1.0)
    widget.path.chmod(0o444)
    press(widget, "direction", "go straight", 2.0)
    widget.receive({"do": "film", "by": 1})
    press(widget, "landmark", "lamp", 1.0)
    assert widget.state["told"]["text"].startswith("Not saved: walks.csv is read-only.")
    assert widget.state["unsaved"] == 2
    assert rows_on_disk(widget)["a.mp4"]["direction"] == "turn left"
    widget.path.chmod(0o644)
    press(widget, "landmark", "door", 2.0)
    rows = rows_on_disk(widget)
    assert rows["a.mp4"]["direction"] == "turn left; go straight"
    assert rows["b.mp4"]["landmark"] == "lamp; door"
    assert widget.state["unsaved"] == 0


@pytest.mark.parametrize("harm", ["deleted", "emptied", "half written", "overwritten"])
def test_rows_that_went_with_a_harmed_file_are_written_again(widget, harm):
    """Some other program spoils the file while films are annotated."""
    for film, label in ((0, "lamp"), (1, "door")):
        widget.receive({"do": "film", "at": film})
        press(widget, "landmark", label, 1.0)
    whole = widget.path.read_bytes()
    if harm == "deleted":
        widget.path.unlink()
    elif harm == "emptied":
        widget.path.write_bytes(b"")
    elif harm == "half written":
        widget.path.write_bytes(whole[: whole.index(b"a.mp4") + 12])
    else:
        widget.path.write_bytes(os.urandom(500))
    press(widget, "landmark", "gate", 2.0)
    assert "had lost 1 rows: they are written again." in widget.state["told"]["text"]
    rows = rows_on_disk(widget)
    assert rows["a.mp4"]["landmark"] == "lamp" and rows["b.mp4"]["landmark"] == "door; gate"
    press(widget, "landmark", "bench", 3.0)
    assert widget.state["told"] == {"text": "Saved in walks.csv.", "trouble": False}


def test_a_row_that_somebody_took_out_of_a_whole_file_stays_out(widget):
    for film in (0, 1):
        widget.receive({"do": "film", "at": film})
        press(widget, "landmark", "lamp", 1.0)
    header, _, second = widget.path.read_text().splitlines(True)
    widget.path.write_text(header + second)
    press(widget, "landmark", "gate", 2.0)
    assert rows_on_disk(widget).keys() == {"b.mp4"}


FULL_DISK = """
import resource, signal, sys
from stlite.viz.annotator import annotate
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
widget = annotate(sys.argv[1], sys.argv[2])
def press(text): widget.receive({"do": "add", "task": "landmark", "text": text, "second": 1.0})
press("lamp")
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
press("door")
print(widget.state["told"]["text"], [row["text"] for row in widget.state["rows"]])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
widget.receive({"do": "retry"})
print(widget.state["told"]["text"])
"""


def test_a_disk_that_takes_nothing_more_is_told_and_loses_nothing(films, tmp_path):
    path = tmp_path / "walks.csv"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, films, path],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    refused, saved = done.stdout.splitlines()
    assert refused.startswith("Not saved: ") and refused.endswith("['lamp', 'door']")
    assert saved == "Saved in walks.csv."
    assert [row["landmark"] for row in read_table(path)[0]] == ["lamp; door"]
    assert {p.name for p in tmp_path.iterdir()} <= {"walks.csv", ".walks.csv.lock"}


PRESSING = """
import sys
from stlite.viz.annotator import annotate
widget = annotate(sys.argv[1], sys.argv[2])
start = int(sys.argv[3])
for n in range(start, start + 100_000):
    widget.receive({"do": "film", "at": n % 2})
    task = ("direction", "landmark", "action")[n % 3]
    widget.receive({"do": "add", "task": task, "text": f"step {n}", "second": n / 4})
    if n % 5 == 4:
        back = {"do": "edit", "task": task, "index": 0, "field": "back", "value": f"back {n}"}
        widget.receive(back)
    assert not widget.state["told"]["trouble"], widget.state["told"]
    print(n, flush=True)
"""


def steps_on_disk(path):
    walks, _, notes = read_walks(path)
    assert not notes
    return {step["text"] for walk in walks for steps in walk["steps"].values() for step in steps}


def test_a_killed_kernel_loses_nothing(films, tmp_path):
    """Keys are pressed in a process that is killed at a random moment, again and again on one file."""
    path = tmp_path / "walks.csv"
    rng = random.Random(0)
    expected = set()
    start = 0
    for _ in range(KILLS):
        command = [sys.executable, "-c", PRESSING, str(films), str(path), str(start)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
        first = child.stdout.readline()
        assert first.strip() == str(start)
        time.sleep(rng.uniform(0.0, 0.3))
        child.send_signal(signal.SIGKILL)
        last = int((first + child.stdout.read()).split()[-1])
        child.wait()
        expected |= {f"step {n}" for n in range(start, last + 1)}
        found = steps_on_disk(path)
        assert expected <= found <= expected | {f"step {last + 1}"}
        start = last + 2
        expected = found
    assert json.loads(json.dumps(sorted(found))) == sorted(found)
