"""What can be wrong with one sample: most are faults of the released files (paper section 2)."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from stlite.data.moves import PURE_MOVE, count_moves
from stlite.data.prompts import question_kind, read_trace
from stlite.data.sample import Sample

OPENINGS = re.compile(  # the doubled ones have "a egocentric" or "questions"
    r"Please take an? egocentric view to understand the following questions?\.\s*"
)
VERDICT = re.compile(r"(Hence, the correct answer is )([A-H])$")

Has = Callable[[Sample], bool]


@lru_cache(1 << 16)
def words(text: str) -> str:
    """Reduce a text to its words, so that case and punctuation do not count.

    >>> words(" Turn  left.")
    'turn left'
    """
    return " ".join(re.findall(r"\w+", text.casefold()))


def _has_stem_of_another_task(s: Sample) -> bool:
    return question_kind(s.question) not in (None, (s.task, s.way))


def _opens_twice(s: Sample) -> bool:
    return len(OPENINGS.findall(s.question)) > 1


def _has_trace_of_another_task(s: Sample) -> bool:
    traced = read_trace(s.trace)
    if not traced:
        return False
    first, then, _ = traced
    return first[0] != s.task or then != (s.task, s.way)


def _has_trace_of_another_letter(s: Sample) -> bool:
    verdict = VERDICT.search(s.trace)
    return verdict is not None and verdict[2] != s.answer


def _trace_tells_answer(s: Sample) -> bool:
    traced = read_trace(s.trace)
    if s.kind != "choice" or not traced:
        return False
    path = set(words(" ".join(traced[2])).split())
    return bool(path) and path >= set(words(s.gold).split())


def _reverse_is_forward(s: Sample) -> bool:
    forward = [words(step) for step in s.steps_forward]
    reverse = [words(step) for step in s.steps_reverse]
    palindrome = s.task == "landmark" and forward == forward[::-1]
    return forward == reverse != [] and not palindrome


def _has_step_of_another_task(s: Sample) -> bool:
    steps = (*s.steps_forward, *s.steps_reverse)
    if s.task == "direction":
        return any(count_moves(step) == 0 for step in steps)
    if s.task == "landmark":
        return any(PURE_MOVE.fullmatch(step.strip()) for step in steps)
    return False


def _has_few_options(s: Sample) -> bool:
    return s.kind == "choice" and len(s.options) < 4


def _has_empty_option(s: Sample) -> bool:
    return not all(option.strip() for option in s.options)


def _has_duplicate_options(s: Sample) -> bool:
    distinct = {words(option) or option for option in s.options}
    return len(distinct) < len(s.options)


def _has_twin_options(s: Sample) -> bool:
    return bool(twins(s.options))


def twins(options: Sequence[str]) -> list[int]:
    """Return the places of options that hold the same words in another order."""
    bags = [tuple(sorted(words(option).split())) for option in options]
    return [i for i, bag in enumerate(bags) if bags.count(bag) > 1]


DEFECTS: dict[str, tuple[str, str, Has]] = {  # code: severity, fix, whether a sample has it
    "stem-of-another-task": (
        "error",
        "fix() writes the stem of the task",
        _has_stem_of_another_task,
    ),
    "opening-twice": ("warning", "fix() keeps the first of the openings", _opens_twice),
    "trace-of-another-task": (
        "error",
        "fix() writes the trace again around the same path",
        _has_trace_of_another_task,
    ),
    "trace-of-another-letter": (
        "error",
        "ask which letter was meant",
        _has_trace_of_another_letter,
    ),
    "trace-tells-answer": (
        "note",
        "expect chains that copy: score st-cot beside label training",
        _trace_tells_answer,
    ),
    "step-of-another-task": (
        "warning",
        "list landmarks and actions in columns of their own: a direction is a move",
        _has_step_of_another_task,
    ),
    "reverse-is-forward": (
        "warning",
        "annotate the way back; a copy teaches no reversal",
        _reverse_is_forward,
    ),
    "few-options": ("warning", "add distractors; print chance beside scores", _has_few_options),
    "empty-option": ("error", "remove the option or the sample", _has_empty_option),
    "duplicate-options": (
        "error",
        "change one of them: two letters cannot both be right",
        _has_duplicate_options,
    ),
    "twin-options": (
        "note",
        "permute distractors too: see permutation pair below",
        _has_twin_options,
    ),
}
