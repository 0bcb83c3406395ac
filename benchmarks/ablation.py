"""The first experiment (version 0.1): its tables and pictures, from the records it left.

    python benchmarks/ablation.py        # writes benchmarks/ablation.md, .json and the pictures

Recipes × seeds on training walks, judged on walks that nothing had seen (seeds 300,000 and on), then
a follow-up with longer SFT (400,000 and on). Its runs belong to the weights of version 0.1, which
the repository's history holds; `reinforcement.py` is the experiment on those shipped now.
"""

import gzip
import json
import sys
from itertools import chain
from pathlib import Path
from statistics import fmean, stdev

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stlite.data.sample import write_text  # noqa: E402
from stlite.eval import comparisons, metrics, render  # noqa: E402
from stlite.viz import plots  # noqa: E402

KEPT = ROOT / "benchmarks" / "ablation"
ARMS = (
    "base",
    "sft",
    "st-cot",
    "sft-grpo",
    "st-r1",
    "st-r1-reverse",
    "grpo",
    "forward-cot",
    "st-r1-63",
    "st-r1-630",
    "sft-grpo-unseen",
    "st-r1-unseen",
)
LONGER = ("st-cot-long", "st-r1-long", "forward-sft-long", "forward-cot-long")
SEEDS = {"sft-grpo": range(5), "st-r1": range(5), "base": range(1)}  # three for the rest
TOKENS = 96
SFT = {
    "num_train_epochs": 2,
    "learning_rate": 5e-4,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
}
GRPO = {
    "max_steps": 80,
    "learning_rate": 1e-4,
    "num_generations": 8,
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 1,
    "max_completion_length": 64,
}
COMPARED = (
    ("sft-grpo", "st-r1"),
    ("forward-cot", "st-r1"),
    ("st-cot", "st-r1"),
    ("base", "st-r1"),
    ("grpo", "st-r1"),
    ("st-r1", "st-r1-reverse"),
    ("sft-grpo-unseen", "st-r1-unseen"),
    ("forward-cot-long", "st-r1-long"),
    ("st-cot-long", "st-r1-long"),
    ("forward-sft-long", "st-cot-long"),
)
UNSEEN = ("base", "sft-grpo-unseen", "st-r1-unseen", "st-r1")
LADDER = {"st-r1-63": 63, "st-r1": 252, "st-r1-630": 630}
PAPER = {  # accuracies (%) read off Figure 1: direction, landmark, action, each way; their mean
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


# ---- records ---------------------------------------------------------------------------------


def kept(path: Path) -> list[dict]:
    """Read the records of a run."""
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def kept_runs(which: str, arm: str, folder: str = "") -> list[list[dict]]:
    """Read the records of every seed of an arm."""
    paths = sorted((KEPT / which / folder).glob(f"{arm}-[0-9].jsonl.gz"))
    return [kept(path) for path in paths]


def pooled(which: str, arm: str, folder: str = "") -> list[dict]:
    """Average the records of an arm over its seeds, question by question."""
    runs = kept_runs(which, arm, folder)
    if not runs:
        return []
    records = []
    for i, record in enumerate(runs[0]):
        value = sum(run[i]["value"] for run in runs) / len(runs)
        records.append(record | {"value": value})
    return records


def pooled_arms(which: str, arms, folder: str = "") -> dict[str, list[dict]]:
    """Average the records of those arms that were run."""
    found = {arm: pooled(which, arm, folder) for arm in arms}
    return {arm: records for arm, records in found.items() if records}


def choices(records: list[dict]) -> list[dict]:
    """Keep the choice questions."""
    return [record for record in records if record["kind"] == "choice"]


def of_parts(records: list[dict], *names: str) -> list[dict]:
    """Keep the records of some parts."""
    return [record for record in records if record["part"] in names]


def mean(records: list[dict]) -> tuple[float, float, float]:
    """Return the mean over the choice tasks with its interval (0 to 1)."""
    row = metrics.accuracy_table(choices(records))[-1]
    return row["accuracy"], row["low"], row["high"]


def first_seed(which: str, arm: str) -> list[dict]:
    """Read the records of a recipe's first seed."""
    return kept(KEPT / which / f"{arm}-0.jsonl.gz")


# ---- tables ----------------------------------------------------------------------------------


def seeds_table(runs: dict, which: str) -> list[dict]:
    """Set the mean of choices of every seed side by side, a row per recipe."""
    rows = []
    for arm in runs:
        means = [mean(records)[0] for records in kept_runs(which, arm)]
        spread = stdev(means) if len(means) > 1 else None
        row = {"recipe": arm, "seeds": len(means), "mean": fmean(means), "sd": spread}
        for i, value in enumerate(means):
            row[f"seed {i}"] = value
        rows.append(row)
    return rows


def cells_row(records: list[dict]) -> dict[str, float]:
    """Return the accuracy of each task and way."""
    cells = metrics.accuracy_by_task(choices(records))
    return {f"{task} {way}": value[0] for (task, way), value in cells.items()}


def beside_paper(runs: dict) -> list[dict]:
    """Set accuracy by task and way beside the paper's Figure 1 (Qwen2-VL-7B, real videos; ±1)."""
    rows = []
    for arm, name in PAPER_NAMES.items():
        if arm not in runs:
            continue
        row = cells_row(runs[arm]) | {"mean": mean(runs[arm])[0]}
        rows.append({"recipe": arm, "of": "here"} | row)
        theirs = [value / 100 for value in PAPER[name]]
        rows.append({"recipe": name, "of": "the paper"} | dict(zip(row, theirs)))
    return rows


def otherwise_row(which: str, arm: str, rows: list[dict]) -> dict:
    """Say how a recipe answers frames shown otherwise: all replies, and those that name an option."""
    accuracy, low, high = mean(rows)
    read = [row for row in rows if row["reason"] in ("right", "wrong")]
    row = {"recipe": arm, "accuracy": accuracy, "low": low, "high": high}
    row["read"] = len(read) / len(rows)
    row["of those read"], row["from"], row["to"] = mean(read)
    return row | {"in order": mean(first_seed(which, arm))[0]}


def tables(runs: dict, which: str) -> dict:
    """Gather the tables: recipes beside one another and the paper, differences, gap, blind, routes."""
    if not runs:
        return {}
    made = {
        "Recipes": comparisons.compare_to_baseline(runs),
        "Seeds": seeds_table(runs, which),
        "Beside the paper": beside_paper(runs),
    }
    made["By task and way"] = [
        {"recipe": arm} | cells_row(records) for arm, records in runs.items()
    ]
    for before, after in COMPARED:
        if before in runs and after in runs:
            pairs = list(zip(choices(runs[before]), choices(runs[after])))
            made[f"{after} minus {before}"] = comparisons.paired_differences(pairs)
    unseen = {arm: of_parts(choices(runs[arm]), "part1", "part2") for arm in UNSEEN if arm in runs}
    if len(unseen) > 1:
        title = "Trained without parts 1 and 2, asked about them"
        made[title] = comparisons.compare_to_baseline(unseen)
    made |= by_recipe(runs, which)
    made |= shown_otherwise(runs, which)
    made["Routes"] = rows_of(runs, metrics.routes)
    return {name: rows for name, rows in made.items() if rows}


def rows_of(runs: dict, measure) -> list[dict]:
    """Gather the rows of a measure, each with its recipe."""
    rows = []
    for arm, records in runs.items():
        rows += [{"recipe": arm} | row for row in measure(records)]
    return rows


def by_recipe(runs: dict, which: str) -> dict:
    """Return the tables of thinking and of the gap between ways."""
    every = {arm: list(chain(*kept_runs(which, arm))) for arm in runs}
    return {
        "Thinking first": rows_of(every, metrics.thinking),
        "Forward minus reverse": rows_of(runs, metrics.forward_reverse_gap),
    }


def shown_otherwise(runs: dict, which: str) -> dict:
    """Return the tables of blank and of shuffled frames."""
    made = {}
    for order in ("blank", "shuffled"):
        asked = pooled_arms(which, runs, order)
        rows = [otherwise_row(which, arm, records) for arm, records in asked.items()]
        made[f"Frames {order} (seed 0)"] = rows
        if order == "blank":
            continue
        for arm, records in asked.items():
            pairs = list(zip(records, choices(first_seed(which, arm))))
            rows = comparisons.paired_differences(pairs)[-1:]
            made[f"{arm}: in order minus shuffled"] = rows
    return made


# ---- pictures --------------------------------------------------------------------------------


def pictures(runs: dict, which: str) -> dict:
    """Draw the paper's Figure 1 anew, the ladder, the gap, unseen parts, frames shown otherwise."""
    main_arms = [arm for arm in PAPER_NAMES if arm in runs]
    cells = {arm: metrics.accuracy_by_task(choices(runs[arm])) for arm in main_arms}
    means = {arm: mean(records) for arm, records in runs.items()}
    ladder = {rows: means[arm] for arm, rows in LADDER.items() if arm in runs}
    return {
        "radar": plots.radar(cells),
        "recipes": plots.bars({"mean of choices": means}, chance=0.25),
        "gap": plots.gap({arm: gap_by_task(runs[arm]) for arm in main_arms}),
        "ladder": plots.ladder({"ST-R1": ladder}),
        "unseen": plots.bars(unseen_parts(runs), chance=0.25),
        "shown": plots.audit(orders(runs, which), chance=0.25),
        "curves": curves(runs, which),
    }


def gap_by_task(records: list[dict]) -> dict:
    """Return forward minus reverse of each task with its interval."""
    rows = metrics.forward_reverse_gap(records)
    return {row["task"]: (row["gap"], row["low"], row["high"]) for row in rows}


def unseen_parts(runs: dict) -> dict:
    """Return the means over the parts left out of training, and over the others."""
    made = {}
    for arm in UNSEEN:
        if arm in runs:
            unseen = mean(of_parts(runs[arm], "part1", "part2"))
            seen = mean(of_parts(runs[arm], "part3", "part4"))
            made[arm] = {"unseen parts": unseen, "seen parts": seen}
    return made


def orders(runs: dict, which: str) -> dict:
    """Return the means over frames in order, shuffled and blank, of three recipes."""
    made = {}
    for arm in ("base", "sft-grpo", "st-r1"):
        if arm not in runs:
            continue
        records = {"in order": first_seed(which, arm)}
        for order in ("shuffled", "blank"):
            records[order] = pooled(which, arm, order)
        made[arm] = {order: mean(rows) for order, rows in records.items() if rows}
    return made


def curves(runs: dict, which: str):
    """Draw the accuracy reward of the recipes that were reinforced."""
    bands = {}
    for arm in list(runs)[:8]:
        logs = kept_runs(which, arm, "curves")
        if logs:
            bands[arm] = reward_band(logs)
    return plots.bands(bands, "GRPO step", "accuracy reward (%)")


def reward_band(logs: list[list[dict]], window: int = 8) -> dict[int, tuple[float, float, float]]:
    """Average the accuracy reward over seeds and windows of steps: {step: (mean, lowest, highest)}."""
    columns = [[row["rewards/accuracy_reward/mean"] for row in log] for log in logs]
    band = {}
    for start in range(0, min(map(len, columns)), window):
        values = [fmean(column[start : start + window]) for column in columns]
        band[start + window] = (fmean(values), min(values), max(values))
    return band


# ---- the command -----------------------------------------------------------------------------


def notes(runs: dict) -> list[str]:
    """Say how the records came about."""
    first = choices(next(iter(runs.values())))
    walks = len({record["group"] for record in first})
    return [
        "Commands: python benchmarks/ablation.py final, follow, report",
        f"{len(first)} choice questions of {walks} walks; values are means over the seeds of "
        "a recipe, question by question, and intervals go by walk: they hold for other walks, the "
        "seeds being these; how far seeds differ stands in the table of seeds.",
        f"SFT {json.dumps(SFT)}; GRPO {json.dumps(GRPO)}; replies of at most {TOKENS} tokens, greedy",
    ]


def main() -> None:
    """Write the tables and the pictures."""
    runs = pooled_arms("final", ARMS)
    made = {"title": "Recipes on final walks", "notes": notes(runs)}
    made["tables"] = tables(runs, "final")
    for name, rows in tables(pooled_arms("follow", LONGER), "follow").items():
        made["tables"][f"Follow-up: {name}"] = rows
    render.save(made, ROOT / "benchmarks" / "ablation.md")
    write_text(ROOT / "benchmarks" / "ablation.json", render.json(made))
    for name, figure in pictures(runs, "final").items():
        plots.save(figure, KEPT / f"{name}.png")
    print(render.text(made))


if __name__ == "__main__":
    main()
