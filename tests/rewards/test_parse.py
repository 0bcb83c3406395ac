"""Replies taken apart: tags and thinking, total and linear on anything, and the path thought of."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stlite.rewards.choice import chosen_letter
from stlite.rewards.parse import Reply, opens_thinking, parse, split_steps

HERE = Path(__file__).parent
KEPT = [json.loads(line) for line in (HERE / "replies.jsonl").read_text("utf-8").splitlines()]
HOSTILE = [
    "<think>", "</think>", "<answer>", "</answer>", "<think></think>", "<answer>B</answer>", "A ", "thinking forward ",
    "walking back ", "\n", "- ", "1. ", "turn left ", "the ", "< ", "<|im_end|>", "\0", "🤖", "door, ", "keep going ",
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


@pytest.mark.parametrize(
    "row", [row for row in KEPT if "steps" in row], ids=lambda row: row["reply"][:60]
)
def test_the_path_thought_of_is_read_with_the_way_it_claims(row):
    reply = parse(row["reply"])
    assert (reply.way, list(reply.steps)) == (row["way"], row["steps"])


def seconds(text: str) -> float:
    spent = []
    for _ in range(3):
        start = time.process_time()
        parse(text)
        spent.append(time.process_time() - start)
    return min(spent)


@pytest.mark.parametrize(
    "around",
    ["%s", "<think>%s", "<think>forward %s</think><answer>A</answer>", "<answer>%s</answer>"],
)
def test_parsing_grows_no_faster_than_hostile_text(around):
    for unit in HOSTILE:
        short, long = (
            seconds(around % (unit * (size // len(unit)))) for size in (100_000, 400_000)
        )
        assert long < 10 * max(short, 0.005), (
            unit
        )  # four times the text: 4 if linear, 16 if quadratic


# ---- thinking that the prompt opened ------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "reason", "answer"),
    [
        ("I turn left, so the answer is D. But wait", "truncated", ""),
        ("B", "truncated", ""),
        ("<answer>B</answer>", "truncated", ""),
        ("", "truncated", ""),
        ("<think>again opened, and cut", "truncated", ""),
        ("I turn left.</think> <answer>B</answer>", "", "B"),
        ("I turn left.\n</think>\n\nB", "", "B"),
        ("<think>again opened</think> <answer>B</answer>", "", "B"),
        ("A? <answer>A</answer> no</think> <answer>B</answer>", "", "B"),
        ("I turn left.</think>", "absent", ""),
        ("one</think> <think>two", "truncated", ""),
    ],
)
def test_a_thought_that_the_prompt_opened_counts_as_opened(reply, reason, answer):
    parsed = parse(reply, thinking_opened=True)
    assert (parsed.reason, parsed.answer) == (reason, answer)
    assert "<think>" not in parsed.think.split("\n")[0]


@pytest.mark.parametrize(
    ("reply", "reason", "answer", "source"),
    [
        ("<answer>B</answer>", "", "B", "tagged"),
        ("<answer>B", "", "B", "cut"),
        ("B", "", "B", "untagged"),
        ("<answer>B</answer> <answer>B</answer>", "ambiguous", "", ""),
        ("<answer>A</answer> <answer>B</answer> <answer>C</answer>", "ambiguous", "", ""),
        ("<answer>A</answer> or <answer>B", "ambiguous", "", ""),
    ],
)
def test_one_answer_is_read_with_where_it_stands(reply, reason, answer, source):
    parsed = parse(reply)
    assert (parsed.reason, parsed.answer, parsed.source) == (reason, answer, source)


def test_a_closing_tag_shows_that_the_prompt_opened_the_thought():
    for opened in (None, True):
        parsed = parse("Thinking forward: turn left</think> <answer>B</answer>", opened)
        assert (parsed.think, parsed.steps, parsed.answer) == (
            "Thinking forward: turn left",
            ("turn left",),
            "B",
        )


def test_whether_a_prompt_opens_the_thinking_is_read_off_its_end():
    asked = "Output the thinking process in <think> </think> and <answer> </answer>.<|im_end|>\n<|im_start|>assistant\n"
    assert not opens_thinking(asked)
    assert opens_thinking(asked + "<think>\n") and opens_thinking(asked + "<think>")
    for tag in ("<thinking>", "<THINK>\n\n", "◁think▷", "< think >"):
        assert opens_thinking(asked + tag), tag
    for end in ("<think>\n\n</think>\n\n", "<think>", "I think", "<answer>"):
        assert opens_thinking(asked + end) == (end == "<think>"), end


# ---- any text -----------------------------------------------------------------------------------


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


def test_an_answer_longer_than_any_route_is_unreadable_and_of_long_text_the_end_is_read():
    assert parse("<answer>" + "turn left. " * 4000 + "</answer>").reason == "unreadable"
    assert parse("turn left. " * 4000 + "\nB").answer.endswith("B")
    assert chosen_letter("turn left. " * 4000 + "\nThe answer is B.", ["x", "y"]) == "B"


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
