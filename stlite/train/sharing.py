"""Share what was trained: push it to the hub with a filled model card, and load it again by name.

    push("runs/mine/st-r1", "you/my-adapter")                        # the adapter of a run
    push("runs/mine/merged", "you/my-model", run="runs/mine/st-r1")  # a merged model
    model, processor = load("qwen3-vl-4b", adapter="you/my-adapter")

Weights travel as safetensors only, in both directions.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from stlite.data.sample import write_text
from stlite.eval.metrics import accuracy_table
from stlite.eval.records import read_records
from stlite.eval.run_folder import fingerprint, read_run, records_path
from stlite.eval.sentences import percent
from stlite.train.presets import READING

UPLOADED = ("*.safetensors", "*.json", "*.txt", "*.jinja", "README.md")
DOWNLOADED = ("*.safetensors", "*.json", "*.txt", "*.jinja")
UNKNOWN = "not recorded"
TEMPLATE = "Model Card for Model ID"  # PEFT's card, in which every field is empty
NOT_SETTINGS = (
    "stage",
    "recipe",
    "rewards",
    "seed",
    "model",
    "starting_adapter",
    "lora",
    "reading",
    "chat_template",
    "rows",
    "rows_hash",
    "videos_hash",
)


def push(
    folder: str | os.PathLike,
    name: str,
    run: str | os.PathLike | None = None,
    private: bool = True,
) -> str:
    """Upload a run's adapter or a merged model with its model card; return the address.

    `run` is the run folder that the card describes, for a merged model. The card is written to
    README.md in `folder` if there is none: edit it there, and push again. Raises ValueError for a
    name that is not "user/name" and for a folder without safetensors, ConnectionError where the
    hub may not be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    if name.count("/") != 1:
        raise ValueError(f"push: expected a name like 'user/my-adapter', found {name!r}")
    _weights(folder)
    _write_card(Path(folder), run, name)
    try:
        api = HfApi()
        address = api.create_repo(name, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as spare:
            what = prepare(folder, spare)
            api.upload_folder(repo_id=name, folder_path=what, allow_patterns=list(UPLOADED))
    except OfflineModeIsEnabled as error:
        raise ConnectionError(
            f"push: HF_HUB_OFFLINE is set, so nothing was sent to {name}; unset it and push again"
        ) from error
    return str(address)


def prepare(folder: str | os.PathLike, out: str | os.PathLike) -> Path:
    """Return the folder to upload: a merged model's own, an adapter's copied to `out`.

    In the copy the base model has its public name, and stlite.json says how clips are read. A run
    folder's run.json, logs and records stay at home: they name files of your machine.
    """
    adapter = _adapter(folder)
    if adapter is None:
        return Path(folder)
    out = Path(out)
    for pattern in UPLOADED:
        for path in adapter.glob(pattern):
            shutil.copy2(path, out / path.name)
    config = _json(out / "adapter_config.json")
    config["base_model_name_or_path"] = _public(config.get("base_model_name_or_path"))
    write_text(out / "adapter_config.json", json.dumps(config, indent=2) + "\n")
    reading = _made_by(read_run(folder)).get("reading")
    if reading:
        write_text(out / "stlite.json", json.dumps(reading) + "\n")
    shutil.copy2(Path(folder, "README.md"), out / "README.md")
    return out


def adapter_folder(adapter: str | os.PathLike) -> Path:
    """Return the folder of an adapter: a local one, or one of the hub, downloaded.

    Only safetensors, JSON and text are downloaded. Raises ValueError where there are no
    safetensors, ConnectionError where the hub may not be reached.
    """
    local = Path(adapter)
    if not local.is_dir():
        local = _download(str(adapter))
    if not (local / "adapter_model.safetensors").is_file():
        raise ValueError(
            f"{adapter}: expected an adapter with adapter_model.safetensors, found none; "
            "other kinds of weights are not read, as loading them can run code"
        )
    return local


def adapter_reading(adapter: str | os.PathLike) -> dict:
    """Return how clips are read for an adapter that was trained here or shared.

    {} where that is not said.
    """
    written = _json(Path(adapter, "stlite.json"))
    return {name: written[name] for name in (*READING, "timestamps") if name in written}


def is_hub_name(name: str | os.PathLike) -> bool:
    """Return whether a name is that of a model on the hub, "user/name", and not of a folder here."""
    name = str(name)
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).is_dir()


def model_folder(name: str, online: bool) -> str:
    """Return the downloaded folder of a merged model that was pushed; any other hub name as it is.

    Its stlite.json says how clips are read, which a name on the hub does not. Not `online`, only
    what was downloaded before counts.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    try:
        hf_hub_download(name, "stlite.json", local_files_only=not online)
    except (EntryNotFoundError, RepositoryNotFoundError):
        return name
    return snapshot_download(name, allow_patterns=list(DOWNLOADED), local_files_only=not online)


def _download(name: str) -> Path:
    if not is_hub_name(name):
        raise ValueError(f"adapter: expected a folder or a name like 'user/name', found {name!r}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(DOWNLOADED)))
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"{name}: not on this machine as a folder or a download, and the hub cannot be reached"
        ) from error


# ---- the model card ------------------------------------------------------------------------------


def model_card(
    folder: str | os.PathLike, run: str | os.PathLike | None = None, name: str = "user/name"
) -> str:
    """Describe an adapter or a merged model from what its run folder holds, as a README.md.

    What is not written down there is said to be "not recorded". The licence is yours to fill in.
    """
    run = folder if run is None else run
    described = read_run(run)
    merged = _adapter(folder) is None
    base = _base(run)
    sections = {
        "Data": _data(described),
        "Recipe": _recipe(described),
        "Scores": _scores(run, described),
        "Versions": _versions(described),
        "Load it again": _loading(name, base, merged),
        "Licence": "To be filled in by the owner: add `license: …` above. The base model's own "
        "licence holds, too.",
    }
    kind = "Merged weights" if merged else "A LoRA adapter"
    text = f"{_front_matter(base, merged)}# {name.split('/')[-1]}\n\n"
    text += f"{kind}, trained with stlite. Base model: {_code(base)}. Weights: safetensors only.\n"
    for title, body in sections.items():
        text += f"\n## {title}\n\n{body}\n"
    return text


def _front_matter(base: str, merged: bool) -> str:
    lines = ["---", f"library_name: {'transformers' if merged else 'peft'}"]
    if "/" in base:
        lines.append(f"base_model: {json.dumps(base)}")
    lines += ["pipeline_tag: video-text-to-text", "tags:", "- stlite", "---", "", ""]
    return "\n".join(lines)


def _data(described: Mapping) -> str:
    made_by = _made_by(described)
    left_out = described.get("training", {}).get("left_out")
    facts = {
        "training rows": made_by.get("rows"),
        "hash of the rows": made_by.get("rows_hash"),
        "hash of the videos": made_by.get("videos_hash"),
        "rows left out": None if left_out is None else len(left_out),
    }
    return _list(facts)


def _recipe(described: Mapping) -> str:
    made_by = _made_by(described)
    facts = {
        "stage": made_by.get("stage"),
        "recipe or rewards": made_by.get("recipe", made_by.get("rewards")),
        "started from the adapter": made_by.get("starting_adapter"),
        "seed": made_by.get("seed"),
        "LoRA": made_by.get("lora"),
        "how clips are read": made_by.get("reading"),
    }
    settings = {key: value for key, value in made_by.items() if key not in NOT_SETTINGS}
    return _list(facts | {"settings": settings or None})


def _scores(run: str | os.PathLike, described: Mapping) -> str:
    """Write the accuracy table of the run's records, if they are of the adapter that is shared."""
    path = records_path(run)
    adapter = _adapter(run)
    if path == Path(run) or not path.is_file() or adapter is None:
        return f"Scores: {UNKNOWN}."
    evaluation = described.get("evaluation", {})
    if evaluation.get("settings", {}).get("adapter") != fingerprint(adapter):
        return f"Scores: {UNKNOWN}. The records in the run folder are of other weights."
    lines = [
        "| task | way | questions | accuracy [95 % interval] | chance |",
        "|---|---|---|---|---|",
    ]
    for row in accuracy_table(read_records(path)):
        chance = "" if row["chance"] is None else f"{100 * row['chance']:.1f} %"
        lines.append(f"| {row['task']} | {row['way']} | {row['n']} | {percent(row)} | {chance} |")
    questions = evaluation.get("sessions", [{}])[-1].get("samples_hash")
    lines.append(f"\nHash of the questions: {_code(questions)}. Measured by `stlite.evaluate`.")
    return "\n".join(lines)


def _versions(described: Mapping) -> str:
    sessions = described.get("training", {}).get("sessions") or [{}]
    return f"- training: {_code(sessions[-1].get('versions'))}"


def _loading(name: str, base: str, merged: bool) -> str:
    call = f"load({name!r})" if merged else f"load({base!r}, adapter={name!r})"
    if not merged and base == UNKNOWN:
        call = f"load('the base model', adapter={name!r})"
    return f"```python\nfrom stlite import load\n\nmodel, processor = {call}\n```"


def _list(facts: Mapping) -> str:
    return "\n".join(f"- {name}: {_code(value)}" for name, value in facts.items())


def _code(value: object) -> str:
    """Write a value so that no markup in it counts.

    >>> _code(None), _code("a`b"), _code({"r": 16})
    ('not recorded', "`a'b`", '`{"r": 16}`')
    """
    if value is None or value == UNKNOWN:
        return UNKNOWN
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "`" + " ".join(text.replace("`", "'").split()) + "`"


# ---- what a folder holds -------------------------------------------------------------------------


def _write_card(folder: Path, run: str | os.PathLike | None, name: str) -> None:
    path = folder / "README.md"
    if not path.is_file() or TEMPLATE in path.read_text("utf-8"):
        write_text(path, model_card(folder, run, name))


def _weights(folder: str | os.PathLike) -> None:
    """Refuse a folder without safetensors."""
    place = _adapter(folder) or Path(folder)
    if not any(place.glob("*.safetensors")):
        raise ValueError(
            f"{folder}: expected a run folder, an adapter or a merged model with *.safetensors, found none"
        )


def _adapter(folder: str | os.PathLike) -> Path | None:
    """Return the adapter of a run folder, or the folder itself if it is one."""
    for place in (Path(folder, "adapter"), Path(folder)):
        if (place / "adapter_config.json").is_file():
            return place
    return None


def _base(run: str | os.PathLike) -> str:
    adapter = _adapter(run)
    if adapter is None:
        return UNKNOWN
    return _public(_json(adapter / "adapter_config.json").get("base_model_name_or_path"))


def _public(base: str | None) -> str:
    """Name a base model without the path of this machine.

    >>> _public("Qwen/Qwen3-VL-4B-Instruct"), _public("/home/me/models/tiny"), _public(None)
    ('Qwen/Qwen3-VL-4B-Instruct', 'tiny', 'not recorded')
    """
    if not base:
        return UNKNOWN
    parts = base.replace("\\", "/").rstrip("/").split("/")
    is_hub_id = len(parts) == 2 and all(parts) and parts[0] not in (".", "..", "~")
    return base if is_hub_id and not Path(base).is_dir() else parts[-1]


def _made_by(described: Mapping) -> dict:
    return described.get("training", {}).get("made_by", {})


def _json(path: Path) -> dict:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
