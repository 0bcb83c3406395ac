"""Chains beside annotated paths: which steps match, when they happened, what a group of rollouts earned."""

import itertools
import math
import random

import pytest

from sample_data import walks
from stlite.data import prompts
from stlite.data.sample import Sample
from stlite.viz import alignment

OPTIONS = ("turn around turn left", "turn around turn right")


def sample(**more) -> Sample:
    steps = {
        "steps_forward": ("turn right", "go straight"),
        "steps_reverse": ("turn around", "go straight", "turn left"),
    }
    return Sample(
        "s",
        "a.mp4",
        "direction",
        "reverse",
        "Back?",
        "A",
        OPTIONS,
        **({"moments": (1.0, 3.0)} | steps | more),
    )


def states(said: str, annotated: str) -> str:
    """Match paths of one-letter steps: + extra, - missing, ~ misplaced."""
    signs = {"right": "", "misplaced": "~", "missing": "-", "extra": "+"}
    return " ".join(
        signs[state] + text for state, text, _ in alignment.align_steps(list(said), list(annotated))
    )


@pytest.mark.parametrize(
    ("said", "annotated", "wanted"),
    [
        ("xyz", "xyz", "x y z"),
        ("", "xy", "-x -y"),
        ("xy", "", "+x +y"),
        ("xz", "xyz", "x -y z"),
        ("xqyz", "xyz", "x +q y z"),
        ("xx", "x", "x +x"),
        ("x", "xx", "x -x"),
        ("zxy", "xyz", "~z x y"),
    ],
)
def test_each_step_is_right_misplaced_missing_or_extra(said, annotated, wanted):
    assert states(said, annotated) == wanted


def test_every_step_said_and_every_step_annotated_appears_exactly_once():
    rng = random.Random(0)
    for _ in range(300):
        said, annotated = (
            ["wxyz"[rng.randrange(4)] for _ in range(rng.randrange(7))] for _ in range(2)
        )
        cells = alignment.align_steps(said, annotated)
        assert [text for state, text, _ in cells if state != "missing"] == said
        assert sorted(j for *_, j in cells if j is not None) == list(range(len(annotated)))
        assert all(text == annotated[j] for state, text, j in cells if j is not None)
        right = [j for state, _, j in cells if state == "right"]
        assert right == sorted(right)
        assert len(right) == longest(said, annotated)


def longest(a, b) -> int:
    """Length of a longest common subsequence, by trying all."""
    for n in range(min(len(a), len(b)), -1, -1):
        if set(itertools.combinations(a, n)) & set(itertools.combinations(b, n)):
            return n
    return 0


def test_steps_are_compared_by_meaning_as_the_rewards_do():
    assert [cell[0] for cell in alignment.align_steps(["Take a right turn."], ["turn right"])] == [
        "right"
    ]


def test_the_way_back_passes_the_same_moments_the_other_way_round():
    s = sample()
    assert alignment.moments(s, "forward", 5.0) == [1.0, 3.0]
    assert alignment.moments(s, "reverse", 5.0) == [5.0, 3.0, 1.0]
    assert alignment.moments(sample(moments=()), "forward", 5.0) == [None, None]
    assert alignment.moments(sample(moments=(1.0, 2.0, 3.0)), "forward", 5.0) == [None, None]


def test_rendered_walks_have_moments_inside_the_video_that_fall_on_the_way_back():
    made = [
        s
        for seed in range(12)
        for s in walks.samples(walks.draw(seed, 1 + seed % 4), "a.mp4")
        if s.kind == "choice"
    ]
    known = [alignment.moments(s, "reverse", 30.0) for s in made]
    assert sum(None not in times for times in known) > 0.6 * len(made)
    assert all(times == sorted(times, reverse=True) for times in known if None not in times)


def test_tracks_hold_both_paths_and_the_path_each_reply_thinks_of():
    s = sample()
    said = prompts.reply(prompts.trace(s), "A")
    paths, thought = (lambda rows: (rows[:2], rows[2:]))(
        alignment.tracks(s, {"tuned": said, "mute": "A"}, 5.0)
    )
    assert [(x["name"], x["thought"]) for x in paths] == [
        ("forward path", False),
        ("reverse path", False),
    ]
    assert [(x["name"], x["way"]) for x in thought] == [("tuned thought", "forward")]
    assert [(c["state"], c["second"]) for c in thought[0]["cells"]] == [
        ("right", 1.0),
        ("right", 3.0),
    ]


def test_a_chain_of_thousands_of_steps_is_cut_and_says_so():
    said = prompts.reply("Let's start by thinking forward: " + ", ".join(["turn left"] * 3000), "A")
    cells = alignment.tracks(sample(), {"": said}, 5.0)[-1]["cells"]
    assert len(cells) == alignment.LONGEST + 1
    assert cells[-1]["text"].startswith("… and ")


def test_a_row_of_completions_and_a_rollout_of_our_own_say_the_same():
    row = {
        "step": 3,
        "prompt": "p",
        "completion": "x",
        "accuracy_reward": 1.0,
        "format_reward": 0.5,
        "advantage": 2.0,
    }
    ours = {
        "reply": "x",
        "rewards": {"accuracy_reward": 1.0, "format_reward": 0.5},
        "advantage": 2.0,
    }
    (a,), (b,) = alignment.group_tokens([row]), alignment.group_tokens([ours])
    assert a == b
    assert (a["total"], a["advantage"]) == (1.5, 2.0)


def test_a_reward_without_annotation_counts_nothing_and_equal_rewards_teach_nothing():
    rows = alignment.group_tokens(
        [
            {"reply": "a", "accuracy_reward": 1.0, "route_reward": math.nan},
            {"reply": "b", "accuracy_reward": 1.0, "route_reward": None},
        ]
    )
    assert [row["rewards"]["route_reward"] for row in rows] == [None, None]
    assert [row["advantage"] for row in rows] == [0.0, 0.0]
