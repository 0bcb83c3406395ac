"""A chain of thought beside the annotated path: which of its steps are right, misplaced, missing or invented.

>>> align_steps(["turn left", "enter the hall", "turn right"], ["turn left", "go straight", "turn right"])
[('right', 'turn left', 0), ('extra', 'enter the hall', None), ('missing', 'go straight', 1), ('right', 'turn right', 2)]
"""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from stlite.data.sample import WAYS, Sample
from stlite.rewards.choice import meaning
from stlite.rewards.parse import parse

STATES = {"right": "✓", "misplaced": "↔", "missing": "–", "extra": "+"}
LONGEST = 40  # steps of one path that are shown
NOT_REWARDS, NUMBER = ("step", "advantage", "tokens", "seconds"), (int, float, type(None))


def align_steps(said: Sequence[str], annotated: Sequence[str]) -> list[tuple[str, str, int | None]]:
    """Align the steps of a chain with the annotated ones: (state, text, index of the annotated step) in reading order.

    Steps are compared by meaning, as the rewards do. A longest common subsequence is right; an annotated step said
    elsewhere is misplaced; one never said is missing, at the place where it belongs; anything else is invented.
    """
    from rapidfuzz.distance import LCSseq

    a, b = (list(map(meaning, steps)) for steps in (said, annotated))
    equal = [op for op in LCSseq.opcodes(a, b) if op.tag == "equal"]
    right = {
        op.src_start + k: op.dest_start + k
        for op in equal
        for k in range(op.src_end - op.src_start)
    }
    left, cells = [j for j in range(len(b)) if j not in right.values()], []
    for i, step in enumerate(said):
        j = right.get(i, next((j for j in left if b[j] == a[i]), None))
        left = [k for k in left if k != j]
        cells.append(("right" if i in right else "extra" if j is None else "misplaced", step, j))
    for j in left:
        at = next((k for k, c in enumerate(cells) if c[0] == "right" and c[2] > j), len(cells))
        cells.insert(at, ("missing", annotated[j], j))
    return cells


def moments(sample: Sample, way: str, duration: float) -> list[float | None]:
    """Return when each annotated step of a way is in view, in seconds; None where that was not measured.

    The way back passes the same moments in the opposite order; a turn at its start happens at the end of the video.
    """
    steps = sample.steps_forward if way == "forward" else sample.steps_reverse
    times = list(sample.moments)
    if way == "reverse":
        times = [duration] * (len(steps) - len(times) == 1) + times[::-1]
    return times if len(times) == len(steps) and sample.moments else [None] * len(steps)


def tracks(sample: Sample, replies: Mapping[str, str], duration: float) -> list[dict]:
    """List the annotated paths, then the path each reply thinks of: name, way, thought, cells of state, text, second."""
    paths = {"forward": sample.steps_forward, "reverse": sample.steps_reverse}
    found = [
        (f"{way} path", way, False, [("", s, j) for j, s in enumerate(paths[way])]) for way in WAYS
    ]
    for name, reply in replies.items():
        thought = parse(reply)
        way = thought.way or sample.way
        cells = (
            align_steps(thought.steps, paths[way])
            if paths[way]
            else [("", s, None) for s in thought.steps]
        )
        found.append((f"{name} thought".strip(), way, True, cells if thought.steps else []))
    made = []
    for name, way, thought, cells in found:
        times = moments(sample, way, duration)
        shown = [
            {"state": s, "text": t, "second": None if j is None else times[j]}
            for s, t, j in cells[:LONGEST]
        ]
        if len(cells) > LONGEST:
            shown.append(
                {"state": "", "text": f"… and {len(cells) - LONGEST} more", "second": None}
            )
        made.append({"name": name, "way": way, "thought": thought, "cells": shown})
    return [lane for lane in made if lane["cells"]]


def group_tokens(rollouts: Sequence[Mapping]) -> list[dict]:
    """List the rollouts of one prompt: name, text, rewards by function, total, advantage (paper section 4), pieces.

    A rollout is a row of TRL's completions, or {"reply": text, "rewards": {name: value}, "advantage": value}. Pieces are
    the text cut up, each with whether it differs from the reply that earned most.

    >>> [round(r["advantage"], 2) for r in group_tokens([{"reply": "a", "accuracy": 1.0}, {"reply": "b", "accuracy": 0.0}])]
    [0.71, -0.71]
    """
    rows = []
    for i, r in enumerate(rollouts, 1):
        paid = r.get("rewards") or {
            k: v for k, v in r.items() if k not in NOT_REWARDS and isinstance(v, NUMBER)
        }
        paid = {k: None if v is None or math.isnan(v) else float(v) for k, v in paid.items()}
        row = {
            "name": str(i),
            "text": str(r.get("reply", r.get("completion", ""))),
            "rewards": paid,
        }
        rows.append(row | {"total": sum(v for v in paid.values() if v is not None)})
    totals = [row["total"] for row in rows]
    for row, r in zip(rows, rollouts):
        own = (row["total"] - fmean(totals)) / (1e-4 + (stdev(totals) if len(totals) > 1 else 0.0))
        row["advantage"] = float(r.get("advantage", own))
        row["pieces"] = changed_words(rows[totals.index(max(totals))]["text"], row["text"])
    return rows


def changed_words(a: str, b: str, most: int = 4000) -> list[tuple[str, bool]]:
    """Cut `b` into pieces: (text, whether it differs from `a`); what lies beyond `most` characters is not compared.

    >>> changed_words("go right now", "go left now")
    [('go', False), (' left', True), (' now', False)]
    """
    x, y = (re.findall(r"\s*\S+|\s+$", text[:most]) for text in (a, b))
    codes = difflib.SequenceMatcher(None, x, y, autojunk=False).get_opcodes()
    pieces = [("".join(y[j:k]), kind != "equal") for kind, _, _, j, k in codes if k > j]
    return pieces + [(b[most:], a[most:] != b[most:])] * (len(b) > most)
