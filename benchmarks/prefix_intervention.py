"""Does it help to think the opposite way first? One model, one question, two begun replies.

    python benchmarks/prefix_intervention.py        # the base, and the ST-R1 adapters of reinforcement.py

Each reply is begun with "<think>Let's start by thinking forward" or "... reverse" and the model goes
on by itself, so that nothing else differs. The walks are those of `reinforcement.py`. Records stay,
without the replies, in benchmarks/reinforcement/prefix/, beside prefix_intervention.md and .json.
benchmarks/prefix_intervention.md is the table of version 0.1, made in the same way.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import reinforcement

from stlite.data.sample import WAYS, write_text
from stlite.eval import comparisons, metrics, render

KEPT = reinforcement.KEPT / "prefix"
OPPOSITE = {"forward": "reverse", "reverse": "forward"}
MODELS = ("base", "st-r1")
COLUMNS = ("difference", "low", "high", "p", "min_detectable")


def begin(way: str, sample) -> str:
    """Begin a reply that thinks of one way first."""
    return f"<think>Let's start by thinking {way}"


def run(name: str, adapter: Path | None, samples: list) -> None:
    """Ask every question with each beginning, unless the records are kept."""
    from stlite.eval.evaluate import evaluate
    from stlite.train.models import generate, load

    missing = [way for way in WAYS if not (KEPT / way / f"{name}.jsonl.gz").exists()]
    if not missing:
        return
    model, processor = load("tiny", adapter=adapter)
    videos = reinforcement.WORK / "videos"
    for way in missing:
        ask = partial(
            generate,
            model,
            processor,
            videos=videos,
            max_new_tokens=reinforcement.TOKENS,
            start=partial(begin, way),
        )
        out = reinforcement.WORK / "prefix" / f"{name}-{way}"
        how = {"batch": reinforcement.BATCH, "progress": False}
        records = evaluate(samples, ask, out, settings={"first": way, "model": name}, **how)
        reinforcement.keep(records, KEPT / way / f"{name}.jsonl.gz")


def by_beginning(name: str, beginning: dict[str, str]) -> list[dict]:
    """Average a model's seeds, taking for each way asked the replies with one beginning."""
    runs = []
    for path in sorted((KEPT / WAYS[0]).glob(f"{name}*.jsonl.gz")):
        records = {way: reinforcement.read_kept(KEPT / way / path.name) for way in WAYS}
        chosen = []
        for i, first in enumerate(records[WAYS[0]]):
            chosen.append(records[beginning[first["way"]]][i])
        runs.append(chosen)
    return reinforcement.pooled(runs)


def tables() -> dict:
    """Return, by model and way asked: accuracy with each beginning, and their difference."""
    rows = []
    for name in MODELS:
        opposite = by_beginning(name, OPPOSITE)
        same = by_beginning(name, {way: way for way in WAYS})
        for asked in (*WAYS, "both") if opposite else ():
            pairs = [(a, b) for a, b in zip(same, opposite) if asked in (a["way"], "both")]
            change = comparisons.paired_differences(pairs)[-1]
            row = {"model": name, "asked": asked, "n": change["n"]}
            row["same way"] = metrics.accuracy_table([a for a, _ in pairs])[-1]["accuracy"]
            row["opposite way"] = metrics.accuracy_table([b for _, b in pairs])[-1]["accuracy"]
            rows.append(row | {column: change[column] for column in COLUMNS})
    return {"The opposite way first, or the same": rows}


def main() -> None:
    """Ask what is not kept yet, then write the tables."""
    samples = reinforcement.draw_questions()
    run("base", None, samples)
    for out in sorted(reinforcement.WORK.glob("st-r1-[0-9]")):
        run(out.name, out / "adapter", samples)
    notes = [
        "Command: python benchmarks/prefix_intervention.py",
        "Each reply is begun with a way and goes on by itself; means over the seeds of a model, "
        "intervals by walk.",
    ]
    made = {"title": "Made to think one way first", "notes": notes, "tables": tables()}
    print(render.text(made))
    render.save(made, reinforcement.KEPT / "prefix_intervention.md")
    write_text(reinforcement.KEPT / "prefix_intervention.json", render.json(made))


if __name__ == "__main__":
    main()
