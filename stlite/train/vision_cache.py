"""The vision tower once: a frozen tower encodes each clip a single time, for every copy, pass, epoch and run.

    cache = cache_vision_features(model)  # `load` does it
    cache.rows_requested  # rows of patches asked for
    cache.rows_computed   # rows that the tower was really run on

A clip is known by its pixels' content, so nothing else has to be told which clip it is; while
vision layers train, the tower runs as if there were no cache.
"""

from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import torch

from stlite.train import backend  # noqa: F401  before transformers: on CUDA it imports Unsloth

# isort: split

import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures
from xxhash import xxh3_128_hexdigest

from stlite.data import cache

LIMIT = 4 * 2**30  # bytes of features kept in memory; on disk they count as clips do
LIBRARIES = f"torch {torch.__version__} transformers {transformers.__version__}"


class VisionFeatureCache:
    """What a tower has encoded, by clip: features in memory and, with a folder, on disk."""

    def __init__(self, tower, folder: Path | None):
        self.tower = tower
        self.folder = folder
        self.plain = tower.forward
        self.features = (
            OrderedDict()
        )  # key of a clip -> its features, what was used last at the end
        self.bytes = 0
        self.weights_seen = None
        self.weights_digest = ""
        self.rows_requested = 0
        self.rows_computed = 0

    def forward(self, hidden_states, grid_thw, **kwargs):
        """Return the tower's output for clips (rows of patches, grids (n,3)), running it on unknown clips only."""
        if torch.is_grad_enabled() and any(p.requires_grad for p in self.tower.parameters()):
            return self.plain(hidden_states, grid_thw=grid_thw, **kwargs)
        clips = hidden_states.split(grid_thw.prod(1).tolist())
        state = self._state(hidden_states.dtype)
        keys = []
        for clip, grid in zip(clips, grid_thw.tolist()):
            keys.append(f"{_digest(clip)} {grid} {state}")
        known = {key: self._recall(key) for key in dict.fromkeys(keys)}
        missing = [keys.index(key) for key, features in known.items() if features is None]
        if missing:
            computed = self._run([clips[i] for i in missing], grid_thw[missing], kwargs)
            for i, features in zip(missing, computed):
                known[keys[i]] = features
                self._keep(keys[i], features)
                self._write(keys[i], features)
        self.rows_requested += len(hidden_states)
        self.rows_computed += sum(len(clips[i]) for i in missing)
        return _join([known[key] for key in keys], hidden_states.device)

    def _state(self, dtype: torch.dtype) -> str:
        """Name everything else the features depend on: weights, the type they are computed in, and the libraries."""
        seen = _checksums(self.tower)
        if seen != self.weights_seen:
            self.weights_seen = seen
            digests = [_digest(weight) for weight in _weights(self.tower)]
            self.weights_digest = xxh3_128_hexdigest("".join(digests).encode())
        device = self.tower.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        return f"{self.weights_digest} {dtype} {LIBRARIES}"

    def _run(self, clips: list, grids, kwargs) -> list[dict]:
        """Run the tower, where it is, on clips; return the features of each."""
        device = self.tower.device
        with torch.inference_mode(False), torch.no_grad():
            output = self.plain(torch.cat(clips).to(device), grid_thw=grids.to(device), **kwargs)
        sizes = (grids.prod(1) // self.tower.spatial_merge_size**2).tolist()
        parts = {"pooler_output": output.pooler_output.split(sizes)}
        for i, layer in enumerate(getattr(output, "deepstack_features", None) or ()):
            parts[f"deepstack_{i}"] = layer.split(sizes)
        features = []
        for i in range(len(clips)):
            features.append({name: part[i].contiguous().cpu() for name, part in parts.items()})
        return features

    def _recall(self, key: str) -> dict | None:
        """Return a clip's features from memory, or else from disk."""
        if key in self.features:
            self.features.move_to_end(key)
            return self.features[key]
        path = self._path(key)
        try:
            features = load_file(path)
            path.touch()  # what is used last is removed last
        except (OSError, SafetensorError):  # not there, or not whole: the tower runs again
            return None
        self._keep(key, features)
        return features

    def _keep(self, key: str, features: dict) -> None:
        """Keep a clip's features in memory, in place of what was used longest ago."""
        self.features[key] = features
        self.bytes += _size(features)
        while self.bytes > LIMIT and len(self.features) > 1:
            _, oldest = self.features.popitem(last=False)
            self.bytes -= _size(oldest)

    def _write(self, key: str, features: dict) -> None:
        if self.folder:
            with suppress(OSError):  # a full disk costs time, not the run
                cache.keep(self._path(key), [save(features)])

    def _path(self, key: str) -> Path:
        return Path(self.folder or "/nowhere", f"{xxh3_128_hexdigest(key.encode())}.features")


def cache_vision_features(model, folder: Path | None = None) -> VisionFeatureCache:
    """Make a model's vision tower encode each clip once.

    Features are kept under `folder` (default: the clip cache). Features equal the plain tower's
    (float32: to rounding). Returns the cache; a model that has one gives it back.
    """
    tower = next(module for name, module in model.named_modules() if name.endswith("visual"))
    if not hasattr(tower, "feature_cache"):
        tower.feature_cache = VisionFeatureCache(tower, folder or cache.cache_folder())
        tower.forward = tower.feature_cache.forward
    return tower.feature_cache


def _weights(tower) -> list:
    """Return all numbers that a tower computes with: parameters, and buffers such as frequencies."""
    return [weight for weight in [*tower.parameters(), *tower.buffers()] if weight.numel()]


def _checksums(tower) -> list:
    """Tell quickly whether weights have changed, also through `.data`, which leaves their version as it was."""
    weights = _weights(tower)
    places = [(weight.data_ptr(), weight._version) for weight in weights]
    device = weights[0].device
    sums = torch.stack([_checksum(weight.detach()).to(device) for weight in weights])
    return [*places, *sums.tolist()]


def _checksum(weight) -> torch.Tensor:
    """Sum a weight so that values that change places change the sum."""
    matrix = weight.reshape(len(torch.atleast_1d(weight)), -1)
    total = torch.zeros((), dtype=torch.float64, device=weight.device)
    for axis in (0, 1):
        sums = matrix.sum(axis, dtype=torch.float64)
        total += sums @ torch.arange(1, len(sums) + 1, dtype=torch.float64, device=weight.device)
    return total


def _digest(tensor) -> str:
    """Hash a tensor's content."""
    return xxh3_128_hexdigest(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())


def _size(features: dict) -> int:
    return sum(part.nbytes for part in features.values())


def _join(features: list[dict], device) -> BaseModelOutputWithDeepstackFeatures:
    """Join the features of clips into what the tower returns.

    Only what its callers read is there.
    """
    joined = {name: torch.cat([part[name] for part in features]).to(device) for name in features[0]}
    pooled = joined.pop("pooler_output")
    layers = [joined[f"deepstack_{i}"] for i in range(len(joined))]
    return BaseModelOutputWithDeepstackFeatures(
        pooler_output=pooled, deepstack_features=layers or None
    )
