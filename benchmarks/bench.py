"""Run every benchmark, one after the other, and write benchmarks/RESULTS.md: its command, its time, and what it printed.

python benchmarks/bench.py                 # make bench, about forty minutes on two idle cores
python benchmarks/bench.py grpo_step       # one of them; the others' results stay
"""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from stlite.data.sample import write_text  # noqa: E402

COMMANDS = {
    "grpo_step": ["grpo_step.py"],
    "grpo_step_checkpointing": ["grpo_step.py", "checkpointing"],
    "log_probs": ["log_probs.py"],
    "score_replies": ["score_replies.py"],
    "load_data": ["load_data.py", "100000"],
    "evaluate": ["evaluate.py", "32", "16"],
    "read_clips": ["read_clips.py"],
    "scaling": ["scaling.py"],
    "coverage": ["coverage.py", "1000"],
}
SAYS = {  # what a benchmark's numbers mean, where they do not say it themselves
    "coverage": "Per cent of simulated runs whose 95 % interval holds the truth. From 20 groups on it is 91.6 or more in "
    "every column; with 5 groups the mean of 6 tasks holds it in 83.6 and 86.7 % where groups differ (in 100 % where "
    "all answers are right). Below 20 groups every report says that its intervals are rough, below 5 none is given; "
    "Wilson's, which knows no groups, holds the truth in 69 to 88 %.",
}


def machine() -> str:
    """Name the processor and the Python that a measurement ran on."""
    info = Path("/proc/cpuinfo")
    names = (
        [
            line.split(":")[1].strip()
            for line in info.read_text().splitlines()
            if "model name" in line
        ]
        if info.exists()
        else []
    )
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def main() -> None:
    """Run the benchmarks asked for, all by default, and write the page after each of them."""
    path = HERE / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in sys.argv[1:] or COMMANDS:
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-W", "ignore", HERE / COMMANDS[name][0], *COMMANDS[name][1:]],
            stdout=subprocess.PIPE,
            text=True,
        )
        took = f"{time.perf_counter() - began:.0f} s" + (
            f", stopped with {done.returncode}" if done.returncode else ""
        )
        print(f"{name}: {took}\n{done.stdout}", flush=True)
        results[name] = {"command": "python benchmarks/" + " ".join(COMMANDS[name]), "took": took, "machine": machine(),
                         "date": time.strftime("%Y-%m-%d"), "printed": done.stdout.splitlines()}  # fmt: skip
        write_text(path, json.dumps(results, indent=1))
        parts = [
            "# What the benchmarks printed",
            "Ratios within one run are what can be compared; seconds depend on the machine.",
        ]
        for title, r in results.items():
            parts += [
                f"## {title}",
                f"`{r['command']}` ({r['date']}, {r['took']}, {r['machine']})",
                *([SAYS[title]] if title in SAYS else []),
                "```\n" + "\n".join(r["printed"]) + "\n```",
            ]
        write_text(HERE / "RESULTS.md", "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
