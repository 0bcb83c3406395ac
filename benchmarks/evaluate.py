"""How much faster the tiny model evaluates in batches than one question at a time, and whether it answers the same.

python benchmarks/evaluate.py 32 16        questions, batch; about two minutes on one core
"""

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from stlite.eval.evaluate import evaluate, questions
from stlite.train import generation, models

DATA = Path(__file__).parents[1] / "sample_data"


def measure(count: int, batch: int, four_bit: bool) -> dict:
    """Evaluate the same choice questions, spread over the benchmark, one at a time and in batches; questions a second."""
    samples = [s for s in questions(DATA / "benchmark", DATA / "videos")[0] if s.kind == "choice"]
    samples = samples[:: max(1, len(samples) // count)][:count]
    generate = partial(
        generation.generate, *models.load("tiny", four_bit=four_bit), videos=DATA / "videos"
    )
    generate(samples[:1])  # the first reply pays for what is set up once
    generate(
        samples
    )  # all videos are read once before the clock starts, so that neither way pays for it
    records, rates = {}, {}
    for size in (1, batch):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            records[size] = evaluate(samples, generate, folder, batch=size, progress=False)
            rates[size] = count / (time.perf_counter() - start)
    same = sum(a["reply"] == b["reply"] for a, b in zip(records[1], records[batch]))
    answers = sum(a["answer"] == b["answer"] for a, b in zip(records[1], records[batch]))
    row = {
        "four_bit": four_bit,
        "questions": count,
        "batch": batch,
        "one_per_s": round(rates[1], 2),
    }
    row |= {"batched_per_s": round(rates[batch], 2), "times": round(rates[batch] / rates[1], 2)}
    return row | {"same_answer": answers, "same_reply": same}


if __name__ == "__main__":
    count, batch = map(int, sys.argv[1:] or (32, 16))
    for four_bit in (False, True):
        print(measure(count, batch, four_bit), flush=True)
