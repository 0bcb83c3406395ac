"""Rewards in TRL's shape: lists in, one float or None a reply out.

>>> columns = {"kind": ["choice"], "options": [["left", "right"]], "answer": ["B"]}
>>> accuracy_reward(["<think>I turn.</think> <answer>B</answer>"], **columns)
[1.0]

Each takes `thinking_opened`, too: whether the prompt opened the thinking (`parse.opens_thinking`),
one value for all replies or a list. None means unknown, and the reply itself has to show it.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import fmean

from stlite.data.sample import LETTERS, Sample
from stlite.data.steps import reverse_path
from stlite.rewards.choice import Score, chosen_letter, score_choice
from stlite.rewards.parse import Reply, parse
from stlite.rewards.route import meaning, score_route, similarity

REWARD_COLUMNS = ("task", "way", "kind", "options", "answer", "steps_forward", "steps_reverse")
OPPOSITE = {"forward": "reverse", "reverse": "forward"}

MARGIN = 0.1  # by how much ordered frames must beat shuffled ones
BONUS = 0.3  # what a right reply then earns, as in Video-R1 (arXiv 2503.21776)

NO_TAG_AHEAD = r"(?!</?(?i:think|answer)>)"
CONTENT = rf"(?!\s*</)(?:{NO_TAG_AHEAD}.)+"  # text that is not blank and holds no tag of ours
THINK_THEN_ANSWER = rf"{CONTENT}</think>\s*<answer>{CONTENT}</answer>\s*"
FORMAT = re.compile(rf"(?s)\s*<think>{THINK_THEN_ANSWER}")  # "<think>…</think> <answer>B</answer>"
FORMAT_OPENED = re.compile(rf"(?s)\s*{THINK_THEN_ANSWER}")  # "…</think> <answer>B</answer>"
_parse = lru_cache(1024)(parse)  # every reward reads the same completions


def score(sample: Sample, reply: Reply | str, thinking_opened: bool | None = None) -> Score:
    """Score a reply against its sample; one without a single readable answer earns 0.

    `thinking_opened`: whether the prompt opened the thinking, for a reply that is text.
    """
    if isinstance(reply, str):
        reply = parse(reply, thinking_opened)
    if sample.kind == "choice":
        return score_choice(reply, sample.options, sample.answer)
    if not sample.answer:
        sample.refuse("answer", "an annotated route", sample.answer)
    return score_route(reply, sample.answer)


def is_reward(name: str) -> bool:
    """Return whether a column of a run's completions is a reward: its name ends in "_reward".

    They are named by their functions; `grpo` adds the ending to a name that lacks it.
    """
    return name.endswith("_reward")


def reward_columns(samples: Sequence[Sample]) -> dict[str, list]:
    """Return what rewards read of samples, as the columns that TRL hands to them."""
    return {name: [getattr(sample, name) for sample in samples] for name in REWARD_COLUMNS}


def text_of(completion) -> str:
    """Return the text of a completion: a string or, from chats, messages."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


def _opened(thinking_opened, count: int) -> list[bool | None]:
    """Return for each reply whether its prompt opened the thinking."""
    if thinking_opened is None or isinstance(thinking_opened, bool):
        return [thinking_opened] * count
    return list(thinking_opened)


def _each(reward_one: Callable, completions, thinking_opened, *columns) -> list:
    """Call a reward of one reply for every completion and its row of the columns."""
    rewards = []
    opened = _opened(thinking_opened, len(completions))
    for completion, opened_, *row in zip(completions, opened, *columns):
        reply = _parse(text_of(completion), opened_)
        rewards.append(reward_one(reply, *row))
    return rewards


def accuracy_reward(
    completions, *, kind, options, answer, thinking_opened=None, **kwargs
) -> list[float | None]:
    """Reward the annotated letter with 1; None for a route."""
    return _each(_accuracy, completions, thinking_opened, kind, options, answer)


def _accuracy(reply: Reply, kind: str, options, answer: str) -> float | None:
    if kind != "choice":
        return None
    return score_choice(reply, options, answer).value


def format_reward(completions, *, thinking_opened=None, **kwargs) -> list[float]:
    """Reward thinking, then one answer, in tags and nothing else, with 1.

    Thinking that the prompt opened has no opening tag in the reply.
    """
    opened = _opened(thinking_opened, len(completions))
    return [_format(text_of(c), opened_) for c, opened_ in zip(completions, opened)]


def _format(text: str, thinking_opened: bool | None) -> float:
    patterns = [FORMAT_OPENED] if thinking_opened else [FORMAT]
    if thinking_opened is None:
        patterns = [FORMAT, FORMAT_OPENED]
    return float(any(pattern.fullmatch(text) for pattern in patterns))


def reverse_steps_reward(
    completions, *, way, options, steps_forward, steps_reverse, thinking_opened=None, **kwargs
) -> list[float | None]:
    """Reward the opposite way's steps, written while thinking; None where they are not annotated.

    The reward is the similarity of the two lists, step by step in meaning and in order; a reply
    without one readable answer earns 0.
    """
    columns = (way, options, steps_forward, steps_reverse)
    return _each(_reverse_steps, completions, thinking_opened, *columns)


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
    completions,
    *,
    task,
    way,
    kind,
    options,
    answer,
    steps_forward,
    steps_reverse,
    thinking_opened=None,
    **kwargs,
) -> list[float | None]:
    """Reward a right letter whose option is the path thought of, walked back.

    None for a route, and where the annotated path walked back is not the other annotated path.
    """
    columns = (task, way, kind, options, answer, steps_forward, steps_reverse)
    return _each(_consistency, completions, thinking_opened, *columns)


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
    if reply.way != OPPOSITE[way] or not reply.steps:
        return 0.0
    if chosen_letter(reply, options) != answer:
        return 0.0
    path = walked_back(reply.steps)
    likeness = [similarity(path, meaning(option)) for option in options]
    chosen = likeness.pop(LETTERS.index(answer))
    return chosen if chosen > max(likeness, default=0.0) else 0.0


def route_reward(
    completions, *, kind, answer, thinking_opened=None, **kwargs
) -> list[float | None]:
    """Reward a route for its steps, 0 to 1; None for a choice."""
    return _each(_route, completions, thinking_opened, kind, answer)


def _route(reply: Reply, kind: str, answer: str) -> float | None:
    if kind != "route":
        return None
    return score_route(reply, answer).value


def temporal_contrast(
    ordered: Sequence[float | None],
    shuffled: Sequence[float | None],
    margin: float = MARGIN,
    bonus: float = BONUS,
) -> list[float | None]:
    """Reward a group's right replies if they need the frames' order (T-GRPO, arXiv 2503.21776).

    `ordered` holds the accuracy of each reply to the clip, `shuffled` that of the replies to the
    same prompt with its frames shuffled. The bonus goes to right ordered replies where ordered
    accuracy is higher by at least the margin. None (a route) stays None.

    >>> temporal_contrast([1.0, 1.0, 0.0, 1.0], [0.0, 1.0])
    [0.3, 0.3, 0.0, 0.3]
    >>> temporal_contrast([1.0, 0.0], [1.0, 0.0])
    [0.0, 0.0]
    """
    if not margin > 0:
        raise ValueError(f"margin: expected more than 0, found {margin}")
    ordered_scores = [score for score in ordered if score is not None]
    shuffled_scores = [score for score in shuffled if score is not None]
    if not ordered_scores or not shuffled_scores:
        return [None for _ in ordered]
    lead = fmean(ordered_scores) - fmean(shuffled_scores)
    earned = bonus if lead >= margin - 1e-9 else 0.0
    return [None if score is None else earned * (score == 1.0) for score in ordered]


PRESETS = {
    "paper": [accuracy_reward],
    "st-r1": [accuracy_reward, format_reward],
    "st-r1-reverse": [accuracy_reward, format_reward, reverse_steps_reward, consistency_reward],
}
