"""Render the shipped walks and write them in the official Ego-ST file formats.

    python sample_data/make_walks.py        # about three minutes; the same files every time

150 walks to train on (`train/total_test_mcq_{63..630}.jsonl`), 64 to be tested on (`benchmark/`, 26 JSON files). What
happens in a training walk never happens in a tested one, nor in a walk the tiny model was made from (`walks.draw`).
"""

import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from sample_data import walks  # noqa: E402
from stlite.data import egost  # noqa: E402

FOLDERS = {1: "part1", 2: "part2", 3: "part3_clip", 4: "part4_clip"}
TRAIN = [1] * 30 + [2] * 30 + [3] * 35 + [4] * 55
TEST = [1] * 16 + [2] * 16 + [3] * 16 + [4] * 16
LADDER = (63, 126, 252, 378, 504, 630)


def make(parts: list[int], use: str, videos: Path) -> list:
    """Render walks of the given parts and return their samples."""
    made = []
    for i, part in enumerate(parts):
        walk = walks.draw(walks.SEEDS[use] + i, part, use)
        name = f"{FOLDERS[part]}/{walk['id']}.mp4"
        walks.write_video(walk, videos / name)
        made += walks.samples(walk, name)
        print(f"\r{use}: {i + 1} of {len(parts)} walks", end="", flush=True)
    print()
    return made


def main() -> None:
    """Make videos, training rows and benchmark."""
    train = [s for s in make(TRAIN, "train", HERE / "videos") if s.kind == "choice"]
    random.Random(0).shuffle(train)
    for size in LADDER:
        egost.write_rows(train[:size], HERE / "train" / f"total_test_mcq_{size}.jsonl")
    egost.write_benchmark(make(TEST, "test", HERE / "videos"), HERE / "benchmark")


if __name__ == "__main__":
    main()
