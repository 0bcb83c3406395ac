"""How many replies a second are scored on one core, and what a megabyte of hostile text costs.

python benchmarks/score_replies.py
"""

import json
import time
from pathlib import Path

from stlite.data import egost, prompts
from stlite.data.sample import Sample
from stlite.rewards.parse import parse
from stlite.rewards.rewards import PRESETS, reward_columns, score
from stlite.rewards.route import compare_routes

HERE = Path(__file__).resolve().parent.parent
HOSTILE = (
    "<think>",
    "<think></think>",
    "the answer is ",
    "A and ",
    "turn left ",
    "thinking forward ",
    "\n",
    "🤖",
)


def rate(function, items: list, seconds: float = 2.0) -> int:
    """Call a function over items again and again; calls a second of processor time."""
    done, start = 0, time.process_time()
    while (spent := time.process_time() - start) < seconds:
        for item in items:
            function(*item)
        done += len(items)
    return round(done / spent)


def lines(name: str) -> list[dict]:
    """Read a file of kept test data."""
    return [
        json.loads(line)
        for line in (HERE / "tests" / "rewards" / name).read_text(encoding="utf-8").splitlines()
    ]


def choice(row: dict) -> tuple[Sample, str]:
    """Make a kept reply a pair that can be scored."""
    return Sample(
        "1", "a.mp4", "landmark", "forward", "Which?", row["letter"] or "A", row["options"]
    ), row["reply"]


def reward(sample: Sample, reply: str) -> list:
    """Reward one reply by the preset with most rewards, read anew."""
    columns = reward_columns([sample])
    return [f([reply + " "], **columns) for f in PRESETS["st-r1-reverse"]]


def seconds(text: str) -> float:
    """Measure the processor time of reading one text."""
    start = time.process_time()
    parse(text)
    return round(time.process_time() - start, 3)


def measure() -> dict:
    """Measure scoring of kept and of taught replies, routes, rewards, and the slowest megabytes."""
    taught = [
        (s, prompts.target(s))
        for s in egost.read_rows(HERE / "sample_data/train/total_test_mcq_630.jsonl")
    ]
    routes = [
        (row["reference"], said)
        for row in lines("routes.jsonl")
        for said in row["right"] + row["swapped"]
    ]
    return {
        "awkward choice replies / s": rate(score, [choice(row) for row in lines("replies.jsonl")]),
        "taught chains of choices / s": rate(score, taught),
        "routes / s": rate(compare_routes, routes),
        "replies through four rewards / s": rate(reward, taught),
        "seconds for 1 MB": {
            unit: seconds(unit * (2**20 // len(unit.encode()))) for unit in HOSTILE
        },
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1, ensure_ascii=False))
