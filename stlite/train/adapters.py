"""Adapters: merged into plain bfloat16 weights that any other program loads, and compared with what was trained.

folder = merge("qwen3-vl-4b", "runs/st-r1/adapter", "runs/st-r1/merged")
verify(folder, "qwen3-vl-4b", "runs/st-r1/adapter", samples[:8], videos)
{'same': 8, 'mean': 0.002, 'max': 0.04, 'rounding': 0.002, 'adapter': 0.31}
"""

import json
import math
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stlite.data import prompts
from stlite.data.sample import Sample
from stlite.train.generation import encode, generate
from stlite.train.models import load
from stlite.train.preflight import check_disk
from stlite.train.presets import settings
from stlite.train.sharing import adapter_reading


def merge(preset: str, adapter: str | os.PathLike, out: str | os.PathLike) -> Path:
    """Merge an adapter into its model's unquantised weights, saved in bfloat16 with the processor.

    Returns the folder. One file of weights at a time is in memory, 2 bytes a weight. `load` reads
    videos for the new folder as the adapter was trained, or as for `preset`. Raises ValueError for
    4-bit weights, for a folder in use, and for an adapter that is not plain LoRA of this model;
    OSError where the disk has no room.
    """
    out = Path(out)
    if out.exists():
        raise ValueError(f"{out}: expected a folder that is not there yet")
    chosen = dict(settings(preset))
    source = _local_folder(chosen.pop("source"))
    chosen |= adapter_reading(adapter)
    config = json.loads((source / "config.json").read_text("utf-8"))
    if "quantization_config" in config:
        raise ValueError(
            f"{preset}: its weights are quantised, and a merge would be rounded off; name the full model"
        )
    weight_files = sorted(source.glob("*.safetensors"))
    check_disk(out, sum(path.stat().st_size for path in weight_files))
    unfinished = out.with_name(out.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _merge_weights(weight_files, unfinished, LoraUpdates(adapter))
    _copy_rest(source, unfinished, config)
    (unfinished / "stlite.json").write_text(json.dumps(chosen))
    os.replace(unfinished, out)
    return out


def _local_folder(source: str) -> Path:
    """Return the folder of a model, downloaded where it is named by its hub id."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(source, allow_patterns=["*.safetensors", "*.json", "*.txt", "*.jinja"])
    )


class LoraUpdates:
    """What an adapter adds to each matrix, computed when it is asked for.

    "used" are those that were.
    """

    def __init__(self, adapter: str | os.PathLike):
        self.config = json.loads(Path(adapter, "adapter_config.json").read_text("utf-8"))
        self.weights = load_file(Path(adapter, "adapter_model.safetensors"))
        self.used = set()
        self._refuse_other_kinds(adapter)
        r, alpha = self.config["r"], self.config["lora_alpha"]
        self.scale = alpha / (math.sqrt(r) if self.config.get("use_rslora") else r)

    def _refuse_other_kinds(self, adapter) -> None:
        other = [name for name in self.weights if ".lora_A." not in name and ".lora_B." not in name]
        kinds = ("use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "lora_bias")
        other += [name for name in kinds if self.config.get(name)]
        if self.config.get("peft_type") != "LORA" or other:
            raise ValueError(f"{adapter}: expected an adapter of plain LoRA, found {other[:3]}")

    def names(self) -> set[str]:
        """List the matrices that are changed, by their place in the language model.

        They are called "layers.0.self_attn.q_proj", for example.
        """
        return {place(name.split(".lora_")[0]) for name in self.weights}

    def update(self, name: str) -> torch.Tensor | None:
        """Return what is added to a matrix (outputs, inputs), in float32; None where nothing is."""
        for key, inner in self.weights.items():
            if ".lora_A." in key and place(key.split(".lora_")[0]) == name:
                self.used.add(name)
                outer = self.weights[key.replace(".lora_A.", ".lora_B.")]
                return self.scale * (outer.float() @ inner.float())
        return None


def place(name: str) -> str | None:
    """Return a weight's place among the language model's layers, however the model calls them.

    None elsewhere.

    >>> place("base_model.model.model.language_model.layers.3.mlp.up_proj")
    'layers.3.mlp.up_proj'
    >>> place("model.layers.3.mlp.up_proj.weight"), place("visual.blocks.3.mlp.fc1.weight")
    ('layers.3.mlp.up_proj', None)
    """
    match = re.search(r"(?:^|\.)(layers\.\d+\..+?)(?:\.weight)?$", name)
    return None if "visual" in name or match is None else match[1]


def _merge_weights(weight_files: list[Path], folder: Path, updates: LoraUpdates) -> None:
    """Write every file of weights anew, in bfloat16, with what the adapter adds."""
    index = {}
    for path in weight_files:
        tensors = {}
        with safe_open(path, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118  not a dictionary
                tensors[name] = _merged(weights.get_tensor(name), name, updates)
                index[name] = path.name
        save_file(tensors, folder / path.name, {"format": "pt"})
    missing = updates.names() - updates.used
    if missing or not weight_files:
        raise ValueError(
            f"adapter: expected a matrix of the model for each of its {len(updates.names())}, "
            f"found none for {len(missing)}, such as {sorted(map(str, missing))[:1]}: another model's adapter?"
        )
    if len(weight_files) > 1:
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        listing = {"metadata": {"total_size": size}, "weight_map": index}
        (folder / "model.safetensors.index.json").write_text(json.dumps(listing, indent=1))


def _merged(weight: torch.Tensor, name: str, updates: LoraUpdates) -> torch.Tensor:
    """Return a weight in bfloat16, with its update; whole numbers stay as they are."""
    if not weight.is_floating_point():
        return weight
    update = updates.update(place(name)) if name.endswith(".weight") else None
    if update is None:
        return weight.bfloat16()
    if update.shape != weight.shape:
        raise ValueError(
            f"adapter: {name}: expected {tuple(weight.shape)}, found {tuple(update.shape)}"
        )
    merged = weight.float() + update
    if not merged.isfinite().all():
        raise ValueError(f"adapter: {name}: the merged weights are not finite")
    return merged.bfloat16()


def _copy_rest(source: Path, folder: Path, config: dict) -> None:
    """Write configuration and processor beside merged weights."""
    from transformers import AutoProcessor

    for settings_of in (config, config.get("text_config", {}), config.get("vision_config", {})):
        for name in ("dtype", "torch_dtype"):
            if name in settings_of:
                settings_of[name] = "bfloat16"
    config.setdefault("dtype", "bfloat16")
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    generation = source / "generation_config.json"
    if generation.is_file():
        shutil.copy(generation, folder)
    AutoProcessor.from_pretrained(source).save_pretrained(folder)


def verify(
    merged: str | os.PathLike, preset: str, adapter: str | os.PathLike, samples: Sequence[Sample],
    videos: str | os.PathLike | None = None, max_new_tokens: int = 128,
) -> dict:  # fmt: skip
    """Compare a merged folder with the adapter over unquantised weights: what goes in, and log-probs of its replies.

    Returns differences per token (nats) from what was trained: "mean" and "max" of the merged
    folder, "rounding" of weights merged here and rounded to bfloat16, "adapter" of the model
    without its adapter; and "same", the greedy replies that are equal (rounding may turn a tie).
    Raises RuntimeError where the processors differ, where the folder is further off than rounding
    explains, or where it is as near to the model without the adapter as to the merge.
    """

    def write_replies(model, processor):
        rows = generate(model, processor, samples, videos=videos, max_new_tokens=max_new_tokens)
        unreadable = [row["error"] for row in rows if "error" in row]
        if unreadable:
            raise ValueError(f"verify: expected videos that can be read, found {unreadable[0]}")
        return [row["reply"] for row in rows]

    model, processor = load(preset, four_bit=False, backend="transformers", adapter=adapter)
    replies = write_replies(model, processor)
    batches = [_conversation(processor, *pair, videos) for pair in zip(samples, replies)]
    trained = _log_probs(model, batches)
    with model.disable_adapter():
        base = _log_probs(model, batches)
    rounded = _log_probs(_round(model.merge_and_unload()), batches)
    del model
    model, processor = load(str(merged), four_bit=False, backend="transformers")
    found = _log_probs(model, batches)
    again = [_conversation(processor, *pair, videos) for pair in zip(samples, replies)]
    result = {
        "same": sum(
            reply == other for reply, other in zip(write_replies(model, processor), replies)
        ),
        "mean": _distance(found, trained),
        "max": (found - trained).abs().max().item(),
        "rounding": _distance(rounded, trained),
        "adapter": _distance(base, trained),
    }
    same_inputs = _are_equal(batches, again)
    is_rounding = result["mean"] <= 2 * result["rounding"] + 1e-6
    is_merged = _distance(found, rounded) <= 0.5 * _distance(base, rounded)
    if not (same_inputs and is_rounding and is_merged):
        raise RuntimeError(
            f"{merged}: not the model that was trained: {result}; processor equal: {same_inputs}; "
            f"nearer to the merge than to the model without its adapter: {is_merged}"
        )
    return result


def _distance(log_probs: torch.Tensor, others: torch.Tensor) -> float:
    """Return the mean difference per token (nats)."""
    return (log_probs - others).abs().mean().item()


def _round(model):
    """Round a model's weights to bfloat16, as a merged folder holds them."""
    for weight in model.parameters():
        weight.data = weight.data.bfloat16().to(weight.dtype)
    return model


def _are_equal(batches: list, others: list) -> bool:
    """Say whether two processors gave the same tensors."""
    for (inputs, _), (other_inputs, _) in zip(batches, others):
        for name, tensor in inputs.items():
            if not torch.equal(tensor, other_inputs[name]):
                return False
    return True


def _conversation(processor, sample: Sample, reply: str, videos) -> tuple[dict, int]:
    """Return the inputs of a question with its reply, and where the reply starts."""
    question = encode(processor, [prompts.messages(sample)], videos)
    chat = prompts.messages(sample, answer=reply)
    conversation = encode(processor, [chat], videos)
    return dict(conversation), question["input_ids"].shape[1]


@torch.no_grad()
def _log_probs(model, batches: list[tuple[dict, int]]) -> torch.Tensor:
    """Return the log-probs of all tokens of all replies (n,)."""
    parts = []
    for inputs, start in batches:
        inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
        reply_ids = inputs["input_ids"][0, start:]
        output = model(**inputs, use_cache=False, logits_to_keep=len(reply_ids) + 1)
        logits = output.logits[0, :-1].float()
        log_probs = logits.log_softmax(-1).gather(-1, reply_ids[:, None])[:, 0]
        parts.append(log_probs.cpu())
    return torch.cat(parts)
