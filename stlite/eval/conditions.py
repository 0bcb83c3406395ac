"""Was the video looked at, and was its order used? Audits that ask again under changed conditions.

"The model answers 72.8 % [67.8, 77.5] right, chance 25.0 %. With blank frames it loses 45.0 points
[-51.2, -38.1], 27.8 % against 72.8 %: it looks at the video. ..."
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import starmap
from pathlib import Path

from stlite.data.sample import LETTERS, Sample
from stlite.eval.comparisons import compare_to_baseline
from stlite.eval.evaluate import evaluate
from stlite.eval.metrics import accuracy_table, choices_of
from stlite.eval.query import Generate
from stlite.eval.records import by_id
from stlite.eval.sentences import percent
from stlite.eval.statistics import Records

CLAIMS = {
    "blank": ("blank frames", "looks at the video"),
    "single": ("a single frame", "uses more than one frame"),
    "shuffled": ("shuffled frames", "uses their order"),
    "reversed": ("reversed frames", "tells the direction of time"),
}


def arrow_of_time(samples, generate: Generate, out, records: Records, **options) -> dict:
    """Ask with blank frames, one alone, shuffled and reversed ones; a report with its verdict.

    `records` are those of the frames in order. Runs go to folders under `out`, `options` to
    `evaluate`.
    """
    samples = _choices(samples)
    runs = {"forward": _records_of(samples, records)}
    for order in CLAIMS:
        runs[order] = evaluate(samples, generate, Path(out) / order, order=order, **options)
    rows = compare_to_baseline(runs)
    return {"title": "Arrow of time", "notes": [verdict(rows)], "tables": {"Arrow of time": rows}}


def direct_answer(samples, direct: Generate, out, records: Records, **options) -> dict:
    """Set answers without thinking, by `direct`, beside the `records` of thinking."""
    samples = _choices(samples)
    runs = {"thinking": _records_of(samples, records)}
    runs["direct"] = evaluate(samples, direct, out, **options)
    return _audit("Direct answer", runs, "Without thinking the model")


def frames(
    samples, make: Callable[[int], Generate], out, counts=(2, 4, 8, 16), settings=None, **options
) -> dict:
    """Ask with other numbers of frames; `make(count)` gives the function that generates."""
    samples = _choices(samples)
    runs = {}
    for n in counts:
        settings = (settings or {}) | {"frames": n}
        out_n = Path(out) / f"frames-{n}"
        runs[f"{n} frames"] = evaluate(samples, make(n), out_n, settings=settings, **options)
    return _audit("Number of frames", runs, f"From {counts[0]} to {counts[-1]} frames the model")


def rotate(sample: Sample, by: int) -> Sample:
    """Move the options of a choice sample on by `by` places, and its answer with them.

    >>> options = ("sit", "stand", "walk")
    >>> s = rotate(Sample("1", "a.mp4", "action", "forward", "What?", "A", options), 1)
    >>> s.options, s.answer, s.id
    (('walk', 'sit', 'stand'), 'B', '1@1')
    """
    n = len(sample.options)
    options = [sample.options[(i - by) % n] for i in range(n)]
    answer = LETTERS[(LETTERS.index(sample.answer) + by) % n]
    return replace(sample, id=f"{sample.id}@{by}", options=options, answer=answer, trace="")


def option_rotation(samples, generate: Generate, out, records: Records, **options) -> dict:
    """Ask each question with its options in every rotation: is a text chosen, or a letter?"""
    samples = _choices(samples)
    base = _records_of(samples, records)
    rotations = []
    for sample in samples:
        rotations += [(sample, by) for by in range(1, len(sample.options))]
    rotated = evaluate(starmap(rotate, rotations), generate, out, **options)

    chosen = defaultdict(set)  # by question: where the chosen options stood before they moved
    for sample, r in zip(samples, base):
        chosen[sample.id].add(_original_place(r, 0))
    for (sample, by), r in zip(rotations, rotated):
        chosen[sample.id].add(_original_place(r, by))

    constant = []
    for r in base:
        places = chosen[r["id"]]
        constant.append(r | {"value": float(len(places) == 1 and None not in places)})
    share = accuracy_table(constant)[-1]
    note = f"{percent(share)} of the questions (mean of tasks) get one option in every rotation."
    tables = {"By letter": _by_letter([*base, *rotated])}
    return {"title": "Option rotation", "notes": [note], "tables": tables}


def _original_place(r: dict, by: int) -> int | None:
    """Return where the chosen option stood before the options moved on; None without an answer."""
    if not r["answer"]:
        return None
    return (LETTERS.index(r["answer"]) - by) % len(r["options"])


def _by_letter(records: Records) -> list[dict]:
    """Say how often each letter was right, was chosen, and was chosen when right."""
    gold = Counter()
    chosen = Counter()
    right = Counter()
    for r in records:
        gold[r["gold"]] += 1
        chosen[r["answer"]] += 1
        right[r["gold"]] += bool(r["value"])
    rows = []
    for letter in sorted(gold):
        row = {"letter": letter, "gold": gold[letter] / len(records)}
        row |= {"chosen": chosen[letter] / len(records)}
        rows.append(row | {"accuracy": right[letter] / gold[letter]})
    return rows


def verdict(rows: Iterable[dict]) -> str:
    """Say what the rows of all orders show: does the model look, does it use order?"""
    by_run = {}
    for row in rows:
        by_run[row["run"]] = row
    forward = by_run["forward"]
    sentences = [
        f"The model answers {percent(forward)} right, chance {100 * forward['chance']:.1f} %."
    ]
    for name, (changed, claim) in CLAIMS.items():
        row = by_run[name]
        shown = row["to"] is not None and row["to"] < 0
        subject = "it" if shown else "nothing shows that it"
        sentences.append(f"With {changed} it {_effect(row)}: {subject} {claim}.")
    blank = by_run["blank"]
    if blank["low"] is not None and blank["low"] > blank["chance"]:
        sentences.append(
            "It is above chance on blank frames: the questions give some answers away."
        )
    return " ".join(sentences)


def _effect(row: dict) -> str:
    """Say how a run differs from the first."""
    change = 100 * row["difference"]
    accuracies = f"{100 * row['compared']:.1f} % against {100 * row['baseline']:.1f} %"
    if row["from"] is None:
        return f"changes by {change:+.1f} points, {accuracies}, on too few groups to tell"
    interval = f"[{100 * row['from']:+.1f}, {100 * row['to']:+.1f}]"
    if row["from"] <= 0 <= row["to"]:
        unseen = ""
        if row["min_detectable"] is not None:
            unseen = f" (less than {100 * row['min_detectable']:.1f} is easily missed)"
        changed = f"changes by {change:+.1f} points {interval}, {accuracies}"
        return f"{changed}, which may be nothing{unseen}"
    verb = "gains" if change > 0 else "loses"
    return f"{verb} {abs(change):.1f} points {interval}, {accuracies}"


def _choices(samples: Iterable[Sample]) -> list[Sample]:
    """Keep the choice questions."""
    return [s for s in samples if s.options]


def _records_of(samples: Iterable[Sample], records: Records) -> list[dict]:
    """Return the records of these samples; one that is missing raises KeyError with its id."""
    known = by_id(choices_of(records))
    return [known[s.id] for s in samples]


def _audit(title: str, runs: Mapping[str, Records], opening: str) -> dict:
    rows = compare_to_baseline(runs)
    return {"title": title, "notes": [f"{opening} {_effect(rows[-1])}."], "tables": {title: rows}}
