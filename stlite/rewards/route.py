"""Score a described route by the turns, landmarks and actions it names, in their order."""

import re
from collections.abc import Sequence
from itertools import combinations, groupby
from statistics import fmean

from stlite.rewards.answer import plain
from stlite.rewards.choice import Score
from stlite.rewards.parse import Reply

MIRROR = {"left": "right", "right": "left", "up": "down", "down": "up"}
Pairs = Sequence[tuple[str, str]]  # (kind, meaning), as `meanings` returns them
Landmarks = Sequence[frozenset[str]]  # each the set of its words
RIGHT = 0.7  # a route worth this much is right; one with left and right swapped stays below

# ---- what is said, and what it means ------------------------------------------------------------

OWN = r"(?:the |your |my |our |its |a )?"
AT = rf"(?:on|at|by|along) {OWN}(?:far |immediate )?"  # "on your far left"
TURNING = r"(?:(?:turn|bear|veer|go|head|keep|swing|walk)(?:s|ed|ing)? (?:to )?(?:the |your )?)?"
SIDE = r"(?: hand)?(?: side)?\b"  # "left hand side"
TURN_NOUN = r"(?: hand)?(?: turn\b(?! (?:left|right|a?round|back|to|180|on|off)\b))?\b"
STRAIGHT = r"(?:straight|forwards?|ahead|onwards?)\b"
ONWARD = rf"{STRAIGHT}(?: {STRAIGHT})*"  # "straight ahead"
GOING_ON = r"(?:keep (?:going|walking|moving|on)|carry on|continue|proceed|advance)\b"
NO_TURN_AHEAD = r"(?! (?:to )?(?:the )?(?:left|right))"  # not "continue to the left"
FLIGHT = r"(?:stair|steps|escalator|floor|ramp|ladder|flight|hill)"
ON_FLIGHT = rf"(?= (?:the |a |one |to the )?(?:\w+ )?{FLIGHT})"  # "up the stairs"
AFTER_FLIGHT = r"(?:(?<=stairs )|(?<=steps )|(?<=escalator )|(?<=elevator )|(?<=lift ))"
RIGHT_AWAY = r"right (?:away|after|before|behind|next|now|beside|in front|there|here)\b"
HAVING_LEFT = r"(?:have|had|just|you|i|we|they) left\b"  # "I left the shop"
CROSSING = r"cross(?:es|ed|ing)? (?=the |a |over |this |that )"
TURN_ROUND = (  # "turn all the way around", but not "turn around the corner"
    r"(?:turn|spin|swing|rotat|pivot)(?:e|s|ed|ing|ning)? "
    r"(?:all the way |completely |fully |yourself )?(?:a?round|back|180)\b"
    r"(?: degrees)?(?! (?:the|a|an|this|that) )"
)
U_TURN = r"(?:u|about|180(?: degrees?)?) (?:turn|face)\b"
FACE_BACK = r"fac(?:e|ing) (?:back|(?:the )?(?:other|opposite) (?:way|direction))\b"
SWITCHING = r"(?:switch|turn)(?:es|s|ed|ing)?"

# (kind, meaning, how it is said in lower case without hyphens); the first that fits counts
PHRASES = (
    ("stop", "", rf"{RIGHT_AWAY}|{HAVING_LEFT}|{CROSSING}"),
    ("side", "on left", rf"{AT}left{SIDE}|left (?:hand )?side\b|(?:to {OWN})?left of\b"),
    ("side", "on right", rf"{AT}right{SIDE}|right (?:hand )?side\b|(?:to {OWN})?right of\b"),
    ("turn", "around", rf"{TURN_ROUND}|{U_TURN}|{FACE_BACK}|reverse direction\b"),
    ("turn", "left", rf"{TURNING}left{TURN_NOUN}"),
    ("turn", "right", rf"{TURNING}right{TURN_NOUN}"),
    (
        "straight",
        "straight",
        rf"{ONWARD}|{GOING_ON}(?: (?:going |walking |moving |on )?{ONWARD})?{NO_TURN_AHEAD}",
    ),
    (
        "turn",
        "up",
        rf"(?:up|(?:ascend|climb)(?:s|ing)?(?: up)?){ON_FLIGHT}"
        rf"|{AFTER_FLIGHT}up\b|upstairs\b|go up$",
    ),
    (
        "turn",
        "down",
        rf"(?:down|descend(?:s|ing)?(?: down)?){ON_FLIGHT}"
        rf"|{AFTER_FLIGHT}down\b|downstairs\b|go down$",
    ),
    ("deed", "take", r"(?:pick(?:s|ed|ing)? up|grab(?:s|bed|bing)?|collect(?:s|ed|ing)?)\b"),
    (
        "deed",
        "put",
        r"(?:(?:put|set|lay)(?:s|ting|ing)? down|plac(?:e|es|ed|ing)|put(?:s|ting)?)\b",
    ),
    ("deed", "on", rf"{SWITCHING} on\b"),
    ("deed", "off", rf"{SWITCHING} off\b"),
    ("deed", "close", r"(?:clos(?:e|es|ed|ing)|shut(?:s|ting)?)\b"),
    ("deed", "open", r"open(?:s|ed|ing)?\b"),
    ("thing", "car park", r"(?:car ?park|parking (?:lot|area|place))\b"),
    ("thing", "living room", r"(?:living room|sitting room|lounge)\b"),
)
ANY_PHRASE = "|".join(f"(?P<_{i}>{phrase})" for i, (_, _, phrase) in enumerate(PHRASES))
TOKEN = re.compile(rf"\b(?:{ANY_PHRASE})|(?P<word>[^\W\d_]+)|[^\s\w]|\d+")
PLURAL = re.compile(r"(?<=[a-z]{3})(?<!s)(?:(?<=[xh])e)?s$")  # "doors", "boxes"; not "glass"

SYNONYMS = """
sofa couch settee loveseat
stair staircase stairwell stairway
lift elevator
tap faucet
stove cooker
hall hallway corridor passage passageway
bin trash garbage wastebasket dustbin rubbish
tv television telly
cup mug
fridge refrigerator
road street
pavement sidewalk footpath
door doorway
carpet rug mat
bookcase bookshelf bookshelve
cupboard cabinet closet wardrobe
picture painting
lamp light
toilet restroom washroom bathroom
basin sink
shop store
crossing junction crossroad intersection
car automobile vehicle
phone smartphone cellphone
counter countertop
grey gray
purple violet
"""  # a line: words for one thing, the first standing for all
SAME = {word: line.split()[0] for line in SYNONYMS.splitlines() for word in line.split()}
# words that name no landmark
SILENT_WORDS = """
a about across after again all along an and another any are around arrive as at away back be bear
before behind beside between bit by can come cut degree direction down each end enter entering
exit far final finally find first follow following for from front get give go goe going hand hang
have he head heading here i immediately in inside into is it its just keep keeping last lastly
leave leaving left long make making me moment move moving must my near next now of off on once one
onto opposite or our out outside over pass passed passing past path please reach reaching return
returning round run second see side slight slightly sharp sharply so some soon start starting step
stepping stop stopping take taken taking that the their them then there these third this through
till to toward towards turn turned turning under until up upon veer walk walked walking way we
when where which while will with would you your yourself
"""
SILENT = frozenset(SILENT_WORDS.split())


def meanings(text: str) -> list[tuple[str, str]]:
    """Read (kind, meaning) pairs, in order, from a step or a route.

    A kind is turn, straight, side, deed, thing or stop.

    >>> [pair for pair in meanings("Make a left turn at the red couch.") if pair[0] != "stop"]
    [('turn', 'left'), ('thing', 'red'), ('thing', 'sofa')]
    """
    text = text.casefold().replace("-", " ").replace("’", "")
    return [_meaning(token) for token in TOKEN.finditer(text)]


def _meaning(token: re.Match) -> tuple[str, str]:
    if not token.lastgroup:  # a mark or a number
        return "stop", ""
    if token.lastgroup == "word":
        word = PLURAL.sub("", token[0])
        return ("stop", "") if word in SILENT else ("thing", SAME.get(word, word))
    kind, meant, _ = PHRASES[int(token.lastgroup[1:])]
    return kind, meant


def meaning(text: str) -> tuple[str, ...]:
    """Return what a step means, so that two ways to say it are equal; else its bare words.

    >>> meaning("take a left") == meaning("turn left")
    True
    """
    words = tuple(word for _, word in meanings(text) if word)
    return words or tuple(plain(text).split())


def similarity(a: Sequence, b: Sequence) -> float:
    """Return the normalised Levenshtein similarity of two sequences, 0 to 1 (rapidfuzz)."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.normalized_similarity(list(a), list(b))


# ---- a route beside the annotated one ------------------------------------------------------------


def score_route(reply: Reply, answer: str) -> Score:
    """Score a route by its turns and landmarks against the annotated text; the value is 0 to 1."""
    if reply.reason:
        return Score(0.0, reply.reason, "", f"{reply.reason}: {reply.answer[:80]!r}")
    columns = compare_routes(answer, reply.answer)
    if reply.steps and reply.way:
        thought = ". ".join(reply.steps)
        columns["reverse_consistency"] = reverse_consistency(thought, reply.answer)
    measured = [f"{name} {value:.2f}" for name, value in columns.items() if value is not None]
    reason = "right" if columns["value"] >= RIGHT else "wrong"
    return Score(columns["value"], reason, reply.answer, ", ".join(measured))


def compare_routes(reference: str, route: str) -> dict[str, float | None]:
    """Compare a route with the annotated one.

    Columns run from 0 to 1, tau from -1 to 1; None where there is nothing to compare. As in the
    paper's judging (section 5) extra turns and missing landmarks cost, extra landmarks do not. A
    reply that names nothing of the reference, such as "I do not know", is worth 0.
    """
    annotated = meanings(reference)
    described = meanings(route)
    direction = _direction(annotated, described)
    landmarks = _compare_landmarks(_landmarks(annotated), _landmarks(described))
    action = _compare_actions(annotated, described)
    recall = landmarks["landmark_recall"]
    order = 1.0 if landmarks["tau"] is None else (1 + landmarks["tau"]) / 2
    if _words(annotated, "turn"):
        content = _mean(recall if recall is None else recall * order, action)
        # squared: half of the turns right is not half of the way
        value = direction**2 * (1 + (1.0 if content is None else content)) / 2
    else:
        named = recall if recall is None else recall * (1 + order) / 2
        # naming no turn is right, but earns nothing by itself; naming one is wrong
        value = 0.0 if _words(described, "turn") else _mean(direction, named, action)
    if value is None:  # nothing that can be compared: only the same words are right
        value = similarity(plain(reference).split(), plain(route).split())
    return {"value": value, "direction": direction, **landmarks, "action": action}


def _direction(annotated: Pairs, described: Pairs) -> float | None:
    """Compare the turns and, with less weight, the ways straight on; None if none is annotated."""
    annotated_turns = _words(annotated, "turn")
    annotated_legs = _words(annotated, "turn", "straight")
    legs = similarity(annotated_legs, _words(described, "turn", "straight"))
    if not annotated_turns:
        return legs if annotated_legs else None
    return 0.75 * similarity(annotated_turns, _words(described, "turn")) + 0.25 * legs


def _compare_landmarks(annotated: Landmarks, described: Landmarks) -> dict[str, float | None]:
    matches = _match(annotated, described)
    precision = len(matches) / len(described) if described else None
    recall = f1 = None
    if annotated:
        recall = len(matches) / len(annotated)
        f1 = 2 * len(matches) / (len(annotated) + len(described))
    return {
        "landmark_precision": precision,
        "landmark_recall": recall,
        "landmark_f1": f1,
        "tau": _tau(matches),
    }


def _compare_actions(annotated: Pairs, described: Pairs) -> float | None:
    actions = _words(annotated, "deed")
    return similarity(actions, _words(described, "deed")) if actions else None


def _mean(*parts: float | None) -> float | None:
    """Average the parts that can be compared; None without any."""
    measured = [part for part in parts if part is not None]
    return fmean(measured) if measured else None


def reverse_consistency(there: str, back: str) -> float:
    """Return how well one route is another walked back, 0 to 1.

    Turns are mirrored in the opposite order, landmarks come in the opposite order.
    """
    there_pairs = meanings(there)
    back_pairs = meanings(back)
    mirrored = [MIRROR.get(turn, turn) for turn in reversed(_words(there_pairs, "turn"))]
    back_turns = _inner_turns(_words(back_pairs, "turn"))
    matches = _match(_landmarks(there_pairs), _landmarks(back_pairs))
    if not mirrored and not back_turns and not matches:
        return 0.0  # nothing shows that one is the other
    turns = similarity(_inner_turns(mirrored), back_turns)
    tau = _tau(matches)
    return turns if tau is None else turns * (1 - tau) / 2


def _inner_turns(turns: list[str]) -> list[str]:
    """Drop a turn-round at the start and at the end: a way back may name it or not."""
    start = 1 if turns[:1] == ["around"] else 0
    end = len(turns)
    if end > 1 and turns[-1] == "around":
        end -= 1
    return turns[start:end]


def ngrams(reference: str, route: str) -> dict[str, float]:
    """Return ROUGE-L (F1), BLEU and chrF of a route, 0 to 1; a swapped turn hardly moves them."""
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import sentence_bleu, sentence_chrf

    rouge = RougeScorer(["rougeL"]).score(reference, route)["rougeL"].fmeasure
    bleu = sentence_bleu(route, [reference]).score / 100
    chrf = sentence_chrf(route, [reference]).score / 100
    return {"rouge_l": rouge, "bleu": min(bleu, 1.0), "chrf": min(chrf, 1.0)}


def _words(pairs: Pairs, *kinds: str) -> list[str]:
    """List the meanings of these kinds, one "straight" for a run of them."""
    words = []
    for kind, word in pairs:
        repeated = word == "straight" and words[-1:] == ["straight"]
        if kind in kinds and not repeated:
            words.append(word)
    return words


def _landmarks(pairs: Pairs) -> list[frozenset[str]]:
    """List the landmarks, each the set of its words, once, in order."""
    landmarks = []
    for is_landmark, run in groupby(pairs, lambda pair: pair[0] == "thing"):
        if is_landmark:
            landmarks.append(frozenset(word for _, word in run))
    return list(dict.fromkeys(landmarks))


def _match(annotated: Landmarks, described: Landmarks) -> list[tuple[int, int]]:
    """Pair each landmark with the first free one that shares most words of the shorter name."""
    free = list(range(len(described)))
    matches = []
    for i, landmark in enumerate(annotated):
        for j in free:
            shorter = min(len(landmark), len(described[j]))
            if 2 * len(landmark & described[j]) > shorter:
                matches.append((i, j))
                free.remove(j)
                break
    return matches


def _tau(matches: Sequence[tuple[int, int]]) -> float | None:
    """Return Kendall's tau of the places of paired landmarks, -1 to 1; None below two of them."""
    if len(matches) < 2:
        return None
    places = [place for _, place in matches]
    return fmean(1 if later > earlier else -1 for earlier, later in combinations(places, 2))
