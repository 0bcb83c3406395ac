"""Scores: the gold reply earns 1, no constant one passes, order of options is nothing, routes by what they mean."""

import itertools
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stlite.data import egost, prompts
from stlite.data.sample import LETTERS, Sample, SampleError
from stlite.rewards.choice import chosen_letter, plain
from stlite.rewards.parse import parse
from stlite.rewards.rewards import score
from stlite.rewards.route import RIGHT, compare_routes, meaning, ngrams, reverse_consistency

HERE = Path(__file__).parent
DATA = HERE.parent.parent / "sample_data"
ROUTES = [json.loads(line) for line in (HERE / "routes.jsonl").read_text().splitlines()]
TRAIN = egost.read_rows(DATA / "train" / "total_test_mcq_630.jsonl")
BENCHMARK = egost.read_benchmark(DATA / "benchmark")
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


def gold(sample: Sample) -> str:
    return prompts.reply(sample.trace or prompts.trace(sample), sample.answer)


def choice(options, answer: str) -> Sample:
    return Sample("1", "a.mp4", "direction", "forward", "Where?", answer, tuple(options))


# ---- choices ---------------------------------------------------------------------------------------------------------


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


# ---- routes ----------------------------------------------------------------------------------------------------------


def test_swapped_and_reversed_routes_score_below_every_right_paraphrase():
    kept = {
        k: [compare_routes(r["reference"], x)["value"] for r in ROUTES for x in r[k]]
        for k in ("right", "swapped", "reversed")
    }
    assert len(kept["right"]) >= 60 and len(kept["swapped"]) >= 60
    assert min(kept["right"]) >= RIGHT > max(kept["swapped"] + kept["reversed"])


@pytest.mark.parametrize("row", ROUTES, ids=lambda row: row["reference"][:40])
def test_n_grams_cannot_tell_what_the_steps_tell(row):
    """ROUGE-L prefers the swapped route to a right paraphrase; the value by steps does the opposite."""
    swapped, said = row["swapped"][0], row["right"][0]
    assert ngrams(row["reference"], swapped)["rouge_l"] > ngrams(row["reference"], said)["rouge_l"]
    assert (
        compare_routes(row["reference"], swapped)["value"]
        < compare_routes(row["reference"], said)["value"]
    )


def test_n_grams_of_the_same_text_are_1_and_of_nothing_0():
    text = "Turn left at the gate and then go straight past the shop."
    assert ngrams(text, text) == pytest.approx({"rouge_l": 1, "bleu": 1, "chrf": 1})
    assert ngrams(text, "") == {"rouge_l": 0, "bleu": 0, "chrf": 0}


@pytest.mark.parametrize(
    ("reference", "route", "wanted"),
    [
        (
            "Turn left at the gate.",
            "Turn left at the gate.",
            {"value": 1, "landmark_f1": 1, "direction": 1},
        ),
        (
            "Turn left at the gate.",
            "Turn left.",
            {"landmark_recall": 0, "landmark_f1": 0, "direction": 1},
        ),
        (
            "Turn left at the gate.",
            "Pass the shop, turn left at the gate.",
            {"value": 1, "landmark_precision": 0.5},
        ),
        ("Turn left.", "Turn left, then turn right.", {"direction": 0.5}),
        (
            "Pass the gate, the shop, the bank.",
            "Pass the bank, the shop, the gate.",
            {"tau": -1, "value": 0.5},
        ),
        (
            "Pass the gate, the shop, the bank.",
            "Pass the gate, the bank, the shop.",
            {"tau": 1 / 3},
        ),
        ("Open the door, pick up the cup.", "Open the door, put down the cup.", {"action": 0.5}),
        (
            "Turn left.",
            "Turn left.",
            {"landmark_f1": None, "tau": None, "action": None, "value": 1},
        ),
        ("Turn left.", "", {"value": 0, "direction": 0}),
    ],
)
def test_each_column_of_a_route_is_what_it_says(reference, route, wanted):
    found = compare_routes(reference, route)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)


STEPS = [
    "turn left",
    "turn right",
    "turn around",
    "go straight",
    "go up the stairs",
    "turn on the lamp",
    "close the door",
]


def test_an_option_is_its_steps_joined_by_spaces():
    for steps in itertools.product(STEPS, repeat=3):
        assert meaning(" ".join(steps)) == sum(map(meaning, steps), ()), steps


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("turn left", "take a left"),
        ("turn left", "make a left-hand turn"),
        ("turn around", "make a U-turn"),
        ("turn around", "turn 180 degrees"),
        ("go straight", "keep walking"),
        ("go straight", "continue ahead"),
        ("go straight", "keep going straight on"),
        ("go straight", "walk straight ahead"),
        ("pass the sofa", "walk past the couch"),
        ("go up the stairs", "climb the staircase"),
        ("pick up the cup", "grab the mug"),
        ("switch on the lamp", "turn on the light"),
        ("close the door", "shut the doors"),
    ],
)
def test_synonyms_mean_the_same(a, b):
    assert meaning(a) == meaning(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [("turn left", "turn right"), ("turn around", "go straight"), ("pick up the cup", "put down the cup"),
     ("go up the stairs", "go down the stairs"), ("the shop on the left", "turn left at the shop"), ("gate", "bank"),
     ("the car park", "the park"), ("I left the shop", "turn left at the shop")],
)  # fmt: skip
def test_different_things_do_not(a, b):
    assert meaning(a) != meaning(b)


def test_a_route_walked_back_is_consistent_and_the_same_route_is_not():
    there = "Go straight. Turn left at the gate. Turn left at the shop. Stop at the bank."
    back = (
        "Turn around at the bank. Turn right at the shop, then right at the gate and go straight."
    )
    assert reverse_consistency(there, back) == 1.0 == reverse_consistency(back, there)
    assert reverse_consistency(there, there) == 0.0
    assert reverse_consistency("Turn left at the gate.", "Turn around.") == 0.0


def test_a_reply_that_thinks_a_route_back_is_told_whether_it_fits():
    one = Sample(
        "r", "a.mp4", "route", "forward", "How?", "Turn left at the gate, then right at the shop."
    )
    reply = (
        "<think>Walking back: turn around, %s at the shop, %s at the gate</think> <answer>"
        + one.answer
        + "</answer>"
    )
    assert "reverse_consistency 1.00" in score(one, reply % ("turn left", "turn right")).explanation
    assert "reverse_consistency 0.00" in score(one, reply % ("turn right", "turn left")).explanation


def test_a_route_without_annotation_is_refused():
    with pytest.raises(SampleError, match="an annotated route"):
        score(Sample("r", "a.mp4", "route", "forward", "How?", ""), "turn left")


@given(st.sampled_from([r["reference"] for r in ROUTES]), st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_every_column_stays_in_its_range(reference, route):
    found = compare_routes(reference, route)
    assert all(
        value is None or (-1 if name == "tau" else 0) <= value <= 1 for name, value in found.items()
    )
    one = Sample("r", "a.mp4", "route", "forward", "How?", reference)
    assert score(one, prompts.reply("x", reference)).value == 1.0
    assert 0 <= score(one, parse(route)).value <= 1
