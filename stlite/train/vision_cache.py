"""The vision tower once: a frozen tower encodes each clip a single time, for every copy, pass, epoch and run.

    found = cache_vision_features(model)          # `load` does it
    found.asked, found.run           # rows of patches asked for, and rows the tower was really run on

A clip is known by its pixels' content, so nothing else has to be told which clip it is; while vision layers train, the
tower runs as if it were not wrapped.
"""

from collections import OrderedDict
from contextlib import suppress
from functools import wraps
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures
from xxhash import xxh3_128_hexdigest

from stlite.data import cache

LIMIT = 4 * 2**30  # bytes of features kept in memory; on disk they count as clips do


class VisionFeatureCache:
    """What a tower has encoded, by clip: features in memory and, with a folder, on disk."""

    def __init__(self, tower, folder: Path | None):
        self.tower, self.folder, self.plain = tower, folder, tower.forward
        self.kept, self.bytes, self.signature, self.weights = OrderedDict(), 0, None, ""
        self.asked = self.run = 0

    def encode(self, pixels, grid_thw, **kwargs):
        """Return the tower's output for clips (rows of patches, grids (n,3)), running it on unknown clips only."""
        if torch.is_grad_enabled() and any(p.requires_grad for p in self.tower.parameters()):
            return self.plain(pixels, grid_thw=grid_thw, **kwargs)
        clips = pixels.split(grid_thw.prod(1).tolist())
        state = self._state(pixels)
        keys = [
            _digest(clip) + "-".join(map(str, [*grid.tolist(), state]))
            for clip, grid in zip(clips, grid_thw)
        ]
        known = {key: self._recall(key) for key in dict.fromkeys(keys)}
        missing = [keys.index(key) for key, found in known.items() if found is None]
        if missing:
            made = self._run([clips[i] for i in missing], grid_thw[missing], kwargs)
            for i, features in zip(missing, made):
                known[keys[i]] = self._keep(keys[i], features, new=True)
        self.asked, self.run = (
            self.asked + len(pixels),
            self.run + sum(len(clips[i]) for i in missing),
        )
        return _output([known[key] for key in keys], pixels.device)

    def _state(self, pixels) -> str:
        """Name everything else the features depend on: weights, and the type they are computed in."""
        device = self.tower.device.type
        signature = [(p.data_ptr(), p._version) for p in self.tower.parameters()]
        if signature != self.signature:
            self.signature = signature
            self.weights = xxh3_128_hexdigest(
                "".join(map(_digest, self.tower.parameters())).encode()
            )
        cast = (
            torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else pixels.dtype
        )
        return f"{self.weights}-{cast}"

    def _run(self, clips: list, grids, kwargs) -> list[dict]:
        """Run the tower, where it is, on clips; return the features of each."""
        where = self.tower.device
        with torch.inference_mode(False), torch.no_grad():
            made = self.plain(torch.cat(clips).to(where), grid_thw=grids.to(where), **kwargs)
        sizes = (grids.prod(1) // self.tower.spatial_merge_size**2).tolist()
        parts = {"pooler_output": made.pooler_output.split(sizes)}
        for i, layer in enumerate(getattr(made, "deepstack_features", None) or ()):
            parts[f"deepstack_{i}"] = layer.split(sizes)
        return [
            {name: part[i].contiguous().cpu() for name, part in parts.items()}
            for i in range(len(clips))
        ]

    def _recall(self, key: str) -> dict | None:
        """Return a clip's features from memory, or else from disk."""
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        with suppress(OSError, SafetensorError):  # not there, or not whole: the tower runs again
            features = load_file(self._path(key))
            self._path(key).touch()  # what is used last is removed last
            return self._keep(key, features)

    def _keep(self, key: str, features: dict, new: bool = False) -> dict:
        """Keep a clip's features, in place of what was used longest ago; new ones on disk too."""
        self.kept[key] = features
        self.bytes += _size(features)
        while self.bytes > LIMIT and len(self.kept) > 1:
            self.bytes -= _size(self.kept.popitem(last=False)[1])
        if new and self.folder:
            with suppress(OSError):  # a full disk costs time, not the run
                cache.keep(self._path(key), [save(features)])
        return features

    def _path(self, key: str) -> Path:
        return Path(self.folder or "/nowhere", f"{xxh3_128_hexdigest(key.encode())}.features")


def cache_vision_features(model, folder: Path | None = None) -> VisionFeatureCache:
    """Make a model's vision tower encode each clip once; features are kept under `folder` (default: the clip cache).

    Features equal the plain tower's (float32: to rounding). Returns the memory; a model that has one gives it back.
    """
    tower = next(module for name, module in model.named_modules() if name.endswith("visual"))
    if not hasattr(tower, "memory"):
        memory = tower.memory = VisionFeatureCache(tower, folder or cache.cache_folder())

        @wraps(memory.plain)
        def forward(hidden_states, grid_thw, **kwargs):
            return memory.encode(hidden_states, grid_thw, **kwargs)

        tower.forward = forward
    return tower.memory


def _digest(tensor) -> str:
    """Hash a tensor's content."""
    return xxh3_128_hexdigest(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())


def _size(features: dict) -> int:
    return sum(part.nbytes for part in features.values())


def _output(features: list[dict], device) -> BaseModelOutputWithDeepstackFeatures:
    """Join the features of clips into what the tower returns; only what its callers read is there."""
    joined = {name: torch.cat([part[name] for part in features]).to(device) for name in features[0]}
    pooled = joined.pop("pooler_output")
    layers = [joined[f"deepstack_{i}"] for i in range(len(joined))] or None
    return BaseModelOutputWithDeepstackFeatures(pooler_output=pooled, deepstack_features=layers)
