"""Samples refuse to be wrong, say where, and come back from a file as they went in."""

import json
import os

import pytest

from stlite.data.sample import (
    Sample,
    SampleError,
    from_dict,
    read_jsonl,
    safe_path,
    write_jsonl,
    write_text,
)

GOOD = {"id": "1", "video": "a.mp4", "task": "direction", "way": "forward", "question": "Where?", "answer": "B",
        "options": ["turn left", "turn right"]}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [("answer", "C"), ("answer", ""), ("answer", "b"), ("task", "walk"), ("way", "back"), ("id", " "), ("question", ""),
     ("options", "ab"), ("options", []), ("options", ["x"] * 9), ("options", [1, 2]), ("moments", [float("nan")]),
     ("video", "/etc/a.mp4"), ("video", "../a.mp4"), ("video", "https://x/a.mp4"), ("video", "a\0.mp4"), ("part", None),
     ("question", "\ud800")],
)  # fmt: skip
def test_a_wrong_field_is_refused_with_its_name_and_place(field, value):
    with pytest.raises(SampleError) as error:
        from_dict({**GOOD, field: value}, "rows.jsonl:7")
    assert error.value.field == field
    assert str(error.value).startswith("rows.jsonl:7: ")


def test_unknown_and_missing_fields_are_refused():
    with pytest.raises(SampleError, match="colour"):
        from_dict({**GOOD, "colour": "red"})
    with pytest.raises(SampleError, match="'way'"):
        from_dict({k: v for k, v in GOOD.items() if k != "way"})


def test_samples_come_back_from_a_file(tmp_path):
    made = [
        Sample(**GOOD),
        Sample(**{**GOOD, "id": "2", "task": "route", "options": (), "answer": "Go – 直行"}),
    ]
    path = write_jsonl(made, tmp_path / "s.jsonl")
    assert [from_dict(json.loads(line)) for line in path.read_text().splitlines()] == made
    assert [s.origin for s in read_jsonl(path)] == ["s.jsonl:1", "s.jsonl:2"]


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n{broken\n")
    with pytest.raises(SampleError, match="s.jsonl:3"):
        list(read_jsonl(path))


def test_a_link_out_of_the_root_is_refused(tmp_path):
    (tmp_path / "root").mkdir()
    os.symlink(tmp_path, tmp_path / "root" / "out")
    with pytest.raises(SampleError):
        safe_path("out/a.mp4", tmp_path / "root")


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
