"""For whoever has a card: peak memory and seconds a step, by preset, frames and group, beside what `plan` predicts.

    python benchmarks/gpu_check.py                                # every preset that should fit this card
    python benchmarks/gpu_check.py --models /models/my-qwen3-vl   # local folders
    python benchmarks/gpu_check.py --cpu                          # the tiny preset, to try the script itself

Each line is measured in a process of its own. Writes gpu_check.md, a table ready for the README, and gpu_check.json.
The peak includes a dry run with replies of full length; steps are timed with replies as long as the model writes them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from stlite.train.memory import SHAPES, plan

DATA = Path(__file__).resolve().parent.parent / "sample_data"
STEPS = 3
COLUMNS = ("preset", "stage", "frames", "G", "peak GB", "plan GB", "s/step", "note")


def lengths(completions, **kwargs) -> list[float]:
    """Reward length, so that there is a gradient."""
    return [float(len(c[-1]["content"])) for c in completions]


def measure(preset: str, frames: int, group: int, tokens: int) -> dict:
    """Take three steps of one prompt; a group of 0 is SFT. Returns the peak (GB) and the seconds of a later step."""
    from transformers import TrainerCallback

    from stlite.data.egost import read_rows
    from stlite.train import models
    from stlite.train import preflight as gates
    from stlite.train.grpo import grpo
    from stlite.train.sft import sft

    model, processor = models.load(preset, frames=frames)
    rows = list(read_rows(DATA / "train" / "total_test_mcq_63.jsonl"))[:STEPS]
    moments = []
    clock = type(
        "Clock",
        (TrainerCallback,),
        {"on_step_end": lambda *_, **__: moments.append(time.perf_counter())},
    )
    how = {"videos": DATA / "videos", "max_steps": STEPS, "gradient_accumulation_steps": max(group, 1), "dry": True,
           "per_device_train_batch_size": 1, "disable_tqdm": True, "save_strategy": "no", "callbacks": [clock()]}  # fmt: skip
    if group:
        how |= {"rewards": [lengths], "num_generations": group, "max_completion_length": tokens}
    with tempfile.TemporaryDirectory() as out:
        (grpo if group else sft)(model, processor, rows, out, **how)
    return {
        "peak GB": round(gates.peak() / 1e9, 2),
        "s/step": round((moments[-1] - moments[0]) / (STEPS - 1), 2),
    }


def line(preset: str, frames: int, group: int, tokens: int, card: float) -> dict:
    """Measure one setting in its own process, unless the plan says that it does not fit."""
    row = {
        "preset": preset,
        "stage": "GRPO" if group else "SFT",
        "frames": frames,
        "G": group or "",
    }
    if preset in SHAPES:
        row["plan GB"] = plan(
            preset, frames, generations=group, completion=tokens, batch=1, prompts=1
        )["total"]
        if row["plan GB"] + 1 > card:
            return row | {"note": "not tried: predicted not to fit"}
    command = [sys.executable, __file__, "--one", json.dumps([preset, frames, group, tokens])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return row | {"note": done.stderr.strip().splitlines()[-1][:300].replace("|", "/")}
    return row | json.loads(done.stdout.splitlines()[-1])


def table(rows: list[dict], device: str) -> str:
    """Write rows as Markdown, under the device they were measured on."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    lines += [f"| {' | '.join(str(row.get(c, '')) for c in COLUMNS)} |" for row in rows]
    return f"Measured on {device}:\n\n" + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="*", help="presets, local folders or hub ids")
    parser.add_argument("--frames", nargs="*", type=int, default=[8, 16])
    parser.add_argument(
        "--groups", nargs="*", type=int, default=[0, 4, 8], help="sizes of a group; 0 is SFT"
    )
    parser.add_argument("--tokens", type=int, default=256, help="the longest reply")
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="try the script on the tiny preset; peaks are the process's",
    )
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return print(json.dumps(measure(*json.loads(args.one))))
    if not (torch.cuda.is_available() or args.cpu):
        sys.exit("gpu_check: no CUDA card was found; --cpu tries the script on the tiny preset")
    card = torch.cuda.mem_get_info()[1] / 1e9 if torch.cuda.is_available() else float("inf")
    models = args.models or (["tiny"] if args.cpu else list(SHAPES))
    rows, args.out = [], args.out.resolve()
    from stlite.train.models import versions

    for model in models:
        for frames in args.frames:
            for group in args.groups:
                rows.append(line(model, frames, group, args.tokens, card))
                (args.out / "gpu_check.md").write_text(table(rows, versions()))
                (args.out / "gpu_check.json").write_text(
                    json.dumps({"device": versions(), "rows": rows}, indent=1)
                )
                print(table(rows[-1:], "").splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
