"""Your own videos: tables as people have them are read whole, or refused once with what to do."""

import csv
import json
import unicodedata
from dataclasses import asdict
from pathlib import Path

import pytest

from stlite.data import annotations, prompts
from stlite.data.annotations import annotations as read
from stlite.data.checks import check
from stlite.data.sample import TASKS, SampleError, replace

HEADER = "video,direction,landmark\n"
ROW = "w1.mp4,turn left; go straight,gate; bridge\n"


def bare(samples):
    """Samples without where they were read."""
    return [replace(s, origin="") for s in samples]


def built(**changes):
    """Build the samples of one annotated walk."""
    steps = {
        "direction": ["turn left", "go straight", "turn right"],
        "landmark": ["gate", "car park", "bridge"],
    }
    return annotations.build(**({"video": "w.mp4", "steps_forward": steps, "id": "w"} | changes))


def put(path: Path, rows) -> Path:
    """Write rows, as JSON or verbatim where they are texts."""
    text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


def lists(samples):
    """The steps of each forward sample, by video and task."""
    return {(s.video, s.task): list(s.steps) for s in samples if s.way == "forward"}


EXPECTED = {
    ("w1.mp4", "direction"): ["turn left", "go straight"],
    ("w1.mp4", "landmark"): ["gate", "bridge"],
}


# ---- one annotation → its samples


def test_one_annotation_gives_eight_samples_with_traces():
    steps = {
        "route": "Turn left at the gate.", "direction": ["turn left", "go straight"], "landmark": ["gate", "bridge"],
        "action": ["open the door", "sit down"],
    }  # fmt: skip
    back = {"route": "Turn back.", "direction": ["turn around", "go straight", "turn right"]}
    back |= {"landmark": ["bridge", "gate"], "action": ["stand up", "close the door"]}
    made = annotations.build("p/a.mp4", steps, back, id="a", part="part1")
    assert [s.id for s in made] == [f"a/{t}/{w}" for t in TASKS for w in ("forward", "reverse")]
    for s in made:
        assert s.gold == (
            " ".join(s.steps)
            if s.kind == "choice"
            else {"forward": steps, "reverse": back}[s.way]["route"]
        )
        assert s.trace == prompts.trace(s) and bool(s.trace) == (s.kind == "choice")
        assert s.question == prompts.stem(s.task, s.way) and s.group == "a"
    assert [asdict(s) for s in made] == [
        asdict(s) for s in annotations.build("p/a.mp4", steps, back, id="a", part="part1")
    ]


def test_a_written_way_back_is_kept_and_a_missing_one_is_walked_back():
    given_, ruled = built(steps_reverse={"landmark": ["bridge", "gate"]}), built()
    assert {s.steps_reverse for s in given_ if s.task == "landmark"} == {("bridge", "gate")}
    assert {s.way for s in given_ if s.task == "direction"} == {"forward"}
    assert {s.steps_reverse for s in ruled if s.task == "direction"} == {
        ("turn around", "turn left", "go straight", "turn right")
    }


@pytest.mark.parametrize(
    "steps, said",
    [
        ({"colour": ["red"]}, "keys among route, direction, landmark, action"),
        ({"direction": "left"}, "a list of steps"),
        ({"direction": ["left", ""]}, "none of them empty"),
        ({"direction": [1]}, "steps that are texts"),
    ],
)
def test_an_annotation_that_is_wrong_is_refused(steps, said):
    with pytest.raises(SampleError, match=f"^w: field 'steps_forward.*{said}"):
        built(steps_forward=steps)


# ---- your own videos


def test_five_lines_from_a_folder_and_a_table_to_samples(tmp_path):
    (tmp_path / "kitchen.mp4").touch()
    with open(tmp_path / "own.csv", "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "direction", "landmark", "landmark_reverse", "route", "group"])
        writer.writerow(
            [
                "kitchen.mp4",
                "turn left; go straight",
                "gate; bridge, red",
                "bridge, red;gate",
                "Go.",
                "tuesday",
            ]
        )
    samples = annotations.annotations(tmp_path / "own.csv", videos=tmp_path)
    assert [s.id for s in samples] == [
        f"kitchen/{name}"
        for name in (
            "route/forward", "direction/forward", "direction/reverse", "landmark/forward", "landmark/reverse"
        )
    ]  # fmt: skip
    assert {(s.group, s.origin) for s in samples} == {("tuesday", "own.csv:2")}
    assert samples[3].gold == "gate bridge, red" and samples[1].steps_reverse == (
        "turn around",
        "go straight",
        "turn right",
    )
    row_ = {
        "video": "kitchen.mp4",
        "direction": ["turn left", "go straight"],
        "landmark": "gate; bridge, red",
    }
    row_ |= {"landmark_reverse": ["bridge, red", "gate"], "route": "Go.", "group": "tuesday"}
    put(tmp_path / "own.jsonl", [row_])
    assert bare(annotations.annotations(tmp_path / "own.jsonl")) == bare(samples)


@pytest.mark.parametrize(
    "line, said",
    [
        ("a.mp4", "2 cells"),
        ('a.mp4,"go', "one line of CSV"),
        ("/a.mp4,go", "a relative path"),
        ("a.mp4,go;;", "none of them empty"),
        (",go", "only the fields"),
    ],
)
def test_a_bad_line_of_a_table_is_named(line, said, tmp_path):
    put(tmp_path / "own.csv", ["video,direction", "ok.mp4,go straight", line])
    with pytest.raises(SampleError, match=rf"^own\.csv:3: .*{said}"):
        annotations.annotations(tmp_path / "own.csv")
    samples, errors = annotations.annotations(tmp_path / "own.csv", on_error="collect")
    assert ({s.video for s in samples}, len(errors)) == ({"ok.mp4"}, 1)


def test_an_unknown_column_is_named(tmp_path):
    put(tmp_path / "own.csv", ["video,directions", "ok.mp4,go straight"])
    with pytest.raises(SampleError, match=r"own\.csv:.*no columns but id, video.*directions"):
        annotations.annotations(tmp_path / "own.csv")


# ---- tables as people have them

SEMICOLONS = 'video;direction;landmark\nw1.mp4;"turn left; go straight";"gate; bridge"\n'
TABLES = {
    "plain": HEADER + ROW,
    "Excel with semicolons": SEMICOLONS,
    "Excel's first line": "sep=;\n" + SEMICOLONS,
    "tabs": HEADER.replace(",", "\t") + ROW.replace(",", "\t"),
    "bars": HEADER.replace(",", "|") + ROW.replace(",", "|"),
    "other case": "Video,DIRECTION, Landmark \n" + ROW,
    "quoted header": '"video","direction","landmark"\n' + ROW,
    "a title row": "Walks of Tuesday,,\n,,\n" + HEADER + ROW,
    "a title alone": "Walks of Tuesday\n\n" + HEADER + ROW,
    "empty columns at the end": "video,direction,landmark,,\nw1.mp4,turn left; go straight,gate; bridge,,\n",
    "empty cells beyond the header": HEADER + ROW.replace("\n", ",,\n"),
    "semicolons to the end": SEMICOLONS.replace("\n", ";;\n"),
    "a final separator": HEADER + "w1.mp4,turn left; go straight;,gate; bridge;\n",
    "line breaks in cells": HEADER + 'w1.mp4,"turn left\ngo straight","gate\nbridge"\n',
    "Windows line ends": (HEADER + ROW).replace("\n", "\r\n"),
    "blank lines": "\n" + HEADER + "\n" + ROW + "\n,,\n",
    "a JSON list": json.dumps([{"video": "w1.mp4", "direction": ["turn left", "go straight"], "landmark": "gate; bridge"}], indent=1),
    "an object": json.dumps({"video": "w1.mp4", "direction": "turn left; go straight", "Landmark": ["gate", "bridge"]}, indent=1),
    "JSON a line": '{"video": "w1.mp4", "direction": "turn left; go straight"}\n{"video": "w1.mp4", "landmark": "gate; bridge"}\n',
}  # fmt: skip
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", TABLES)
def test_every_kind_of_table_reads_the_same(kind, encoding, tmp_path):
    for name in ("own.csv", "own.json"):
        (tmp_path / name).write_bytes(TABLES[kind].encode(encoding))
        assert lists(read(tmp_path / name)) == EXPECTED


def test_an_excel_file_is_read_or_told_how_to_save(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (
        ["My walks"],
        ["Video", "direction", "landmark", "id"],
        ["w1.mp4", "turn left; go straight", "gate\nbridge", 7.0],
    ):
        book.active.append(row)
    book.save(tmp_path / "own.xlsx")
    samples = read(tmp_path / "own.xlsx")
    assert lists(samples) == EXPECTED
    assert {(s.id.split("/")[0], s.origin) for s in samples} == {("7", "own.xlsx:3")}


def test_an_excel_file_without_openpyxl_says_how_to_save_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    (tmp_path / "own.csv").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(SampleError, match="CSV UTF-8.*found 'an Excel file'"):
        read(tmp_path / "own.csv")


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "first row names its columns.*found 'an empty file'"),
        (b"\xef\xbb\xbf\n \n", "found 'an empty file'"),
        (HEADER.encode(), "a row for each video.*found 'no row'"),
        (
            "video,direction\ncaf\u00e9.mp4,turn left\n".encode("cp1252"),
            r"^own\.csv:2: .*UTF-8.*0xe9",
        ),
        (b"\xd0\xcf\x11\xe0\xa1", "an old Excel file"),
        (b"vidio,direction\nw.mp4,turn left\n", r"did you mean video for vidio\?"),
        (b"file,direction\nw.mp4,turn left\n", r"did you mean video for file\?"),
        (b"video,directoin\nw.mp4,turn left\n", r"did you mean direction for directoin\?"),
        (b"video,landmarks\nw.mp4,gate\n", r"did you mean landmark for landmarks\?"),
        (b"video,direction,Direction\nw.mp4,turn left,turn left\n", "each column once"),
        (b"video,direction,\nw.mp4,turn left,a remark\n", "no text below an empty header cell"),
        (b"video;direction;landmark\nw.mp4;turn left; go straight;gate\n", "3 cells.*in quotes"),
        (b"video;direction;landmark\nw.mp4;turn left; go straight;\n", "slip into other columns"),
        (b'video,direction\nw.mp4,"turn left\n', r"^own\.csv:2: .*every quote closed"),
        (b"w1.mp4,turn left\n", "a row that names the columns"),
        (
            b'[{"video": "w.mp4", "direktion": "turn left"}]',
            r"did you mean direction for direktion\?",
        ),
        (b'{"w.mp4": ["turn left"]}', "no columns but"),
        (b"[1]", "an object with the columns"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_once_with_what_to_do(content, said, tmp_path):
    (tmp_path / "own.csv").write_bytes(content)
    with pytest.raises(SampleError, match=said):
        read(tmp_path / "own.csv")
    samples, errors = read(tmp_path / "own.csv", on_error="collect")
    assert (samples, len(errors)) == ([], 1)


def test_places_are_the_lines_on_which_rows_begin(tmp_path):
    rows = [
        "My walks",
        "",
        "video,direction",
        'w1.mp4,"turn left\ngo straight"',
        "w2.mp4,turn right",
        "w3.mp4,gate",
    ]
    samples, errors = read(put(tmp_path / "own.csv", rows), on_error="collect")
    assert {s.origin for s in samples} == {"own.csv:4", "own.csv:6"}
    assert [error.where for error in errors] == ["own.csv:7"]
    whole = [
        {"video": "w1.mp4", "direction": "turn left"},
        {"video": "w2.mp4", "direction": "gate"},
    ]
    (tmp_path / "own.json").write_text(json.dumps(whole, indent=1))
    assert read(tmp_path / "own.json", on_error="collect")[1][0].where == "own.json:6"


def test_commas_part_moves_and_nothing_else_unless_said(tmp_path):
    path = put(
        tmp_path / "own.csv",
        ["video,direction,landmark", 'w1.mp4,"turn left, go straight","gate, bridge"'],
    )
    with pytest.raises(SampleError, match=r"own\.csv:2: field 'landmark'.*separator=\",\""):
        read(path)
    assert lists(read(path, separator=",")) == EXPECTED


@pytest.mark.parametrize("word", ["N/A", "-", "none", "nan", "null", "–", "?"])
def test_words_for_nothing_are_no_list_no_route_and_no_group(word, tmp_path):
    rows = [
        "video,direction,landmark,route,group,id",
        f"w1.mp4,turn left,{word},{word},{word},{word}",
    ]
    samples = read(put(tmp_path / "own.csv", rows))
    assert [(s.id, s.group) for s in samples] == [
        ("w1/direction/forward", "w1"),
        ("w1/direction/reverse", "w1"),
    ]


# ---- names


def table(tmp_path, videos, extra=""):
    return put(
        tmp_path / "own.csv", ["video,direction", *(f"{v},turn left" for v in videos), extra]
    )


@pytest.mark.parametrize(
    "videos, ids, groups",
    [
        (["s0/rgb.mp4", "s1/rgb.mp4"], ["s0/rgb", "s1/rgb"], ["s0/rgb", "s1/rgb"]),
        (["a/walk.mp4", "b/walk.mp4", "walk.mp4"], ["a/walk", "b/walk", "walk"], ["a/walk", "b/walk", "walk"]),
        (["x/a/w.mp4", "x/b/w.mp4", "y/a/w.mp4"], ["x/a/w", "b/w", "y/a/w"], ["x/a/w", "x/b/w", "y/a/w"]),
        (["w.mp4", "w.mov"], ["w.mp4", "w.mov"], ["w", "w"]),
        (['"w.mp4#t=0,5"', '"w.mp4#t=9,12"'], ["w#t=0,5", "w#t=9,12"], ["w", "w"]),
        (["x_seq4_rec1.mp4", "x_seq4_rec2.mp4"], ["x_seq4_rec1", "x_seq4_rec2"], ["x_seq4", "x_seq4"]),
        (["a/x_seq4_rec1.mp4", "a/x_seq4_rec2.mp4", "b/x_seq4_rec1.mp4"],
         ["a/x_seq4_rec1", "x_seq4_rec2", "b/x_seq4_rec1"], ["a/x_seq4", "a/x_seq4", "b/x_seq4"]),
    ],
)  # fmt: skip
def test_ids_and_groups_are_as_much_of_the_path_as_tells_them_apart(videos, ids, groups, tmp_path):
    samples = [s for s in read(table(tmp_path, videos)) if s.way == "forward"]
    assert [s.id for s in samples] == [f"{name}/direction/forward" for name in ids]
    assert [s.group for s in samples] == groups


def test_two_rows_that_say_the_same_are_refused_with_both_places(tmp_path):
    for second in ("w.mp4", "./w.mp4", ".\\w.mp4"):
        with pytest.raises(SampleError, match=r"^own\.csv:4: .*own\.csv:2 has this direction too"):
            read(table(tmp_path, ["w.mp4", "v.mp4", second]))
    rows = ["video,direction,landmark", "w.mp4,turn left,", "w.mp4,,gate"]
    assert len(read(put(tmp_path / "own.csv", rows))) == 4
    rows = ["video,id,direction", "w.mp4,mine,turn left", "v.mp4,mine,turn left"]
    with pytest.raises(SampleError, match="ids that tell them apart"):
        read(put(tmp_path / "own.csv", rows))


@pytest.mark.parametrize(
    "written, there",
    [
        ("a\\walk.mp4", "a/walk.mp4"),
        (".\\walk.mp4", "walk.mp4"),
        ("./walk.mp4", "walk.mp4"),
        ("C:\\Users\\me\\walk.mp4", "part1/walk.mp4"),
        ("C:/Users/me/walk.mp4", "walk.mp4"),
        ("\\\\server\\share\\walk.mp4", "walk.mp4"),
        ("/home/me/walk.mp4", "walk.mp4"),
        ("videos/walk.mp4", "walk.mp4"),
        ("Walk.MP4", "walk.mp4"),
        ("A/walk.mp4", "a/Walk.mp4"),
        (unicodedata.normalize("NFD", "café.mp4"), unicodedata.normalize("NFC", "café.mp4")),
        (unicodedata.normalize("NFC", "café.mp4"), unicodedata.normalize("NFD", "café.mp4")),
        ("walk.mp4#t=1.0", "walk.mp4"),
    ],
)
def test_a_video_is_found_under_the_root_however_its_path_is_written(written, there, tmp_path):
    root = tmp_path / "root"
    (root / there).parent.mkdir(parents=True)
    (root / there).touch()
    (root / "other.mp4").touch()
    sample = read(put(tmp_path / "own.csv", ["video,direction", f'"{written}",turn left']), root)[0]
    assert sample.video.partition("#")[0] == there
    assert (root / sample.video.partition("#")[0]).exists()


@pytest.mark.parametrize(
    "written",
    ["C:\\walk.mp4", "gone.mp4", "../walk.mp4", "x/y.mp4", "~/walk.mp4", "https://x/walk.mp4"],
)
def test_a_video_that_is_not_there_is_refused_when_read(written, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "walk.mp4").touch()
    with pytest.raises(SampleError, match=r"^own\.csv:2: field 'video'"):
        read(
            put(tmp_path / "own.csv", ["video,direction", f"{written},turn left"]),
            tmp_path / "root",
        )


def test_a_misspelt_video_gets_a_suggestion_and_two_of_a_name_are_not_guessed(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "kitchen.mp4").touch()
    (tmp_path / "hall.mp4").touch()
    with pytest.raises(SampleError, match=r"did you mean hall\.mp4\?"):
        read(put(tmp_path / "own.csv", ["video,direction", "hal.mp4,turn left"]), tmp_path)
    with pytest.raises(SampleError, match="one file of this name under the root"):
        read(put(tmp_path / "own.csv", ["video,direction", "Kitchen.mp4,turn left"]), tmp_path)


# ---- moments, and ways back that no rule makes


def test_moments_of_the_steps_are_read(tmp_path):
    rows = [
        "video,direction,direction_moments,landmark,landmark_moments",
        'w.mp4,turn left; go straight,"1,5; 3",gate,[2.25]',
    ]
    samples = read(put(tmp_path / "own.csv", rows))
    assert {s.task: s.moments for s in samples} == {
        "direction": pytest.approx((1.5, 3)),
        "landmark": pytest.approx((2.25,)),
    }
    own = put(
        tmp_path / "own.jsonl", [{"video": "w.mp4", "action": ["sit down"], "action_moments": [4]}]
    )
    assert {s.moments for s in read(own)} == {(4.0,)}


@pytest.mark.parametrize(
    "moments, said",
    [
        ("1", "2 moments, one for each step"),
        ("3; 1", "in the order of the steps"),
        ("a; b", "seconds like"),
    ],
)
def test_moments_that_do_not_fit_the_steps_are_refused(moments, said, tmp_path):
    rows = ["video,direction,direction_moments", f"w.mp4,turn left; go straight,{moments}"]
    with pytest.raises(SampleError, match=f"field 'direction_moments': .*{said}"):
        read(put(tmp_path / "own.csv", rows))


def test_a_way_back_that_is_not_certain_is_not_made_and_check_names_step_and_column(tmp_path):
    rows = ["video,direction,action,action_reverse", "w.mp4,turn left; walk to the gate,take the bag; open the door,",
            "v.mp4,turn left,take the bag,put the bag down"]  # fmt: skip
    samples = read(put(tmp_path / "own.csv", rows))
    assert [s.id for s in samples] == [
        "w/direction/forward", "w/action/forward", "v/direction/forward", "v/direction/reverse",
        "v/action/forward", "v/action/reverse"]  # fmt: skip
    findings = {f["code"]: f for f in check(samples)}
    assert findings["no-direction-reverse"]["ids"] == ["w/direction/forward"]
    assert (
        findings["no-direction-reverse"]["fix"]
        == "write the column direction_reverse: no certain way back for walk to the gate"
    )
    assert findings["no-action-reverse"]["fix"].endswith("for take the bag")
    with pytest.raises(SampleError, match="column action_reverse"):
        prompts.target(samples[1])


def test_names_and_pool_are_linear_in_the_rows(tmp_path, monkeypatch):
    """Count the work rather than the time: what is sorted and drawn grows as the rows do."""
    looked = []
    draw = annotations.make_distractors
    monkeypatch.setattr(
        annotations, "make_distractors", lambda *a: looked.append(len(a[4])) or draw(*a)
    )
    sorts = []
    pool = annotations._sorted_pool
    monkeypatch.setattr(annotations, "_sorted_pool", lambda rows: sorts.append(1) or pool(rows))
    rows = ["video,landmark", *(f"v{i}.mp4,thing {i}; place {i}; door {i}" for i in range(300))]
    assert len(read(put(tmp_path / "own.csv", rows))) == len(looked) == 600
    assert sorts == [1]


def test_rows_that_annotate_nothing_are_named_in_a_warning(tmp_path):
    path = put(tmp_path / "own.csv", ["video,direction", "w.mp4,turn left", "v.mp4,", "Total,N/A"])
    with pytest.warns(UserWarning, match=r"2 rows annotate nothing.*own\.csv:3, own\.csv:4"):
        assert {s.video for s in read(path)} == {"w.mp4"}


@pytest.mark.parametrize("span", ["5,1", "5,5", "a,b", "1-2", "0:05,0:09", "1,2,3", ""])
def test_a_range_that_is_none_is_refused_when_read(span, tmp_path):
    rows = ["video,direction", f'"w.mp4#t={span}",turn left']
    path = put(tmp_path / "own.csv", rows)
    if span == "":
        assert read(path)  # the whole film
        return
    with pytest.raises(SampleError, match="a range like #t=3.0,9.5"):
        read(path)
