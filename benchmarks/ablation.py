"""The paper's experiment in miniature: recipes × seeds on training walks, judged on walks that nothing has seen.

    python benchmarks/ablation.py dev                       # tuning: one seed, dev walks
    python benchmarks/ablation.py final                     # the experiment; resumes; `make ablation`
    python benchmarks/ablation.py final --arms st-r1 sft-grpo --seeds 0 1
    python benchmarks/ablation.py report                    # tables from the records that are there

Every run is a folder work/ablation/<walks>/<arm>-<seed>/ with adapters, logs and records; benchmarks/ablation/ keeps its
records without the replies, and what stands there is not run again.
"""

import argparse
import gzip
import json
import os
import shlex
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stlite import report, walks  # noqa: E402
from stlite.evaluate import evaluate  # noqa: E402
from stlite.sample import write_text  # noqa: E402
from stlite.splits import check_overlap, leave_part_out  # noqa: E402

DATA, WORK, KEPT = ROOT / "sample_data", ROOT / "work" / "ablation", ROOT / "benchmarks" / "ablation"
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
COUNT = {"dev": 32, "final": 272}  # walks, the parts in turn
TOKENS = 96


def questions(which: str) -> list:
    """Draw and render the walks of a seed range that no training and no shipped file uses; return their samples."""
    made = []
    for i in range(COUNT[which]):
        walk = walks.draw(walks.SEEDS[which] + i, 1 + i % 4, "test")
        path = WORK / "videos" / f"{walk['id']}.mp4"
        if not path.exists():
            walks.write_video(walk, path)
        made += walks.samples(walk, path.name, seed=i)
    return made


def training(rows: int, left_out: tuple[str, ...]) -> list:
    """Read the shipped training rows, without the parts left out."""
    from stlite.egost import read_rows

    kept = list(read_rows(DATA / "train" / f"total_test_mcq_{630 if left_out else rows}.jsonl", videos=DATA / "videos"))
    return (leave_part_out(kept, *left_out)[0] if left_out else kept)[:rows]


def keep(records: list[dict], path: Path) -> list[dict]:
    """Write records without the replies, gzipped and the same for the same run; return them."""
    kept = [{k: v for k, v in r.items() if k not in LEFT_OUT} for r in records]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".part").write_bytes(gzip.compress("\n".join(map(json.dumps, kept)).encode(), mtime=0))
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
    from stlite.model import generate, load
    from stlite.train import grpo, sft

    recipe, rewards, rows, left_out = ARMS[arm]
    out, chosen = WORK / which / f"{arm}-{seed}", training(rows, left_out) if rows else []
    check_overlap(chosen, samples)
    stage = {
        "sft": WORK / "sft" / f"{recipe}-{rows}-{'without-' if left_out else ''}{'-'.join(left_out)}-{seed}",
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
                **SFT,
            )
        adapter = stage["sft"] / "adapter"
    if rewards:
        if not (out / "train.json").exists():
            how = {"rewards": rewards, "seed": seed, "disable_tqdm": True, **GRPO}
            grpo(*load("tiny", adapter=adapter), chosen, out, videos=DATA / "videos", **how)
        adapter = out / "adapter"
    model, processor = load("tiny", adapter=adapter)
    ask = partial(generate, model, processor, videos=WORK / "videos", max_new_tokens=TOKENS)
    settings = {"arm": arm, "training_seed": seed, "sft": SFT, "grpo": GRPO, "tokens": TOKENS}
    records = evaluate(samples, ask, out, settings=settings, batch=48, progress=False)
    if rewards:
        steps = [r for r in json.loads((out / "log.json").read_text()) if "reward" in r]
        shown = ("step", "reward", "reward_std", "completions/mean_length")
        curve = [{k: v for k, v in r.items() if k in shown or k.endswith("_reward/mean")} for r in steps]
        keep(curve, KEPT / which / "curves" / done.name)
    if seed == 0:
        choices = [s for s in samples if s.kind == "choice"]
        for order in ("blank", "shuffled") if arm in ("base", "st-r1", "sft-grpo") else ("blank",):
            how = {"settings": settings, "batch": 48, "order": order, "progress": False}
            keep(evaluate(choices, ask, out / order, **how), KEPT / which / order / done.name)
    return keep(records, done)


def pooled(which: str, arm: str, folder: str = "") -> list[dict]:
    """Average the records of an arm over its seeds, question by question."""
    files = sorted((KEPT / which / folder).glob(f"{arm}-[0-9].jsonl.gz"))
    runs = [kept(path) for path in files]
    mean = {r["id"]: sum(run[i]["value"] for run in runs) / len(runs) for i, r in enumerate(runs[0])} if runs else {}
    return [r | {"value": mean[r["id"]]} for r in runs[0]] if runs else []


def main() -> None:
    """Run the arms asked for, then write what the records say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("dev", "final", "report"))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    if args.which != "report":
        samples = questions(args.which)
        for seed in range(5):
            for arm in args.arms:
                if seed in (args.seeds or ([0] if args.which == "dev" else SEEDS.get(arm, range(3)))):
                    records = [r for r in run(arm, seed, args.which, samples) if r["kind"] == "choice"]
                    print(arm, seed, f"{sum(r['value'] for r in records) / len(records):.3f}", flush=True)
    which = "final" if args.which == "report" else args.which
    runs = {arm: rows for arm in ARMS if (rows := pooled(which, arm))}
    print(tell(runs, which))


def tell(runs: dict, which: str) -> str:
    """Write benchmarks/ablation.md and .json, for the final walks, and return the text."""
    made = {"title": f"Recipes on {which} walks", "notes": [], "tables": {"Runs": report.beside(runs)}}
    for a, b in (
        ("sft-grpo", "st-r1"),
        ("forward-cot", "st-r1"),
        ("st-r1", "st-r1-reverse"),
        ("sft-grpo-unseen", "st-r1-unseen"),
    ):
        if a in runs and b in runs:
            made["tables"][f"{b} minus {a}"] = report.differences([*zip(runs[a], runs[b])])
    for arm, rows in runs.items():
        made["tables"][f"{arm}: accuracy"] = report.table(rows)
        made["tables"][f"{arm}: forward minus reverse"] = report.gap(rows)
        made["tables"][f"{arm}: routes"] = report.routes(rows)
        looked = {order: found for order in ("blank", "shuffled") if (found := pooled(which, arm, order))}
        if looked:
            seeing = [r for r in kept(KEPT / which / f"{arm}-0.jsonl.gz") if r["kind"] == "choice"]
            made["tables"][f"{arm}: shown otherwise"] = report.beside({"forward": seeing, **looked})
    if which == "final":
        made["notes"] = [f"Command: {shlex.join(['python', 'benchmarks/ablation.py', *sys.argv[1:]])}",
                         f"SFT {json.dumps(SFT)}; GRPO {json.dumps(GRPO)}"]  # fmt: skip
        report.save(made, ROOT / "benchmarks" / "ablation.md")
        write_text(ROOT / "benchmarks" / "ablation.json", report.data(made))
    return report.text(made)


if __name__ == "__main__":
    main()
