"""Presets: which model a name stands for, and how clips are read for it; known without torch.

>>> settings("qwen3.5-4b")["source"], settings("qwen3.5-4b")["frames"]
('Qwen/Qwen3.5-4B', 8)
"""

import json
import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
IN_THE_WHEEL = PACKAGE / "tiny"
IN_THE_CHECKOUT = PACKAGE.parent / "sample_data" / "tiny"
TINY = IN_THE_WHEEL if IN_THE_WHEEL.is_dir() else IN_THE_CHECKOUT
READING = ("frames", "max_pixels", "multiple")
# how a prompt writes the times of frames: as models were trained (transformers 4.57), or with one more
# pair of vision tokens around the clip (transformers from 5.10 on)
TIMESTAMPS = ("bare", "wrapped")
# the paper's GRPO setting (section 4); `multiple`: both sides of a frame, in patches that are
# merged two by two
QWEN2 = {"frames": 8, "max_pixels": 360 * 420, "multiple": 28}
QWEN3 = {"frames": 8, "max_pixels": 360 * 420, "multiple": 32, "timestamps": "bare"}
PRESETS = {
    "tiny": {"source": str(TINY), "frames": 16, "max_pixels": 84 * 84, "multiple": 28},
    "qwen2-vl-2b": {"source": "Qwen/Qwen2-VL-2B-Instruct", **QWEN2},
    "qwen2-vl-7b": {"source": "Qwen/Qwen2-VL-7B-Instruct", **QWEN2},
    "qwen2.5-vl-3b": {"source": "Qwen/Qwen2.5-VL-3B-Instruct", **QWEN2},
    "qwen2.5-vl-7b": {"source": "Qwen/Qwen2.5-VL-7B-Instruct", **QWEN2},
    "qwen3-vl-2b": {"source": "Qwen/Qwen3-VL-2B-Instruct", **QWEN3},
    "qwen3-vl-4b": {"source": "Qwen/Qwen3-VL-4B-Instruct", **QWEN3},
    "qwen3-vl-8b": {"source": "Qwen/Qwen3-VL-8B-Instruct", **QWEN3},
    "qwen3.5-0.8b": {"source": "Qwen/Qwen3.5-0.8B", **QWEN3},
    "qwen3.5-2b": {"source": "Qwen/Qwen3.5-2B", **QWEN3},
    "qwen3.5-4b": {"source": "Qwen/Qwen3.5-4B", **QWEN3},
    "qwen3.5-9b": {"source": "Qwen/Qwen3.5-9B", **QWEN3},
}
FAMILIES = {"qwen2_vl": QWEN2, "qwen2_5_vl": QWEN2, "qwen3_vl": QWEN3, "qwen3_5": QWEN3}


def settings(preset: str | os.PathLike) -> dict:
    """Return a preset's source, frames, max_pixels and multiple, and its timestamps where it writes any.

    A local folder is read as its stlite.json says (`merge` writes one), or as its family is; a hub
    id by its name. Raises ValueError for an unknown name, and for a folder of a family that is not
    supported.

    >>> settings("tiny")["frames"]
    16
    """
    preset = str(preset)
    if preset in PRESETS:
        return PRESETS[preset]
    folder = Path(preset)
    if (folder / "stlite.json").is_file():
        return {**json.loads((folder / "stlite.json").read_text("utf-8")), "source": preset}
    if folder.is_dir():
        return {"source": preset, **FAMILIES[family(folder)]}
    if preset.count("/") == 1:
        return {"source": preset, **(QWEN3 if "qwen3" in preset.lower() else QWEN2)}
    names = ", ".join(PRESETS)
    raise ValueError(
        f"preset: expected one of {names}, a local folder or a hub id, found {preset!r}"
    )


def family(folder: Path) -> str:
    """Return the family of a model's folder, "qwen3_vl" and the like.

    One not supported raises ValueError.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder}: expected a model's folder with a config.json, found none")
    return check_family(read_config_file(path).get("model_type", ""), str(path))


def read_config_file(path: Path) -> dict:
    """Read a model's config.json; one that is no JSON object raises ValueError."""
    try:
        written = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path}: expected JSON, found {error}: copy or download the folder again"
        ) from error
    if not isinstance(written, dict):
        raise ValueError(f"{path}: expected a JSON object, found {str(written)[:80]}")
    return written


def check_family(found: str, where: str) -> str:
    """Return a model type that is supported; another raises ValueError with those that are."""
    if found not in FAMILIES:
        raise ValueError(
            f"{where}: expected a model of the families {', '.join(FAMILIES)}, found {found!r}"
        )
    return found


def trained_run(name: str | os.PathLike) -> tuple[str, Path | None, dict]:
    """Return the base model, the adapter and the reading of a run folder.

    Of any other name, itself, None and {}.
    """
    adapter = Path(name, "adapter")
    config = adapter / "adapter_config.json"
    if not config.is_file():
        return str(name), None, {}
    base = json.loads(config.read_text("utf-8"))["base_model_name_or_path"]
    for preset, chosen in PRESETS.items():
        if chosen["source"] == base:
            base = preset
    described = Path(name, "run.json")
    run = json.loads(described.read_text("utf-8")) if described.is_file() else {}
    return base, adapter, run.get("training", {}).get("made_by", {}).get("reading", {})
