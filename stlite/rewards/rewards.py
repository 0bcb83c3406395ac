"""Rewards in TRL's shape: lists in, one float or None a reply out.

>>> columns = {"kind": ["choice"], "options": [["left", "right"]], "answer": ["B"]}
>>> accuracy_reward(["<think>I turn.</think> <answer>B</answer>"], **columns)
[1.0]
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from stlite.data.sample import LETTERS, Sample
from stlite.data.steps import reverse_path
from stlite.rewards.choice import Score, chosen_letter, score_choice
from stlite.rewards.parse import Reply, parse
from stlite.rewards.route import meaning, score_route, similarity

REWARD_COLUMNS = ("task", "way", "kind", "options", "answer", "steps_forward", "steps_reverse")
OPPOSITE = {"forward": "reverse", "reverse": "forward"}

NO_TAG_AHEAD = r"(?!</?(?i:think|answer)>)"
CONTENT = rf"(?!\s*</)(?:{NO_TAG_AHEAD}.)+"  # text that is not blank and holds no tag of ours
FORMAT = re.compile(
    rf"\s*<think>{CONTENT}</think>\s*<answer>{CONTENT}</answer>\s*",
    re.S,  # "<think>…</think> <answer>B</answer>"
)
_parse = lru_cache(1024)(parse)  # every reward reads the same completions


def score(sample: Sample, reply: Reply | str) -> Score:
    """Score a reply against its sample; one without a single readable answer earns 0."""
    if isinstance(reply, str):
        reply = parse(reply)
    if sample.kind == "choice":
        return score_choice(reply, sample.options, sample.answer)
    if not sample.answer:
        sample.refuse("answer", "an annotated route", sample.answer)
    return score_route(reply, sample.answer)


def is_reward(name: str) -> bool:
    """Return whether a column of a run's completions is a reward: its name ends in "_reward".

    TRL names these columns by their functions, so a reward function's name must end so, too.
    """
    return name.endswith("_reward")


def reward_columns(samples: Sequence[Sample]) -> dict[str, list]:
    """Return what rewards read of samples, as the columns that TRL hands to them."""
    return {name: [getattr(sample, name) for sample in samples] for name in REWARD_COLUMNS}


def text_of(completion) -> str:
    """Return the text of a completion: a string or, from chats, messages."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


def _each(reward_one: Callable, completions, *columns) -> list:
    """Call a reward of one reply for every completion and its row of the columns."""
    replies = [_parse(text_of(completion)) for completion in completions]
    return [reward_one(reply, *row) for reply, *row in zip(replies, *columns)]


def accuracy_reward(completions, *, kind, options, answer, **kwargs) -> list[float | None]:
    """Reward the annotated letter with 1; None for a route."""
    return _each(_accuracy, completions, kind, options, answer)


def _accuracy(reply: Reply, kind: str, options, answer: str) -> float | None:
    if kind != "choice":
        return None
    return score_choice(reply, options, answer).value


def format_reward(completions, **kwargs) -> list[float]:
    """Reward thinking, then one answer, in tags and nothing else, with 1."""
    return [float(FORMAT.fullmatch(text_of(c)) is not None) for c in completions]


def reverse_steps_reward(
    completions, *, way, options, steps_forward, steps_reverse, **kwargs
) -> list[float | None]:
    """Reward the opposite way's steps, written while thinking; None where they are not annotated.

    The reward is the similarity of the two lists, step by step in meaning and in order; a reply
    without one readable answer earns 0.
    """
    return _each(_reverse_steps, completions, way, options, steps_forward, steps_reverse)


def _reverse_steps(reply: Reply, way: str, options, forward, reverse) -> float | None:
    annotated = forward if way == "reverse" else reverse
    if not annotated:
        return None
    if reply.reason or reply.way != OPPOSITE[way]:
        return 0.0
    if options and not chosen_letter(reply, options):
        return 0.0
    return similarity([meaning(s) for s in annotated], [meaning(s) for s in reply.steps])


def consistency_reward(
    completions, *, task, way, kind, options, answer, steps_forward, steps_reverse, **kwargs
) -> list[float | None]:
    """Reward a right letter whose option is the path thought of, walked back.

    None for a route, and where the annotated path walked back is not the other annotated path.
    """
    columns = (task, way, kind, options, answer, steps_forward, steps_reverse)
    return _each(_consistency, completions, *columns)


def _consistency(
    reply: Reply, task: str, way: str, kind: str, options, answer: str, forward, reverse
) -> float | None:
    annotated = forward if way == "reverse" else reverse
    target = reverse if way == "reverse" else forward

    def walked_back(steps):
        return meaning(" ".join(reverse_path(steps, task, OPPOSITE[way])))

    if kind != "choice" or not annotated or not target:
        return None
    if walked_back(annotated) != meaning(" ".join(target)):
        return None
    if reply.reason or reply.way != OPPOSITE[way] or chosen_letter(reply, options) != answer:
        return 0.0
    path = walked_back(reply.steps)
    likeness = [similarity(path, meaning(option)) for option in options]
    chosen = likeness.pop(LETTERS.index(answer))
    return chosen if chosen > max(likeness, default=0.0) else 0.0


def route_reward(completions, *, kind, answer, **kwargs) -> list[float | None]:
    """Reward a route for its steps, 0 to 1; None for a choice."""
    return _each(_route, completions, kind, answer)


def _route(reply: Reply, kind: str, answer: str) -> float | None:
    if kind != "route":
        return None
    return score_route(reply, answer).value


PRESETS = {
    "paper": [accuracy_reward],
    "st-r1": [accuracy_reward, format_reward],
    "st-r1-reverse": [accuracy_reward, format_reward, reverse_steps_reward, consistency_reward],
}
