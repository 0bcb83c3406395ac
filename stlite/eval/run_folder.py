"""A run folder: what made its records stands in `run.json`, and one process at a time writes there.

{"name": "st-r1", "training": {...}, "evaluation": {"records": "records-1f0c.jsonl", "hash": "...",
 "settings": {"model": "tiny", "adapter": "1f0c", "sampling": {...}, "order": "forward", "seed": 0},
 "sessions": [{"command": ...}]}}
"""

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

RECORDS = "records.jsonl"
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


def read_run(folder: str | os.PathLike) -> dict:
    """Read a folder's run.json; a folder without one has only its name."""
    path = Path(folder, "run.json")
    if not path.exists():
        return {"name": Path(folder).name}
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, found {error}; use another run folder") from None


def write_run(folder: str | os.PathLike, run: dict) -> None:
    """Write a folder's run.json."""
    write_text(Path(folder, "run.json"), json.dumps(run, indent=1) + "\n")


def records_name(adapter: str | None) -> str:
    """Name the file of the records of an adapter, by its fingerprint.

    >>> records_name(None), records_name("1f0c")
    ('records.jsonl', 'records-1f0c.jsonl')
    """
    return f"records-{adapter}.jsonl" if adapter else RECORDS


def records_path(run: str | os.PathLike) -> Path:
    """Return the file of the records that a run folder wrote last; a file is returned as it is."""
    path = Path(run)
    if not path.is_dir():
        return path
    return path / read_run(path).get("evaluation", {}).get("records", RECORDS)


def open_run(out: Path, keys: dict[str, str], batch: int, settings: dict) -> Path:
    """Note this session in run.json, beside what training wrote; return the file for its records.

    Records stand under the fingerprint in `settings["adapter"]`: those of another adapter stay
    beside them. Records made with other settings are refused; settings without records give way to
    these.
    """
    settings = json.loads(json.dumps(settings))
    name = records_name(settings.get("adapter"))
    run = read_run(out)
    evaluations = run.pop("other_adapters", {})
    if "evaluation" in run:
        last = run.pop("evaluation")
        evaluations[last.get("records", RECORDS)] = last
    evaluation = evaluations.pop(name, None)
    if not _has_records(out / name):
        evaluation = None
    elif evaluation is None:
        raise ValueError(
            f"{out / name}: no run.json says how these records were made; use another run folder"
        )
    else:
        refuse_others(out / "run.json", settings, evaluation["settings"])
    if evaluation is None:
        evaluation = {"records": name, "settings": settings, "hash": digest(settings)}
        evaluation["sessions"] = []
    evaluation["sessions"].append(_session(keys, batch))
    run["evaluation"] = evaluation
    if evaluations:
        run["other_adapters"] = evaluations
    write_run(out, run)
    return out / name


def _has_records(path: Path) -> bool:
    return path.exists() and b"\n" in path.read_bytes()


def _session(keys: dict[str, str], batch: int) -> dict:
    return {
        "command": shlex.join(sys.argv),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "batch": batch,
        "samples": len(keys),
        "samples_hash": digest(keys),
        "versions": versions(),
    }


def refuse_others(path: Path, settings: dict, recorded: dict) -> None:
    """Raise ValueError where the settings asked for are not those of the records, naming each."""
    differences = _differences(settings, recorded)
    if differences:
        raise ValueError(
            f"{path}: the records here were made with other settings: {'; '.join(differences)}"
        )


def _differences(settings: dict, recorded: dict, inside: str = "") -> list[str]:
    """Say what differs, by name; of two dictionaries only the entries that do."""
    differences = []
    for name in sorted({*settings, *recorded}):
        asked = settings.get(name)
        found = recorded.get(name)
        if isinstance(asked, dict) and isinstance(found, dict):
            differences += _differences(asked, found, f"{inside}{name} ")
        elif asked != found:
            differences.append(f"{inside}{name}: asked for {asked!r}, found {found!r}")
    return differences


def origin(run: str | os.PathLike) -> str:
    """Say where records come from: date, model, adapter, seeds, settings, versions, command."""
    folder = Path(run) if Path(run).is_dir() else Path(run).parent
    written = read_run(folder)
    evaluation = written.get("evaluation")
    if evaluation is None:
        return "date, model, seed, versions and command are not recorded"
    settings = evaluation["settings"]
    session = evaluation["sessions"][-1]
    parts = [f"evaluated {session['started']}", f"model {settings.get('model', 'not named')}"]
    parts += [f"adapter {settings.get('adapter') or 'none'}", f"seed {settings.get('seed')}"]
    made_by = (written.get("training") or {}).get("made_by", {})
    if "seed" in made_by:
        parts.append(f"training seed {made_by['seed']}")
    for name, value in settings.items():
        if name not in ("model", "adapter", "seed"):
            parts.append(f"{name} {value}")
    parts.append(" ".join(f"{name} {version}" for name, version in session["versions"].items()))
    return "; ".join([*parts, f"command: {session['command']}"])


def digest(data: object) -> str:
    """Hash anything JSON can hold, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def fingerprint(adapter: str | os.PathLike) -> str:
    """Name the weights of an adapter folder by their content, for `settings["adapter"]`."""
    weights = Path(adapter, "adapter_model.safetensors").read_bytes()
    return hashlib.sha256(weights).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Look up the versions of Python and of packages that decide a result, importing none."""
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
