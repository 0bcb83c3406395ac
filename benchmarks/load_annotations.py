"""How long a table of annotations takes to read, every video with landmarks of its own: it must grow with the rows.

python benchmarks/load_annotations.py            # 1,000, 3,000 and 10,000 rows
"""

import random
import sys
import tempfile
import time
from pathlib import Path

from stlite.data.annotations import annotations

TURNS = ("turn left", "turn right", "go straight")
DEEDS = ("open the door", "pick up the cup", "sit down", "switch on the lamp", "raise the flag")


def table(count: int) -> str:
    """Write a table of five moves, four landmarks that no other row has, three actions and a route."""
    rng = random.Random(0)
    lines = ["video,direction,landmark,action,route"]
    for i in range(count):
        moves = "; ".join(rng.choices(TURNS, k=5))
        things = "; ".join(f"thing {i}-{j}" for j in range(4))
        deeds = "; ".join(rng.sample(DEEDS, 3))
        lines.append(f"v{i}.mp4,{moves},{things},{deeds},Go.")
    return "\n".join(lines) + "\n"


def measure(count: int) -> dict:
    """Read a table of so many rows: wall and processor seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "own.csv")
        path.write_text(table(count))
        wall = time.perf_counter()
        processor = time.process_time()
        samples = annotations(path)
        seconds = {
            "wall_s": round(time.perf_counter() - wall, 2),
            "processor_s": round(time.process_time() - processor, 2),
        }
    return {"rows": count, "samples": len(samples)} | seconds


if __name__ == "__main__":
    for wanted in map(int, sys.argv[1:] or (1_000, 3_000, 10_000)):
        print(measure(wanted), flush=True)
