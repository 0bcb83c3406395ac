"""Reading replies: a kept table of awkward ones, total and linear on anything, and the path thought of."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stlite.data.sample import LETTERS
from stlite.rewards.choice import chosen_letter, score_choice
from stlite.rewards.parse import Reply, parse, split_steps
from stlite.rewards.route import compare_routes

KEPT = [
    json.loads(line) for line in (Path(__file__).parent / "replies.jsonl").read_text().splitlines()
]
HOSTILE = [
    "<think>", "</think>", "<answer>", "</answer>", "<think></think>", "<answer>B</answer>", "A", "A ", "A and ", "not A, ",
    "A is wrong, ", "the answer is ", "answer ", "\\boxed{", "(", "'", "thinking forward ", "walking back ", "\n", "- ",
    "1. ", "It's A ", "A.\n", "选", "turn left ", "left ", "the ", "< ", "<|im_end|>", "\0", "🤖", "door, ", "keep going ",
]  # fmt: skip
FRAGMENTS = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "A",
        "B",
        "C",
        "the answer is ",
        "not ",
        " or ",
        " and ",
        "\n",
        ". ",
    ]
    + [
        "the garden",
        "the kitchen",
        "Thinking back: ",
        "1. turn left ",
        "\\boxed{",
        "}",
        "(",
        ")",
        "**",
        "option ",
        "é",
        "\0",
    ]
)


def test_the_kept_replies_are_many_and_of_several_dialects():
    assert len({row["reply"] for row in KEPT}) == len(KEPT) >= 200
    assert len([row for row in KEPT if not row["letter"]]) >= 40
    assert {"qwen", "internvl", "gpt", "base"} <= {row["dialect"] for row in KEPT}
    assert {row["reason"] for row in KEPT} == {"", "absent", "ambiguous", "truncated", "unreadable"}


@pytest.mark.parametrize("row", KEPT, ids=lambda row: f"{row['dialect']} {row['reply'][-40:]!r}")
def test_each_kept_reply_is_read_as_the_contract_says(row):
    found, other = parse(row["reply"]), "B" if row["letter"] == "A" else "A"
    assert chosen_letter(found, row["options"]) == row["letter"]
    assert score_choice(found, row["options"], row["letter"] or "A").value == float(
        bool(row["letter"])
    )
    assert score_choice(found, row["options"], other).reason == (row["reason"] or "wrong")
    if "steps" in row:
        assert (found.way, list(found.steps)) == (row["way"], row["steps"])


def cost(text: str) -> float:
    start = time.process_time()
    parse(text)
    return time.process_time() - start


def test_a_megabyte_of_opened_thoughts_takes_less_than_a_fifth_of_a_second():
    assert min(cost("<think>" * (2**20 // 7)) for _ in range(3)) < 0.2


@pytest.mark.parametrize(
    "around",
    ["%s", "<think>%s", "<think>forward %s</think><answer>A</answer>", "<answer>%s</answer>"],
)
def test_reading_is_linear_in_hostile_text(around):
    for unit in HOSTILE:
        text = around % (unit * (400_000 // len(unit)))
        start = time.process_time()
        chosen_letter(text, ["the garden", "the kitchen"])
        assert time.process_time() - start < 0.6, unit


def test_the_longest_answer_that_is_read_takes_no_time():
    for unit in HOSTILE:
        answer = unit * (19_000 // len(unit))
        start = time.process_time()
        chosen_letter(f"<answer>{answer}</answer>", ["the garden", "the kitchen"])
        assert time.process_time() - start < 0.1, unit


@given(st.text() | st.lists(FRAGMENTS, max_size=30).map("".join))
@settings(max_examples=400, deadline=None)
def test_reading_is_total_and_invents_nothing(text):
    reply = parse(text)
    assert isinstance(reply, Reply) and reply.text == text
    assert reply.reason in ("", "absent", "ambiguous", "truncated", "unreadable")
    assert bool(reply.answer) != bool(reply.reason)  # an answer, or why there is none
    assert all(line in text for line in reply.answer.split("\n"))
    assert all(step in reply.think for step in reply.steps)
    assert bool(reply.way) >= bool(reply.steps) and reply.way in ("", "forward", "reverse")
    assert chosen_letter(reply, ["the garden", "the kitchen"]) in ("", "A", "B")


@pytest.mark.parametrize("unit", ["\U0001d401", "Ａ", "\u202e", "ﷺ", "a\u0301", "ß"])
def test_a_megabyte_of_any_character_is_read(unit):
    text = (unit * 2**20)[: 2**20 // len(unit.encode())]
    assert chosen_letter(text, ["x", "y"]) == ""
    assert chosen_letter(f"<think>{text}</think> <answer>B</answer>", ["x", "y"]) == "B"


def test_an_answer_longer_than_any_route_is_unreadable_and_a_long_text_without_tags_has_none():
    assert parse("<answer>" + "turn left. " * 4000 + "</answer>").reason == "unreadable"
    assert parse("turn left. " * 4000).reason == "absent"


@pytest.mark.parametrize("made", LETTERS)
def test_the_letter_in_the_thought_is_never_the_answer(made):
    assert chosen_letter(f"<think>the answer is {made}</think>", list("stuvwxyz")) == ""
    assert (
        chosen_letter(f"<think>the answer is {made}</think> <answer>B</answer>", list("stuvwxyz"))
        == "B"
    )


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("turn left, go straight", ("turn left", "go straight")),
        ("1. turn left 2. go straight", ("turn left", "go straight")),
        ("1) turn left\n2) go straight", ("turn left", "go straight")),
        ("- turn left\n- go straight", ("turn left", "go straight")),
        ("• turn left • go straight", ("turn left", "go straight")),
        ("turn left -> go straight → stop", ("turn left", "go straight", "stop")),
        ("First, I turn left; then go straight.", ("turn left", "go straight")),
        ("['turn left', 'go straight']", ("turn left", "go straight")),
        ("""["the friend's box", 'a, b']""", ("the friend's box", "a, b")),
        ("Turn left. Then go straight. Finally, stop", ("Turn left", "go straight", "stop")),
        ("", ()),
        ("['', ' ']", ()),
    ],
)
def test_a_list_is_cut_into_steps_however_it_is_written(text, steps):
    assert split_steps(text) == steps


def test_a_route_of_a_megabyte_is_compared_in_bounded_time():
    start = time.process_time()
    compare_routes(
        "Turn left at the door, then right.",
        parse("<answer>" + "turn left at a door " * 900 + "</answer>").answer,
    )
    assert time.process_time() - start < 0.5
