"""How many moves a step of directions tells: one is right, two or none are not."""

import re
from functools import lru_cache

from stlite.data.languages import foreign_moves

VERBS = frozenset(
    str.split(
        "go goes walk walks turn turns continue continues proceed head keep bear veer "
        "enter exit leave "
        "follow cross pass climb descend ascend take make move step run drive ride "
        "return come swing "
        "curve advance rotate face approach reach get hang stay carry backtrack circle bypass do "
        "merge straighten u-turn jump"
    )
)
PARTICIPLES = frozenset(
    str.split(
        "going walking turning continuing heading entering exiting leaving following "
        "crossing passing "
        "climbing moving returning taking"
    )
)
NOUNS = frozenset(  # verbs that also are things: "at the exit", "a walk"
    str.split(
        "walk walks turn turns head bear exit leave pass climb step run drive ride "
        "return curve face "
        "approach reach stay circle bypass swing get take make move cross do u-turn jump"
    )
)
DETERMINERS = frozenset(
    str.split(
        "the a an your my his her its their this that these those next first second "
        "third fourth last "
        "other another of at on in into by near past through with from one two three zebra"
    )
)
ADVERBS = frozenset(
    str.split(
        "please then and now next first firstly finally lastly slightly sharply slowly quickly "
        "carefully immediately again also just simply directly"
    )
)
CONNECTORS = {"and", "then", ",", ";", ".", "/", "+", "&"}
SIDES = {"left", "right"}
ONWARD = {"straight", "ahead", "forward", "forwards", "onward"}
PLACES_OF_MOVE = {"upstairs", "downstairs", "outside", "inside", "up", "down"}  # by themselves
AFTER_RIGHT = frozenset(  # "right away", "right through": no side
    str.split(
        "away ahead straight through at past before after in there here behind beside next now by "
        "into out up down along over across"
    )
)
OPENERS = CONNECTORS | ADVERBS  # after which a verb begins a move
COMPLETED = SIDES | ONWARD | {"around", "back", "round"}  # after which a new move may follow
TOKEN = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[,;./+&]")
REPEATED = re.compile(r"\b(?:twice|thrice|(?:two|three|\d+) times|[x×] ?[2-9])\b", re.I)  # "x2"
PURE_MOVE = re.compile(  # what is never a landmark
    r"(?:then )?(?:turn|go|walk|bear|veer|keep|continue|head)(?: slightly)?(?: to the)? "
    r"(?:left|right|straight|around|round|back|straight ahead|forwards?|ahead)\.?",
    re.I,
)


@lru_cache(1 << 14)
def count_moves(step: str) -> int:
    """Count the moves a step tells, in English or a language of `languages`.

    >>> count_moves("turn left at the exit"), count_moves("turn left go straight")
    (1, 2)
    >>> count_moves("left, then right"), count_moves("向左转"), count_moves("gate")
    (2, 1, 0)
    """
    moves = _english_moves(step.lower()) or foreign_moves(step)
    return moves + 1 if moves and REPEATED.search(step) else moves


def _english_moves(text: str) -> int:
    """Read word by word: a verb begins a move, and left, right or straight completes it."""
    tokens = [",", ",", *TOKEN.findall(re.sub(r"\([^()]*\)", " ", text)), ""]
    count = 0
    course = ""  # how the last move goes: "side", "on", "" where only its verb was read
    started = False
    for i in range(2, len(tokens) - 1):
        token = tokens[i]
        if token in CONNECTORS:
            started = False
        elif _is_verb(tokens, i, started, course):
            count += 1
            started = True
            course = ""
        elif token in SIDES or token in ONWARD:
            new = _adds_move(tokens, i, started, course)
            count += new
            started = started or new
            if new or not course:
                course = _course(tokens, i, new)
        elif token in PLACES_OF_MOVE and not started and tokens[i - 1] in OPENERS:
            count += 1
            started = True
            course = "on"
    return count


def _course(tokens: list[str], i: int, new: bool) -> str:
    """Say how a word makes a move go; "noun side" where it is part of a thing: "a left turn"."""
    if tokens[i] in ONWARD:
        return "on"
    if new or tokens[i - 1] in DETERMINERS:
        return "noun side"
    return "side"


def _is_verb(tokens: list[str], i: int, started: bool, course: str) -> bool:
    """Tell whether a word begins a move rather than names a thing or a purpose."""
    token = tokens[i]
    before = tokens[i - 1]
    if token in PARTICIPLES:
        return not started and before in OPENERS
    if token not in VERBS or before == "to":
        return False
    if before in OPENERS:
        return True
    if token == "turn" and (course == "noun side" or tokens[i - 2] in DETERMINERS):
        return False
    if before in COMPLETED:
        return True
    return token not in NOUNS and before not in DETERMINERS


def _adds_move(tokens: list[str], i: int, started: bool, course: str) -> bool:
    """Tell whether left, right or straight is a move of its own."""
    token = tokens[i]
    before = tokens[i - 1]
    if before in DETERMINERS or before == "to":
        return False
    if not started:
        return token in SIDES or token == "straight" or before in CONNECTORS
    if token == "right" and tokens[i + 1] in AFTER_RIGHT:
        return False
    if token in SIDES:
        return course != ""
    return token == "straight" and course in ("side", "noun side")
