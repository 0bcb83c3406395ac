"""Score the answer to a choice question: a letter, or the text of one option."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from stlite.data.sample import LETTERS
from stlite.rewards.parse import LETTER, MARKS, Reply, parse

ARTICLES = {"a", "an", "the"}
WORD = re.compile(r"[^\W_]+")
REJECTION = (  # "not A", "rather than A", "neither A nor B"
    r"\b(?:[Nn]ot|rather than|instead of|unlike|ruled? out|ruling out|eliminate|neither|except)"
    r"(?: options?)? [A-H](?:(?:, | or | and | nor |, and )[A-H]){0,7}\b"
)
REJECTED = (  # "A and B are wrong"
    r"\b(?:[A-H](?:, | and |, and | or )){0,7}[A-H]"
    r" (?:is|are|was|were) (?:wrong|incorrect|not|out|ruled out|eliminated)\b"
)
RULED_OUT = re.compile(f"{REJECTION}|{REJECTED}")


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
    answer = unicodedata.normalize("NFKC", reply.answer).strip(MARKS)
    if len(answer) == 1 and answer.isalpha():
        return _one_of({answer.upper()}, options)
    texts = [plain(option) for option in options]
    marker = _marker(answer, texts)
    if marker:  # "B. the kitchen": letter and text must agree
        if plain(answer[1:]) == texts[LETTERS.index(marker)]:
            return marker, ""
        return "", "ambiguous"
    text = plain(answer)
    if text in texts:
        return (LETTERS[texts.index(text)], "") if texts.count(text) == 1 else ("", "ambiguous")
    return _named_letter(reply, answer, options)


def _marker(answer: str, texts: Sequence[str]) -> str:
    """Return the letter before an answer that goes on with the text of an option, or ""."""
    first = answer[:1].upper()
    rest = plain(answer[1:])
    is_letter = bool(first) and first in LETTERS[: len(texts)] and not answer[1:2].isalnum()
    return first if rest and is_letter and rest in texts else ""


def _named_letter(reply: Reply, answer: str, options: Sequence[str]) -> tuple[str, str]:
    """Resolve the letters that an answer names and does not rule out."""
    letters = {match[0].upper() for match in LETTER.finditer(RULED_OUT.sub(" ", answer))}
    if reply.source == "tagged" and not letters:
        inner = parse(answer)  # "<answer>The answer is the kitchen</answer>"
        if inner.source == "stated":
            return resolve(inner, options)
    if reply.source == "whole":
        is_list = len(letters) > 1 and LETTER.match(answer)
        return "", "ambiguous" if is_list else "absent"
    return _one_of(letters, options)


def _one_of(letters: set[str], options: Sequence[str]) -> tuple[str, str]:
    if len(letters) > 1:
        return "", "ambiguous"
    if letters & set(LETTERS[: len(options)]):
        return min(letters), ""
    return "", "unreadable"


def plain(text: str) -> str:
    """Return the words of a text in lower case, without articles and marks.

    >>> plain("The red door.")
    'red door'
    """
    words = WORD.findall(text.casefold())
    return " ".join(word for word in words if word not in ARTICLES)
