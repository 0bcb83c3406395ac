"""Routes are compared by what they mean: turns, landmarks and actions in their order."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stlite.data import prompts
from stlite.data.sample import Sample, SampleError
from stlite.rewards.parse import parse
from stlite.rewards.rewards import score
from stlite.rewards.route import RIGHT, compare_routes, meaning, ngrams, reverse_consistency

HERE = Path(__file__).parent
ROUTES = [json.loads(line) for line in (HERE / "routes.jsonl").read_text("utf-8").splitlines()]


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


REFERENCES = (
    "Pass the door.", "Go straight to the door.", "Go straight.", "Follow the path.", "Keep on the left side.",
    "Open the door, pick up the cup.", "Turn left at the gate.", "Walk past the shop and the bank, then stop.", "Go up the stairs.",
)  # fmt: skip


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_reply_that_names_nothing_of_the_reference_is_worth_nothing(reference):
    """Naming no turn is right where none is annotated, but earns nothing by itself."""
    one = Sample("r", "a.mp4", "route", "forward", "How?", reference)
    for refusal in (
        "I do not know.",
        "...",
        "I cannot tell from the video.",
        "Sorry, no.",
        "none",
        "Walk.",
    ):
        assert score(one, prompts.reply("x", refusal)).value == 0.0, refusal
    assert score(one, prompts.reply("x", "")).value == 0.0
    assert score(one, prompts.reply("x", reference)).value == pytest.approx(1.0)


def test_nothing_is_consistent_with_nothing():
    assert reverse_consistency("I walk.", "I do not know.") == 0.0


@pytest.mark.parametrize(
    ("route", "direction", "value"),
    [("Turn left.", 1 / 4, 1 / 16), ("Turn left, turn right.", 1 / 2, 1 / 4), ("Turn right.", 1 / 4, 1 / 16),
     ("Turn left, turn right, turn left.", 3 / 4, 9 / 16)],
)  # fmt: skip
def test_half_of_the_turns_are_worth_a_quarter(route, direction, value):
    reference = "Turn left, turn right, turn left, turn left."
    compared = compare_routes(reference, route)
    assert compared["direction"] == pytest.approx(direction)
    assert compared["value"] == pytest.approx(value)


def test_landmarks_alone_earn_their_share_and_their_order_the_other_half():
    reference = "Pass the gate, the shop, the bank, the wall."
    assert compare_routes(reference, "Pass the gate.")["value"] == pytest.approx(1 / 4)
    assert compare_routes(reference, "Pass the gate and the shop.")["value"] == pytest.approx(1 / 2)
    assert compare_routes(reference, "Pass the shop and the gate.")["value"] == pytest.approx(1 / 4)
    assert compare_routes(reference, "Turn left at the gate.")["value"] == 0.0
