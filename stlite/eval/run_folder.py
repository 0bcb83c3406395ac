"""A run folder: what made its records stands in `run.json`, and one process at a time writes there."""

import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stlite.data.sample import write_text

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


def open_run(out: Path, keys: dict[str, str], batch: int, settings: dict) -> None:
    """Note this session in run.json, beside what training wrote there; refuse records made with other settings."""
    path = out / "run.json"
    settings = json.loads(json.dumps(settings))
    run = json.loads(path.read_text()) if path.exists() else {"name": out.name}
    new = {"settings": settings, "hash": digest(settings), "sessions": []}
    evaluation = run.setdefault("evaluation", new)
    refuse_others(path, settings, evaluation["settings"])
    evaluation["sessions"].append(
        {
            "command": shlex.join(sys.argv),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "batch": batch,
            "samples": len(keys),
            "samples_hash": digest(keys),
            "versions": versions(),
        }
    )
    write_text(path, json.dumps(run, indent=1) + "\n")


def refuse_others(path: Path, settings: dict, recorded: dict) -> None:
    """Raise ValueError where the settings asked for are not those of the records, naming each."""
    differences = []
    for name in sorted({*settings, *recorded}):
        asked = settings.get(name)
        found = recorded.get(name)
        if asked != found:
            differences.append(f"{name}: asked for {asked!r}, found {found!r}")
    if differences:
        raise ValueError(
            f"{path}: the records here were made with other settings: {'; '.join(differences)}"
        )


def digest(data: object) -> str:
    """Hash anything JSON can hold, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def fingerprint(adapter: str | os.PathLike) -> str:
    """Name the weights of an adapter folder by their content, for `settings`: records of other weights are refused."""
    weights = Path(adapter, "adapter_model.safetensors").read_bytes()
    return hashlib.sha256(weights).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Look up the versions of Python and of the installed packages that decide a result, importing none."""
    from importlib.metadata import PackageNotFoundError, version

    installed = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the run folder for this process; the lock goes with the process, however it ends."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w") as file:
        try:
            import fcntl
        except ImportError:  # Windows has no such lock
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{out}: another process is writing this run") from None
        yield
