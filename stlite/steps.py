"""Lists of steps and the rules of walking back.

`["turn left", "go straight"]` walked back is `["turn around", "go straight", "turn right"]`;
landmarks come in the opposite order; actions come in the opposite order, each undone.
"""

import random
import re
from collections.abc import Callable, Sequence

AROUND = "turn around"
OPPOSITES = (
    ("left", "right"),
    ("open", "close"),
    ("pick up", "put down"),
    ("switch on", "switch off"),
    ("turn on", "turn off"),
    ("raise", "lower"),
    ("enter", "leave"),
    ("go up", "go down"),
    ("push", "pull"),
    ("take", "return"),
    ("lock", "unlock"),
    ("stand up", "sit down"),
)
SWAP = {a: b for pair in OPPOSITES for a, b in (pair, pair[::-1])}
SWAP_PATTERN = re.compile(r"\b(" + "|".join(sorted(SWAP, key=len, reverse=True)) + r")\b", re.I)
TURNED_ROUND = re.compile(r"^\s*(?:please\s+)?(turn (a?round|back)|make a u-turn|go back)\b", re.I)

Edit = Callable[[Sequence[str]], tuple[str, ...]]


def _swap(match: re.Match) -> str:
    word = SWAP[match[0].lower()]
    return word.capitalize() if match[0][0].isupper() else word


def reverse_step(step: str) -> str:
    """Undo one step: left and right change places, open becomes close, pick up becomes put down.

    >>> reverse_step("turn left"), reverse_step("pick up the box"), reverse_step("go straight")
    ('turn right', 'put down the box', 'go straight')
    """
    return SWAP_PATTERN.sub(_swap, step)


def reverse_path(steps: Sequence[str], task: str, way: str = "forward") -> tuple[str, ...]:
    """Walk a list of steps back; `way` is the way the given steps run (paper section 3).

    >>> reverse_path(("turn left", "go straight"), "direction")
    ('turn around', 'go straight', 'turn right')
    >>> reverse_path(("turn around", "go straight", "turn right"), "direction", "reverse")
    ('turn left', 'go straight')
    """
    if task == "landmark":
        return tuple(steps)[::-1]
    if task == "action":
        return tuple(map(reverse_step, steps))[::-1]
    if way == "forward":
        return (AROUND, *map(reverse_step, reversed(steps)))
    return tuple(map(reverse_step, reversed(steps[1:] if steps and TURNED_ROUND.match(steps[0]) else steps)))


def wrong_way(steps: Sequence[str], task: str, way: str) -> tuple[str, ...]:
    """List the same path as it runs the other way, the turn at the start of a way back kept in its place."""
    if task != "direction" or way == "forward":
        return reverse_path(steps, task if task != "direction" else "action")
    head = tuple(steps[:1]) if steps and TURNED_ROUND.match(steps[0]) else ()
    return head + reverse_path(steps[len(head) :], "action")


def _undo_at(i: int) -> Edit:
    return lambda steps: (*steps[:i], reverse_step(steps[i]), *steps[i + 1 :])


def _exchange_at(i: int, a: str, b: str) -> Edit:
    labels = {a: b, b: a}
    return lambda steps: (*steps[:i], labels.get(steps[i], steps[i]), *steps[i + 1 :])


def _exchange(a: str, b: str) -> Edit:
    labels = {a: b, b: a}
    return lambda steps: tuple(labels.get(s, s) for s in steps)


def _edits(steps: Sequence[str], task: str, way: str, pool: Sequence[str], rng: random.Random) -> list[Edit]:
    """Collect reversible edits of a list; which ones are offered does not tell the list from its edited forms."""
    edits: list[Edit] = [lambda s: wrong_way(s, task, way)] * 2
    inside = [s for s in dict.fromkeys(steps) if not TURNED_ROUND.match(s)]
    if task != "landmark":
        edits += [lambda s: tuple(map(reverse_step, s))]
        edits += [_undo_at(i) for i in range(len(steps))]
    if task == "direction":
        places = [i for i, step in enumerate(steps) if step in inside and len(set(pool) - {step})]
        edits += [_exchange_at(i, steps[i], rng.choice(sorted(set(pool) - {steps[i]}))) for i in places]
    else:
        edits += [_exchange(a, b) for i, a in enumerate(inside) for b in inside[:i]]
        outside = sorted(set(pool) - set(steps) - set(map(reverse_step, steps)))
        edits += [_exchange(a, rng.choice(outside)) for a in inside if outside]
    return edits


def orbit(
    steps: Sequence[str], task: str, way: str, rng: random.Random, pool: Sequence[str] = ()
) -> tuple[tuple[str, ...], ...]:
    """Make up to four lists {x, e1 x, e2 x, e1 e2 x} by two commuting reversible edits, the given list first.

    Any of the four could be the truth as well as any other, so the texts alone do not give the answer away.
    Fewer than four come back where no two edits commute; `pool` holds the steps of other videos.

    >>> orbit(("turn left", "go straight"), "direction", "forward", random.Random(0))[0]
    ('turn left', 'go straight')
    """
    x = tuple(steps)
    edits = _edits(x, task, way, pool, rng)
    rng.shuffle(edits)
    best: tuple[tuple[str, ...], ...] = (x,)
    for i, first in enumerate(edits):
        for second in edits[:i]:
            four = (x, first(x), second(x), second(first(x)))
            if len(set(four)) == 4 and four[3] == first(second(x)) and first(four[1]) == x == second(four[2]):
                return four
            best = max(best, tuple(dict.fromkeys(four[:3])), key=len)
    return best
