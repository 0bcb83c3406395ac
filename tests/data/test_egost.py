"""Ego-ST files: what is read is what is there, what is wrong is named, and read → write → read is the identity."""

import importlib.util
import json
import os
import re
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sample_data import walks
from stlite.data import annotations, egost, prompts
from stlite.data.checks import describe
from stlite.data.sample import TASKS, SampleError, read_jsonl, replace, write_jsonl

ROOT = Path(__file__).parents[2]
DATA = ROOT / "sample_data"
REAL = os.environ.get("STLITE_REAL_ROWS", "")
needs_real = pytest.mark.skipif(
    not REAL, reason="STLITE_REAL_ROWS names no file of the 63 released rows"
)


def bare(samples):
    """Samples without where they were read."""
    return [replace(s, origin="") for s in samples]


def row(**changes) -> dict:
    """Make one good released row, with changes."""
    (sample,) = [s for s in built() if s.id == "w/direction/forward"]
    return egost._row(sample) | changes


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


# ---- the committed files


def test_the_script_still_makes_the_committed_files_byte_for_byte(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("make_walks", DATA / "make_walks.py")
    spec.loader.exec_module(script := importlib.util.module_from_spec(spec))
    monkeypatch.setattr(
        walks, "write_video", lambda walk, path: path
    )  # only the rendering is left out
    monkeypatch.setattr(script, "HERE", tmp_path)
    script.main()
    made = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.json*"))
    assert len(made) == 26 + 6
    assert [p for p in made if (tmp_path / p).read_bytes() != (DATA / p).read_bytes()] == []


def test_the_benchmark_is_read_whole_and_written_back_byte_for_byte(tmp_path):
    samples = egost.read_benchmark(DATA / "benchmark", DATA / "videos")
    assert len(samples) == len({s.id for s in samples}) == 416
    assert all(
        s.steps_forward and s.steps_reverse and s.group and s.source == "walks" for s in samples
    )
    egost.write_benchmark(samples, tmp_path)
    assert all(
        p.read_bytes() == (DATA / "benchmark" / p.name).read_bytes() for p in tmp_path.iterdir()
    )
    assert bare(egost.read_benchmark(tmp_path)) == bare(samples)


def test_each_file_of_the_benchmark_tells_task_way_and_part():
    for s in egost.read_benchmark(DATA / "benchmark"):
        name, line = s.origin.split(":")
        part, way, kind = re.fullmatch(r"Part(\d)_(\w+?)_(\w+)\.json", name).groups()
        assert (f"part{part}", way) == (s.part, s.way)
        assert {"qa": "route", "mcq": "direction"}.get(kind, kind.removeprefix("mcq_")) == s.task
        text = (DATA / "benchmark" / name).read_text("utf-8").splitlines()[int(line) - 1]
        assert json.dumps(s.id.split("/")[0]) in text


@pytest.mark.parametrize("size", [63, 126, 252, 378, 504, 630])
def test_training_rows_of_sample_data_survive_read_write_read(size, tmp_path):
    samples = egost.read_rows(DATA / "train" / f"total_test_mcq_{size}.jsonl", DATA / "videos")
    assert len(samples) == size
    assert bare(egost.read_rows(egost.write_rows(samples, tmp_path / "rows.jsonl"))) == bare(
        samples
    )
    assert bare(read_jsonl(write_jsonl(samples, tmp_path / "own.jsonl"))) == bare(samples)


# ---- the released rows


@needs_real
def test_real_rows_are_read_whole(tmp_path):
    samples = egost.read_rows(REAL, videos=tmp_path)
    raw = [json.loads(line) for line in Path(REAL).read_text("utf-8").splitlines()]
    assert len(samples) == len(raw) == 63
    for s, r in zip(samples, raw):
        assert (
            r["problem"] == s.question + f" Options: {prompts.options_text(s.options)}" + egost.TAIL
        )
        assert (
            r["solution"] == prompts.reply(s.trace, s.answer) and r["original_answer"] == s.answer
        )
        assert s.video == r["video"].rpartition("/")[2] and s.trace.startswith(
            "Let's start by thinking"
        )
        assert ("A. " + s.options[0]) in r["problem"]
        other = s.steps_reverse if s.way == "forward" else s.steps_forward
        assert other and (str(list(other)) in s.trace or ", ".join(other) in s.trace)
    # counted by hand, a row at a time: what is asked, the known slips of the files undone
    kinds = [(s.task, s.way) for s in samples]
    assert [kinds.count((t, w)) for t in TASKS[1:] for w in ("forward", "reverse")] == [
        15,
        14,
        11,
        8,
        9,
        6,
    ]
    families = [s.source for s in samples]
    assert (
        families.count("SUN3D") == 13
        and families.count("numbered walks") == 5
        and "" not in families
    )


@needs_real
def test_steps_of_the_way_asked_come_from_the_other_row_or_the_right_option(tmp_path):
    samples = egost.read_rows(REAL, videos=tmp_path)
    for s in (s for s in samples if s.steps):
        pair = [o for o in samples if (o.video, o.task) == (s.video, s.task) and o.way != s.way]
        from_pair = any(s.steps in (o.steps_forward, o.steps_reverse) for o in pair)
        assert from_pair or " ".join(s.steps).casefold() == " ".join(s.gold.split()).casefold()


@needs_real
def test_real_rows_survive_read_write_read(tmp_path):
    samples = egost.read_rows(REAL, videos=tmp_path)
    again = egost.read_rows(egost.write_rows(samples, tmp_path / "rows.jsonl"))
    assert bare(again) == bare(samples)
    changed = {"problem", "solution", "original_question", "original_answer"}
    old, new = (
        [json.loads(x) for x in Path(p).read_text("utf-8").splitlines()]
        for p in (REAL, tmp_path / "rows.jsonl")
    )
    assert [{k: r[k] for k in changed} for r in old] == [{k: r[k] for k in changed} for r in new]
    parted = [replace(s, part="part1") for s in samples]
    egost.write_benchmark(parted, tmp_path / "benchmark")
    assert sorted(bare(egost.read_benchmark(tmp_path / "benchmark")), key=lambda s: s.id) == sorted(
        bare(parted), key=lambda s: s.id
    )


@needs_real
def test_videos_of_another_machine_are_found_by_name_under_the_root(tmp_path):
    name = json.loads(Path(REAL).read_text("utf-8").splitlines()[0])["video"].rpartition("/")[2]
    (tmp_path / "part1").mkdir()
    (tmp_path / "part1" / name).touch()
    sample = egost.read_rows(REAL, videos=tmp_path)[0]
    assert sample.video == f"part1/{name}" and sample.part == "part1"
    with pytest.raises(SampleError, match=r"\.jsonl:1: field 'video'.*relative path"):
        egost.read_rows(REAL)


# ---- answers, whatever they are called


def entry(**answer) -> dict:
    """One entry of a choice file of the benchmark."""
    mcq = {"question": "Which way?", "options": ["A. turn left", "B. go straight"]}
    return {"video": "a.mp4", "forward_mcq": mcq | answer}


def benchmark(folder: Path, value: object, name="Part1_forward_mcq.json") -> Path:
    """A benchmark of one file."""
    put(folder / name, [value])
    return folder


@pytest.mark.parametrize("name", [*egost.ANSWERS, "forward_answer"])
@pytest.mark.parametrize("said", ["B", "(B)", "B.", "B. go straight", "go straight"])
def test_the_answer_is_found_under_every_plausible_name(name, said, tmp_path):
    inside, beside = entry(**{name: said}), entry() | {name: said}
    for value in (inside, beside):
        (sample,) = egost.read_benchmark(benchmark(tmp_path, {"7": value}))
        assert (sample.answer, sample.gold, sample.id) == (
            "B",
            "go straight",
            "part1/7/direction/forward",
        )


@pytest.mark.parametrize(
    "value, said",
    [
        (entry(solution="B"), r"answer.*one answer, under one of answer, .*fields .*'solution'"),
        (entry(answer="A", label="B"), "one answer"),
        (entry(answer="C"), r"letters AB"),
        (entry(answer="turn round"), "a letter or the text of one option"),
        ({"video": "a.mp4"}, r"forward_mcq.*only the fields.*video"),
        ({"forward_mcq": {}}, r"'video': expected text, found .*only the fields"),
        (
            {"video": "a.mp4", "forward_mcq": {"options": [], "answer": "A", "question": "?"}},
            "options.*1 to 8",
        ),
    ],
)
def test_an_entry_that_cannot_be_read_says_where_and_what_was_found(value, said, tmp_path):
    text = f'{{\n "1": {json.dumps(entry(answer="A"))},\n\n "2": {json.dumps(value)}}}'
    benchmark(tmp_path, text)
    with pytest.raises(SampleError, match=rf"^Part1_forward_mcq\.json:4: .*{said}"):
        egost.read_benchmark(tmp_path)
    samples, errors = egost.read_benchmark(tmp_path, on_error="collect")
    assert (len(samples), len(errors)) == (1, 1)


@pytest.mark.parametrize("form", ["{}. {}", "{}) {}", "({}) {}", "[{}] {}", "{}: {}", "{} - {}"])
@pytest.mark.parametrize("letters", ["AB", "ab"])
def test_options_keep_no_letter_however_it_is_written(form, letters, tmp_path):
    texts = ["turn left", "go straight. A dog"]
    listed = [form.format(letter, text) for letter, text in zip(letters, texts)]
    value = {"video": "a.mp4", "forward_mcq": {"question": "?", "options": listed, "answer": "B"}}
    (sample,) = egost.read_benchmark(benchmark(tmp_path, {"7": value}))
    assert list(sample.options) == texts


@pytest.mark.parametrize(
    "listed",
    [["A sofa", "B road"], ["B. left", "A. right"], ["A. left", "right"], ["A.M. left", "B"]],
)
def test_what_is_no_row_of_letters_stays(listed, tmp_path):
    value = {"video": "a.mp4", "forward_mcq": {"question": "?", "options": listed, "answer": "A"}}
    (sample,) = egost.read_benchmark(benchmark(tmp_path, {"7": value}))
    assert sample.options[1] == listed[1]


def test_a_route_without_an_answer_survives_every_round_trip(tmp_path):
    (sample,) = annotations.build("w.mp4", {"route": "Go."}, id="part1/w", part="part1")
    sample = replace(sample, answer="")
    rows = egost.write_rows([sample], tmp_path / "rows.jsonl")
    egost.write_benchmark([sample], tmp_path / "benchmark")
    own = write_jsonl([sample], tmp_path / "own.jsonl")
    for read in (
        egost.read_rows(rows),
        egost.read_benchmark(tmp_path / "benchmark"),
        read_jsonl(own),
    ):
        assert bare(read) == [sample]


def test_files_that_look_official_and_are_not_read_are_named(tmp_path):
    names = [
        "part1_forward_mcq.json",
        "Part1_forward_mcq (1).json",
        "Part5_reverse_qa.json",
        "Part1_forward_mcq.jsonl",
    ]
    for name in (*names, "notes.txt"):
        benchmark(tmp_path, {}, name)
    with pytest.raises(
        FileNotFoundError, match=r"found none; not read: Part1_forward_mcq \(1\)\.json, "
    ):
        egost.read_benchmark(tmp_path)
    benchmark(tmp_path, {"7": entry(answer="A")})
    with pytest.warns(UserWarning, match="not read: .*part1_forward_mcq") as noted:
        assert len(egost.read_benchmark(tmp_path)) == 1
    assert all(name in str(noted[0].message) for name in names) and "notes" not in str(
        noted[0].message
    )


# ---- reading is total

text_ = st.text(max_size=12) | st.sampled_from(
    [
        "",
        "A",
        "Z",
        "../a.mp4",
        "/x/a.mp4",
        "https://a.b/c.mp4",
        "a\0.mp4",
        "\ud800",
        prompts.stem("action", "forward"),
    ]
)
json_ = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text_,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text_, inner, max_size=3),
    max_leaves=4,
)


def changed(good: dict):
    """Rows that differ from a good one in some fields: other values, other texts, none."""
    field = st.sampled_from(sorted(good)) | st.just("sample") | text_
    spoilt = st.lists(
        st.tuples(field, json_ | st.sampled_from([good.get("problem", ""), "B"]), st.booleans()),
        max_size=3,
    )

    def apply(changes):
        made = dict(good)
        for name, value, keep in changes:
            made.pop(name, None)
            made |= {name: value} if keep else {}
        return made

    return spoilt.map(apply)


lines = st.one_of(
    changed(row()).map(json.dumps),
    json_.map(json.dumps),
    st.text(st.characters(exclude_characters="\r\n"), max_size=9),
)
fuzz = settings(
    max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def total(samples, errors, count: int, name: str):
    """Every row became a sample or an error that names file, line, field and what was expected."""
    assert len(samples) + len(errors) == count
    for error in errors:
        assert (
            re.fullmatch(rf"{name}:\d+", error.where)
            and isinstance(error.field, str)
            and error.expected
        )
        assert str(error).startswith(
            f"{error.where}: field '{error.field}': expected {error.expected}, found "
        )


@fuzz
@given(st.lists(lines, min_size=20, max_size=20))
def test_ten_thousand_fuzzed_rows_give_a_sample_or_an_error(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    path.write_bytes("".join(line + "\n" for line in rows).encode("utf-8", "surrogatepass"))
    count = sum(bool(line.strip()) for line in path.read_bytes().split(b"\n"))
    total(*egost.read_rows(path, on_error="collect"), count, "fuzz.jsonl")
    samples, errors = egost.read_rows(path, path.parent / "videos", on_error="collect")
    total(samples, errors, count, "fuzz.jsonl")
    if errors:
        with pytest.raises(SampleError):
            egost.read_rows(path, path.parent / "videos")


@settings(fuzz, max_examples=50)
@given(
    st.lists(
        changed(entry(answer="A")) | changed(entry()["forward_mcq"]) | json_,
        min_size=20,
        max_size=20,
    )
)
def test_fuzzed_entries_give_a_sample_or_an_error(tmp_path_factory, entries):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    benchmark(folder, {str(i): value for i, value in enumerate(entries)})
    total(*egost.read_benchmark(folder, on_error="collect"), 20, r"Part1_forward_mcq\.json")


@settings(fuzz, max_examples=50)
@given(
    st.lists(st.lists(text_, min_size=1, max_size=5), min_size=1, max_size=20),
    st.lists(json_, max_size=20),
)
def test_fuzzed_annotations_give_samples_or_an_error(tmp_path_factory, cells, objects):
    folder = tmp_path_factory.getbasetemp()
    table = "video,direction,action_reverse,route\n" + "\n".join(",".join(c) for c in cells)
    (folder / "own.csv").write_bytes(table.encode("utf-8", "surrogatepass"))
    rows = [{"video": "a.mp4", "direction": value} for value in objects] + objects
    put(folder / "own.jsonl", rows)
    for name in ("own.csv", "own.jsonl"):
        for error in annotations.annotations(folder / name, on_error="collect")[1]:
            assert (
                re.fullmatch(rf"{name}:\d+", error.where)
                and isinstance(error.field, str)
                and error.expected
            )


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"problem": None}, "field 'problem': expected text"),
        ({"problem": "How far? Options: A. one, B. two" + egost.TAIL}, "one of the eight tasks"),
        ({"problem": row()["problem"].replace(", C. ", ", D. ")}, "each letter once"),
        ({"original_answer": "Z"}, "field 'solution': expected the original_answer 'Z' as answer"),
        ({"solution": "A"}, "<think>"),
        ({"original_question": "?"}, "field 'original_question'"),
        ({"extra": 1}, "field 'extra': expected one of the fields problem, "),
        ({"solution": [*built(), None][1].trace}, "field 'solution'"),
    ],
)
def test_a_bad_row_names_its_field(changes, said, tmp_path):
    good, same = row(), {"original_question": changes["problem"]} if changes.get("problem") else {}
    path = put(tmp_path / "rows.jsonl", [good, "", good | {"video": "b.mp4"} | changes | same])
    with pytest.raises(SampleError, match=re.escape(said)) as caught:
        egost.read_rows(path)
    assert caught.value.where == "rows.jsonl:3"


def test_the_same_id_twice_is_numbered_in_rows_and_refused_in_a_benchmark(tmp_path):
    path = put(tmp_path / "rows.jsonl", [row(), row(video="other/w.mp4")])
    assert [s.id for s in egost.read_rows(path)] == ["w/direction/forward", "w/direction/forward#2"]
    with pytest.raises(SampleError, match="an id that no earlier sample has"):
        egost.write_rows(built() + built(), tmp_path / "twice.jsonl")
    assert not (tmp_path / "twice.jsonl").exists()


# ---- safety


@pytest.mark.parametrize(
    "video",
    [
        "/etc/passwd",
        "../a.mp4",
        "a/../../b.mp4",
        "https://x.y/a.mp4",
        "a\0.mp4",
        "C:\\a.mp4",
        "out/a.mp4",
        "",
    ],
)
def test_paths_that_leave_the_root_are_refused_with_their_line(video, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "a.mp4").touch()
    (tmp_path / "videos" / "out").symlink_to(tmp_path)
    path = put(tmp_path / "rows.jsonl", [row(), row(video=video)])
    if (
        video != "/etc/passwd"
    ):  # with a root, a path of another machine is looked up by its name alone
        with pytest.raises(SampleError, match=r"^rows\.jsonl:2: field 'video'"):
            egost.read_rows(path, tmp_path / "videos")
    if video != "out/a.mp4":  # without a root there is no link to follow
        with pytest.raises(SampleError, match=r"^rows\.jsonl:2: field 'video'"):
            egost.read_rows(path)
    put(tmp_path / "own.jsonl", [{"video": video, "direction": "go straight"}])
    with pytest.raises(SampleError, match=r"^own\.jsonl:1: field 'video'"):
        annotations.annotations(
            tmp_path / "own.jsonl", None if video == "/etc/passwd" else tmp_path / "videos"
        )
    benchmark(tmp_path, {"1": entry(answer="A"), "2": entry(answer="A") | {"video": video}})
    if video and video != "/etc/passwd":
        with pytest.raises(SampleError, match=r"^Part1_forward_mcq\.json:1: field 'video'"):
            egost.read_benchmark(tmp_path, tmp_path / "videos")


def test_a_path_of_another_machine_never_leaves_the_root(tmp_path):
    (sample,) = egost.read_rows(put(tmp_path / "rows.jsonl", [row(video="/etc/passwd")]), tmp_path)
    assert sample.video == "passwd"


def test_one_name_in_two_folders_is_not_guessed(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w.mp4").touch()
    with pytest.raises(SampleError, match="one file of this name under the root"):
        egost.read_rows(put(tmp_path / "rows.jsonl", [row(video="/there/w.mp4")]), tmp_path)
    (sample,) = egost.read_rows(put(tmp_path / "rows.jsonl", [row(video="y/w.mp4")]), tmp_path)
    assert sample.video == "y/w.mp4"


@pytest.mark.parametrize("deep", ["[" * 200_000, '{"a":' * 200_000])
def test_a_file_nested_to_the_stack_limit_is_an_error(deep, tmp_path):
    with pytest.raises(SampleError, match=r"rows\.jsonl:1: field 'row': expected a JSON value"):
        egost.read_rows(put(tmp_path / "rows.jsonl", [deep]))
    with pytest.raises(
        SampleError, match=r"Part1_forward_mcq\.json: field 'row': expected a JSON value"
    ):
        egost.read_benchmark(benchmark(tmp_path, deep))


def test_more_than_100_megabytes_of_json_is_an_error(tmp_path):
    with open(benchmark(tmp_path, "") / "Part1_forward_mcq.json", "wb") as file:
        file.truncate(101 * 2**20)
    with pytest.raises(SampleError, match="at most 104857600 bytes"):
        egost.read_benchmark(tmp_path)
    with pytest.raises(SampleError, match="at most 104857600 bytes"):
        with open(tmp_path / "rows.jsonl", "wb") as file:
            file.write(b" [")
            file.truncate(101 * 2**20)
        egost.read_rows(tmp_path / "rows.jsonl")


def test_a_folder_without_benchmark_files_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected files like Part1_forward_mcq\.json"):
        egost.read_benchmark(tmp_path)


# ---- statistics, and the network


def test_statistics_count_what_is_there():
    table = describe(egost.read_benchmark(DATA / "benchmark"))
    assert [(r["task"], r["way"]) for r in table] == [
        (t, w) for t in TASKS for w in ("forward", "reverse")
    ]
    assert [r["samples"] for r in table] == [64, 64, 64, 64, 64, 64, 16, 16] and sum(
        r["samples"] for r in table
    ) == 416
    assert [r["options"] for r in table[2:]] == pytest.approx([4] * 6) and [
        table[4]["steps"],
        table[5]["steps"],
    ] == pytest.approx([3, 3])


def test_download_wants_a_pinned_revision_and_explains_itself_when_offline(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="40 hex digits"):
        egost.download(tmp_path, "main")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ConnectionError,
        match=r"Not fetched.*hf download openinterx/Ego-ST-bench --repo-type dataset",
    ):
        egost.download(tmp_path, "0" * 40)


def test_no_reader_opens_a_connection(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a reader opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert egost.read_rows(DATA / "train" / "total_test_mcq_63.jsonl", DATA / "videos")
    assert egost.read_benchmark(DATA / "benchmark", DATA / "videos")
    with pytest.raises(SampleError, match="no URL"):
        egost.read_rows(put(tmp_path / "rows.jsonl", [row(video="https://x.y/a.mp4")]))
