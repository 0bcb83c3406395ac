"""Samples × a function that answers them → records on disk, whole again after kill -9.

A line of `runs/<name>/records.jsonl`:
`{"id": "w7/direction/reverse", "task": "direction", "way": "reverse", "kind": "choice", "video": "w7.mp4", "group": "w7",
  "reply": "<think>...</think> <answer>B</answer>", "answer": "B", "gold": "B", "value": 1.0, "reason": "right", ...}`
"""

import argparse
import hashlib
import json
import os
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

from stlite.data import egost
from stlite.data.sample import Sample, read_jsonl, write_text
from stlite.data.splits import group_of
from stlite.data.video import ORDERS
from stlite.rewards.choice import compare_routes, ngrams, score

Generate = Callable[..., list[dict]]  # (samples, order=) -> {"reply", "tokens"} or {"error"} each
PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "unsloth",
    "numpy",
    "av",
    "decord",
)


def evaluate(
    samples,
    generate,
    out,
    *,
    settings=None,
    batch=8,
    order="forward",
    seed=0,
    progress=True,
    timeout=None,
    retry=False,
) -> list[dict]:
    """Ask every sample that has no record in the run folder `out` yet; return one record per sample, in their order.

    `generate(samples, order=order)` gives a dictionary per sample: `reply` and `tokens`, or `error`. When it raises, the
    batch is asked again one by one; what fails then is a record with reason "failed" and value 0, which `retry` asks
    again. `timeout` is in seconds per sample (main thread, not on Windows). A folder whose records were made with
    other settings, order or seed, or of other samples under the same id, raises ValueError.
    """
    from tqdm import tqdm  # not tqdm.auto, whose widget would be saved in the notebook

    samples, out = list(samples), Path(out)
    keys, tally = _keys(samples), Counter()
    with _locked(out), tqdm(total=len(samples), disable=not progress, unit="q") as bar:
        _open_run(out, keys, batch, {**(settings or {}), "order": order, "seed": seed})
        done = _resume(out / "records.jsonl", keys, retry)
        _advance(bar, done.values(), tally)
        todo = [s for s in samples if s.id not in done]
        for start in range(0, len(todo), batch):
            rows = [
                r | {"key": keys[r["id"]]}
                for r in query(todo[start : start + batch], generate, order, timeout)
            ]
            _append(out / "records.jsonl", rows)
            done |= {r["id"]: r for r in rows}
            _advance(bar, rows, tally)
    return [done[s.id] for s in samples]


def query(
    samples: list[Sample], generate: Generate, order: str = "forward", timeout: float | None = None
) -> list[dict]:
    """Put one batch to the model and score what comes back; one bad video does not fail its neighbours."""
    start, error = time.perf_counter(), ""
    try:
        with _time_limit(timeout * len(samples)) if timeout else nullcontext():
            results = generate(samples, order=order)
    except (
        Exception
    ) as found:  # whatever a model can raise belongs in a record, not in the way of the next sample
        error = f"{type(found).__name__}: {found}"
    if (
        error and len(samples) > 1
    ):  # not in the except clause, where the traceback would hold the batch in memory
        return [row for sample in samples for row in query([sample], generate, order, timeout)]
    results = [{"error": error}] if error else results
    if len(results) != len(samples):
        raise TypeError(
            f"generate: expected {len(samples)} results, one per sample, found {len(results)}"
        )
    seconds = (time.perf_counter() - start) / len(samples)
    return [record(s, r, order, seconds) for s, r in zip(samples, results)]


def record(sample: Sample, result: dict, order: str = "forward", seconds: float = 0.0) -> dict:
    """Score one result of `generate` into a record; an `error` in it makes the record a failure."""
    row = {name: getattr(sample, name) for name in ("id", "task", "way", "kind", "part", "video")}
    row |= {"group": group_of(sample), "gold": sample.answer, "options": list(sample.options)}
    row |= {
        "reply": result.get("reply", ""),
        "answer": "",
        "value": 0.0,
        "reason": "failed",
        "explanation": "",
    }
    if not (error := result.get("error", "")):
        row |= asdict(score(sample, result["reply"]))
    if row["kind"] == "route":  # without an answer, 0 for all that the annotation has
        gold, route = sample.answer, row["answer"] or sample.answer
        parts = compare_routes(gold, route) | ngrams(gold, route)
        row["route"] = {
            k: v if row["answer"] or v is None else 0.0 for k, v in parts.items() if k != "value"
        }
    return row | {
        "tokens": result.get("tokens", 0),
        "seconds": round(seconds, 4),
        "order": order,
        "error": error,
    }


def read_records(run: str | os.PathLike) -> list[dict]:
    """Read the records of a run folder (or one file); a last line still being written is not there yet."""
    path = Path(run) / "records.jsonl" if Path(run).is_dir() else Path(run)
    rows: dict[str, dict] = {}
    with open(path, encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                break
            try:
                row = json.loads(line)
                fresh = row["id"] not in rows
            except (ValueError, RecursionError, KeyError, TypeError):
                fresh = False
            if not fresh:
                raise ValueError(
                    f"{path}:{number}: expected a record with an id of its own, found {line[:80]!r}"
                )
            rows[row["id"]] = row
    return list(rows.values())


def join(samples: Iterable[Sample], out: str | os.PathLike, count: int) -> bool:
    """Write the records of `count` shards as one run, in the samples' order, once every sample has its record."""
    parts, out = [_shard(out, i, count) for i in range(count)], Path(out)
    rows = {
        r["id"]: r
        for part in parts
        if (part / "records.jsonl").exists()
        for r in read_records(part)
    }
    if any(s.id not in rows for s in samples):
        return False
    write_text(out / "records.jsonl", "".join(json.dumps(rows[s.id]) + "\n" for s in samples))
    run = json.loads((parts[0] / "run.json").read_text())
    write_text(out / "run.json", json.dumps(run | {"name": out.name}, indent=1))
    return True


def _shard(out, rank: int, count: int) -> Path:
    return Path(out, f"shard-{rank}-of-{count}") if count > 1 else Path(out)


def _append(path: Path, rows: Iterable[dict]) -> None:
    with open(
        path, "ab"
    ) as file:  # ASCII: a reply may hold half a surrogate pair, which no UTF-8 file can
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode("ascii"))
        file.flush()
        os.fsync(file.fileno())


def _resume(path: Path, keys: dict[str, str], retry: bool) -> dict[str, dict]:
    """Cut a torn last line off, refuse records of questions that changed, return the records of those asked for."""
    path.touch()
    os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    rows = {r["id"]: r for r in read_records(path)}
    for name in keys.keys() & rows:
        if rows[name].get("key") != keys[name]:
            raise ValueError(
                f"{path}: sample {name!r} is not the one recorded here; use another run folder"
            )
    if retry:
        rows = {
            name: row for name, row in rows.items() if row["reason"] != "failed" or name not in keys
        }
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows.values()))
    return {name: row for name, row in rows.items() if name in keys}


def _open_run(out: Path, keys: dict[str, str], batch: int, settings: dict) -> None:
    """Note this session in run.json, beside what training wrote there; refuse records made with other settings."""
    path, settings = out / "run.json", json.loads(json.dumps(settings))
    run = json.loads(path.read_text()) if path.exists() else {"name": out.name}
    ours = run.setdefault(
        "evaluation", {"settings": settings, "hash": digest(settings), "sessions": []}
    )
    found = ours["settings"]
    if differs := [k for k in sorted({*settings, *found}) if settings.get(k) != found.get(k)]:
        said = "; ".join(
            f"{k}: asked for {settings.get(k)!r}, found {found.get(k)!r}" for k in differs
        )
        raise ValueError(f"{path}: the records here were made with other settings: {said}")
    session = {
        "command": shlex.join(sys.argv),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "batch": batch,
    }
    ours["sessions"].append(
        session | {"samples": len(keys), "samples_hash": digest(keys), "versions": versions()}
    )
    write_text(path, json.dumps(run, indent=1) + "\n")


def _keys(samples: list[Sample]) -> dict[str, str]:
    if twice := [i for i, n in Counter(s.id for s in samples).items() if n > 1]:
        raise ValueError(
            f"samples: expected each id once, found {twice[0]!r} again ({len(twice)} such ids)"
        )
    return {s.id: digest(asdict(s) | {"origin": ""}) for s in samples}


def digest(data: object) -> str:
    """Hash anything JSON can hold, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def fingerprint(adapter: str | os.PathLike) -> str:
    """Name the weights of an adapter folder by their content, for `settings`: records of other weights are not gone on with."""
    return hashlib.sha256(Path(adapter, "adapter_model.safetensors").read_bytes()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Look up the versions of Python and of the installed packages that decide a result, importing none."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _advance(bar, rows: Collection[dict], tally: Counter) -> None:
    choices = [r["value"] for r in rows if r["kind"] == "choice"]
    tally.update(
        n=len(choices), right=sum(choices), failed=sum(r["reason"] == "failed" for r in rows)
    )
    bar.update(len(rows))
    accuracy = f"accuracy {100 * tally['right'] / tally['n']:.1f} %, " if tally["n"] else ""
    bar.set_postfix_str(f"{accuracy}failed {tally['failed']}")


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the run folder for this process; the lock goes with the process, however it ends."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w") as file:
        with suppress(ImportError):  # Windows has no such lock
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{out}: another process is writing this run") from None
        yield


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
    return (
        egost.read_rows(data, videos, on_error="collect")
        if released
        else (list(read_jsonl(data)), [])
    )


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stlite.eval.evaluate", description=main.__doc__
    )
    parser.add_argument(
        "--data", required=True, help="a folder of the benchmark, released rows, or samples.jsonl"
    )
    parser.add_argument(
        "--videos", required=True, help="the folder that paths of videos start from"
    )
    parser.add_argument("--out", required=True, help="the run folder, made or resumed")
    parser.add_argument("--model", default="tiny", help="a preset, a local folder or a hub id")
    parser.add_argument("--adapter", help="a folder that training saved")
    parser.add_argument("--order", default="forward", choices=ORDERS, help="order of the frames")
    parser.add_argument("--direct", action="store_true", help="ask for the answer without thinking")
    parser.add_argument(
        "--four-bit", action=argparse.BooleanOptionalAction, default=True, help="nf4 weights"
    )
    parser.add_argument("--retry", action="store_true", help="ask again what failed")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N questions")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="questions at a time")
    parser.add_argument("--tokens", type=int, default=256, metavar="N", help="the longest reply")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Evaluate a model on questions, or go on where a run stopped; under `accelerate launch -m`, on several cards."""
    args = _arguments().parse_args(argv)
    samples, bad = questions(args.data, args.videos)
    if bad:
        print(
            f"left out: {len(bad)} rows that are no questions; the first: {bad[0]}", file=sys.stderr
        )
    if not samples or not Path(args.videos).is_dir():
        _arguments().error(
            f"expected questions and a folder of videos, found {len(samples)} and {args.videos!r}"
        )
    from stlite.train import models  # torch, for this one function

    settings = {k: v for k, v in models.settings(args.model).items() if k != "source"}
    settings |= {
        "model": args.model,
        "four_bit": args.four_bit,
        "direct": args.direct,
        "max_new_tokens": args.tokens,
    }
    settings["adapter"] = args.adapter and fingerprint(args.adapter)
    model, processor = models.load(args.model, four_bit=args.four_bit, adapter=args.adapter)
    how = {"videos": args.videos, "max_new_tokens": args.tokens, "direct": args.direct}
    samples, rank, count = (
        samples[: args.limit],
        int(os.environ.get("RANK", 0)),
        int(os.environ.get("WORLD_SIZE", 1)),
    )
    evaluate(
        samples[rank::count], partial(models.generate, model, processor, **how), _shard(args.out, rank, count),
        settings=settings, batch=args.batch, order=args.order, retry=args.retry,
    )  # fmt: skip
    if count == 1 or join(samples, args.out, count):
        print(f"written: {args.out}; next: python -m stlite.eval.report {args.out}")


if __name__ == "__main__":
    main()
