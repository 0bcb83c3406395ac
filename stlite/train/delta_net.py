"""Qwen3.5's recurrent layers (Gated DeltaNet): their states in the cache, and forked for the replies to one prompt.

A mask cannot keep replies apart in a recurrent layer. In a packed sequence the layer reads the
prompt once, copies its states for each reply, and reads the replies as a batch.
"""

import torch
from torch.nn.utils.rnn import pad_sequence

from stlite.train import backend  # noqa: F401  before transformers: on CUDA it imports Unsloth

# isort: split
from transformers.cache_utils import Cache, LinearAttentionLayer

LINEAR = "linear_attention"
DELTA_NET = "Qwen3_5GatedDeltaNet"
# tokens: a layer given one token and a state writes into that state, which has no gradient
SHORTEST = 2


class RecurrentLayer(LinearAttentionLayer):
    """A recurrent layer's part of the cache.

    New states replace the old ones, so that a gradient can flow through both.
    """

    def batch_select_indices(self, indices) -> None:
        """Keep some rows, or copies of them."""
        for states in (self.conv_states, self.recurrent_states):
            for number, state in states.items():
                if state is not None:
                    states[number] = state[indices]

    def update_recurrent_state(self, recurrent_states, state_idx: int = 0, **kwargs):
        """Replace the recurrent state."""
        self.recurrent_states[state_idx] = recurrent_states
        self.is_recurrent_states_initialized[state_idx] = True
        return recurrent_states

    def update_conv_state(
        self, conv_states, state_idx: int = 0, conv_kernel_size: int | None = None, **kwargs
    ):
        """Replace what the convolution looks back on; return it with what stood before."""
        if not self.is_conv_states_initialized[state_idx]:
            self.lazy_initialization(
                conv_states=conv_states, state_idx=state_idx, conv_kernel_size=conv_kernel_size
            )
        size = self.conv_kernel_size[state_idx]
        before = self.conv_states[state_idx] if self.has_previous_state[state_idx] else None
        every = conv_states if before is None else torch.cat([before, conv_states], -1)
        missing = max(size - every.shape[-1], 0)
        padded = torch.nn.functional.pad(every, (missing, 0))
        self.has_previous_state[state_idx] = True
        self.conv_states[state_idx] = padded[..., -size:].clone()
        return padded if before is None else every


class Forking:
    """Lets a Gated DeltaNet read packed sequences.

    Their lengths, (prompt, reply, reply, ...), are its mask.
    """

    def forward(self, hidden_states, cache_params=None, attention_mask=None, **kwargs):
        """Return the layer's output (B,L,d); a packed sequence is one row."""
        if attention_mask is None or attention_mask.ndim != 1:
            return super().forward(
                hidden_states, cache_params=cache_params, attention_mask=attention_mask, **kwargs
            )
        start, *lengths = attention_mask.tolist()
        prompt, *replies = hidden_states[0].split([start, *lengths])
        states = Cache(layers=[RecurrentLayer() for _ in range(self.layer_idx + 1)])
        outputs = [super().forward(prompt[None], cache_params=states, **kwargs)[0]]
        copies = torch.zeros(len(replies), dtype=torch.long, device=hidden_states.device)
        states.layers[self.layer_idx].batch_select_indices(copies)
        batch = pad_sequence(replies, batch_first=True)
        short = max(SHORTEST - batch.shape[1], 0)
        batch = torch.nn.functional.pad(batch, (0, 0, 0, short))
        read = super().forward(batch, cache_params=states, **kwargs)
        for row, length in zip(read, lengths):
            outputs.append(row[:length])
        return torch.cat(outputs)[None]


def fork_states(model) -> None:
    """Let every recurrent layer of a model read packed sequences; other models stay as they are."""
    for module in model.modules():
        plain = type(module)
        if plain.__name__ == DELTA_NET:
            module.__class__ = type(f"Forking{DELTA_NET}", (Forking, plain), {})


def has_recurrent_layers(config) -> bool:
    """Return whether a model's language layers include recurrent ones."""
    return LINEAR in (getattr(config.get_text_config(), "layer_types", None) or ())


def new_cache(config, attention_layer: type) -> Cache:
    """Make an empty cache for a model: `attention_layer` where it attends, states where it recurs."""
    if not has_recurrent_layers(config):
        return Cache(layer_class_to_replicate=attention_layer)
    kinds = config.get_text_config().layer_types
    return Cache(
        layers=[RecurrentLayer() if kind == LINEAR else attention_layer() for kind in kinds]
    )
