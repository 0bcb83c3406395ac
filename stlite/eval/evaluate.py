"""Samples × a function that answers them → records on disk.

    model, processor = load("tiny")
    ask = partial(generate, model, processor, videos="sample_data/videos")
    records = evaluate(samples, ask, "runs/base", settings={"model": "tiny"})

A run that was stopped goes on where it was: only samples without a record are asked.
"""

import math
import os
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from stlite.data import egost
from stlite.data.sample import Sample, read_jsonl
from stlite.eval.query import Generate, OutOfMemory, adapter_of, query, sampling_of
from stlite.eval.records import append, record, resume
from stlite.eval.run_folder import digest, locked, open_run


def evaluate(
    samples: Iterable[Sample],
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
    fail_on_error: bool | float = 0.5,
) -> list[dict]:
    """Ask every sample that has no record in the run folder `out` yet; return a record per sample.

    `generate(samples, order=order)` gives a dictionary per sample: `reply` and `tokens`, or
    `error`. A video that cannot be read, or a reply that takes longer than `timeout` (seconds a
    sample), is a record with reason "failed" and value 0, which `retry` asks again; any other
    error is raised. A batch that is out of memory is halved.

    Raises RuntimeError when nothing but failures has come so far, or more fail than
    `fail_on_error` allows: a share of the samples, a count from 1 on, True for none, False for
    any. Raises ValueError where the folder's records were made with other `settings`, order or
    seed, or of other samples under the same id. Records stand under `settings["adapter"]`, a
    `fingerprint`; `generate` fills in that and `settings["sampling"]` where it tells them.
    """
    from tqdm import tqdm  # not tqdm.auto, whose widget would be saved in the notebook

    samples = list(samples)
    out = Path(out)
    keys = sample_keys(samples)
    tally = Counter()
    with locked(out), tqdm(total=len(samples), disable=not progress, unit="q") as bar:
        path = open_run(out, keys, batch, run_settings(generate, settings, order, seed))
        done = resume(path, keys, retry)
        limit = failures_allowed(fail_on_error, len(samples))
        refuse_failures(done.values(), limit)
        _advance(bar, done.values(), tally)
        todo = [s for s in samples if s.id not in done]
        while todo:
            rows, batch = ask(todo, batch, generate, order, timeout)
            todo = todo[len(rows) :]
            if limit < math.inf:
                refuse_nothing_but_failures([*done.values(), *rows])
            for row in rows:
                row["key"] = keys[row["id"]]
                done[row["id"]] = row
            append(path, rows)
            refuse_failures(done.values(), limit)
            _advance(bar, rows, tally)
    return [done[s.id] for s in samples]


def run_settings(generate: Generate, settings: dict | None, order: str, seed: int) -> dict:
    """Return all that the records go by."""
    settings = dict(settings or {})
    sampling = sampling_of(generate)
    if sampling:
        settings.setdefault("sampling", sampling)
    adapter = adapter_of(generate)
    if adapter and settings.get("adapter") is None:
        settings["adapter"] = adapter
    return settings | {"order": order, "seed": seed}


def ask(
    samples: Sequence[Sample], batch: int, generate: Generate, order: str, timeout: float | None
) -> tuple[list[dict], int]:
    """Ask the first samples, halving the batch until it fits; return their records and that batch.

    A sample that does not fit alone is a failure.
    """
    asked = batch
    while True:
        part = samples[:batch]
        try:
            rows = query(part, generate, order, timeout)
        except OutOfMemory as error:
            message = str(error)
        else:
            break
        if len(part) == 1:
            rows = [
                record(part[0], {"error": f"{message} (one question alone does not fit)"}, order)
            ]
            break
        batch = len(part) // 2
    if batch < asked:
        message = f"out of memory: {batch} questions at a time from here on, not {asked}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    return rows, batch


def failures_allowed(fail_on_error: bool | float, total: int) -> float:
    """Return how many samples may fail.

    >>> failures_allowed(0.5, 12), failures_allowed(3, 12)
    (6.0, 3)
    >>> failures_allowed(True, 12), failures_allowed(False, 12)
    (0, inf)
    """
    if fail_on_error is True:
        return 0
    if fail_on_error is False:
        return math.inf
    if not fail_on_error >= 0:
        raise ValueError(
            f"fail_on_error: expected a share, a count, True or False, found {fail_on_error}"
        )
    return fail_on_error * total if fail_on_error < 1 else fail_on_error


def refuse_failures(rows: Collection[dict], limit: float) -> None:
    """Raise RuntimeError where more records failed than allowed."""
    failed = [row for row in rows if row["reason"] == "failed"]
    if len(failed) > limit:
        raise RuntimeError(
            f"{len(failed)} questions failed, more than fail_on_error allows ({limit:g}); "
            f"the last: {failed[-1]['error']}. Mend the cause and call again with retry=True; "
            "what was answered is kept"
        )


def refuse_nothing_but_failures(rows: Sequence[dict]) -> None:
    """Raise RuntimeError where every record so far is a failure, before this batch is written."""
    if all(row["reason"] == "failed" for row in rows):
        raise RuntimeError(
            f"all of the first {len(rows)} questions failed, so nothing was recorded; "
            f"the first: {rows[0]['error']}. Mend the cause and call again, "
            "or pass fail_on_error=False to go on"
        )


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


def questions(
    data: str | os.PathLike, videos: str | os.PathLike | None = None
) -> tuple[list[Sample], list]:
    """Read a benchmark's folder, released rows or samples: (samples, errors of other rows)."""
    if Path(data).is_dir():
        return egost.read_benchmark(data, videos, on_error="collect")
    with open(data, encoding="utf-8") as lines:
        released = '"problem"' in lines.readline()
    if released:
        return egost.read_rows(data, videos, on_error="collect")
    return list(read_jsonl(data)), []
