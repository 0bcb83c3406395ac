"""One step undone: the verb that opens it, by pairs that are certain; all else has no rule.

"turn left at the gate" becomes "turn right at the gate", "put the shoes on" becomes "take the
shoes off". "take the lift to the roof" has no certain reverse, and `reverse_step` returns None.
"""

import re
from functools import lru_cache

from stlite.data.languages import has_side, reverse_foreign
from stlite.data.phrases import (
    ALWAYS_SAME,
    LEAD,
    NO_OBJECTS,
    PAIRS,
    SAME,
    SLOTS,
    TRAIL,
    TURNS,
)

# words after which a rule is no longer certain: other moves, other times, negation
UNSURE = re.compile(
    r"\b(?:not|never|no|don['’]?t|without|unless|instead|until|till|before|after|while|if|when|"
    r"or|and|then|but|twice|first|second|third|fourth|last|finally|half|almost|nearly|behind|me|us|"
    r"times)\b|[,;:/]",
    re.I,
)
ORDER = re.compile(  # dropped: on the way back the first is the last
    r"^(?:first of all|firstly|first|at first|to start|to begin with|finally|lastly|at last),? ",
    re.I,
)
SIDE_WORD = re.compile(r"\b(?:left|right)\b", re.I)
SIDE_AT_END = re.compile(  # "… on the left", "… on your right-hand side", "… to the left"
    r"(?P<before>.+ (?:on|to) (?:the|your) )(?P<side>left|right)(?P<after>(?:[ -]hand)?(?: side)?)",
    re.I,
)

NO_THING = re.compile(  # no thing begins with these: "close to the wall", "turn on the spot"
    r"(?:to|by|off|in|on|out|up|down|into|onto|over|from|with|for|at|of|around|round|back|away|"
    r"open|shut|your way|the way|aside|together|forward)\b",
    re.I,
)
ELSEWHERE = re.compile(  # "push the cart to the table": on the way back it is another place
    r"\b(?:to|from|into|onto|towards?|off|out|up|down|away|open|shut|closed|with|for|through|"
    r"across|past|along|over)\b",
    re.I,
)


def _pattern(form: str) -> re.Pattern:
    body = re.escape(form).replace(r"\{", "{").replace(r"\}", "}").replace(r"\ ", " ")
    for slot, pattern in SLOTS.items():
        body = body.replace("{" + slot + "}", f"(?P<{slot}>{pattern})")
    return re.compile(f"{LEAD}{body}{TRAIL}", re.I)


def _read_pairs(text: str) -> list[tuple[str, re.Pattern, str]]:
    """List (form, pattern, undone form); "|" works both ways, ">" one way."""
    rules = []
    for line in text.strip().splitlines():
        both = "|" in line
        first, second = re.split(r" [|>] ", line)
        rules.append((first, _pattern(first), second))
        if both:
            rules.append((second, _pattern(second), first))
    return rules


RULES = _read_pairs(PAIRS)
TURN_RULES = [re.compile(LEAD + turn + TRAIL, re.I) for turn in TURNS]
SAME_RULES = {
    "direction": [re.compile(LEAD + same + TRAIL, re.I) for same in SAME + ALWAYS_SAME],
    "action": [re.compile(LEAD + same + TRAIL, re.I) for same in ALWAYS_SAME],
}


# ---- undoing


@lru_cache(1 << 14)
def reverse_step(step: str, task: str = "direction") -> str | None:
    """Undo one step of a direction or action list, or say how a landmark looks on the way back.

    None where no rule is certain: nothing may then be made of it.

    >>> reverse_step("turn left"), reverse_step("put the shoes on"), reverse_step("go straight")
    ('turn right', 'take the shoes off', 'go straight')
    >>> reverse_step("take the bag", "action"), reverse_step("shop on the left", "landmark")
    (None, 'shop on the right')
    """
    if task == "landmark":
        return _seen_from_behind(step)
    text = ORDER.sub("", " ".join(step.split()))
    text = _like(text, step.strip())
    turned = _reverse_turn(text)
    if turned:
        return turned
    undone = _reverse_pair(text)
    if undone:
        return undone
    if _is_same(text, task):
        return text
    return reverse_foreign(text)


def _seen_from_behind(landmark: str) -> str | None:
    """Exchange the side a landmark stands on; None where left or right means something else."""
    side = SIDE_AT_END.fullmatch(landmark)
    if side and not SIDE_WORD.search(side["before"]):
        return side["before"] + _other_side(side["side"]) + side["after"]
    if SIDE_WORD.search(landmark) or has_side(landmark):
        return None
    return landmark


def _other_side(word: str) -> str:
    return _like("right" if word.lower() == "left" else "left", word)


def _like(text: str, model: str) -> str:
    """Write a text with the capitals of another.

    >>> _like("close the door", "Open the door"), _like("right", "LEFT")
    ('Close the door', 'RIGHT')
    """
    if model.isupper() and len(model) > 1:
        return text.upper()
    if model[:1].isupper():
        return text[:1].upper() + text[1:]
    return text


def _reverse_turn(text: str) -> str | None:
    for rule in TURN_RULES:
        match = rule.fullmatch(text)
        if not match:
            continue
        start, end = match.span("side")
        rest = text[match.end("lead") : start] + text[end : match.start("trail")]
        if UNSURE.search(rest) or SIDE_WORD.search(rest):
            return None
        return text[:start] + _other_side(match["side"]) + text[end:]
    return None


def _is_same(text: str, task: str) -> bool:
    for rule in SAME_RULES["action" if task == "action" else "direction"]:
        match = rule.fullmatch(text)
        if match:
            rest = text[match.end("lead") : match.start("trail")]
            side = SIDE_WORD.search(re.sub(r"\bright (?=straight|ahead|forward|on\b)", "", rest))
            return not UNSURE.search(rest) and not side
    return False


def _reverse_pair(text: str) -> str | None:
    """Undo a step by the first pair whose form it has, the longest verbs tried first."""
    for form, pattern, other in RULES:
        match = pattern.fullmatch(text)
        if match and _is_certain(form, match):
            slots = {name: match[name] for name in SLOTS if "{" + name + "}" in form}
            body = text[match.end("lead") : match.start("trail")]
            undone = _like(other.format(**slots), body)
            return match["lead"] + undone + match["trail"]
    return None


def _is_certain(form: str, match: re.Match) -> bool:
    """Tell whether the verb's object is a plain thing: no side, no second move, no phrase."""
    verb = form.partition(" {")[0]
    for slot in SLOTS:
        if "{" + slot + "}" not in form:
            continue
        thing = match[slot]
        if any(pattern.search(thing) for pattern in (UNSURE, SIDE_WORD, ELSEWHERE)):
            return False
        if NO_THING.match(thing):
            return False
        excluded = NO_OBJECTS.get(verb)
        if excluded and re.search(rf"\b(?:{excluded})\b", thing, re.I):
            return False
    return True
