"""Choices: kept awkward replies, the gold reply earns 1, no constant one passes, order of options is nothing."""

import json
import os
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stlite.data import egost, prompts
from stlite.data.sample import LETTERS, Sample
from stlite.rewards.answer import plain
from stlite.rewards.choice import chosen_letter, resolve, score_choice
from stlite.rewards.parse import parse
from stlite.rewards.rewards import score

HERE = Path(__file__).parent
DATA = HERE.parent.parent / "sample_data"
KEPT = [json.loads(line) for line in (HERE / "replies.jsonl").read_text("utf-8").splitlines()]
TRAIN = egost.read_rows(DATA / "train" / "total_test_mcq_630.jsonl")
BENCHMARK = egost.read_benchmark(DATA / "benchmark")
ROOMS = ["the garden", "the kitchen", "the hallway", "the bathroom"]
LANGUAGES = {
    "english",
    "chinese",
    "spanish",
    "french",
    "german",
    "korean",
    "japanese",
    "vietnamese",
}
WORDS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz ABCDEFGH", min_size=2, max_size=24)
FORMS = [
    "<answer>%s</answer>",
    "<think>A or B</think> <answer>%s</answer>",
    "The answer is %s.",
    "%s",
    "(%s)",
    "\\boxed{%s}",
]
FRAGMENTS = [
    *LETTERS[:4],
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    " or ",
    " and ",
    ", ",
    ". ",
    "\n",
    "not ",
    "both ",
]
FRAGMENTS += [
    "the answer is ",
    "turn left go straight",
    "turn right go straight",
    "go straight",
    "option ",
    "(",
    ")",
]
HOSTILE = [
    "A", "A ", "A and ", "not A, ", "A is wrong, ", "the answer is ", "answer ", "\\boxed{", "(", "'", "\n", "- ", "1. ",
    "It's A ", "A.\n", "选", "left ", "the ", "\0", "🤖", "door, ", "so, ", "so ", "if B, ", "A/B ", "B or ", "B。", "答案是B，",
    "<b>", "🅱", "은 ", "は", "B. the garden, ", "the final correct right best answer to this question ", "could be ",
]  # fmt: skip


def gold(sample: Sample) -> str:
    return prompts.reply(sample.trace or prompts.trace(sample), sample.answer)


def choice(options, answer: str) -> Sample:
    return Sample("1", "a.mp4", "direction", "forward", "Where?", answer, tuple(options))


def tagged(text: str) -> str:
    return f"<think>x</think> <answer>{text}</answer>"


# ---- kept replies ------------------------------------------------------------------------------


def test_the_kept_replies_are_many_and_of_several_dialects():
    assert len({(row["reply"], *row["options"]) for row in KEPT}) == len(KEPT) >= 900
    assert len([row for row in KEPT if not row["letter"]]) >= 300
    assert {"qwen", "internvl", "gpt", "base", "text", "shape"} | LANGUAGES <= {
        row["dialect"] for row in KEPT
    }
    assert {row["reason"] for row in KEPT} == {"", "absent", "ambiguous", "truncated", "unreadable"}


@pytest.mark.parametrize("dialect", sorted({row["dialect"] for row in KEPT}))
def test_each_kept_reply_is_read_as_the_rules_say(dialect):
    for row in KEPT:
        if row["dialect"] != dialect:
            continue
        reply = parse(row["reply"])
        assert resolve(reply, row["options"]) == (row["letter"], row["reason"]), row
        right = score_choice(reply, row["options"], row["letter"] or "A")
        assert right.value == float(bool(row["letter"]))
        wrong = score_choice(reply, row["options"], "B" if row["letter"] == "A" else "A")
        assert (wrong.value, wrong.reason) == (0.0, row["reason"] or "wrong")


@pytest.mark.parametrize("letter", "BCD")
@pytest.mark.parametrize(
    "form",
    ["The answer is %s. Note that A is a common distractor.", "Therefore, %s", "Answer - %s", "%s is the answer",
     "it's %s because A is wrong", "Not A, but %s", "答案是%s，因为A不对。", "La respuesta es %s porque A es incorrecta.",
     "La réponse est %s car A est faux.", "Die Antwort ist %s, weil A falsch ist.", "A가 아니라 %s입니다.", "Aではなく、%sです。",
     "Đáp án là %s vì A sai."],
)  # fmt: skip
def test_a_plain_statement_is_read_whatever_its_letter(form, letter):
    for reply in (form % letter, tagged(form % letter), f"<think>A?</think>\n{form % letter}"):
        assert chosen_letter(reply, ROOMS) == letter


@pytest.mark.parametrize("letter", LETTERS[:4])
@pytest.mark.parametrize(
    "form",
    ["turn left at gate %s", "hepatitis %s", "plan %s", "see section %s", "the %s-side", "%s1"],
)
def test_a_letter_in_a_name_is_no_answer(form, letter):
    assert chosen_letter(form % letter, ROOMS) == ""
    assert resolve(parse(tagged(form % letter)), ROOMS) == ("", "unreadable")


@pytest.mark.parametrize("options", [["the kitchen", "a red door", "a bench", "an exit sign"], ["A lift", "B1 level", "C", "D-day"],
                                     ["turn left", "turn left go straight", "A door", "a"]])  # fmt: skip
def test_the_text_of_an_option_comes_before_any_letter(options):
    for letter, text in zip(LETTERS, options):
        if len(text) == 1 and text.upper() != letter:  # the letter of another option: two answers
            assert resolve(parse(tagged(text)), options) == ("", "ambiguous")
            continue
        for form in ("%s", "%s.", "**%s**", "The answer is %s.", f"{letter}. %s"):
            assert chosen_letter(tagged(form % text), options) == letter, form
            assert chosen_letter(form % text, options) == letter, form


def test_a_letter_beside_the_text_of_another_option_is_ambiguous():
    for i, letter in enumerate(LETTERS[:4]):
        text = ROOMS[(i + 1) % 4]
        for form in (f"{letter}. {text}", f"Answer: {letter}) {text}", f"{text} ({letter})"):
            assert resolve(parse(tagged(form)), ROOMS) == ("", "ambiguous")
            assert chosen_letter(form, ROOMS) == ""


# ---- any text ----------------------------------------------------------------------------------


def seconds(text: str) -> float:
    spent = []
    for _ in range(3):
        start = time.process_time()
        chosen_letter(text, ["the garden", "the kitchen"])
        spent.append(time.process_time() - start)
    return min(spent)


@pytest.mark.parametrize("around", ["%s", "<answer>%s</answer>"])
def test_reading_grows_no_faster_than_hostile_text(around):
    for unit in HOSTILE:
        short, long = (seconds(around % (unit * (size // len(unit)))) for size in (4_500, 18_000))
        assert long < 10 * max(short, 0.005), (
            unit
        )  # four times the text: 4 if linear, 16 if quadratic


@pytest.mark.parametrize("unit", ["\U0001d401", "Ａ", "\u202e", "ﷺ", "a\u0301", "ß"])
def test_a_megabyte_of_any_character_is_read(unit):
    text = (unit * 2**20)[: 2**20 // len(unit.encode())]
    assert chosen_letter(text, ["x", "y"]) == ""
    assert chosen_letter(f"<think>{text}</think> <answer>B</answer>", ["x", "y"]) == "B"


@pytest.mark.parametrize("written", LETTERS)
def test_the_letter_in_the_thought_is_never_the_answer(written):
    thought = f"<think>the answer is {written}</think>"
    assert chosen_letter(thought, list("stuvwxyz")) == ""
    assert chosen_letter(f"{thought} <answer>B</answer>", list("stuvwxyz")) == "B"


# ---- samples -----------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [TRAIN, BENCHMARK], ids=["train", "benchmark"])
def test_the_gold_reply_earns_1_on_every_sample(samples):
    assert {score(s, gold(s)).value for s in samples} == {1.0}
    assert {score(s, gold(s)).reason for s in samples} == {"right"}


def test_the_gold_reply_earns_1_on_the_released_rows():
    if not (rows := os.environ.get("STLITE_REAL_ROWS")):
        pytest.skip("set STLITE_REAL_ROWS to a file of released rows")
    samples, _ = egost.read_rows(rows, videos=HERE, on_error="collect")
    assert samples and {score(s, gold(s)).value for s in samples} == {1.0}
    for s in samples:
        wrong = [x for x in s.letters if x != s.answer]
        assert all(
            score(s, prompts.reply(s.trace, x)).value == 0.0 for x in wrong
        )  # the copied trace pays no wrong letter


def test_a_constant_letter_earns_its_share_and_nothing_more():
    samples = [s for s in TRAIN + BENCHMARK if s.kind == "choice"]
    keys = Counter(s.answer for s in samples)
    for x in LETTERS:
        assert sum(score(s, f"<answer>{x}</answer>").value for s in samples) == keys[x]
    for hedge in (
        "A or B",
        "A, B, C, D",
        "Both A and B",
        "B, then A",
        "A/B",
        "any of A, B, C and D",
    ):
        assert not any(score(s, form % hedge).value for s in samples for form in FORMS)


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join))
@settings(max_examples=600, deadline=None)
def test_no_constant_reply_is_right_for_two_keys(text):
    options = ("turn left go straight", "turn right go straight", "turn around", "go straight")
    paid = [score(choice(options, key), text).value for key in LETTERS[:4]]
    assert sum(paid) <= 1
    assert sum(paid) == bool(chosen_letter(text, options))


@given(st.lists(WORDS, min_size=2, max_size=8), st.data())
@settings(max_examples=300, deadline=None)
def test_the_order_of_the_options_is_nothing(options, data):
    options = [f"{text} {i * 'x'}y" for i, text in enumerate(options)]
    assume(len({plain(o) for o in options}) == len(options))
    key, said = (
        data.draw(st.integers(0, len(options) - 1)),
        data.draw(st.integers(0, len(options) - 1)),
    )
    order, form = data.draw(st.permutations(range(len(options)))), data.draw(st.sampled_from(FORMS))
    moved = [options[i] for i in order]
    for write in (lambda i, _: LETTERS[i], lambda i, texts: f"{LETTERS[i]}. {texts[i]}"):
        before = score(choice(options, LETTERS[key]), form % write(said, options))
        after = score(
            choice(moved, LETTERS[order.index(key)]), form % write(order.index(said), moved)
        )
        assert (before.value, before.reason) == (after.value, after.reason)
        assert before.value == float(key == said), form
    as_text = f"<answer>{options[said]}</answer>"
    assert score(choice(options, LETTERS[key]), as_text).value == float(key == said)
    assert score(choice(moved, LETTERS[order.index(key)]), as_text).value == float(key == said)


@pytest.mark.parametrize(
    ("reply", "value", "reason"),
    [
        ("<answer>B</answer>", 1.0, "right"),
        ("<answer>A</answer>", 0.0, "wrong"),
        ("<answer>A or B</answer>", 0.0, "ambiguous"),
        ("<answer>H</answer>", 0.0, "unreadable"),
        ("", 0.0, "absent"),
        ("<think>B", 0.0, "truncated"),
    ],
)
def test_a_score_says_why(reply, value, reason):
    found = score(choice(("left", "right"), "B"), reply)
    assert (found.value, found.reason) == (value, reason)
    assert "annotated B" in found.explanation
