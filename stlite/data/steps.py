"""Lists of steps and the rules of walking back.

`["turn left", "go straight"]` walked back is `["turn around", "go straight", "turn right"]`;
landmarks come in the opposite order; actions come in the opposite order, each undone. How one
step is undone stands in `reversal`.
"""

import random
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from stlite.data.languages import around_in, turns_around
from stlite.data.reversal import reverse_step as reverse_step

AROUND = "turn around"
TURNED_ROUND = re.compile(r"^\s*(?:please\s+)?(turn (a?round|back)|make a u-turn|go back)\b", re.I)
SIDES = {"left": "right", "right": "left"}
SIDE = re.compile(r"\b(left|right)\b")

SINGLE_QUOTED = r"'((?:[^'\\]|\\.)*)'"  # 'turn left'
DOUBLE_QUOTED = r'"((?:[^"\\]|\\.)*)"'  # "the man's desk"
QUOTED = re.compile(f"{SINGLE_QUOTED}|{DOUBLE_QUOTED}")
MAX_WORDS = 200  # of a text that is cut into steps

Steps = tuple[str, ...]
Edit = Callable[[Sequence[str]], Steps]


def quoted_steps(text: str) -> Steps:
    """Read the quoted texts of a printed Python list.

    >>> quoted_steps("['turn left', 'go straight']")
    ('turn left', 'go straight')
    """
    texts = [(single or double).strip() for single, double in QUOTED.findall(text)]
    return tuple(filter(None, texts))


def cut_steps(text: str, known: Iterable[str]) -> Steps:
    """Cut a space-joined list of at most 200 words into known steps, if in only one way.

    >>> cut_steps("gate car park gate", ["car park", "gate"]), cut_steps("gate bridge", ["gate"])
    (('gate', 'car park', 'gate'), ())
    """
    words = text.split()
    if len(words) > MAX_WORDS:
        return ()
    lowered = tuple(word.casefold() for word in words)
    phrases = {tuple(step.casefold().split()) for step in known} - {()}
    cuts: list[list[Steps]] = [[] for _ in words] + [[()]]  # cuts[i]: up to two of words[i:]
    for start in reversed(range(len(words))):
        for phrase in phrases:
            end = start + len(phrase)
            if lowered[start:end] == phrase:
                step = " ".join(words[start:end])
                cuts[start] += [(step, *rest) for rest in cuts[end]]
        del cuts[start][2:]
    return cuts[0][0] if len(cuts[0]) == 1 else ()


def reverse_path(steps: Sequence[str], task: str, way: str = "forward") -> Steps:
    """Walk a list of steps back; `way` is the way the given steps run (paper section 3).

    A step that no rule undoes for certain stays as it is: see `uncertain_steps`.

    >>> reverse_path(("turn around", "go straight", "turn right"), "direction", "reverse")
    ('turn left', 'go straight')
    """
    undone = tuple(reverse_step(step, task) or step for step in reversed(steps))
    if task != "direction":
        return undone
    if way == "forward":
        return (_around(steps), *undone)
    return undone[:-1] if _starts_around(steps) else undone


def uncertain_steps(steps: Sequence[str], task: str) -> Steps:
    """List the steps that no rule undoes for certain: their way back must be annotated.

    >>> uncertain_steps(("turn left", "walk to the gate"), "direction")
    ('walk to the gate',)
    """
    return tuple(step for step in steps if reverse_step(step, task) is None)


def _around(steps: Sequence[str]) -> str:
    """Return what a way back starts with, in the language of the steps."""
    words = {around_in(step) for step in steps} - {""}
    return words.pop() if len(words) == 1 else AROUND


def _starts_around(steps: Sequence[str]) -> bool:
    if not steps:
        return False
    return TURNED_ROUND.match(steps[0]) is not None or turns_around(steps[0])


def naive_reversal(steps: Sequence[str], task: str, way: str) -> Steps:
    """List the path as it runs the other way; a turn that starts a way back keeps its place."""
    if task != "direction":
        return reverse_path(steps, task)
    head = 1 if way == "reverse" and _starts_around(steps) else 0
    return (*steps[:head], *reverse_path(steps[head:], "action"))


# ---- distractors


def make_distractors(
    steps: Sequence[str], task: str, way: str, rng: random.Random, pool: Sequence[str] = ()
) -> tuple[Steps, ...]:
    """Make up to four lists {x, e1 x, e2 x, e1 e2 x} by two commuting reversible edits, x first.

    Any of the four could be the truth as well as any other, so the texts do not give the answer
    away. Fewer come back where no two edits commute. `pool` holds steps of other videos, sorted
    and without repeats.
    """
    x = tuple(steps)
    edits = _edits(x, task, way, pool, rng)
    rng.shuffle(edits)
    best: tuple[Steps, ...] = (x,)
    for i, first in enumerate(edits):
        for second in edits[:i]:
            square = (x, first(x), second(x), second(first(x)))
            if _is_orbit(square, first, second):
                return square
            distinct = tuple(dict.fromkeys(square[:3]))
            best = max(best, distinct, key=len)
    return best


def _is_orbit(square: tuple[Steps, ...], first: Edit, second: Edit) -> bool:
    """Tell whether two commuting edits lead from each of four different lists to each."""
    x, by_first, by_second, by_both = square
    if len(set(square)) < 4 or first(by_second) != by_both:
        return False
    return first(by_first) == x and second(by_second) == x


def _edits(
    steps: Steps, task: str, way: str, pool: Sequence[str], rng: random.Random
) -> list[Edit]:
    """Collect reversible edits; the kinds offered do not tell a list from its edited forms."""

    def walked_the_other_way(path: Sequence[str]) -> Steps:
        return naive_reversal(path, task, way)

    edits: list[Edit] = [walked_the_other_way, walked_the_other_way]
    if task != "landmark":
        edits.append(_mirror_all)
        edits += [_mirror_one(i) for i in range(len(steps))]
    if task == "direction":
        return edits + _replaced_moves(steps, pool, rng)
    return edits + _exchanged_things(steps, task, pool, rng)


def _replaced_moves(steps: Steps, pool: Sequence[str], rng: random.Random) -> list[Edit]:
    """Exchange one move, at its place, for another of the pool."""
    edits = []
    for i, step in enumerate(steps):
        if not TURNED_ROUND.match(step) and set(pool[:2]) - {step}:
            edits.append(_exchange(step, _draw(pool, {step}, rng), i))
    return edits


def _exchanged_things(
    steps: Steps, task: str, pool: Sequence[str], rng: random.Random
) -> list[Edit]:
    """Exchange two things of the list everywhere, or one for a thing of the pool."""
    edits = []
    inside = [step for step in dict.fromkeys(steps) if not TURNED_ROUND.match(step)]
    for i, a in enumerate(inside):
        edits += [_exchange(a, b) for b in inside[:i]]
    mirrored = _swap_sides if task == "landmark" else _mirrored
    excluded = {*steps, *map(mirrored, steps)}
    for a in inside:
        b = _draw(pool, excluded, rng)
        if b:
            edits.append(_exchange(a, b))
    return edits


def _draw(pool: Sequence[str], excluded: set[str], rng: random.Random) -> str:
    """Draw a step of the sorted pool that is not excluded, "" if none is left; copy nothing."""
    places = sorted(bisect_left(pool, step) for step in excluded if _in_sorted(pool, step))
    left = len(pool) - len(places)
    if not left:
        return ""
    chosen = rng.randrange(left)
    for place in places:
        if chosen >= place:
            chosen += 1
    return pool[chosen]


def _in_sorted(pool: Sequence[str], step: str) -> bool:
    place = bisect_left(pool, step)
    return place < len(pool) and pool[place] == step


def _mirrored(step: str) -> str:
    """Undo a step or, if no rule is certain, exchange left and right: distractors may be wrong."""
    undone = reverse_step(step)
    return _swap_sides(step) if undone is None else undone


def _swap_sides(step: str) -> str:
    return SIDE.sub(lambda match: SIDES[match[0]], step)


def _mirror_all(steps: Sequence[str]) -> Steps:
    return tuple(map(_mirrored, steps))


def _mirror_one(place: int) -> Edit:
    """Mirror the step at a place."""

    def edit(steps: Sequence[str]) -> Steps:
        return (*steps[:place], _mirrored(steps[place]), *steps[place + 1 :])

    return edit


def _exchange(a: str, b: str, place: int | None = None) -> Edit:
    """Exchange two steps everywhere or, given a place, there alone."""
    other = {a: b, b: a}

    def edit(steps: Sequence[str]) -> Steps:
        if place is None:
            return tuple(other.get(step, step) for step in steps)
        changed = other.get(steps[place], steps[place])
        return (*steps[:place], changed, *steps[place + 1 :])

    return edit
