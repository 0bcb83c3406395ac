"""Rewards in TRL's shape: lists in, one float or None a reply out."""

import re
from functools import lru_cache

from stlite.data.sample import LETTERS
from stlite.data.steps import reverse_path
from stlite.rewards.choice import letter, meaning, score_choice, score_route, similarity
from stlite.rewards.parse import Reply, parse

PART = r"(?!\s*</)(?:(?!(?i:</?(?:think|answer)>)).)+"  # text, and no tag of ours in it
FORMAT = re.compile(rf"\s*<think>{PART}</think>\s*<answer>{PART}</answer>\s*", re.S)


def text_of(completion) -> str:
    """Return the text of a completion: a string or, from chats, messages."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


_parse = lru_cache(1024)(parse)  # every reward reads the same completions


def _replies(completions) -> list[Reply]:
    return [_parse(text_of(completion)) for completion in completions]


def accuracy_reward(completions, *, kind, options, answer, **kwargs) -> list[float | None]:
    """Pay 1 for the annotated letter; None for a route."""
    rows = zip(_replies(completions), kind, options, answer)
    return [score_choice(r, o, a).value if k == "choice" else None for r, k, o, a in rows]


def format_reward(completions, **kwargs) -> list[float]:
    """Pay 1 for thinking, then one answer, in tags and nothing else."""
    return [float(FORMAT.fullmatch(text_of(c)) is not None) for c in completions]


def reverse_steps_reward(
    completions, *, way, options, steps_forward, steps_reverse, **kwargs
) -> list[float | None]:
    """Pay for the opposite way's steps written while thinking, in order; None where they are not annotated.

    What counts is the similarity of the two lists, step by step in meaning; a reply without one readable answer earns 0.
    """
    return [
        _reverse_steps(*row)
        for row in zip(_replies(completions), way, options, steps_forward, steps_reverse)
    ]


def _reverse_steps(reply: Reply, way: str, options, forward, reverse) -> float | None:
    opposite, steps = ("forward", forward) if way == "reverse" else ("reverse", reverse)
    if not steps:
        return None
    if reply.reason or reply.way != opposite or (options and not letter(reply, options)):
        return 0.0
    return similarity(list(map(meaning, steps)), list(map(meaning, reply.steps)))


def consistency_reward(
    completions, *, task, way, kind, options, answer, steps_forward, steps_reverse, **kwargs
) -> list[float | None]:
    """Pay a right letter whose option is the path thought of, walked back; None where the annotation breaks the rules."""
    rows = zip(_replies(completions), task, way, options, answer, steps_forward, steps_reverse)
    return [_consistency(*row) if k == "choice" else None for k, row in zip(kind, rows)]


def _consistency(
    reply: Reply, task: str, way: str, options, answer: str, forward, reverse
) -> float | None:
    opposite, other, asked = (
        ("forward", forward, reverse) if way == "reverse" else ("reverse", reverse, forward)
    )
    back = [
        meaning(" ".join(reverse_path(steps, task, opposite))) for steps in (other, reply.steps)
    ]
    if not other or not asked or back[0] != meaning(" ".join(asked)):
        return None
    if reply.reason or reply.way != opposite or letter(reply, options) != answer:
        return 0.0
    near = [similarity(back[1], meaning(option)) for option in options]
    best = near.pop(LETTERS.index(answer))
    return best if best > max(near, default=0.0) else 0.0


def route_reward(completions, *, kind, answer, **kwargs) -> list[float | None]:
    """Pay a route for its steps; None for a choice."""
    return [
        score_route(r, a).value if k == "route" else None
        for r, k, a in zip(_replies(completions), kind, answer)
    ]


PRESETS = {
    "paper": [accuracy_reward],
    "st-r1": [accuracy_reward, format_reward],
    "st-r1-reverse": [accuracy_reward, format_reward, reverse_steps_reward, consistency_reward],
}
