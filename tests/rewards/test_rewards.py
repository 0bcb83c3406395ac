"""Rewards: what each gives, and what none gives."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stlite.data import egost, prompts
from stlite.data.sample import Sample, SampleError, replace
from stlite.data.steps import cut_steps, reverse_path
from stlite.rewards.parse import parse
from stlite.rewards.rewards import (
    PRESETS,
    REWARD_COLUMNS,
    accuracy_reward,
    consistency_reward,
    format_reward,
    is_reward,
    reverse_steps_reward,
    reward_columns,
    route_reward,
    score,
    temporal_contrast,
)

DATA = Path(__file__).parent.parent.parent / "sample_data"
BENCHMARK = egost.read_benchmark(DATA / "benchmark")
CHOICES = [s for s in BENCHMARK if s.kind == "choice"]
REWARDS = [accuracy_reward, format_reward, reverse_steps_reward, consistency_reward, route_reward]
BACK = Sample(
    "1", "a.mp4", "direction", "reverse", "Back?", "B",
    ("turn around turn left go straight", "turn around go straight turn right", "turn around go straight turn left"),
    ("turn left", "go straight"), ("turn around", "go straight", "turn right"),
)  # fmt: skip
ROUTE = Sample(
    "2", "a.mp4", "route", "forward", "How?", "Turn left at the gate, then right at the shop."
)


def reward_of(function, sample: Sample, reply: str, **more) -> float | None:
    columns = reward_columns([sample]) | more
    return function(completions=[reply], prompts=["?"], trainer_state=None, **columns)[0]


def gold(sample: Sample) -> str:
    return prompts.reply(sample.trace or prompts.trace(sample), sample.answer)


def thought(text: str, answer: str = "B") -> str:
    return f"<think>{text}</think> <answer>{answer}</answer>"


@pytest.mark.parametrize("function", REWARDS)
def test_a_reward_can_be_sent_to_another_process_and_takes_texts_and_messages(function):
    assert pickle.loads(pickle.dumps(function)) is function
    chat = [{"role": "assistant", "content": gold(BACK)}]
    assert reward_of(function, BACK, gold(BACK)) == reward_of(function, BACK, chat)


def test_the_gold_reply_is_paid_in_full_by_every_reward_that_applies():
    for s in BENCHMARK:
        found = {f.__name__: reward_of(f, s, gold(s)) for f in REWARDS}
        applies = {"format_reward", "reverse_steps_reward"}
        applies |= (
            {"route_reward"} if s.kind == "route" else {"accuracy_reward", "consistency_reward"}
        )
        assert found == {f.__name__: 1.0 if f.__name__ in applies else None for f in REWARDS}


def test_a_reply_is_scored_as_text_and_as_parsed():
    for sample in (BACK, ROUTE):
        assert score(sample, parse(gold(sample))) == score(sample, gold(sample))
        assert score(sample, gold(sample)).value == pytest.approx(1.0)
    with pytest.raises(SampleError, match="expected an annotated route, found ''"):
        score(replace(ROUTE, answer=""), "turn left")


def test_a_path_that_fits_several_options_alike_is_not_consistent_with_one():
    """Walked back, "go straight" is two of the three steps of every option."""
    fits_all = thought("Thinking forward: go straight. Hence B")
    assert reward_of(consistency_reward, BACK, fits_all) == 0.0
    fits_one = thought("Thinking forward: turn left, go straight. Hence B")
    assert reward_of(consistency_reward, BACK, fits_one) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "missing", [{"steps_forward": ()}, {"steps_reverse": ()}, {"kind": "route"}]
)
def test_consistency_says_nothing_where_a_path_is_not_annotated(missing):
    columns = {name: [value] for name, value in missing.items()}
    assert reward_of(consistency_reward, BACK, gold(BACK), **columns) is None


def test_accuracy_is_the_score():
    for s in CHOICES[:40]:
        for reply in (gold(s), "A", "<answer>A or B</answer>", "", thought("x", "C")):
            assert reward_of(accuracy_reward, s, reply) == score(s, reply).value
    assert reward_of(accuracy_reward, ROUTE, gold(ROUTE)) is None


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ("<think>x</think> <answer>B</answer>", 1.0),
        ("<think>x</think><answer>B</answer>", 1.0),
        ("\n<think>\nx < y\n</think>\n\n<answer>\nB\n</answer>\n", 1.0),
        (
            "<think>x</think> <answer>A or B</answer>",
            1.0,
        ),  # the form is right, and only that is paid here
        ("B", 0.0),
        ("<answer>B</answer>", 0.0),
        ("<think></think> <answer>B</answer>", 0.0),
        ("<think> \n</think> <answer>B</answer>", 0.0),
        ("<think>x</think> <answer> </answer>", 0.0),
        ("<think>x</think> <answer>B</answer> so B", 0.0),
        ("So: <think>x</think> <answer>B</answer>", 0.0),
        ("<think>x</think> and <answer>B</answer>", 0.0),
        ("<think>x</think> <answer>A</answer> <answer>B</answer>", 0.0),
        ("<think>x <answer>A</answer></think> <answer>B</answer>", 0.0),
        ("<think>x <Answer>A</think> <answer>B</answer>", 0.0),
        ("<think>x</think> <think>y</think> <answer>B</answer>", 0.0),
        ("<think>x <answer>B</answer>", 0.0),
        ("<answer>B</answer> <think>x</think>", 0.0),
    ],
)
def test_format_pays_thinking_then_one_answer_and_nothing_else(reply, wanted):
    assert reward_of(format_reward, BACK, reply) == wanted


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        (thought("Thinking forward: turn left, go straight"), 1.0),
        (thought("Walking forward: 1. take a left 2. continue ahead"), 1.0),
        (
            thought("Thinking forward: turn left, go straight", "A"),
            1.0,
        ),  # the letter is another reward's matter
        (thought("Thinking forward: go straight, turn left"), 0.0),
        (thought("Thinking forward: turn left"), 0.5),
        (thought("Thinking forward: turn right, go straight"), 0.5),
        (thought("Thinking forward: " + "turn left, go straight, " * 4), 0.25),
        (
            thought("Thinking reverse: turn left, go straight"),
            0.0,
        ),  # the right steps, said to run the wrong way
        (thought("turn left, go straight"), 0.0),  # no way claimed
        (thought("Thinking forward: turn left, go straight", "A or B"), 0.0),
        (thought("Thinking forward: turn left, go straight", ""), 0.0),
        ("<think>Thinking forward: turn left, go straight", 0.0),
        ("Thinking forward: turn left, go straight <answer>B</answer>", 0.0),  # not in the thinking
    ],
)
def test_reverse_steps_pays_the_opposite_way_in_order(reply, wanted):
    assert reward_of(reverse_steps_reward, BACK, reply) == pytest.approx(wanted)


def test_reverse_steps_are_asked_of_forward_questions_too_and_none_without_annotation():
    there = replace(BACK, way="forward")
    assert (
        reward_of(
            reverse_steps_reward, there, thought("Going back: turn around, go straight, turn right")
        )
        == 1.0
    )
    assert reward_of(reverse_steps_reward, replace(there, steps_reverse=()), gold(there)) is None


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        (thought("Thinking forward: turn left, go straight"), 1.0),
        (thought("Thinking forward: turn left, go straight", "A"), 0.0),  # right path, wrong letter
        (thought("Thinking forward: turn right, go straight", "C"), 0.0),  # consistent but wrong
        (
            thought("Thinking forward: turn right, go straight"),
            0.0,
        ),  # right letter, but the path says C
        (
            thought("Thinking forward: go straight, turn left"),
            0.0,
        ),  # right letter, but the path says A
        (thought("Thinking reverse: turn left, go straight"), 0.0),
        (thought("I see a gate"), 0.0),
        ("B", 0.0),
    ],
)
def test_consistency_pays_a_right_letter_that_follows_from_the_path_thought_of(reply, wanted):
    assert reward_of(consistency_reward, BACK, reply) == pytest.approx(wanted)


def test_consistency_pays_no_path_that_leads_to_another_option():
    known = {step for s in CHOICES for step in s.steps_forward + s.steps_reverse}
    tried = 0
    for s in CHOICES[::3]:
        opposite = {"forward": "reverse", "reverse": "forward"}[s.way]
        for text in set(s.options) - {s.gold}:
            path = reverse_path(cut_steps(text, known), s.task, s.way)
            assert (
                reward_of(
                    consistency_reward,
                    s,
                    thought(f"Thinking {opposite}: {', '.join(path)}", s.answer),
                )
                == 0.0
            ), (
                s,
                path,
            )
            tried += 1
    assert tried > 200


@pytest.mark.parametrize("task", ["landmark", "action"])
def test_consistency_knows_the_rules_of_landmarks_and_actions(task):
    steps = {"landmark": (("gate", "shop"), ("shop", "gate"))}.get(task)
    there, back = steps or (
        ("open the door", "pick up the cup"),
        ("put down the cup", "close the door"),
    )
    one = replace(
        BACK,
        task=task,
        options=(" ".join(there), " ".join(back)),
        steps_forward=there,
        steps_reverse=back,
    )
    assert (
        reward_of(consistency_reward, one, thought(f"Thinking forward: {', '.join(there)}")) == 1.0
    )
    assert (
        reward_of(consistency_reward, one, thought(f"Thinking forward: {', '.join(back)}")) == 0.0
    )


def test_consistency_is_silent_where_the_annotation_itself_breaks_the_rules():
    assert (
        reward_of(
            consistency_reward,
            replace(BACK, steps_reverse=("go straight", "go straight")),
            gold(BACK),
        )
        is None
    )
    assert reward_of(consistency_reward, replace(BACK, steps_reverse=()), gold(BACK)) is None
    assert reward_of(consistency_reward, ROUTE, gold(ROUTE)) is None


def test_a_route_is_paid_by_its_steps():
    assert (
        reward_of(
            route_reward, ROUTE, thought("x", "At the gate take a left; at the shop make a right.")
        )
        == 1.0
    )
    assert (
        reward_of(
            route_reward, ROUTE, thought("x", "At the gate take a right; at the shop make a left.")
        )
        < 0.3
    )
    assert reward_of(route_reward, BACK, gold(BACK)) is None


@given(st.text(max_size=60), st.sampled_from([BACK, ROUTE, *CHOICES[:5]]))
@settings(max_examples=200, deadline=None)
def test_every_reward_stays_between_0_and_1(text, one):
    for reply in (text, thought(text), thought(f"Thinking forward: {text}"), gold(one) + text):
        assert all(
            value is None or 0 <= value <= 1
            for value in (reward_of(f, one, reply) for f in REWARDS)
        )


def test_the_presets_are_the_contract():
    st_r1 = [accuracy_reward, format_reward]
    assert PRESETS["paper"] == [accuracy_reward]
    assert PRESETS["st-r1"] == st_r1
    assert PRESETS["st-r1-reverse"] == [*st_r1, reverse_steps_reward, consistency_reward]


# ---- thinking that the prompt opened ------------------------------------------------------------


@pytest.mark.parametrize("opened", [True, [True]])
def test_what_the_prompt_opened_counts_as_opened_in_every_reward(opened):
    chain = "Thinking forward: turn left, go straight"
    for function in REWARDS[:4]:
        whole = reward_of(
            function, BACK, f"{chain}</think> <answer>B</answer>", thinking_opened=opened
        )
        assert whole == 1.0, function
        for cut in (f"{chain}. So the answer is B. But wait", f"{chain} <answer>B</answer>", "B"):
            assert reward_of(function, BACK, cut, thinking_opened=opened) == 0.0, function
    assert reward_of(route_reward, ROUTE, ROUTE.answer, thinking_opened=opened) == 0.0
    assert score(BACK, "So the answer is B. But wait", thinking_opened=True).reason == "truncated"


def test_each_row_has_its_own_prompt():
    replies = ["x</think> <answer>B</answer>"] * 2 + ["B"] * 2
    columns = reward_columns([BACK] * 4) | {"thinking_opened": [True, False, True, False]}
    assert format_reward(replies, **columns) == [1.0, 0.0, 0.0, 0.0]
    assert accuracy_reward(replies, **columns) == [1.0, 1.0, 0.0, 1.0]


def test_without_a_word_about_the_prompt_the_reply_shows_whether_it_was_opened():
    assert reward_of(format_reward, BACK, "x</think> <answer>B</answer>") == 1.0
    assert reward_of(format_reward, BACK, "<think>x</think> <answer>B</answer>") == 1.0
    assert reward_of(format_reward, BACK, "</think> <answer>B</answer>") == 0.0
    assert reward_of(format_reward, BACK, thought("x"), thinking_opened=False) == 1.0
    assert reward_of(format_reward, BACK, thought("x"), thinking_opened=True) == 0.0


# ---- nothing for nothing ------------------------------------------------------------------------


def test_a_right_letter_without_a_path_is_not_consistent():
    """Walked back, no steps at all are "turn around": the beginning of every option here."""
    options = ("turn around turn left", "turn around go straight turn right")
    one = replace(
        BACK,
        options=options,
        answer="A",
        steps_forward=("turn right",),
        steps_reverse=("turn around", "turn left"),
    )
    assert reward_of(consistency_reward, one, thought("Thinking forward: turn right", "A")) == 1.0
    assert reward_of(consistency_reward, one, thought("Thinking forward:", "A")) == 0.0


def test_a_route_without_a_turn_is_not_rewarded_for_naming_none():
    one = replace(ROUTE, answer="Pass the shop and the gate.")
    assert reward_of(route_reward, one, thought("x", "I do not know.")) == 0.0
    assert reward_of(route_reward, one, thought("x", one.answer)) == 1.0


def test_one_rule_says_what_is_a_reward():
    assert all(is_reward(function.__name__) for function in REWARDS)
    others = (
        "id",
        "step",
        "prompt",
        "completion",
        "advantage",
        "tokens",
        "thinking_opened",
        *REWARD_COLUMNS,
    )
    assert not any(map(is_reward, others))


# ---- temporal contrast --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ordered", "shuffled", "wanted"),
    [
        ([1, 1, 0, 1], [1, 0, 0, 0], [0.3, 0.3, 0, 0.3]),  # 0.75 against 0.25
        ([1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]),  # order changes nothing
        ([1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]),  # order hurts
        ([1] * 7 + [0] * 3, [1] * 6 + [0] * 4, [0.3] * 7 + [0] * 3),  # by 0.1, the margin itself
        ([1] * 9 + [0], [1] * 17 + [0] * 3, [0] * 10),  # by 0.05: less than the margin
        ([0, 0], [0, 0], [0, 0]),
        ([1, None], [0, None], [0.3, None]),
        ([None, None], [None], [None, None]),
        ([1, 0], [], [None, None]),  # nothing to compare with
    ],
)
def test_the_temporal_bonus_goes_to_right_replies_that_need_the_order(ordered, shuffled, wanted):
    assert temporal_contrast(ordered, shuffled) == pytest.approx(wanted)


def test_the_temporal_bonus_has_a_margin_and_a_size():
    assert temporal_contrast([1, 1], [1, 0], margin=0.5, bonus=0.2) == pytest.approx([0.2, 0.2])
    assert temporal_contrast([1, 1], [1, 0], margin=0.6) == pytest.approx([0, 0])
    with pytest.raises(ValueError, match="more than 0, found 0"):
        temporal_contrast([1], [0], margin=0)
