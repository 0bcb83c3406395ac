"""Score a reply against its sample: a choice by its letter, a route by the steps it describes."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from statistics import fmean

from stlite.data.sample import LETTERS, Sample
from stlite.rewards.parse import LETTER, MARKS, Reply, parse

MIRROR = {"left": "right", "right": "left", "up": "down", "down": "up"}
Pairs = Sequence[tuple[str, str]]  # (kind, meaning), as `read` returns them
RIGHT = 0.7  # a route worth this much is called right; a route with left and right swapped stays below it


@dataclass(frozen=True, slots=True)
class Score:
    """What a reply is worth, 0 to 1, and why: right, wrong, ambiguous, unreadable, absent or truncated."""

    value: float
    reason: str
    answer: str = ""
    explanation: str = ""


def score(sample: Sample, reply: Reply | str) -> Score:
    """Score a reply; one that is ambiguous, unreadable, absent or truncated earns 0."""
    reply = parse(reply) if isinstance(reply, str) else reply
    if sample.kind == "route":
        return score_route(
            reply, sample.answer or sample.refuse("answer", "an annotated route", "")
        )
    return score_choice(reply, sample.options, sample.answer)


RULED_OUT = re.compile(
    r"\b(?:[Nn]ot|rather than|instead of|unlike|ruled? out|ruling out|eliminate|neither|except)(?: options?)?"
    r" [A-H](?:(?:, | or | and | nor |, and )[A-H]){0,7}\b"
    r"|\b(?:[A-H](?:, | and |, and | or )){0,7}[A-H] (?:is|are|was|were) (?:wrong|incorrect|not|out|ruled out|eliminated)\b"
)
ARTICLES = {"a", "an", "the"}


def letter(reply: Reply | str, options: Sequence[str]) -> str:
    """Return the letter of the option that a reply chooses, "" where it chooses none or more than one.

    >>> letter("<answer>the kitchen.</answer>", ["the garden", "the kitchen"]), letter("A or B", ["left", "right"])
    ('B', '')
    """
    return _choice(parse(reply) if isinstance(reply, str) else reply, options)[0]


def score_choice(reply: Reply, options: Sequence[str], answer: str) -> Score:
    """Score a choice by its letter."""
    found, reason = _choice(reply, options)
    if reason:
        return Score(0.0, reason, "", f"{reason}: {reply.answer[:80]!r}, annotated {answer}")
    return Score(
        float(found == answer),
        "right" if found == answer else "wrong",
        found,
        f"{found}, annotated {answer}",
    )


def _choice(reply: Reply, options: Sequence[str]) -> tuple[str, str]:
    """Resolve a letter or an option's text: (letter, "") or ("", why not)."""
    if reply.reason:
        return "", reply.reason
    answer = unicodedata.normalize("NFKC", reply.answer).strip(MARKS)
    if len(answer) == 1 and answer.isalpha():
        return _allowed({answer.upper()}, options)
    texts, plain = [_plain(option) for option in options], _plain(answer)
    first, rest = answer[:1].upper(), _plain(answer[1:])
    if rest and first in LETTERS[: len(texts)] and not answer[1:2].isalnum() and rest in texts:
        return (first, "") if rest == texts[LETTERS.index(first)] else ("", "ambiguous")
    if plain in texts:
        return (LETTERS[texts.index(plain)], "") if texts.count(plain) == 1 else ("", "ambiguous")
    found = {m[0].upper() for m in LETTER.finditer(RULED_OUT.sub(" ", answer))}
    if reply.how == "tagged" and not found and (inner := parse(answer)).how == "stated":
        return _choice(inner, options)
    if reply.how == "whole":
        return "", "ambiguous" if len(found) > 1 and LETTER.match(answer) else "absent"
    return _allowed(found, options)


def _allowed(found: set[str], options: Sequence[str]) -> tuple[str, str]:
    if len(found) > 1:
        return "", "ambiguous"
    return (min(found), "") if found & set(LETTERS[: len(options)]) else ("", "unreadable")


def _plain(text: str) -> str:
    return " ".join(
        word for word in re.findall(r"[^\W_]+", text.casefold()) if word not in ARTICLES
    )


OWN = r"(?:the |your |my |our |its |a )?"
AT = rf"(?:on|at|by|along) {OWN}(?:far |immediate )?"
TURNING = r"(?:(?:turn|bear|veer|go|head|keep|swing|walk)(?:s|ed|ing)? (?:to )?(?:the |your )?)?"
HAND = r"(?: hand)?(?: side)?\b"
HAND_TURN = r"(?: hand)?(?: turn\b(?! (?:left|right|a?round|back|to|180|on|off)\b))?\b"
ONWARD = r"(?:straight|forwards?|ahead|onwards?)\b(?: (?:straight|forwards?|ahead|onwards?)\b)*"
CLIMB = r"(?= (?:the |a |one |to the )?(?:\w+ )?(?:stair|steps|escalator|floor|ramp|ladder|flight|hill))"
AFTER = r"(?:(?<=stairs )|(?<=steps )|(?<=escalator )|(?<=elevator )|(?<=lift ))"
SAYINGS = {  # what is meant: how it is said, in lower case without hyphens; the first that fits counts
    "nothing": r"right (?:away|after|before|behind|next|now|beside|in front|there|here)\b|(?:have|had|just|you|i|we|they) left\b"
    r"|cross(?:es|ed|ing)? (?=the |a |over |this |that )",
    "on left": rf"{AT}left{HAND}|left (?:hand )?side\b|(?:to {OWN})?left of\b",
    "on right": rf"{AT}right{HAND}|right (?:hand )?side\b|(?:to {OWN})?right of\b",
    "around": r"(?:turn|spin|swing|rotat|pivot)(?:e|s|ed|ing|ning)? (?:all the way |completely |fully |yourself )?"
    r"(?:a?round|back|180)\b(?: degrees)?(?! (?:the|a|an|this|that) )|(?:u|about|180(?: degrees?)?) (?:turn|face)\b"
    r"|fac(?:e|ing) (?:back|(?:the )?(?:other|opposite) (?:way|direction))\b|reverse direction\b",
    "left": rf"{TURNING}left{HAND_TURN}",
    "right": rf"{TURNING}right{HAND_TURN}",
    "straight": rf"{ONWARD}|(?:keep (?:going|walking|moving|on)|carry on|continue|proceed|advance)\b"
    rf"(?: (?:going |walking |moving |on )?{ONWARD})?(?! (?:to )?(?:the )?(?:left|right))",
    "up": rf"(?:up|(?:ascend|climb)(?:s|ing)?(?: up)?){CLIMB}|{AFTER}up\b|upstairs\b|go up$",
    "down": rf"(?:down|descend(?:s|ing)?(?: down)?){CLIMB}|{AFTER}down\b|downstairs\b|go down$",
    "take": r"(?:pick(?:s|ed|ing)? up|grab(?:s|bed|bing)?|collect(?:s|ed|ing)?)\b",
    "put": r"(?:(?:put|set|lay)(?:s|ting|ing)? down|plac(?:e|es|ed|ing)|put(?:s|ting)?)\b",
    "on": r"(?:switch|turn)(?:es|s|ed|ing)? on\b",
    "off": r"(?:switch|turn)(?:es|s|ed|ing)? off\b",
    "close": r"(?:clos(?:e|es|ed|ing)|shut(?:s|ting)?)\b",
    "open": r"open(?:s|ed|ing)?\b",
    "car park": r"(?:car ?park|parking (?:lot|area|place))\b",
    "living room": r"(?:living room|sitting room|lounge)\b",
}
KINDS = {"nothing": "stop", "straight": "straight", "car park": "thing", "living room": "thing"}
KINDS |= {"on left": "side", "on right": "side"} | dict.fromkeys(
    ("take", "put", "on", "off", "close", "open"), "deed"
)
EITHER = "|".join(f"(?P<_{i}>{said})" for i, said in enumerate(SAYINGS.values()))
READ = re.compile(rf"\b(?:{EITHER})|(?P<word>[^\W\d_]+)|[^\s\w]|\d+")
SAME = {  # each line: words for one thing, the first standing for all
    word: line.split()[0]
    for line in """sofa couch settee loveseat|stair staircase stairwell stairway|lift elevator|tap faucet|stove cooker
    hall hallway corridor passage passageway|bin trash garbage wastebasket dustbin rubbish|tv television telly|cup mug
    fridge refrigerator|road street|pavement sidewalk footpath|door doorway|carpet rug mat|bookcase bookshelf bookshelve
    cupboard cabinet closet wardrobe|picture painting|lamp light|toilet restroom washroom bathroom|basin sink|shop store
    crossing junction crossroad intersection|car automobile vehicle|phone smartphone cellphone|counter countertop|grey gray
    purple violet""".replace("\n", "|").split("|")
    for word in line.split()
}
SILENT = frozenset(re.findall(r"\w+",
    """a about across after again all along an and another any are around arrive as at away back be bear before behind
    beside between bit by can come cut degree direction down each end enter entering exit far final finally find first
    follow following for from front get give go goe going hand hang have he head heading here i immediately in inside
    into is it its just keep keeping last lastly leave leaving left long make making me moment move moving must my near
    next now of off on once one onto opposite or our out outside over pass passed passing past path please reach
    reaching return returning round run second see side slight slightly sharp sharply so some soon start starting
    step stepping stop stopping take taken taking that the their them then there these third this through till to
    toward towards turn turned turning under until up upon veer walk walked walking way we when where which while will
    with would you your yourself 90"""))  # fmt: skip


def meanings(text: str) -> list[tuple[str, str]]:
    """Read (kind, meaning) pairs, in order, from a step or a route; kind is turn, straight, side, deed, thing or stop.

    >>> [pair for pair in meanings("Make a left turn at the red couch.") if pair[0] != "stop"]
    [('turn', 'left'), ('thing', 'red'), ('thing', 'sofa')]
    """
    return [
        _meaning(match)
        for match in READ.finditer(text.casefold().replace("-", " ").replace("’", ""))
    ]


def _meaning(match: re.Match) -> tuple[str, str]:
    if match.lastgroup == "word":
        word = re.sub(r"(?<=[a-z]{3})(?<!s)(?:(?<=[xh])e)?s$", "", match[0])
        return ("stop", "") if word in SILENT else ("thing", SAME.get(word, word))
    if not match.lastgroup:
        return "stop", ""
    name = list(SAYINGS)[int(match.lastgroup[1:])]
    return KINDS.get(name, "turn"), name if name != "nothing" else ""


def meaning(text: str) -> tuple[str, ...]:
    """Return what a step means, so that two ways to say it are equal; its bare words where nothing is left."""
    return tuple(word for _, word in meanings(text) if word) or tuple(_plain(text).split())


def similarity(a: Sequence, b: Sequence) -> float:
    """Return the normalised Levenshtein similarity of two sequences, 0 to 1 (rapidfuzz)."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.normalized_similarity(list(a), list(b))


def score_route(reply: Reply, answer: str) -> Score:
    """Score a route by its turns and landmarks against the annotated text; the value is 0 to 1."""
    if reply.reason:
        return Score(0.0, reply.reason, "", f"{reply.reason}: {reply.answer[:80]!r}")
    row = compare_routes(answer, reply.answer)
    if reply.steps and reply.way:
        row["reverse_consistency"] = reverse_consistency(". ".join(reply.steps), reply.answer)
    said = ", ".join(f"{name} {value:.2f}" for name, value in row.items() if value is not None)
    return Score(row["value"], "right" if row["value"] >= RIGHT else "wrong", reply.answer, said)


def compare_routes(reference: str, route: str) -> dict[str, float | None]:
    """Compare a route with the annotated one; every column is 0 to 1, but tau -1 to 1; None where there is none to compare.

    As in the paper's judging (section 5) extra turns and missing landmarks cost, extra landmarks do not.
    """
    a, b = meanings(reference), meanings(route)
    turns, legs = (
        similarity(_words(a, *k), _words(b, *k)) for k in (("turn",), ("turn", "straight"))
    )
    wanted, found = _things(a), _things(b)
    pairs = _match(wanted, found)
    tau = _tau(pairs)
    recall = len(pairs) / len(wanted) if wanted else None
    deeds = _words(a, "deed")
    action = similarity(deeds, _words(b, "deed")) if deeds else None
    order = 1.0 if tau is None else (1 + tau) / 2
    content = [
        part for part in (recall if recall is None else recall * order, action) if part is not None
    ]
    place = fmean(content) if content else 1.0
    direction = 0.75 * turns + 0.25 * legs
    return {
        "value": direction**2
        * (1 + place)
        / 2,  # squared: half of the turns right is not half of the way
        "direction": direction,
        "landmark_precision": len(pairs) / len(found) if found else None,
        "landmark_recall": recall,
        "landmark_f1": 2 * len(pairs) / (len(wanted) + len(found)) if wanted else None,
        "tau": tau,
        "action": action,
    }


def reverse_consistency(there: str, back: str) -> float:
    """Return how well one route is another walked back, 0 to 1: turns mirrored in opposite order, landmarks in opposite order."""
    a, b = meanings(there), meanings(back)
    both = [MIRROR.get(turn, turn) for turn in reversed(_words(a, "turn"))], _words(b, "turn")
    for turns in both:  # a way back may name a turn-round at its start and at its end, or not
        turns[:] = turns[
            turns[:1] == ["around"] : len(turns) - (len(turns) > 1 and turns[-1] == "around")
        ]
    tau = _tau(_match(_things(a), _things(b)))
    return similarity(*both) * (1.0 if tau is None else (1 - tau) / 2)


def ngrams(reference: str, route: str) -> dict[str, float]:
    """Return ROUGE-L (F1), BLEU and chrF of a route, 0 to 1; secondary: a swapped turn hardly moves them."""
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import sentence_bleu, sentence_chrf

    rouge = RougeScorer(["rougeL"]).score(reference, route)["rougeL"].fmeasure
    bleu, chrf = (f(route, [reference]).score / 100 for f in (sentence_bleu, sentence_chrf))
    return {"rouge_l": rouge, "bleu": min(bleu, 1.0), "chrf": min(chrf, 1.0)}


def _words(pairs: Pairs, *kinds: str) -> list[str]:
    """List the meanings of these kinds, one "straight" for a run of them."""
    words = [word for kind, word in pairs if kind in kinds]
    return [w for i, w in enumerate(words) if w != "straight" or words[i - 1 : i] != ["straight"]]


def _things(pairs: Pairs) -> list[frozenset[str]]:
    """List the landmarks, each the set of its words, once, in order."""
    runs = groupby(pairs, lambda pair: pair[0] == "thing")
    return list(dict.fromkeys(frozenset(word for _, word in run) for things, run in runs if things))


def _match(wanted: Sequence[frozenset], found: Sequence[frozenset]) -> list[tuple[int, int]]:
    """Pair each landmark with the first free one that shares more than half of the shorter name's words."""
    free, pairs = list(range(len(found))), []
    for i, thing in enumerate(wanted):
        j = next(
            (j for j in free if 2 * len(thing & found[j]) > min(len(thing), len(found[j]))), None
        )
        if j is not None:
            pairs.append((i, j))
            free.remove(j)
    return pairs


def _tau(pairs: Sequence[tuple[int, int]]) -> float | None:
    """Return Kendall's tau of the places of paired landmarks, -1 to 1; None below two of them."""
    return (
        fmean(1 if b > a else -1 for (_, a), (_, b) in combinations(pairs, 2))
        if len(pairs) > 1
        else None
    )
