"""How long reading and examining a large data set takes, and how its memory grows.

python benchmarks/load_data.py 100000
"""

import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from stlite.data.annotations import build
from stlite.data.checks import check
from stlite.data.egost import read_rows, write_rows

TURNS = ("turn left", "turn right", "go straight")
PLACES = (
    "gate",
    "car park",
    "junction",
    "road",
    "red door",
    "bench",
    "stairs",
    "white sofa",
    "fountain",
    "bridge",
)
DEEDS = (
    "open the door",
    "pick up the cup",
    "sit down",
    "switch on the lamp",
    "push the chair",
    "take the book",
)


def rows(count: int):
    """Make samples of invented walks: six to a video, of six, four and five steps, with traces."""
    rng = random.Random(0)
    for i in range(count // 6):
        walk = {
            "direction": rng.choices(TURNS, k=6),
            "landmark": rng.sample(PLACES, 4),
            "action": rng.sample(DEEDS, 5),
        }
        yield from build(
            f"part4_clip/{i}.mp4", walk, id=f"w{i}", part="part4", pool={"landmark": PLACES}
        )


def measure(count: int) -> dict:
    """Write that many rows, then time reading and examining them: wall and processor seconds, peak memory in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_rows(rows(count), Path(folder) / "rows.jsonl")
        before, size, start = peak(), path.stat().st_size, clocks()
        samples = read_rows(path)
        read = clocks()
        findings = check(samples)
        end = clocks()
    times = {
        "read_s": read[1] - start[1],
        "examine_s": end[1] - read[1],
        "both_s": end[1] - start[1],
    }
    times |= {
        "wall_s": end[0] - start[0],
        "MB": size / 1e6,
        "before_MiB": before,
        "peak_MiB": peak(),
    }
    return {"rows": len(samples), "findings": len(findings)} | {
        name: round(value, 1) for name, value in times.items()
    }


def clocks() -> tuple[float, float]:
    """Return wall and processor seconds; on a shared machine the second is the one that can be compared."""
    return time.perf_counter(), time.process_time()


def peak() -> float:
    """Return the most memory this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    for wanted in map(int, sys.argv[1:] or (25_000, 50_000, 100_000)):
        print(measure(wanted), flush=True)
