"""Samples × a function that answers them → records on disk.

    model, processor = load("tiny")
    ask = partial(generate, model, processor, videos="sample_data/videos")
    records = evaluate(samples, ask, "runs/base", settings={"model": "tiny"})

A run that was stopped goes on where it was: only samples without a record are asked.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

from stlite.data import egost
from stlite.data.sample import Sample, read_jsonl
from stlite.eval.records import FILE, append, record, resume
from stlite.eval.run_folder import digest, locked, open_run

Generate = Callable[..., list[dict]]  # (samples, order=) -> {"reply", "tokens"} or {"error"} each


def evaluate(
    samples,
    generate: Generate,
    out: str | os.PathLike,
    *,
    settings: dict | None = None,
    batch: int = 8,
    order: str = "forward",
    seed: int = 0,
    progress: bool = True,
    timeout: float | None = None,
    retry: bool = False,
) -> list[dict]:
    """Ask every sample that has no record in the run folder `out` yet; return one record per sample, in their order.

    `generate(samples, order=order)` gives a dictionary per sample: `reply` and `tokens`, or `error`. When it raises, the
    batch is asked again one by one; what fails then is a record with reason "failed" and value 0, which `retry` asks
    again. `timeout` is in seconds per sample (main thread, not on Windows). A folder whose records were made with
    other settings, order or seed, or of other samples under the same id, raises ValueError.
    """
    from tqdm import tqdm  # not tqdm.auto, whose widget would be saved in the notebook

    samples = list(samples)
    out = Path(out)
    keys = sample_keys(samples)
    tally = Counter()
    with locked(out), tqdm(total=len(samples), disable=not progress, unit="q") as bar:
        open_run(out, keys, batch, {**(settings or {}), "order": order, "seed": seed})
        done = resume(out / FILE, keys, retry)
        _advance(bar, done.values(), tally)
        todo = [s for s in samples if s.id not in done]
        for start in range(0, len(todo), batch):
            rows = query(todo[start : start + batch], generate, order, timeout)
            for row in rows:
                row["key"] = keys[row["id"]]
                done[row["id"]] = row
            append(out / FILE, rows)
            _advance(bar, rows, tally)
    return [done[s.id] for s in samples]


def query(
    samples: list[Sample], generate: Generate, order: str = "forward", timeout: float | None = None
) -> list[dict]:
    """Put one batch to the model and score what comes back; one bad video does not fail its neighbours."""
    start = time.perf_counter()
    error = ""
    try:
        with _time_limit(timeout * len(samples)) if timeout else nullcontext():
            results = generate(samples, order=order)
    except Exception as raised:  # whatever a model can raise belongs in a record
        error = f"{type(raised).__name__}: {raised}"
    if error and len(samples) > 1:  # not under `except`, where the traceback would hold the batch
        rows = []
        for sample in samples:
            rows += query([sample], generate, order, timeout)
        return rows
    if error:
        results = [{"error": error}]
    if len(results) != len(samples):
        raise TypeError(
            f"generate: expected {len(samples)} results, one per sample, found {len(results)}"
        )
    seconds = (time.perf_counter() - start) / len(samples)
    return [record(s, result, order, seconds) for s, result in zip(samples, results)]


def sample_keys(samples: list[Sample]) -> dict[str, str]:
    """Hash all of each sample but its origin, by id; an id that comes twice raises ValueError."""
    keys = {}
    for sample in samples:
        if sample.id in keys:
            raise ValueError(f"samples: expected each id once, found {sample.id!r} again")
        keys[sample.id] = digest(asdict(sample) | {"origin": ""})
    return keys


def _advance(bar, rows: Collection[dict], tally: Counter) -> None:
    """Move the bar on by these records and show the running accuracy."""
    for row in rows:
        tally["failed"] += row["reason"] == "failed"
        if row["kind"] == "choice":
            tally["choices"] += 1
            tally["right"] += row["value"]
    bar.update(len(rows))
    words = []
    if tally["choices"]:
        words.append(f"accuracy {100 * tally['right'] / tally['choices']:.1f} %")
    words.append(f"failed {tally['failed']}")
    bar.set_postfix_str(", ".join(words))


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(*_):
        raise TimeoutError(f"no reply within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def questions(
    data: str | os.PathLike, videos: str | os.PathLike | None = None
) -> tuple[list[Sample], list]:
    """Read a folder of the benchmark, a file of released rows, or a file of samples: (samples, errors of other rows)."""
    if Path(data).is_dir():
        return egost.read_benchmark(data, videos, on_error="collect")
    with open(data, encoding="utf-8") as lines:
        released = '"problem"' in lines.readline()
    if released:
        return egost.read_rows(data, videos, on_error="collect")
    return list(read_jsonl(data)), []
