"""Does reinforcement teach, and is it the reverse thinking that does it? Recipes and seeds on walks never drawn before.

    python benchmarks/reinforcement.py run                      # every arm and seed; resumes
    python benchmarks/reinforcement.py run --arms base st-r1 --seeds 0 1
    python benchmarks/reinforcement.py report                   # tables from the records there are

SFT sees the first rows of the shipped training file, GRPO the rows of all other walks. The chain of
every arm is asked for in the same words. Records stay in benchmarks/reinforcement/ without replies.
"""

import argparse
import gzip
import json
import sys
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sample_data import walks  # noqa: E402
from stlite.data.egost import read_rows  # noqa: E402
from stlite.data.sample import write_bytes, write_text  # noqa: E402
from stlite.data.splits import check_overlap  # noqa: E402
from stlite.eval import comparisons, metrics, render  # noqa: E402
from stlite.eval.evaluate import evaluate  # noqa: E402
from stlite.rewards.parse import parse  # noqa: E402
from stlite.viz import plots  # noqa: E402

DATA = ROOT / "sample_data"
WORK = ROOT / "work" / "reinforcement"
KEPT = ROOT / "benchmarks" / "reinforcement"
REPORT = ROOT / "benchmarks" / "reinforcement.md"
PAPER = {  # mean of choices (%) read off Figure 1 (±1): Qwen2-VL-7B on real videos
    "base": 67.2,
    "label-sft": 67.5,
    "st-cot": 54.3,
    "label-sft-grpo": 82.0,
    "st-r1": 86.6,
}
FIRST_WALK = 500_000
WALKS = 48  # the parts in turn, and half as many more of part 4, asked about actions alone
TOKENS = 64
BATCH = 48
DRAWS = 2000
LEFT_OUT = ("reply", "explanation", "seconds", "key")

ARMS = {  # recipe of SFT or none, rewards of GRPO or none; the most important first
    "base": (None, None),
    "st-cot": ("st-cot", None),
    "st-r1": ("st-cot", "st-r1"),
    "label-sft": ("label", None),
    "label-sft-grpo": ("label", "st-r1"),
    "forward-cot": ("forward-cot", "st-r1"),
    "grpo": (None, "st-r1"),
    "st-r1-reverse": ("st-cot", "st-r1-reverse"),
}
SFT_ROWS = 63
SFT = {
    "num_train_epochs": 2,
    "learning_rate": 3e-4,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
}
GRPO = {
    "max_steps": 50,
    "learning_rate": 5e-4,
    "num_generations": 8,
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 1,
    "max_completion_length": 64,
    "max_grad_norm": 1.0,
}
COMPARED = (  # the planned comparisons; Holm's correction is over these
    ("st-cot", "st-r1"),
    ("label-sft", "label-sft-grpo"),
    ("label-sft-grpo", "st-r1"),
    ("forward-cot", "st-r1"),
    ("base", "st-r1"),
    ("base", "label-sft"),
    ("grpo", "st-r1"),
    ("st-r1", "st-r1-reverse"),
)


# ---- runs ------------------------------------------------------------------------------------


def draw_questions() -> list:
    """Render walks that no training, tuning or shipped file uses; return their choice questions."""
    samples = []
    for i in range(WALKS + WALKS // 2):
        more_actions = i >= WALKS
        walk = walks.draw(FIRST_WALK + i, 4 if more_actions else 1 + i % 4, "test")
        path = WORK / "videos" / f"{walk['id']}.mp4"
        if not path.exists():
            walks.write_video(walk, path)
        for sample in walks.samples(walk, path.name, seed=i):
            if sample.kind == "choice" and (sample.task == "action" or not more_actions):
                samples.append(sample)
    return samples


def training_rows() -> tuple[list, list]:
    """Return the rows of SFT, and those of GRPO: all rows of the walks SFT does not see."""
    rows = read_rows(DATA / "train" / "total_test_mcq_630.jsonl", videos=DATA / "videos")
    taught = list(rows[:SFT_ROWS])
    seen = {sample.group for sample in taught}
    return taught, [sample for sample in rows if sample.group not in seen]


def train(arm: str, seed: int) -> Path | None:
    """Train an arm with a seed, unless that is done; return the adapter's folder, None for the base."""
    from stlite.train.grpo import grpo
    from stlite.train.models import load
    from stlite.train.sft import sft

    recipe, rewards = ARMS[arm]
    taught, fresh = training_rows()
    shared = {"videos": DATA / "videos", "seed": seed, "disable_tqdm": True}
    adapter = None
    if recipe:
        out = WORK / f"sft-{recipe}-{seed}"
        if not (out / "adapter").exists():
            direct = recipe == "label"
            sft(*load("tiny"), taught, out, recipe=recipe, direct=direct, **shared, **SFT)
        adapter = out / "adapter"
    if rewards:
        out = WORK / f"{arm}-{seed}"
        if not (out / "adapter").exists():
            grpo(*load("tiny", adapter=adapter), fresh, out, rewards=rewards, **shared, **GRPO)
        keep_curve(out / "log.json", KEPT / "curves" / f"{arm}-{seed}.json")
        adapter = out / "adapter"
    return adapter


def keep_curve(log: Path, path: Path) -> None:
    """Keep of a GRPO log the rewards and the share of groups with a signal, step by step."""
    curve = []
    for row in json.loads(log.read_text()):
        if "reward" not in row:
            continue
        kept = {"step": row["step"], "signal": 1 - row["frac_reward_zero_std"]}
        for name, value in row.items():
            if name.endswith("_reward/mean"):
                kept[name.split("/")[1]] = value
        curve.append(kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(curve))


def run(arm: str, seed: int, samples: list) -> None:
    """Train and ask one arm with one seed, unless its records are kept."""
    done = KEPT / f"{arm}-{seed}.jsonl.gz"
    if done.exists():
        return
    from stlite.train.models import generate, load

    taught, fresh = training_rows()
    check_overlap([*taught, *fresh], samples)
    adapter = train(arm, seed)
    model, processor = load("tiny", adapter=adapter)
    ask = partial(generate, model, processor, videos=WORK / "videos", max_new_tokens=TOKENS)
    settings = {"arm": arm, "training_seed": seed, "sft": SFT, "grpo": GRPO, "tokens": TOKENS}
    how = {"settings": settings, "batch": BATCH, "progress": False}
    records = evaluate(samples, ask, WORK / "asked" / f"{arm}-{seed}", **how)
    if seed == 0 and arm in ("base", "st-r1"):
        for order in ("blank", "shuffled"):
            out = WORK / order / f"{arm}-{seed}"
            keep(evaluate(samples, ask, out, order=order, **how), KEPT / order / done.name)
    if seed == 0 and arm in ("base", "label-sft", "label-sft-grpo"):
        directly = partial(ask, direct=True)
        out = WORK / "direct" / f"{arm}-{seed}"
        keep(evaluate(samples, directly, out, **how), KEPT / "direct" / done.name)
    keep(records, done)


def keep(records: list[dict], path: Path) -> None:
    """Write records without the replies, gzipped, the same bytes for the same run."""
    lines = []
    for record in records:
        row = {name: value for name, value in record.items() if name not in LEFT_OUT}
        row["thought"] = parse(record["reply"]).way
        lines.append(json.dumps(row))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, [gzip.compress("\n".join(lines).encode(), mtime=0)])


def read_kept(path: Path) -> list[dict]:
    """Read records that `keep` wrote."""
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


# ---- tables ----------------------------------------------------------------------------------


def runs_of(arm: str, folder: str = "") -> list[list[dict]]:
    """Return the records of an arm, a list for each seed."""
    return [read_kept(path) for path in sorted((KEPT / folder).glob(f"{arm}-[0-9].jsonl.gz"))]


def pooled(runs: list[list[dict]]) -> list[dict]:
    """Average the records of several seeds, question by question."""
    records = []
    for same_question in zip(*runs):
        value = fmean(record["value"] for record in same_question)
        records.append(same_question[0] | {"value": value})
    return records


def cell_means(runs: list[list[dict]]) -> tuple[np.ndarray, np.ndarray]:
    """Sum values and count questions by walk, seed and cell: (walks,seeds,cells) and (walks,cells)."""
    groups = sorted({record["group"] for record in runs[0]})
    cells = sorted({(record["task"], record["way"]) for record in runs[0]})
    sums = np.zeros((len(groups), len(runs), len(cells)))
    counts = np.zeros((len(groups), len(cells)))
    for seed, records in enumerate(runs):
        for record in records:
            group = groups.index(record["group"])
            cell = cells.index((record["task"], record["way"]))
            sums[group, seed, cell] += record["value"]
            counts[group, cell] += seed == 0
    return sums, counts


def two_level_difference(before: list[list[dict]], after: list[list[dict]]) -> dict:
    """Return the mean over cells of `after` minus `before`, its interval by walks and seeds, and p.

    Walks and each arm's seeds are drawn again with replacement; p is two-sided, from the draws.
    """
    first, counts = cell_means(before)
    second, _ = cell_means(after)
    rng = np.random.default_rng(0)
    drawn = np.empty(DRAWS)
    for draw in range(DRAWS):
        walks_drawn = rng.integers(len(counts), size=len(counts))
        n = counts[walks_drawn].sum(0)
        means = []
        for sums in (first, second):
            seeds_drawn = rng.integers(sums.shape[1], size=sums.shape[1])
            total = sums[walks_drawn][:, seeds_drawn].mean(1).sum(0)
            means.append(np.nanmean(np.where(n > 0, total / np.maximum(n, 1), np.nan)))
        drawn[draw] = means[1] - means[0]
    estimate = ((second.mean(1) - first.mean(1)).sum(0) / counts.sum(0)).mean()
    low, high = np.quantile(drawn, (0.025, 0.975))
    tail = min((drawn <= 0).mean(), (drawn >= 0).mean())
    p = min(1.0, 2 * max(tail, 1 / DRAWS))
    return {"difference": float(estimate), "low": float(low), "high": float(high), "p": float(p)}


def compared() -> list[dict]:
    """Return the planned comparisons of the arms that were run, with Holm's correction."""
    from statsmodels.stats.multitest import multipletests

    rows = []
    for before, after in COMPARED:
        first = runs_of(before)
        second = runs_of(after)
        if first and second:
            row = {"comparison": f"{after} minus {before}", "seeds": f"{len(second)}, {len(first)}"}
            rows.append(row | two_level_difference(first, second))
    if rows:
        corrected = multipletests([row["p"] for row in rows], method="holm")[1]
        for row, p in zip(rows, corrected):
            row["holm"] = float(p)
    return rows


def by_seed() -> list[dict]:
    """Return the mean of the six cells of every run, a row an arm."""
    rows = []
    for arm in ARMS:
        row = {"arm": arm}
        for path in sorted(KEPT.glob(f"{arm}-[0-9].jsonl.gz")):
            seed = path.name.split(".")[0][-1]
            row[f"seed {seed}"] = metrics.accuracy_table(read_kept(path))[-1]["accuracy"]
        if len(row) > 1:
            rows.append(row)
    return rows


def read_curves(arm: str) -> list[list[dict]]:
    """Read what `keep_curve` kept, a list for each seed."""
    paths = sorted((KEPT / "curves").glob(f"{arm}-[0-9].json"))
    return [json.loads(path.read_text()) for path in paths]


def curve_rows(window: int = 10) -> list[dict]:
    """Return the accuracy reward of each GRPO arm by windows of steps, and the groups with a signal."""
    rows = []
    for arm in ARMS:
        curves = read_curves(arm)
        if not curves:
            continue
        row = {"arm": arm, "seeds": len(curves)}
        steps = min(len(curve) for curve in curves)
        for start in range(0, steps, window):
            part = [at for curve in curves for at in curve[start : start + window]]
            row[f"from {start + 1}"] = fmean(at["accuracy_reward"] for at in part)
        signals = [at["signal"] for curve in curves for at in curve]
        row["groups with a signal"] = fmean(signals)
        rows.append(row)
    return rows


def tables() -> dict[str, list[dict]]:
    """Gather the tables from the records there are."""
    arms = {arm: pooled(runs_of(arm)) for arm in ARMS if runs_of(arm)}
    made = {"Arms": comparisons.compare_to_baseline(arms), "Planned comparisons": compared()}
    made["Seeds"] = by_seed()
    made["Beside the paper"] = beside_paper(arms)
    made["By task and way"] = []
    made["Thinking first"] = []
    made["Forward minus reverse"] = []
    for arm, records in arms.items():
        row = {"arm": arm}
        for (task, way), value in metrics.accuracy_by_task(records).items():
            row[f"{task} {way}"] = value[0]
        made["By task and way"].append(row)
        every = [record for one in runs_of(arm) for record in one]
        made["Thinking first"] += [{"arm": arm} | row for row in metrics.thinking(every)]
        gaps = metrics.forward_reverse_gap(records)
        made["Forward minus reverse"] += [{"arm": arm} | row for row in gaps]
    made["Reward while training"] = curve_rows()
    for folder in ("blank", "shuffled", "direct"):
        rows = []
        for arm in arms:
            for records in runs_of(arm, folder):
                rows.append({"arm": arm} | metrics.accuracy_table(records)[-1])
        made[f"Asked otherwise: {folder} (seed 0)"] = rows
    return {name: rows for name, rows in made.items() if rows}


def beside_paper(arms: dict[str, list[dict]]) -> list[dict]:
    """Set the means of the paper's five variants beside the paper's."""
    rows = []
    for arm, theirs in PAPER.items():
        if arm in arms:
            ours = metrics.accuracy_table(arms[arm])[-1]["accuracy"]
            rows.append({"arm": arm, "here": ours, "the paper": theirs / 100})
    return rows


def pictures() -> dict:
    """Draw the paper's Figure 1 with these arms, and the reward while training."""
    cells = {}
    bands = {}
    for arm in ARMS:
        if runs_of(arm):
            cells[arm] = metrics.accuracy_by_task(pooled(runs_of(arm)))
        curves = read_curves(arm)
        if curves:
            bands[arm] = reward_band(curves)
    return {
        "radar": plots.radar(cells),
        "curves": plots.bands(bands, "GRPO step", "accuracy reward (%)"),
    }


def reward_band(curves: list[list[dict]], window: int = 10) -> dict[int, tuple]:
    """Average the accuracy reward by windows of steps: {step: (mean, lowest seed, highest seed)}."""
    band = {}
    for start in range(0, min(map(len, curves)), window):
        means = []
        for curve in curves:
            means.append(fmean(at["accuracy_reward"] for at in curve[start : start + window]))
        band[start + window] = (fmean(means), min(means), max(means))
    return band


def report() -> None:
    """Write the tables and pictures of the records there are."""
    questions = runs_of("base")[0]
    notes = [
        "Commands: python benchmarks/reinforcement.py run, report",
        f"{len(questions)} choice questions of {len({r['group'] for r in questions})} walks; values "
        "are means over the seeds of an arm. The table of arms has intervals by walk; the planned "
        "comparisons have intervals by walk and by seed.",
        f"SFT: {SFT_ROWS} rows, {json.dumps(SFT)}; GRPO: {json.dumps(GRPO)}; greedy replies.",
    ]
    made = {"title": "Reinforcement, arm by arm", "notes": notes, "tables": tables()}
    render.save(made, REPORT)
    write_text(REPORT.with_suffix(".json"), render.json(made))
    for name, figure in pictures().items():
        plots.save(figure, KEPT / f"{name}.png")
    print(render.text(made))


def main() -> None:
    """Run the arms asked for, or write what the records say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    if args.command == "report":
        report()
        return
    samples = draw_questions()
    for seed in args.seeds:
        for arm in args.arms:
            if arm != "base" or seed == 0:
                run(arm, seed, samples)
                print(arm, seed, "done", flush=True)


if __name__ == "__main__":
    main()
