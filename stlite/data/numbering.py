"""Numbers and letters before steps: "1.", "(2)", "③", "d)", "Step 5:"; no part of the steps."""

import re
import unicodedata
from collections.abc import Callable

from stlite.data.sample import SampleError

NUMBERED = re.compile(  # "1.", "1)", "(1)", "1:", "1、", "1 -", "Step 1:", "#1 ", "1️⃣"
    r"(?:^|(?<=[\s,;，；、。.])|(?<=[^\W\d_a-zA-Z]))[(（]?(?:step |no\.? ?|#)?"
    r"(?P<number>\d{1,2})(?:\ufe0f?\u20e3|\s?[.):：．）、](?!\d)|\s[-–]\s)\s*",
    re.I,
)
LETTERED = re.compile(r"(?:^|(?<=[\s,;]))\(?(?P<letter>[a-zA-Z])[.):](?!\w)\s*")
ROMAN = re.compile(r"(?:^|(?<=[\s,;]))\(?(?P<roman>i{1,3}|iv|vi{0,3}|ix|x)[.)]\s*", re.I)
ROMANS = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")
ENCLOSED = re.compile("(?P<mark>[①-⑳⑴-⒇⒈-⒛❶-❿➀-➉➊-➓])\\s*")
NUMBERINGS = {  # pattern → the number of a match
    NUMBERED: lambda match: int(match["number"]),
    ENCLOSED: lambda match: int(unicodedata.numeric(match["mark"])),
    ROMAN: lambda match: ROMANS.index(match["roman"].lower()) + 1,
    LETTERED: lambda match: ord(match["letter"].lower()) - ord("a") + 1,
}
BARE_NUMBER = re.compile(r"^(?P<number>\d{1,2}) (?=[^\W\d_])")


def without_numbers(pieces: list[str], where: str, column: str) -> list[str]:
    """Take off "1.", "(a)" and the like where every piece has one and they count up."""
    for pattern, number in NUMBERINGS.items():
        matches = [pattern.match(piece) for piece in pieces]
        if not all(matches):
            continue
        numbers = [number(match) for match in matches]
        start = numbers[0]
        if start in (0, 1) and numbers == list(range(start, start + len(numbers))):
            return [piece[match.end() :] for piece, match in zip(pieces, matches)]
        if pattern in (NUMBERED, ENCLOSED):
            raise SampleError(where, column, "numbers that count up from 1, or none", pieces)
    return pieces


def without_bare_numbers(pieces: list[str], task: str, where: str, column: str) -> list[str]:
    """Take off numbers without a mark, "1 turn left": before things they might count them."""
    matches = [BARE_NUMBER.match(piece) for piece in pieces]
    if len(pieces) < 2 or not all(matches):
        return pieces
    if [int(match["number"]) for match in matches] != list(range(1, len(pieces) + 1)):
        return pieces
    if task != "direction":
        wanted = "numbers like 1. or none: these might count things"
        raise SampleError(where, column, wanted, pieces)
    return [piece[match.end() :] for piece, match in zip(pieces, matches)]


def by_numbers(text: str) -> list[str]:
    """Split where numbers or letters count up from the start; [] where they do not."""
    for pattern, number in NUMBERINGS.items():
        least = 1 if pattern in (NUMBERED, ENCLOSED) else 2
        spans = _counting(text, pattern, number)
        if len(spans) >= least:
            ends = [start for start, _ in spans[1:]] + [len(text)]
            return [text[begin:end] for (_, begin), end in zip(spans, ends)]
    return []


def _counting(text: str, pattern: re.Pattern, number: Callable) -> list[tuple[int, int]]:
    """List where marks stand that count up, the first of them at the start of the text."""
    spans = []
    expected = None
    for match in pattern.finditer(text):
        value = number(match)
        if expected is None and (match.start() or value not in (0, 1)):
            return []
        if expected is None or value == expected:
            spans.append(match.span())
            expected = value + 1
    return spans
