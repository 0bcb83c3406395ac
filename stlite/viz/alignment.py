"""A chain of thought beside the annotated path: which steps are right, misplaced, missing or extra.

>>> cells = align_steps(["turn left", "enter the hall"], ["turn left", "go straight"])
>>> for cell in cells:
...     print(cell)
('right', 'turn left', 0)
('extra', 'enter the hall', None)
('missing', 'go straight', 1)
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from stlite.data.sample import WAYS, Sample
from stlite.rewards.parse import parse
from stlite.rewards.rewards import is_reward
from stlite.rewards.route import meaning

STATES = {"right": "✓", "misplaced": "↔", "missing": "–", "extra": "+"}
LONGEST = 40  # steps of one path that are shown

Cell = tuple[str, str, int | None]  # (state, text, index of the annotated step)


def align_steps(predicted: Sequence[str], annotated: Sequence[str]) -> list[Cell]:
    """Align the steps of a chain with the annotated ones, in reading order.

    Steps are compared by meaning, as the rewards do. A longest common subsequence is right.
    An annotated step written elsewhere is misplaced. One never written is missing, at the place
    where it belongs. Anything else is extra.
    """
    predicted_meanings = list(map(meaning, predicted))
    annotated_meanings = list(map(meaning, annotated))
    matched = _match(predicted_meanings, annotated_meanings)
    taken = set(matched.values())
    unmatched = [j for j in range(len(annotated)) if j not in taken]
    cells = []
    for i, step in enumerate(predicted):
        elsewhere = [j for j in unmatched if annotated_meanings[j] == predicted_meanings[i]]
        if i in matched:
            cells.append(("right", step, matched[i]))
        elif elsewhere:
            cells.append(("misplaced", step, elsewhere[0]))
            unmatched.remove(elsewhere[0])
        else:
            cells.append(("extra", step, None))
    for j in unmatched:
        cells.insert(_place(j, cells), ("missing", annotated[j], j))
    return cells


def _match(predicted: Sequence, annotated: Sequence) -> dict[int, int]:
    """Map the indices of a longest common subsequence, from predicted to annotated."""
    from rapidfuzz.distance import LCSseq

    matched = {}
    for op in LCSseq.opcodes(predicted, annotated):
        if op.tag == "equal":
            matched.update(zip(range(op.src_start, op.src_end), range(op.dest_start, op.dest_end)))
    return matched


def _place(missing: int, cells: Sequence[Cell]) -> int:
    """Return where a missing step belongs: before the first right step that comes after it."""
    for place, (state, _, index) in enumerate(cells):
        if state == "right" and index > missing:
            return place
    return len(cells)


def annotated_steps(sample: Sample, way: str) -> tuple[str, ...]:
    """Return the annotated steps of one way."""
    return sample.steps_forward if way == "forward" else sample.steps_reverse


def moments(sample: Sample, way: str, duration: float) -> list[float | None]:
    """Return when each annotated step of a way is in view, in seconds; None where nobody measured.

    The way back passes the same moments in the opposite order. A turn at its start happens at the
    end of the video.
    """
    steps = annotated_steps(sample, way)
    times = list(sample.moments)
    if way == "reverse":
        times.reverse()
        if times and len(steps) == len(times) + 1:
            times.insert(0, duration)
    if len(times) != len(steps):
        return [None] * len(steps)
    return times


def tracks(sample: Sample, replies: Mapping[str, str], duration: float) -> list[dict]:
    """List the annotated paths, then the path each reply thinks of.

    A track has its name, way, whether it is a thought, and cells of state, text and second.
    """
    rows = []
    for way in WAYS:
        cells = [("", step, j) for j, step in enumerate(annotated_steps(sample, way))]
        rows.append(_track(sample, f"{way} path", way, cells, duration))
    for name, text in replies.items():
        reply = parse(text)
        way = reply.way or sample.way
        cells = _thought_cells(reply.steps, annotated_steps(sample, way))
        row = _track(sample, f"{name} thought".strip(), way, cells, duration)
        rows.append(row | {"thought": True})
    return [row for row in rows if row["cells"]]


def _thought_cells(steps: Sequence[str], annotated: Sequence[str]) -> list[Cell]:
    if not steps:
        return []
    if not annotated:
        return [("", step, None) for step in steps]
    return align_steps(steps, annotated)


def _track(sample: Sample, name: str, way: str, cells: Sequence[Cell], duration: float) -> dict:
    times = moments(sample, way, duration)
    shown = []
    for state, text, index in cells[:LONGEST]:
        second = None if index is None else times[index]
        shown.append({"state": state, "text": text, "second": second})
    if len(cells) > LONGEST:
        rest = f"… and {len(cells) - LONGEST} more"
        shown.append({"state": "", "text": rest, "second": None})
    return {"name": name, "way": way, "thought": False, "cells": shown}


def group_tokens(rollouts: Sequence[Mapping]) -> list[dict]:
    """List the rollouts of one prompt: name, text, rewards by function, total, advantage.

    A rollout is a row of TRL's completions, or {"reply": text, "rewards": {name: value},
    "advantage": value}. The advantage is (reward − group mean) / group standard deviation (paper
    section 4).

    >>> rollouts = [{"reply": "a", "accuracy_reward": 1.0}, {"reply": "b", "accuracy_reward": 0.0}]
    >>> [round(row["advantage"], 2) for row in group_tokens(rollouts)]
    [0.71, -0.71]
    """
    rows = []
    for number, rollout in enumerate(rollouts, 1):
        rewards = _rewards(rollout)
        row = {"name": str(number), "text": _reply_text(rollout), "rewards": rewards}
        row["total"] = sum(value for value in rewards.values() if value is not None)
        rows.append(row)
    totals = [row["total"] for row in rows]
    spread = stdev(totals) if len(totals) > 1 else 0.0
    for row, rollout in zip(rows, rollouts):
        advantage = (row["total"] - fmean(totals)) / (spread + 1e-4)
        row["advantage"] = float(rollout.get("advantage", advantage))
    return rows


def _reply_text(rollout: Mapping) -> str:
    return str(rollout.get("reply", rollout.get("completion", "")))


def _rewards(rollout: Mapping) -> dict[str, float | None]:
    """Return the rewards of a rollout by function; None where an annotation is missing."""
    columns = rollout.get("rewards")
    if not columns:
        columns = {name: value for name, value in rollout.items() if is_reward(name)}
    rewards = {}
    for name, value in columns.items():
        absent = value is None or math.isnan(value)
        rewards[name] = None if absent else float(value)
    return rewards
