"""Does it help to think the other way first? One model, one question, two begun replies: the path there, or the path back.

    python benchmarks/prefix_intervention.py --adapters work/ablation     # the adapters that `ablation.py final` left, or base alone

Each reply is begun with "<think>Let's start by thinking forward" or "... reverse" and the model goes on by itself, so
that nothing else differs. The walks are those of the follow-up. Keeps records without the replies in
benchmarks/ablation/forced/ and writes benchmarks/prefix_intervention.md and .json from all that are there.
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parent))

import ablation

from stlite.data.sample import WAYS, write_text
from stlite.eval import comparisons, metrics, render

KEPT = ablation.KEPT / "forced"
MODELS = {"base": (), "st-r1": range(3)}


def start(first: str, sample) -> str:
    """Begin a reply that thinks of one way first."""
    return f"<think>Let's start by thinking {first}"


def run(name: str, adapter: Path | None, samples: list) -> None:
    """Ask every question twice, unless both records are kept."""
    from stlite.eval.evaluate import evaluate
    from stlite.eval.run_folder import fingerprint
    from stlite.train.generation import generate
    from stlite.train.models import load

    missing = [way for way in WAYS if not (KEPT / way / f"{name}.jsonl.gz").exists()]
    model, processor = load("tiny", adapter=adapter) if missing else (None, None)
    for way in missing:
        ask = partial(
            generate,
            model,
            processor,
            videos=ablation.WORK / "videos",
            max_new_tokens=ablation.TOKENS,
        )
        settings = {"first": way, "adapter": adapter and fingerprint(adapter)}
        out = ablation.WORK / "forced" / f"{name}-{way}"
        found = evaluate(
            samples,
            partial(ask, start=partial(start, way)),
            out,
            settings=settings,
            batch=48,
            progress=False,
        )
        ablation.keep(found, KEPT / way / f"{name}.jsonl.gz")


def pooled(name: str, first) -> list[dict]:
    """Average the seeds of a recipe, question by question; `first` tells which begun reply counts, by the way asked."""
    runs = []
    for path in sorted((KEPT / WAYS[0]).glob(f"{name}*.jsonl.gz")):
        if not (KEPT / WAYS[1] / path.name).exists():
            continue
        records = {way: ablation.kept(KEPT / way / path.name) for way in WAYS}
        runs.append([records[first(r["way"])][i] for i, r in enumerate(records[WAYS[0]])])
    return [rows[0] | {"value": fmean(r["value"] for r in rows)} for rows in zip(*runs)]


def tables() -> dict:
    """For each recipe and way asked: accuracy when the other way is thought first, when the same is, and the difference."""
    rows = []
    other = {"forward": "reverse", "reverse": "forward"}
    for name in MODELS:
        turned, same = pooled(name, other.get), pooled(name, str)
        for asked in (*WAYS, "both") if turned else ():
            pairs = [(a, b) for a, b in zip(same, turned) if asked in (a["way"], "both")]
            found = comparisons.paired_differences(pairs)[-1]
            row = {"recipe": name, "asked": asked, "n": found["n"]}
            row |= {"same way": metrics.accuracy_table([a for a, _ in pairs])[-1]["accuracy"]}
            row |= {"other way": metrics.accuracy_table([b for _, b in pairs])[-1]["accuracy"]}
            rows.append(
                row | {k: found[k] for k in ("difference", "low", "high", "p", "min_detectable")}
            )
    return {"The other way first, or the same": rows}


def main() -> None:
    """Ask what is not kept yet, then write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapters", type=Path, help="the folder that ablation.py worked in")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    samples = [
        s
        for s in ablation.draw(ablation.FIRST["follow"], ablation.COUNT["follow"])
        if s.kind == "choice"
    ]
    for name in args.models:
        for seed in MODELS[name] if args.adapters else ():
            stage = (
                ("sft", f"st-cot-252--{seed}") if name == "st-cot" else ("final", f"{name}-{seed}")
            )
            run(f"{name}-{seed}", args.adapters.joinpath(*stage, "adapter"), samples)
        if not MODELS[name]:
            run(name, None, samples)
    notes = ["Command: python benchmarks/prefix_intervention.py --adapters work/ablation",
             "Each reply is begun with a way and goes on by itself; means over the seeds of a recipe, intervals by walk."]  # fmt: skip
    made = {"title": "Thinking the other way first, forced", "notes": notes, "tables": tables()}
    print(render.text(made))
    render.save(made, ablation.ROOT / "benchmarks" / "prefix_intervention.md")
    write_text(ablation.ROOT / "benchmarks" / "prefix_intervention.json", render.json(made))


if __name__ == "__main__":
    main()
