"""Lists of steps and the rules of walking back.

`["turn left", "go straight"]` walked back is `["turn around", "go straight", "turn right"]`;
landmarks come in the opposite order; actions come in the opposite order, each undone.
"""

import random
import re
from collections.abc import Callable, Sequence

AROUND = "turn around"
OPPOSITES = (
    "left|right, open|close, pick up|put down, switch on|switch off, turn on|turn off, raise|lower, enter|leave, "
    "go up|go down, push|pull, take|return, lock|unlock, stand up|sit down"
)
SWAP = {
    a: b
    for pair in (both.split("|") for both in OPPOSITES.split(", "))
    for a, b in (pair, pair[::-1])
}
SWAP_PATTERN = re.compile(r"\b(" + "|".join(sorted(SWAP, key=len, reverse=True)) + r")\b", re.I)
TURNED_ROUND = re.compile(r"^\s*(?:please\s+)?(turn (a?round|back)|make a u-turn|go back)\b", re.I)

QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")

Steps = tuple[str, ...]
Edit = Callable[[Sequence[str]], Steps]


def quoted_steps(text: str) -> Steps:
    """Read the quoted texts of a printed Python list.

    >>> quoted_steps("['turn left', 'go straight']")
    ('turn left', 'go straight')
    """
    return tuple(step for a, b in QUOTED.findall(text) if (step := (a or b).strip()))


def reverse_step(step: str) -> str:
    """Undo one step: left and right change places, open becomes close, pick up becomes put down.

    >>> reverse_step("turn left"), reverse_step("pick up the box"), reverse_step("go straight")
    ('turn right', 'put down the box', 'go straight')
    """

    def swapped(match: re.Match) -> str:
        word = SWAP[match[0].lower()]
        return word.capitalize() if match[0][0].isupper() else word

    return SWAP_PATTERN.sub(swapped, step)


def reverse_path(steps: Sequence[str], task: str, way: str = "forward") -> Steps:
    """Walk a list of steps back; `way` is the way the given steps run (paper section 3).

    >>> reverse_path(("turn around", "go straight", "turn right"), "direction", "reverse")
    ('turn left', 'go straight')
    """
    if task == "landmark":
        return tuple(reversed(steps))
    undone = tuple(map(reverse_step, reversed(steps)))
    if task == "action":
        return undone
    if way == "forward":
        return (AROUND, *undone)
    return undone[:-1] if steps and TURNED_ROUND.match(steps[0]) else undone


def naive_reversal(steps: Sequence[str], task: str, way: str) -> Steps:
    """List the same path as it runs the other way, the turn at the start of a way back kept in its place."""
    head = int(
        task == "direction"
        and way == "reverse"
        and bool(steps)
        and bool(TURNED_ROUND.match(steps[0]))
    )
    return (*steps[:head], *reverse_path(steps[head:], "action" if task == "direction" else task))


def _undo(at: int | None = None) -> Edit:
    """Undo one step, or all of them."""
    return lambda steps: tuple(
        reverse_step(s) if at in (None, i) else s for i, s in enumerate(steps)
    )


def _exchange(a: str, b: str, at: int | None = None) -> Edit:
    labels = {a: b, b: a}
    return lambda steps: tuple(
        labels.get(s, s) if at in (None, i) else s for i, s in enumerate(steps)
    )


def _edits(
    steps: Sequence[str], task: str, way: str, pool: Sequence[str], rng: random.Random
) -> list[Edit]:
    """Collect reversible edits of a list; which ones are offered does not tell the list from its edited forms."""
    edits: list[Edit] = [lambda s: naive_reversal(s, task, way)] * 2
    inside = [s for s in dict.fromkeys(steps) if not TURNED_ROUND.match(s)]
    if task != "landmark":
        edits += [_undo(), *map(_undo, range(len(steps)))]
    if task == "direction":
        places = [i for i, step in enumerate(steps) if step in inside and len(set(pool) - {step})]
        edits += [
            _exchange(steps[i], rng.choice(sorted(set(pool) - {steps[i]})), i) for i in places
        ]
    else:
        edits += [_exchange(a, b) for i, a in enumerate(inside) for b in inside[:i]]
        outside = sorted(set(pool) - set(steps) - set(map(reverse_step, steps)))
        edits += [_exchange(a, rng.choice(outside)) for a in inside if outside]
    return edits


def make_distractors(
    steps: Sequence[str], task: str, way: str, rng: random.Random, pool: Sequence[str] = ()
) -> tuple[Steps, ...]:
    """Make up to four lists {x, e1 x, e2 x, e1 e2 x} by two commuting reversible edits, the given list first.

    Any of the four could be the truth as well as any other, so the texts alone do not give the answer away.
    Fewer than four come back where no two edits commute; `pool` holds the steps of other videos.
    """
    x = tuple(steps)
    edits = _edits(x, task, way, pool, rng)
    rng.shuffle(edits)
    best: tuple[Steps, ...] = (x,)
    for i, first in enumerate(edits):
        for second in edits[:i]:
            four = (x, first(x), second(x), second(first(x)))
            if (
                len(set(four)) == 4
                and four[3] == first(second(x))
                and first(four[1]) == x == second(four[2])
            ):
                return four
            best = max(best, tuple(dict.fromkeys(four[:3])), key=len)
    return best
