"""The doctor: every defect is found with its exact count, a sound set has none, and repair mends without guessing."""

import json
import os
import random
import re
from pathlib import Path

import pytest

from sample_data import walks
from stlite.data import annotations, egost, prompts
from stlite.data.checks import RULES, check, fix, format_table, shuffled
from stlite.data.sample import Sample, replace
from stlite.eval.shortcuts import shortcuts

DATA = Path(__file__).parents[2] / "sample_data"
REAL = os.environ.get("STLITE_REAL_ROWS", "")
needs_real = pytest.mark.skipif(
    not REAL, reason="STLITE_REAL_ROWS names no file of the 63 released rows"
)
STEM = [
    3,
    4,
    8,
    20,
    26,
    39,
    46,
    49,
    63,
]  # lines of the 63 rows, by hand: action options under the landmark stem
WORDING = [
    2,
    12,
    13,
    19,
    28,
    34,
    40,
    44,
    45,
    51,
    52,
    55,
    58,
    59,
    60,
]  # a direction stem, a trace of landmarks
FEW = [5, 15, 20, 23, 27, 30, 31, 42, 45, 53, 62]  # lines without an option D


def walk(**changes) -> list[Sample]:
    """The samples of one annotated walk."""
    steps = {
        "direction": ["turn left", "go straight", "turn right"],
        "landmark": ["gate", "car park", "bridge"],
    }
    return annotations.build(**({"video": "w.mp4", "steps_forward": steps, "id": "w"} | changes))


def found(samples, **settings) -> dict[str, dict]:
    """Findings by their code."""
    return {finding["code"]: finding for finding in check(samples, **settings)}


def lines(finding, samples) -> list[int]:
    """The line numbers of the samples of a finding."""
    places = {s.id: int(s.origin.rpartition(":")[2]) for s in samples}
    return [places[name] for name in finding["ids"]]


# ---- the released rows


@needs_real
def test_each_defect_of_the_real_rows_is_found_with_exactly_its_count(tmp_path):
    samples = egost.read_rows(REAL, videos=tmp_path)
    findings = found(samples)
    assert lines(findings["stem-of-another-task"], samples) == STEM
    assert lines(findings["trace-of-another-task"], samples) == WORDING
    assert lines(findings["few-options"], samples) == FEW
    assert "opening-twice" not in findings  # none of the 18 is among these 63
    counts = {code: (f["count"], f["of"]) for code, f in findings.items()}
    assert counts["letter-imbalance"] == (23, 63)
    assert counts["wrong-ends-in-period"] == (24, 178)
    assert counts["twin-options"] == (19, 63) and counts["key-is-permutation-pair"] == (19, 19)
    assert counts["trace-tells-answer"] == (23, 63)
    assert findings.keys() - counts.keys() == set() and "held-out-overlap" not in findings


@needs_real
def test_the_counts_are_those_of_the_raw_text(tmp_path):
    raw = [json.loads(line) for line in Path(REAL).read_text("utf-8").splitlines()]
    findings = found(egost.read_rows(REAL, videos=tmp_path))
    wrong = told = 0
    for row in raw:
        options = re.split(
            r"(?:^|, )[A-H]\. ", row["problem"].split(" Options: ")[1].split("\n\nInstr")[0]
        )[1:]
        key = options.pop("ABCD".index(row["original_answer"]))
        wrong += sum(option[-1] == "." for option in options)
        path = re.search(r"\?\s*(\[.*?\]|.*?) And then", row["solution"])[1]
        told += {*re.findall(r"\w+", key.lower())} <= {*re.findall(r"\w+", path.lower())}
    assert (findings["wrong-ends-in-period"]["count"], findings["trace-tells-answer"]["count"]) == (
        wrong,
        told,
    )


@needs_real
def test_repair_mends_the_real_rows_and_reports_each_change(tmp_path):
    samples = egost.read_rows(REAL, videos=tmp_path)
    mended, changes = fix(samples)
    left = found(mended)
    assert (
        not {"stem-of-another-task", "trace-of-another-task", "trace-of-another-letter"}
        & left.keys()
    )
    assert [(c["code"], c["field"]) for c in changes].count(
        ("stem-of-another-task", "question")
    ) == 9
    assert [(c["code"], c["field"]) for c in changes].count(
        ("trace-of-another-task", "trace")
    ) == 15
    for old, new in zip(samples, mended):
        assert (new.gold, sorted(new.options), new.video, new.steps) == (
            old.gold,
            sorted(old.options),
            old.video,
            old.steps,
        )
        fields = {c["field"] for c in changes if c["id"] == old.id}
        assert {f for f in Sample.__slots__ if getattr(old, f) != getattr(new, f)} == fields
        assert new.trace.endswith(f"the correct answer is {new.answer}")
    assert fix(samples)[0] == mended
    assert not [c for c in fix(mended)[1] if c["code"] != "letter-imbalance"]


@needs_real
def test_shortcuts_of_the_real_rows(tmp_path):
    rows = {r["baseline"]: r for r in shortcuts(egost.read_rows(REAL, videos=tmp_path))}
    assert rows["always A"]["accuracy"] == pytest.approx(23 / 63)
    assert (
        rows["text classifier"]["accuracy"] > 0.5 > rows["text classifier"]["chance"]
    )  # the texts give the key away
    for r in rows.values():
        assert r["low"] < r["accuracy"] < r["high"] and r["n"] == 63
        assert r["chance"] == pytest.approx(
            sum(1 / k * n for k, n in ((4, 52), (3, 11))) / 63, abs=0.02
        )


# ---- one defect at a time: found where it was put, and nowhere else

WRONG = ["climb those grey stairs", "cross over", "enter that blue room now"]
STEPS = {
    "steps_forward": ("turn left", "go straight"),
    "steps_reverse": ("turn around", "go straight", "turn right"),
}


def sound(i: int) -> Sample:
    """A question that nothing is wrong with, its key at each letter in turn."""
    options = [*WRONG[: i % 4], "turn left go straight", *WRONG[i % 4 :]]
    question = prompts.stem("direction", "forward")
    s = Sample(
        f"w{i}", f"w{i}.mp4", "direction", "forward", question, "ABCD"[i % 4], options, **STEPS
    )
    return replace(s, trace=prompts.trace(s))


OPENED = "Please take a egocentric view to understand the following questions."
DEFECTS = {
    "stem-of-another-task": lambda s: replace(s, question=prompts.stem("action", s.way)),
    "opening-twice": lambda s: replace(s, question=OPENED + s.question),
    "trace-of-another-task": lambda s: replace(s, trace=s.trace.replace("what directions do you need to go through to get", "which landmarks (objects or scenery changes) did you pass by")),
    "trace-of-another-letter": lambda s: replace(s, trace=s.trace[:-1] + "ABCD"[s.answer == "A"]),
    "trace-tells-answer": lambda s: replace(s, trace=prompts.trace(s, s.way)),
    "few-options": lambda s: replace(s, options=s.options[:2], answer="A"),
    "empty-option": lambda s: replace(s, options=(*s.options, " ")),
    "duplicate-options": lambda s: replace(s, options=(*s.options, s.options[0].upper() + ".")),
    "twin-options": lambda s: replace(s, options=("left then right", "right then left", "on", "on and on")),
    "step-of-another-task": lambda s: replace(s, steps_forward=(*s.steps_forward, "the red door")),
    "reverse-is-forward": lambda s: replace(s, steps_reverse=s.steps_forward),
}  # fmt: skip


@pytest.mark.parametrize("code", DEFECTS)
def test_a_defect_is_found_where_it_was_put_and_nowhere_else(code):
    samples = [sound(i) for i in range(8)]
    assert check(samples) == []
    hurt = [*samples[:5], DEFECTS[code](samples[5]), *samples[6:]]
    finding = found(hurt)[code]
    assert (finding["ids"], finding["count"], finding["of"]) == (["w5"], 1, 8)
    assert finding["severity"] in ("error", "warning", "note") and "\n" not in finding["fix"]
    mended, changes = fix(hurt)
    if code in ("stem-of-another-task", "opening-twice", "trace-of-another-task"):
        assert code not in found(mended) and [(c["id"], c["code"]) for c in changes] == [
            ("w5", code)
        ]
    else:
        assert (mended, changes) == (hurt, [])


@pytest.mark.parametrize(
    "task, steps, right",
    [
        ("direction", ("Turn left", "at the window"), False),
        ("direction", ("go straight", "pick up the box"), False),
        ("direction", ("Turn back", "cross the street", "return to the starting point"), True),
        ("direction", ("向左转", "tourner à droite"), True),
        ("landmark", ("red door", "turn left"), False),
        ("landmark", ("red door", "Go straight."), False),
        ("landmark", ("platform on the left-hand side", "U-turn sign", "exit"), True),
        ("action", ("turn left", "open the door"), True),
    ],
)
def test_a_step_of_another_task_is_found(task, steps, right):
    """As in the released rows: landmarks and actions among directions."""
    sample = replace(sound(1), task=task, steps_reverse=steps, steps_forward=())
    assert ("step-of-another-task" not in found([sample])) == right


def test_repeated_questions_are_found():
    samples = walk()
    again = replace(
        samples[0],
        id="other",
        options=samples[0].options[::-1],
        answer="DCBA"["ABCD".index(samples[0].answer)],
    )
    assert found([*samples, again])["duplicate-questions"]["ids"] == [samples[0].id, "other"]
    assert found([*samples, samples[1]])["duplicate-questions"]["count"] == 2


def test_recordings_that_are_held_out_are_found():
    samples = walk() + walk(id="v", video="v.mp4")
    assert found(samples, held_out=walk())["held-out-overlap"]["ids"] == [s.id for s in walk()]
    assert "held-out-overlap" not in found(samples, held_out=walk(id="u", video="u.mp4"))


WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")


def invented(count: int, key, letter=lambda rng: rng.randrange(4)) -> list[Sample]:
    """Questions of random words; `key` turns a random right option into the one there is."""
    rng, made = random.Random(0), []
    for i in range(count):
        options = [" ".join(rng.sample(WORDS, 3)) for _ in range(4)]
        place = letter(rng)
        options[place] = key(options[place])
        made.append(
            Sample(
                f"q{i}", f"v{i // 4}.mp4", "landmark", "forward", "Which?", "ABCD"[place], options
            )
        )
    return made


@pytest.mark.parametrize(
    "code, key",
    [
        ("key-is-longest", lambda text: text + " and so on for ever"),
        ("key-is-shortest", lambda text: text[:4]),
        ("key-is-no-final-period", None),
    ],
)
def test_a_rule_that_gives_the_key_away_is_found_and_named(code, key):
    samples = invented(80, key or (lambda text: text))
    if not key:
        samples = [
            replace(s, options=[o + "." * (o != s.gold) for o in s.options]) for s in samples
        ]
    assert code in found(samples) and code not in found(invented(80, lambda text: text))
    rule = code.removeprefix("key-is-").replace("-", " ")
    rows = {r["baseline"]: r for r in shortcuts(samples)}
    assert rows[rule]["accuracy"] > 0.9 and rows[rule]["low"] > rows[rule]["chance"]
    assert ("wrong-ends-in-period" in found(samples)) == (key is None)


def test_a_letter_that_is_too_common_is_found_and_shuffled_away():
    samples = invented(200, lambda text: text, letter=lambda rng: rng.choice([0, 0, 0, 1, 2, 3]))
    finding = found(samples)["letter-imbalance"]
    assert (
        finding["count"] == sum(s.answer == "A" for s in samples)
        and finding["severity"] == "warning"
    )
    mended, changes = fix(samples)
    assert "letter-imbalance" not in found(mended) and {c["code"] for c in changes} == {
        "letter-imbalance"
    }
    assert [s.gold for s in mended] == [s.gold for s in samples]


def test_sound_data_has_nothing_but_notes_and_no_shortcut():
    for samples in (
        egost.read_benchmark(DATA / "benchmark"),
        egost.read_rows(DATA / "train" / "total_test_mcq_630.jsonl"),
    ):
        assert {f["severity"] for f in check(samples)} <= {"note"} and fix(samples) == (
            samples,
            [],
        )
        for row in shortcuts(samples):
            assert row["low"] < row["chance"] + 0.03, (
                row
            )  # the commonest letter is chosen after the fact


# ---- videos


def test_missing_broken_and_short_videos_are_found(tmp_path):
    drawn = walks.draw(1, 1)
    walks.write_video(drawn, tmp_path / "good.mp4", size=56)
    (tmp_path / "broken.mp4").write_bytes((tmp_path / "good.mp4").read_bytes()[:2000])
    samples = [
        s for name in ("good", "broken", "missing") for s in walk(video=f"{name}.mp4", id=name)
    ]
    findings = found(samples, videos=tmp_path, frames=4)
    assert findings["missing-video"]["ids"] == [s.id for s in samples if s.video == "missing.mp4"]
    assert findings["unreadable-video"]["ids"] == [s.id for s in samples if s.video == "broken.mp4"]
    assert "short-video" not in findings
    many = found(samples, videos=tmp_path, frames=200)
    assert many["short-video"]["ids"] == [s.id for s in samples if s.video == "good.mp4"]


# ---- shortcuts, intervals, tables


def test_shuffling_keeps_the_truth_and_forbids_itself_where_the_trace_is_of_another_form():
    for s in walk():
        moved = shuffled(s, seed=3)
        assert (
            moved.gold == s.gold
            and sorted(moved.options) == sorted(s.options)
            and moved == shuffled(s, seed=3)
        )
        assert moved.trace.endswith(f"answer is {moved.answer}")
    odd = replace(walk()[0], trace="So it must be B, I think.")
    assert shuffled(odd) is odd
    assert {shuffled(s, seed).answer for seed in range(30) for s in walk()} == set("ABCD")


def test_rules_see_only_the_options():
    options = ["turn left.", "turn right.", "left turn.", "gate"]
    assert {name: rule(options) for name, rule in RULES.items()} == {
        "longest": [1], "shortest": [3], "no final period": [3], "permutation pair": [0, 2], "medoid": [0, 2],
    }  # fmt: skip


def test_intervals_go_by_recording():
    alone = [
        replace(sound(i % 4), id=f"w{i}", video=f"w{i}.mp4", group=f"w{i}") for i in range(160)
    ]
    together = [
        replace(s, group=f"w{i // 10}") for i, s in enumerate(sorted(alone, key=lambda s: s.answer))
    ]
    wide, narrow = (
        next(r for r in shortcuts(some) if r["baseline"].startswith("always"))
        for some in (together, alone)
    )
    assert [wide["accuracy"], narrow["accuracy"]] == pytest.approx([0.25, 0.25])
    assert wide["high"] - wide["low"] > 1.5 * (narrow["high"] - narrow["low"])


def test_no_choices_no_shortcuts():
    route = Sample("r", "a.mp4", "route", "forward", "How?", "So.")
    assert (
        shortcuts([route]) == []
        and check([route]) == []
        and check([]) == []
        and format_table([]) == ""
    )


def test_one_recording_leaves_the_classifier_out_and_says_so():
    rows = {r["baseline"]: r for r in shortcuts(walk())}
    assert rows["text classifier"] == {"baseline": "text classifier", "accuracy": None, "low": None, "high": None, "n": 0, "chance": pytest.approx(0.25)}  # fmt: skip


def test_questions_with_one_option_do_not_stop_the_classifier():
    single = [replace(sound(i), options=["gate"], answer="A") for i in range(4)]
    for samples in (single, [*single, sound(5)], [*single, *map(sound, range(4, 12))]):
        (row,) = [r for r in shortcuts(samples) if r["baseline"] == "text classifier"]
        assert row["n"] == (12 if len(samples) == 12 else 0)


def test_a_table_shows_no_control_characters():
    text = format_table([{"id": "a\x1b[31m\nb", "ids": [1], "accuracy": 0.5, "low": None}])
    assert text == "id        accuracy  low\na?[31m?b  0.500     –"
