"""Was the video looked at, and was its order used? Audits that ask again under changed conditions.

"The model answers 72.8 % [67.8, 77.5] right, chance 25.0 %. Blank frames cost 45.0 points [38.1, 51.2]: it looks.
Shuffled frames cost 20.3 points [14.0, 26.5]: it uses order."
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from stlite.data.sample import LETTERS, Sample
from stlite.eval.evaluate import Generate, evaluate
from stlite.eval.report import Records, accuracy_table, compare_to_baseline

CLAIMS = {
    "blank": ("blank frames", "looks at the video"),
    "single": ("a single frame", "uses more than one frame"),
    "shuffled": ("shuffled frames", "uses their order"),
    "reversed": ("reversed frames", "tells the direction of time"),
}


def arrow_of_time(samples, generate: Generate, out, records: Records, **options) -> dict:
    """Ask with blank frames, one alone, shuffled and reversed ones; a report that opens with the verdict.

    `records` are those of the frames in order. Runs go to folders under `out`, `options` to `evaluate`.
    """
    samples, base = _choices(samples, records)
    runs = {
        order: evaluate(samples, generate, Path(out) / order, order=order, **options)
        for order in CLAIMS
    }
    rows = compare_to_baseline({"forward": base, **runs})
    return {"title": "Arrow of time", "notes": [verdict(rows)], "tables": {"Arrow of time": rows}}


def direct_answer(samples, direct: Generate, out, records: Records, **options) -> dict:
    """Set answers without thinking, by a `direct` that asks for them, beside the `records` of thinking."""
    samples, base = _choices(samples, records)
    runs = {"thinking": base, "direct": evaluate(samples, direct, out, **options)}
    return _audit("Direct answer", runs, "Without thinking the model")


def frames(
    samples, make: Callable[[int], Generate], out, counts=(2, 4, 8, 16), settings=None, **options
) -> dict:
    """Ask with other numbers of frames; `make(count)`, called just before its use, gives the function that generates."""
    samples, runs = [s for s in samples if s.kind == "choice"], {}
    for n in counts:
        options["settings"] = (settings or {}) | {"frames": n}
        runs[f"{n} frames"] = evaluate(samples, make(n), Path(out) / f"frames-{n}", **options)
    return _audit("Number of frames", runs, f"From {counts[0]} to {counts[-1]} frames the model")


def rotate(sample: Sample, by: int) -> Sample:
    """Move the options of a choice sample on by `by` places, and its answer with them.

    >>> s = rotate(Sample("1", "a.mp4", "action", "forward", "What?", "A", ("sit", "stand", "walk")), 1)
    >>> s.options, s.answer, s.id
    (('walk', 'sit', 'stand'), 'B', '1@1')
    """
    n, at = len(sample.options), LETTERS.index(sample.answer)
    options = tuple(sample.options[(i - by) % n] for i in range(n))
    return replace(
        sample, id=f"{sample.id}@{by}", options=options, answer=LETTERS[(at + by) % n], trace=""
    )


def option_rotation(samples, generate: Generate, out, records: Records, **options) -> dict:
    """Ask each question with its options in every rotation: does the model choose a text, or a letter?"""
    samples, base = _choices(samples, records)
    turns = [(s, by) for s in samples for by in range(1, len(s.options))]
    asked = [*base, *evaluate([rotate(s, by) for s, by in turns], generate, out, **options)]
    chosen = {
        s.id: set() for s in samples
    }  # where the option chosen stood before the options moved on
    for (sample, by), r in zip([*((s, 0) for s in samples), *turns], asked):
        chosen[sample.id].add(
            (LETTERS.index(r["answer"]) - by) % len(r["options"]) if r["answer"] else None
        )
    same = [
        r | {"value": float(len(chosen[r["id"]]) == 1 and None not in chosen[r["id"]])}
        for r in base
    ]
    share, low, high = (100 * accuracy_table(same)[-1][k] for k in ("accuracy", "low", "high"))
    note = f"{share:.1f} % [{low:.1f}, {high:.1f}] of the questions (mean of tasks) get one option in every rotation."
    return {"title": "Option rotation", "notes": [note], "tables": {"By letter": _by_letter(asked)}}


def _by_letter(records: Records) -> list[dict]:
    chosen, gold = (Counter(r[name] for r in records) for name in ("answer", "gold"))
    right, n = Counter(r["gold"] for r in records if r["value"]), len(records)
    names = ("letter", "gold", "chosen", "accuracy")
    return [
        dict(zip(names, (x, gold[x] / n, chosen[x] / n, right[x] / gold[x]))) for x in sorted(gold)
    ]


def verdict(rows: Iterable[dict]) -> str:
    """Say in plain words what the rows of all orders of frames show: does the model look, does it use order?"""
    rows = {row["run"]: row for row in rows}
    shares = {k: 100 * rows["forward"][k] for k in ("accuracy", "low", "high", "chance")}
    said = "The model answers {accuracy:.1f} % [{low:.1f}, {high:.1f}] right, chance {chance:.1f} %.".format(
        **shares
    )
    for name, (changed, claim) in CLAIMS.items():
        proof = "it" if rows[name]["to"] < 0 else "nothing shows that it"
        said += f" With {changed} it {_effect(rows[name])}: {proof} {claim}."
    if rows["blank"]["low"] > rows["blank"]["chance"]:
        said += " It is above chance on blank frames: the questions give some answers away."
    return said


def _effect(row: dict) -> str:
    change, low, high = (100 * row[k] for k in ("difference", "from", "to"))
    if low <= 0 <= high:
        unseen = f"less than {100 * row['min_detectable']:.1f} is easily missed"
        return f"changes by {change:+.1f} points [{low:+.1f}, {high:+.1f}], which may be nothing ({unseen})"
    return (
        f"{'gains' if change > 0 else 'loses'} {abs(change):.1f} points [{low:+.1f}, {high:+.1f}]"
    )


def _choices(samples: Iterable[Sample], records: Records) -> tuple[list[Sample], list[dict]]:
    """Keep the choice questions, and their records; one that is missing raises KeyError with its id."""
    choices, known = [s for s in samples if s.kind == "choice"], {r["id"]: r for r in records}
    return choices, [known[s.id] for s in choices]


def _audit(title: str, runs: Mapping[str, Records], said: str) -> dict:
    rows = compare_to_baseline(runs)
    return {"title": title, "notes": [f"{said} {_effect(rows[-1])}."], "tables": {title: rows}}
