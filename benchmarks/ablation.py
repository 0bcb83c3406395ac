"""The paper's experiment in miniature: recipes × seeds on training walks, judged on walks that nothing has seen.

    python benchmarks/ablation.py dev                       # tuning: one seed, dev walks
    python benchmarks/ablation.py final                     # the experiment; resumes; `make ablation`
    python benchmarks/ablation.py final --arms st-r1 sft-grpo --seeds 0 1
    python benchmarks/ablation.py follow                    # SFT until chains follow their recipe; walks of its own
    python benchmarks/ablation.py report                    # tables and pictures from the records that are there

Every run is a folder work/ablation/<walks>/<arm>-<seed>/ with adapters, logs and records; benchmarks/ablation/ keeps its
records without the replies, and what stands there is not run again.
"""

import argparse
import gzip
import json
import os
import sys
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import fmean, stdev

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sample_data import walks  # noqa: E402
from stlite.data.sample import write_text  # noqa: E402
from stlite.data.splits import check_overlap, leave_part_out  # noqa: E402
from stlite.eval import comparisons, metrics, render  # noqa: E402
from stlite.eval.evaluate import evaluate  # noqa: E402
from stlite.rewards.parse import parse  # noqa: E402
from stlite.viz import plots  # noqa: E402

DATA, WORK, KEPT = (
    ROOT / "sample_data",
    ROOT / "work" / "ablation",
    ROOT / "benchmarks" / "ablation",
)
LEFT_OUT = ("reply", "explanation", "seconds", "key")
ARMS = {  # recipe of SFT or none, rewards of GRPO or none, rows, parts left out of training
    "base": (None, None, 0, ()),
    "sft": ("label", None, 252, ()),
    "st-cot": ("st-cot", None, 252, ()),
    "sft-grpo": ("label", "st-r1", 252, ()),
    "st-r1": ("st-cot", "st-r1", 252, ()),
    "st-r1-reverse": ("st-cot", "st-r1-reverse", 252, ()),
    "grpo": (None, "st-r1", 252, ()),
    "forward-cot": ("forward-cot", "st-r1", 252, ()),
    "st-r1-63": ("st-cot", "st-r1", 63, ()),
    "st-r1-630": ("st-cot", "st-r1", 630, ()),
    "sft-grpo-unseen": ("label", "st-r1", 252, ("part1", "part2")),
    "st-r1-unseen": ("st-cot", "st-r1", 252, ("part1", "part2")),
}
LONGER = {  # the follow-up: SFT goes on until chains think the way they were taught
    "st-cot-long": ("st-cot", None, 630, ()),
    "st-r1-long": ("st-cot", "st-r1", 630, ()),
    "forward-sft-long": ("forward-cot", None, 630, ()),
    "forward-cot-long": ("forward-cot", "st-r1", 630, ()),
}
LONG = {"num_train_epochs": 6, "learning_rate": 1e-3}
SEEDS = {"sft-grpo": range(5), "st-r1": range(5), "base": range(1)}  # three for the rest
SFT = {
    "num_train_epochs": 2,
    "learning_rate": 5e-4,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
}
GRPO = {
    "max_steps": 80, "learning_rate": 1e-4, "num_generations": 8, "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 1, "max_completion_length": 64,
}  # fmt: skip
FIRST = {**walks.SEEDS, "follow": 400_000}
COUNT = {"dev": 32, "final": 272, "follow": 272}  # walks, the parts in turn
TOKENS = 96
COMPARED = (("sft-grpo", "st-r1"), ("forward-cot", "st-r1"), ("st-cot", "st-r1"), ("base", "st-r1"), ("grpo", "st-r1"),
            ("st-r1", "st-r1-reverse"), ("sft-grpo-unseen", "st-r1-unseen"), ("forward-cot-long", "st-r1-long"),
            ("st-cot-long", "st-r1-long"), ("forward-sft-long", "st-cot-long"))  # fmt: skip
UNSEEN = ("base", "sft-grpo-unseen", "st-r1-unseen", "st-r1")
REWARDED = ("sft-grpo", "st-r1", "st-r1-reverse", "grpo", "forward-cot")
LADDER = {"st-r1-63": 63, "st-r1": 252, "st-r1-630": 630}
PAPER = {  # accuracies (%) read off Figure 1: direction, landmark, action, each forward and reverse; their mean
    "base": (51.9, 61.7, 69.3, 67.3, 75.8, 77.0, 67.2),
    "label SFT": (53.5, 61, 70, 66, 76, 78, 67.5),
    "ST-CoT": (47.7, 48.2, 52.5, 56.2, 59.7, 61.7, 54.3),
    "label SFT + GRPO": (76.7, 84.0, 84.2, 84.7, 80.9, 81.7, 82.0),
    "ST-R1": (82.3, 85.8, 88.3, 86.1, 89.3, 87.6, 86.6),
}
PAPER_NAMES = {
    "base": "base",
    "sft": "label SFT",
    "st-cot": "ST-CoT",
    "sft-grpo": "label SFT + GRPO",
    "st-r1": "ST-R1",
}


def draw(first: int, count: int) -> list:
    """Draw and render walks of a seed range that no training and no shipped file uses; return their samples."""
    made = []
    for i in range(count):
        walk = walks.draw(first + i, 1 + i % 4, "test")
        path = WORK / "videos" / f"{walk['id']}.mp4"
        if not path.exists():
            walks.write_video(walk, path)
        made += walks.samples(walk, path.name, seed=i)
    return made


def training(rows: int, left_out: tuple[str, ...]) -> list:
    """Read the shipped training rows, without the parts left out."""
    from stlite.data.egost import read_rows

    kept = list(
        read_rows(
            DATA / "train" / f"total_test_mcq_{630 if left_out else rows}.jsonl",
            videos=DATA / "videos",
        )
    )
    return (leave_part_out(kept, *left_out)[0] if left_out else kept)[:rows]


def keep(records: list[dict], path: Path) -> list[dict]:
    """Write records without the replies, gzipped and the same for the same run; return them."""
    kept = [{k: v for k, v in r.items() if k not in LEFT_OUT} for r in records]
    for row, record in zip(kept, records):
        if "reply" in record:
            row["thought"] = parse(record["reply"]).way
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".part").write_bytes(
        gzip.compress("\n".join(map(json.dumps, kept)).encode(), mtime=0)
    )
    path.with_suffix(".part").replace(path)
    return kept


def kept(path: Path) -> list[dict]:
    """Read the records of a run that `keep` wrote."""
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def run(arm: str, seed: int, which: str, samples: list) -> list[dict]:
    """Train one arm with one seed and evaluate it, unless its records are kept."""
    done = KEPT / which / f"{arm}-{seed}.jsonl.gz"
    if done.exists():
        return kept(done)
    from stlite.train.generation import generate
    from stlite.train.grpo import grpo
    from stlite.train.models import load
    from stlite.train.sft import sft

    recipe, rewards, rows, left_out = {**ARMS, **LONGER}[arm]
    teaching = SFT | (LONG if arm in LONGER else {})
    long = "-long" if arm in LONGER else ""
    out, chosen = WORK / which / f"{arm}-{seed}", training(rows, left_out) if rows else []
    check_overlap(chosen, samples)
    stage = {
        "sft": WORK
        / "sft"
        / f"{recipe}-{rows}-{'without-' if left_out else ''}{'-'.join(left_out)}-{seed}{long}",
        "grpo": out,
    }
    adapter = None
    if recipe:
        if not (stage["sft"] / "train.json").exists():
            sft(
                *load("tiny"),
                chosen,
                stage["sft"],
                videos=DATA / "videos",
                recipe=recipe,
                seed=seed,
                disable_tqdm=True,
                **teaching,
            )
        adapter = stage["sft"] / "adapter"
    if rewards:
        if not (out / "train.json").exists():
            how = {"rewards": rewards, "seed": seed, "disable_tqdm": True, **GRPO}
            grpo(*load("tiny", adapter=adapter), chosen, out, videos=DATA / "videos", **how)
        adapter = out / "adapter"
    model, processor = load("tiny", adapter=adapter)
    ask = partial(generate, model, processor, videos=WORK / "videos", max_new_tokens=TOKENS)
    settings = {"arm": arm, "training_seed": seed, "sft": teaching, "grpo": GRPO, "tokens": TOKENS}
    records = evaluate(samples, ask, out, settings=settings, batch=48, progress=False)
    if rewards:
        steps = [r for r in json.loads((out / "log.json").read_text()) if "reward" in r]
        shown = ("step", "reward", "reward_std", "completions/mean_length")
        curve = [
            {k: v for k, v in r.items() if k in shown or k.endswith("_reward/mean")} for r in steps
        ]
        keep(curve, KEPT / which / "curves" / done.name)
    if seed == 0 and arm in ARMS:
        choices = [s for s in samples if s.kind == "choice"]
        for order in ("blank", "shuffled") if arm in ("base", "st-r1", "sft-grpo") else ("blank",):
            how = {"settings": settings, "batch": 48, "order": order, "progress": False}
            keep(evaluate(choices, ask, out / order, **how), KEPT / which / order / done.name)
    return keep(records, done)


def pooled(which: str, arm: str, folder: str = "") -> list[dict]:
    """Average the records of an arm over its seeds, question by question."""
    files = sorted((KEPT / which / folder).glob(f"{arm}-[0-9].jsonl.gz"))
    runs = [kept(path) for path in files]
    mean = (
        {r["id"]: sum(run[i]["value"] for run in runs) / len(runs) for i, r in enumerate(runs[0])}
        if runs
        else {}
    )
    return [r | {"value": mean[r["id"]]} for r in runs[0]] if runs else []


def main() -> None:
    """Run the arms asked for, then write what the records say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", choices=("dev", "final", "follow", "report"))
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, *LONGER])
    parser.add_argument("--seeds", nargs="+", type=int)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    if args.which != "report":
        samples = draw(FIRST[args.which], COUNT[args.which])
        samples = [s for s in samples if s.kind == "choice"] if args.which == "follow" else samples
        for seed in range(5):
            for arm in args.arms or (LONGER if args.which == "follow" else ARMS):
                if seed in (
                    args.seeds or ([0] if args.which == "dev" else SEEDS.get(arm, range(3)))
                ):
                    records = [
                        r for r in run(arm, seed, args.which, samples) if r["kind"] == "choice"
                    ]
                    print(
                        arm,
                        seed,
                        f"{sum(r['value'] for r in records) / len(records):.3f}",
                        flush=True,
                    )
    which = "final" if args.which == "report" else args.which
    runs = {arm: rows for arm in (*ARMS, *LONGER) if (rows := pooled(which, arm))}
    made = {
        "title": f"Recipes on {which} walks",
        "notes": notes(runs),
        "tables": tables(runs, which),
    }
    if args.which == "report":
        longer = {arm: rows for arm in LONGER if (rows := pooled("follow", arm))}
        made["tables"] |= {
            f"Follow-up: {name}": rows for name, rows in tables(longer, "follow").items()
        }
        render.save(made, ROOT / "benchmarks" / "ablation.md")
        write_text(ROOT / "benchmarks" / "ablation.json", render.json(made))
        for name, figure in pictures(runs, which).items():
            plots.save(figure, KEPT / f"{name}.png")
    print(render.text(made))


def notes(runs: dict) -> list[str]:
    """Say how the records came about."""
    first = choices(next(iter(runs.values())))
    return [
        "Commands: python benchmarks/ablation.py final, follow, report",
        f"{len(first)} choice questions of {len({r['group'] for r in first})} walks; values are means over the seeds of "
        "a recipe, question by question, and intervals go by walk: they hold for other walks, the seeds being these; how "
        "far seeds differ stands in the table of seeds.",
        f"SFT {json.dumps(SFT)}; GRPO {json.dumps(GRPO)}; replies of at most {TOKENS} tokens, greedy",
    ]


def choices(records: list[dict]) -> list[dict]:
    """Keep the choice questions."""
    return [r for r in records if r["kind"] == "choice"]


def mean(records: list[dict]) -> tuple[float, float, float]:
    """Return the mean over the choice tasks with its interval (0 to 1)."""
    row = metrics.accuracy_table(choices(records))[-1]
    return row["accuracy"], row["low"], row["high"]


def seeds(runs: dict, which: str) -> list[dict]:
    """Set the mean of choices of every seed side by side, a row per recipe."""
    rows = []
    for arm in runs:
        found = [
            mean(kept(path))[0] for path in sorted((KEPT / which).glob(f"{arm}-[0-9].jsonl.gz"))
        ]
        row = {
            "recipe": arm,
            "seeds": len(found),
            "mean": fmean(found),
            "sd": stdev(found) if len(found) > 1 else None,
        }
        rows.append(row | {f"seed {i}": value for i, value in enumerate(found)})
    return rows


def beside_paper(runs: dict) -> list[dict]:
    """Set accuracy by task and way beside what the paper's Figure 1 shows (Qwen2-VL-7B on real videos; about ±1)."""
    rows = []
    for arm, name in PAPER_NAMES.items():
        if arm in runs:
            found = {
                f"{task} {way}": value[0]
                for (task, way), value in metrics.accuracy_by_task(choices(runs[arm])).items()
            }
            rows.append({"recipe": arm, "of": "here"} | found | {"mean": mean(runs[arm])[0]})
            rows.append(
                {"recipe": name, "of": "the paper"}
                | {k: v / 100 for k, v in zip([*found, "mean"], PAPER[name])}
            )
    return rows


def parts(records: list[dict], *names: str) -> list[dict]:
    """Keep the records of some parts."""
    return [r for r in records if r["part"] in names]


def tables(runs: dict, which: str) -> dict:
    """Gather the tables: recipes beside one another and the paper, differences, gap, unseen parts, blind, routes."""
    if not runs:
        return {}
    made = {
        "Recipes": comparisons.compare_to_baseline(runs),
        "Seeds": seeds(runs, which),
        "Beside the paper": beside_paper(runs),
    }
    by_task = {arm: metrics.accuracy_by_task(choices(rows)) for arm, rows in runs.items()}
    made["By task and way"] = [
        {"recipe": arm} | {f"{task} {way}": value[0] for (task, way), value in cells.items()}
        for arm, cells in by_task.items()
    ]
    for a, b in COMPARED:
        if a in runs and b in runs:
            made[f"{b} minus {a}"] = comparisons.paired_differences(
                [*zip(choices(runs[a]), choices(runs[b]))]
            )
    unseen = {arm: parts(choices(runs[arm]), "part1", "part2") for arm in UNSEEN if arm in runs}
    if len(unseen) > 1:
        made["Trained without parts 1 and 2, asked about them"] = comparisons.compare_to_baseline(
            unseen
        )
    every = {
        arm: chain(*map(kept, sorted((KEPT / which).glob(f"{arm}-[0-9].jsonl.gz")))) for arm in runs
    }
    made["Thinking first"] = [
        {"recipe": arm} | row for arm, rows in every.items() for row in metrics.thinking(rows)
    ]
    made["Forward minus reverse"] = [
        {"recipe": arm} | row
        for arm, rows in runs.items()
        for row in metrics.forward_reverse_gap(rows)
    ]
    for order in ("blank", "shuffled"):
        found = {arm: rows for arm in runs if (rows := pooled(which, arm, order))}
        made[f"Frames {order} (seed 0)"] = [shown(which, arm, rows) for arm, rows in found.items()]
        for arm, rows in found.items() if order == "shuffled" else ():
            made[f"{arm}: in order minus shuffled"] = comparisons.paired_differences(
                [*zip(rows, choices(seeing(which, arm)))]
            )[-1:]
    made["Routes"] = [
        {"recipe": arm} | row for arm, rows in runs.items() for row in metrics.routes(rows)
    ]
    return {name: rows for name, rows in made.items() if rows}


def shown(which: str, arm: str, rows: list[dict]) -> dict:
    """Say how a recipe answers frames shown otherwise: all replies, and those that name one option, beside frames in order."""
    read = [r for r in rows if r["reason"] in ("right", "wrong")]
    found = {
        "recipe": arm,
        **dict(zip(("accuracy", "low", "high"), mean(rows))),
        "read": len(read) / len(rows),
    }
    found |= dict(zip(("of those read", "from", "to"), mean(read)))
    return found | {"in order": mean(seeing(which, arm))[0]}


def seeing(which: str, arm: str) -> list[dict]:
    """Read the records of a recipe's first seed."""
    return kept(KEPT / which / f"{arm}-0.jsonl.gz")


def pictures(runs: dict, which: str) -> dict:
    """Draw the paper's Figure 1 anew: radar, ladder with bands, gap, unseen parts, what was shown, reward curves."""
    cells = {arm: metrics.accuracy_by_task(choices(rows)) for arm, rows in runs.items()}
    main = [arm for arm in PAPER_NAMES if arm in runs]
    made = {"radar": plots.radar({arm: cells[arm] for arm in main})}
    made["recipes"] = plots.bars(
        {"mean of choices": {arm: mean(rows) for arm, rows in runs.items()}}, chance=0.25
    )
    made["gap"] = plots.gap(
        {
            a: {
                r["task"]: (r["gap"], r["low"], r["high"])
                for r in metrics.forward_reverse_gap(runs[a])
            }
            for a in main
        }
    )
    made["ladder"] = plots.ladder(
        {"ST-R1": {rows: mean(runs[arm]) for arm, rows in LADDER.items() if arm in runs}}
    )
    out = {a: {"unseen parts": mean(parts(runs[a], "part1", "part2")), "seen parts": mean(parts(runs[a], "part3", "part4"))}
           for a in UNSEEN if a in runs}  # fmt: skip
    made["unseen"] = plots.bars(out, chance=0.25)
    shown = {}
    for arm in ("base", "sft-grpo", "st-r1"):
        if arm in runs:
            orders = {"in order": seeing(which, arm)} | {
                o: pooled(which, arm, o) for o in ("shuffled", "blank")
            }
            shown[arm] = {order: mean(records) for order, records in orders.items() if records}
    made["shown"] = plots.audit(shown, chance=0.25)
    logs = {
        arm: [kept(p) for p in sorted((KEPT / which / "curves").glob(f"{arm}-[0-9].jsonl.gz"))]
        for arm in list(runs)[:8]
    }
    made["curves"] = plots.bands(
        {arm: accuracies(runs_) for arm, runs_ in logs.items() if runs_},
        "GRPO step",
        "accuracy reward (%)",
    )
    return made


def accuracies(logs: list[list[dict]], window: int = 8) -> dict[int, tuple[float, float, float]]:
    """Average the accuracy reward over seeds and over windows of steps: {step: (mean, lowest, highest seed)}."""
    columns = [[row["rewards/accuracy_reward/mean"] for row in log] for log in logs]
    found = {}
    for start in range(0, min(map(len, columns)), window):
        values = [fmean(column[start : start + window]) for column in columns]
        found[start + window] = (fmean(values), min(values), max(values))
    return found


if __name__ == "__main__":
    main()
