"""Annotation files: walks and cells, files that are half written, drafts, two people's files."""

import json
import random

import pytest

from stlite.data.annotation_cells import (
    LISTS,
    back_of,
    doubts,
    empty_walk,
    from_cells,
    to_cells,
    way_back,
)
from stlite.data.annotation_file import (
    drafts_path,
    keys_of,
    read_table,
    read_walks,
    save_walk,
    write_table,
)
from stlite.data.annotation_merging import merge_annotations
from stlite.data.annotations import annotations
from stlite.data.sample import SampleError


def step(text, second=None, back=None):
    return {"text": text, "second": second, "back": back}


def walk_of(video="a.mp4", **steps):
    walk = empty_walk(video)
    walk["steps"] |= {task: [step(*parts) for parts in rows] for task, rows in steps.items()}
    return walk


def key_of(walk):
    return keys_of([walk])[0]


def test_the_way_back_is_the_rule_s_until_a_person_writes_it():
    walk = walk_of(direction=[("turn left", 1.0), ("go straight", 2.0)])
    assert way_back(walk, "direction") == ["turn around", "go straight", "turn right"]
    walk["steps"]["direction"][0]["back"] = "bear right"
    assert way_back(walk, "direction") == ["turn around", "go straight", "bear right"]
    walk["head"] = ""
    assert way_back(walk, "direction") == ["go straight", "bear right"]


def test_a_walk_and_its_cells_say_the_same():
    walk = walk_of(
        direction=[("turn left", 1.25), ("go straight", 3599.123)],
        landmark=[("red, wooden door", 0.5), ('a "sign"', 7.0)],
        action=[("open the door", None), ("sit down", None)],
    )
    cells = to_cells(walk)
    assert cells["direction_moments"] == "1.25; 3599.123"
    assert cells["landmark_reverse"] == 'a "sign"; red, wooden door'
    assert cells["action_moments"] == ""
    assert from_cells(cells) == (walk, [])


def test_a_way_back_that_does_not_match_step_by_step_stays_as_it_is():
    cells = {"video": "a.mp4", "direction": "turn left; go straight", "direction_reverse": "go on"}
    walk, _ = from_cells(cells)
    assert way_back(walk, "direction") == ["go on"]
    assert to_cells(walk)["direction_reverse"] == "go on"


@pytest.mark.parametrize("cell", ["1; 2; 3", "1", "soon; later", "nan; 2"])
def test_moments_that_do_not_fit_are_told_and_not_used(cell):
    cells = {"video": "a.mp4", "direction": "turn left; go straight", "direction_moments": cell}
    walk, notes = from_cells(cells)
    assert [s["second"] for s in walk["steps"]["direction"]] == [None, None]
    assert len(notes) == 1 and notes[0].startswith("direction_moments: ")


ODD = [
    ";",
    '"',
    ",",
    "[",
    "]",
    "\\",
    "'",
    "a; b",
    "[x]",
    '["y"]',
    " ",
    "é",
    "左",
    "turn left",
    "1.",
    "-",
]


def test_a_list_of_steps_reads_back_as_that_list_or_is_doubted():
    rng = random.Random(0)
    doubted = 0
    for _ in range(300):
        texts = ["".join(rng.choices(ODD, k=rng.randint(1, 4))) for _ in range(rng.randint(1, 5))]
        texts = [" ".join(text.split()) for text in texts]
        walk = walk_of(landmark=[(text, 1.0) for text in texts])
        read = [s["text"] for s in from_cells(to_cells(walk))[0]["steps"]["landmark"]]
        assert read == texts or doubts(walk)
        doubted += read != texts
    assert doubted < 200


@pytest.mark.parametrize(
    "text",
    (
        "red; wooden",
        "red, wooden door",
        "turn -> here",
        "1. floor",
        "左 door",
        "[exit]",
        'Say: "hi"',
    ),
)
def test_a_text_with_marks_that_part_steps_stays_one_step(text):
    for texts in ([text], [text, "lamp"], ["lamp", text, text]):
        walk = walk_of(landmark=[(text, 1.0) for text in texts])
        assert from_cells(to_cells(walk))[0] == walk and not doubts(walk)


def test_a_direction_that_is_no_move_is_doubted():
    assert doubts(walk_of(direction=[("turn left", 1.0), ("past the shop", 2.0)]))[0].startswith(
        "direction: "
    )
    assert not doubts(walk_of(direction=[("turn left at the shop", 1.0)]))


def test_what_is_saved_is_what_the_reader_of_samples_finds(tmp_path, videos):
    video = "part1/w0000000.mp4"
    walk = walk_of(
        video,
        direction=[("turn left", 1.0), ("go straight", 2.0)],
        landmark=[("door", 1.5), ("lamp", 2.5)],
    )
    save_walk(tmp_path / "walks.csv", key_of(walk), walk, None)
    samples = {
        s.id.partition("/")[2]: s for s in annotations(tmp_path / "walks.csv", videos=videos)
    }
    assert set(samples) == {f"{t}/{w}" for t in LISTS[:2] for w in ("forward", "reverse")}
    assert samples["direction/reverse"].steps == ("turn around", "go straight", "turn right")


def test_unfinished_walks_outlive_the_process_and_leave_no_trace_once_finished(tmp_path):
    path = tmp_path / "walks.csv"
    walk = walk_of(direction=[("turn left", 1.0), ("go straight", None)])
    cells, _ = save_walk(path, key_of(walk), walk, None)
    assert cells["direction_moments"] == "" and drafts_path(path).exists()
    assert (read_walks(path)[0], read_walks(path)[2]) == ([walk], [])
    walk["steps"]["direction"][1]["second"] = 2.0
    save_walk(path, key_of(walk), walk, cells)
    assert (read_walks(path)[0], read_walks(path)[2]) == ([walk], []) and not drafts_path(
        path
    ).exists()


def test_a_draft_does_not_overrule_a_row_that_was_edited_since(tmp_path):
    path = tmp_path / "walks.csv"
    walk = walk_of(direction=[("turn left", 1.0), ("go straight", None)])
    save_walk(path, key_of(walk), walk, None)
    path.write_text("video,direction\na.mp4,turn right\n")
    walks, *_ = read_walks(path)
    assert [s["text"] for s in walks[0]["steps"]["direction"]] == ["turn right"]


def test_other_rows_and_unknown_columns_are_kept(tmp_path):
    path = tmp_path / "walks.csv"
    path.write_text("weather,video,direction\nrain,b.mp4,turn left\nsun,a.mp4,go straight\n")
    walks, *_ = read_walks(path)
    before = to_cells(walks[1])
    walks[1]["steps"]["direction"].append(step("turn right"))
    save_walk(path, key_of(walks[1]), walks[1], before)
    rows, faults = read_table(path)
    assert not faults and [row["video"] for row in rows] == ["b.mp4", "a.mp4"]
    assert [row["weather"] for row in rows] == ["rain", "sun"]
    assert rows[1]["direction"] == "go straight; turn right"


HALF_WRITTEN = {
    "last line cut": ('video,direction\na.mp4,turn left\nb.mp4,"turn le', 1),
    "cell missing": ("video,direction\na.mp4,turn left\nb.mp4\n", 1),
    "quote in the middle": ('video,direction\nb.mp4,"turn l\na.mp4,turn left\n', 1),
    "header cut": ("vid", 0),
    "bytes of something else": ("video,direction\na.mp4,turn left\n\udcff\udcfe\n", 0),
}


@pytest.mark.parametrize("name", HALF_WRITTEN)
def test_a_half_written_file_is_read_as_far_as_it_goes_and_kept_aside(tmp_path, name):
    text, readable = HALF_WRITTEN[name]
    path = tmp_path / "walks.csv"
    original = text.encode("utf-8", "surrogateescape")
    path.write_bytes(original)
    walks, _, notes = read_walks(path)
    assert len(walks) == readable and notes and notes[0].startswith("walks.csv")
    new = walk_of("new.mp4", direction=[("go straight", 1.0)])
    _, told = save_walk(path, key_of(new), new, None)
    assert "walks.unread1.csv" in told
    assert (tmp_path / "walks.unread1.csv").read_bytes() == original
    rows, faults = read_table(path)
    assert not faults and [row["video"] for row in rows] == ["a.mp4"] * readable + ["new.mp4"]


def test_a_row_that_somebody_else_changed_is_kept_beside(tmp_path):
    path = tmp_path / "walks.csv"
    mine = walk_of(direction=[("turn left", 1.0)])
    before, _ = save_walk(path, key_of(mine), mine, None)
    theirs = walk_of(direction=[("turn right", 1.0)])
    save_walk(path, key_of(theirs), theirs, before)
    mine["steps"]["direction"].append(step("go straight", 2.0))
    _, told = save_walk(path, key_of(mine), mine, before)
    assert "walks.theirs.csv" in told
    assert [row["direction"] for row in read_table(path)[0]] == ["turn left; go straight"]
    assert [r["direction"] for r in read_table(tmp_path / "walks.theirs.csv")[0]] == ["turn right"]


def test_a_read_only_file_is_not_replaced(tmp_path):
    path = tmp_path / "walks.csv"
    path.write_text("video,direction\na.mp4,turn left\n")
    path.chmod(0o444)
    walk = walk_of("b.mp4", direction=[("turn left", 1.0)])
    with pytest.raises(PermissionError, match="read-only"):
        save_walk(path, key_of(walk), walk, None)
    assert path.read_text() == "video,direction\na.mp4,turn left\n"


def test_rows_of_json_lines_are_read_and_written(tmp_path):
    path = tmp_path / "walks.jsonl"
    path.write_text(json.dumps({"video": "a.mp4", "direction": ["turn left", "go; on"]}) + "\n")
    walks, _, notes = read_walks(path)
    assert not notes and [s["text"] for s in walks[0]["steps"]["direction"]] == [
        "turn left",
        "go; on",
    ]
    save_walk(path, key_of(walks[0]), walks[0], to_cells(walks[0]))
    assert read_walks(path)[0] == walks


def test_two_people_s_files_merge_and_their_differences_are_listed(tmp_path):
    ana, ben, out = (tmp_path / name for name in ("ana.csv", "ben.csv", "both.csv"))
    full = {"direction": "turn left", "direction_reverse": "turn around; turn right"}
    write_table(ana, [{"video": "a.mp4", **full}, {"video": "b.mp4", "direction": "go straight"}])
    write_table(
        ben,
        [
            {"video": "b.mp4", "direction": "turn right", "landmark": "lamp", "group": "home"},
            {"video": "c.mp4", "action": "sit down"},
            {"video": "a.mp4", "direction": "turn left", "direction_moments": "2.5"},
        ],
    )
    conflicts = merge_annotations(ana, ben, out)
    rows = {row["video"]: row for row in read_table(out)[0]}
    assert set(rows) == {"a.mp4", "b.mp4", "c.mp4"}
    assert rows["a.mp4"]["direction_moments"] == "2.5"
    assert rows["a.mp4"]["direction_reverse"] == "turn around; turn right"
    assert (rows["b.mp4"]["direction"], rows["b.mp4"]["landmark"]) == ("go straight", "lamp")
    assert conflicts == [
        "b.mp4: direction: ana.csv has 'go straight' (kept), ben.csv has 'turn right'"
    ]


def test_a_broken_file_is_not_merged(tmp_path):
    (tmp_path / "a.csv").write_text("video,direction\na.mp4\n")
    with pytest.raises(SampleError, match="a.csv:2"):
        merge_annotations(tmp_path / "a.csv", tmp_path / "a.csv", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_landmarks_are_passed_in_the_opposite_order():
    walk = walk_of(landmark=[("door", 1.0), ("lamp", 2.0)])
    assert way_back(walk, "landmark") == ["lamp", "door"]
    assert back_of(walk["steps"]["landmark"][0], "landmark") == "door"


@pytest.mark.parametrize(
    "before",
    ["My walks,\nvideo,direction\na.mp4,turn left\n", '[{"video": "a.mp4", "direction": "x"}]'],
)
def test_a_table_of_another_form_is_kept_aside_before_it_is_written_as_csv(tmp_path, before):
    path = tmp_path / "walks.csv"
    path.write_text(before)
    walk = walk_of("b.mp4", landmark=[("lamp", 1.0)])
    told = save_walk(path, key_of(walk), walk, None)[1]
    assert "only its rows are written" in told and "kept as walks.unread1.csv" in told
    assert (tmp_path / "walks.unread1.csv").read_text() == before
    assert [row["video"] for row in read_table(path)[0]] == ["a.mp4", "b.mp4"]
    assert save_walk(path, key_of(walk), walk, None)[1] == ""


@pytest.mark.parametrize("first", ["video;direction", '\ufeff"Video","direction"', "id\tvideo"])
def test_a_table_with_any_separator_is_not_kept_aside(tmp_path, first):
    path = tmp_path / "walks.csv"
    path.write_text(f"{first}\n", "utf-8")
    walk = walk_of("b.mp4", landmark=[("lamp", 1.0)])
    assert save_walk(path, key_of(walk), walk, None)[1] == ""
