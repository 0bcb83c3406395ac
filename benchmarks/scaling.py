"""Time and memory against videos, rows, frames, G and completion length, each point in a process of its own.

    python benchmarks/scaling.py              # all five, about five minutes on one core
    python benchmarks/scaling.py rows G

The slope is that of log seconds over log size by least squares: 1 is proportional, 2 quadratic; below 1, a fixed part is
still seen.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
VIDEOS = ROOT / "sample_data" / "videos"
AXES = {"videos": (25, 50, 100, 200), "rows": (5000, 10000, 20000, 40000), "frames": (4, 8, 16, 32),
        "G": (4, 8, 16, 32), "completion": (32, 64, 128, 256)}  # fmt: skip


def videos(count: int, out: str) -> float:
    """Read the clips of shipped videos, none kept yet (s)."""
    from stlite.data.video import read_clip

    os.environ["STLITE_CACHE"] = f"{out}/cache"
    began = time.perf_counter()
    for path in sorted(VIDEOS.rglob("*.mp4"))[:count]:
        read_clip(path, frames=16, max_pixels=84 * 84)
    return time.perf_counter() - began


def rows(count: int, out: str) -> float:
    """Read and check training rows, the shipped ones again and again under other videos (s)."""
    from stlite.data import checks as doctor
    from stlite.data import egost

    lines = (ROOT / "sample_data/train/total_test_mcq_630.jsonl").read_text().splitlines()
    path = Path(out, "rows.jsonl")
    with path.open("w") as file:
        for i in range(count):
            file.write(lines[i % len(lines)].replace(".mp4", f"-{i // len(lines)}.mp4") + "\n")
    began = time.perf_counter()
    doctor.check(egost.read_rows(path))
    return time.perf_counter() - began


def frames(count: int, out: str) -> float:
    """Ask one question of eight clips of so many frames and read the first word (s); nothing is kept."""

    from stlite.data.egost import read_rows
    from stlite.train.generation import generate
    from stlite.train.models import load

    os.environ["STLITE_CACHE"] = "off"
    model, processor = load("tiny", frames=count)
    samples = list(read_rows(ROOT / "sample_data/train/total_test_mcq_63.jsonl", videos=VIDEOS))
    generate(model, processor, samples[-1:], videos=VIDEOS, max_new_tokens=1)
    began = time.perf_counter()
    generate(
        model,
        processor,
        list({s.video: s for s in samples}.values())[:8],
        videos=VIDEOS,
        max_new_tokens=1,
    )
    return time.perf_counter() - began


def step(group: int, completion: int, out: str) -> float:
    """Take GRPO steps on one prompt, every completion to its full length (s, the least of three after the first)."""
    from stlite.data.egost import read_rows
    from stlite.rewards.rewards import PRESETS
    from stlite.train import grpo as train
    from stlite.train.models import load

    samples = list(read_rows(ROOT / "sample_data/train/total_test_mcq_63.jsonl", videos=VIDEOS))[:1]
    model, processor = load("tiny")
    settings = train.GRPO | {"num_generations": group, "per_device_train_batch_size": group, "max_steps": 4, "save_strategy": "no",
                             "gradient_accumulation_steps": 1, "max_completion_length": completion, "disable_tqdm": True}  # fmt: skip
    rewards = PRESETS["st-r1"]
    trainer = train.make_trainer(
        model, processor, samples, out, rewards, settings=settings, videos=VIDEOS
    )
    trainer.sampling["min_new_tokens"] = completion
    seconds, plain = [], trainer.training_step

    def timed(*args, **kwargs):
        began = time.perf_counter()
        found = plain(*args, **kwargs)
        seconds.append(time.perf_counter() - began)
        return found

    trainer.training_step = timed
    trainer.train()
    return min(seconds[1:])


def one(axis: str, size: int, out: str) -> dict:
    """Measure one point: seconds, and the peak memory of the process (GB)."""
    measure = {"G": lambda: step(size, 64, out), "completion": lambda: step(8, size, out)}
    seconds = (
        measure[axis]()
        if axis in measure
        else {"videos": videos, "rows": rows, "frames": frames}[axis](size, out)
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"axis": axis, "size": size, "seconds": round(seconds, 3), "peak_gb": round(peak, 3)}


def main() -> None:
    """Measure every point and print it, then each axis's slopes."""
    for axis in sys.argv[1:] or AXES:
        points = []
        for size in AXES[axis]:
            with tempfile.TemporaryDirectory() as out:
                command = [sys.executable, "-W", "ignore", __file__, "--one", axis, str(size), out]
                env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
                done = subprocess.run(command, env=env, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr[-3000:])
            points.append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(points[-1]), flush=True)
        logs = [np.log([p[k] for p in points]) for k in ("size", "seconds", "peak_gb")]
        slopes = [round(float(np.polyfit(logs[0], values, 1)[0]), 2) for values in logs[1:]]
        print(
            json.dumps({"axis": axis, "slope_seconds": slopes[0], "slope_memory": slopes[1]}),
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(sys.argv[2], int(sys.argv[3]), sys.argv[4])))
    else:
        main()
