"""Key-value caches for drawing replies: one that grows with room ahead, and one in storage that never moves.

cache = new_cache(core.config, RoomyLayer)
cache = make_static(core, cache, length=1456)    # the prompts were read into the first
"""

import torch

from stlite.train import backend  # noqa: F401  before transformers: on CUDA it imports Unsloth

# isort: split
from transformers.cache_utils import Cache, DynamicLayer, StaticCache


class RoomyLayer(DynamicLayer):
    """A layer of the key-value cache with room ahead.

    A token is written without copying all that was before it.
    """

    ROOM = 64  # tokens

    def __init__(self):
        super().__init__()
        self.rooms = {}  # "keys" or "values" -> storage that is longer than what is in use

    def update(self, key_states, value_states, *args, **kwargs):
        """Add keys and values (B,heads,new,d); return all of them."""
        if not self.get_seq_length():
            return super().update(key_states, value_states)
        self.keys = self._append("keys", self.keys, key_states)
        self.values = self._append("values", self.values, value_states)
        return self.keys, self.values

    def _append(self, name: str, old, new):
        start = old.shape[-2]
        end = start + new.shape[-2]
        room = self.rooms.get(name)
        if room is None or end > room.shape[-2] or old.data_ptr() != room.data_ptr():
            ahead = old.new_empty(*old.shape[:-2], new.shape[-2] + self.ROOM, old.shape[-1])
            room = torch.cat([old, ahead], -2)
            self.rooms[name] = room
        room[..., start:end, :] = new
        return room[..., :end, :]


def make_static(core, cache: Cache | None, length: int) -> StaticCache:
    """Return a cache of `length` tokens in storage that never moves, as compiled steps need.

    `cache` is moved into it.
    """
    static = StaticCache(core.config.get_text_config(), max_cache_len=length)
    if cache is None:
        return static
    for layer, old in zip(static.layers, cache.layers, strict=True):
        layer.update(old.keys, old.values)
        old.keys = None
        old.values = None
    return static
