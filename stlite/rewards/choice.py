"""Score the answer to a choice question."""

from collections.abc import Sequence
from dataclasses import dataclass

from stlite.data.sample import LETTERS
from stlite.rewards.answer import named_options, names_several
from stlite.rewards.parse import Reply, parse


@dataclass(frozen=True, slots=True)
class Score:
    """What a reply is worth, 0 to 1, and why.

    Reasons: right, wrong, ambiguous, unreadable, absent, truncated; evaluation adds failed.
    """

    value: float
    reason: str
    answer: str = ""
    explanation: str = ""


def score_choice(reply: Reply, options: Sequence[str], answer: str) -> Score:
    """Score a choice: 1 for the annotated letter, else 0."""
    letter, reason = resolve(reply, options)
    if reason:
        return Score(0.0, reason, "", f"{reason}: {reply.answer[:80]!r}, annotated {answer}")
    explanation = f"{letter}, annotated {answer}"
    if letter == answer:
        return Score(1.0, "right", letter, explanation)
    return Score(0.0, "wrong", letter, explanation)


def chosen_letter(reply: Reply | str, options: Sequence[str]) -> str:
    """Return the letter of the option that a reply chooses; "" for none and for more than one.

    >>> chosen_letter("<answer>the kitchen.</answer>", ["the garden", "the kitchen"])
    'B'
    >>> chosen_letter("A or B", ["left", "right"])
    ''
    """
    if isinstance(reply, str):
        reply = parse(reply)
    return resolve(reply, options)[0]


def resolve(reply: Reply, options: Sequence[str]) -> tuple[str, str]:
    """Resolve an answer to one option: its letter, or "" and the reason why there is none."""
    if reply.reason:
        return "", reply.reason
    named = named_options(reply.answer, options, reply.source)
    letters = named - {""}
    if len(letters) > 1:
        return "", "ambiguous"
    if letters:
        letter = min(letters)
        return (letter, "") if letter in LETTERS[: len(options)] else ("", "unreadable")
    tagged = reply.source != "untagged"
    if names_several(reply.answer, tagged):
        return "", "ambiguous"
    return "", "unreadable" if tagged or named else "absent"
