"""Attention over packed sequences without a mask: the prompt by itself, then the replies as a batch that sees it.

    [prompt | reply 1 | reply 2 | ... ]

A mask over the whole sequence would also compute what no reply may see: at 8 replies of 256 tokens
to a prompt of 1,200, two thirds of it.
"""

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence

from stlite.train import backend  # noqa: F401  before transformers: on CUDA it imports Unsloth

# isort: split
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "stlite_packed"


def allow_packed(model) -> None:
    """Let a model's text layers attend without a mask, if they attend by torch's own attention now."""
    config = model.config.get_text_config()
    if config._attn_implementation == "sdpa":
        config._attn_implementation = NAME


def attend(
    module, query, key, value, attention_mask, dropout=0.0, scaling=None, packed_lengths=None, **kwargs
):  # fmt: skip
    """Attend as transformers' sdpa does; with `packed_lengths`, a reply sees the prompt and itself.

    query, key, value: (1,heads,L,d). packed_lengths: tokens of the prompt and of each reply, L in
    all. Returns (1,L,heads,d) and no weights.
    """
    if packed_lengths is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    groups = getattr(module, "num_key_value_groups", 1)
    key = repeat_kv(key, groups)
    value = repeat_kv(value, groups)
    start, *lengths = packed_lengths
    options = {"dropout_p": dropout, "scale": scaling}
    prompt = scaled_dot_product_attention(
        query[:, :, :start], key[:, :, :start], value[:, :, :start], is_causal=True, **options
    )
    queries = _as_batch(query, start, lengths)
    keys = _after_prompt(key, start, lengths)
    values = _after_prompt(value, start, lengths)
    longest = queries.shape[2]
    visible = torch.ones(longest, start + longest, dtype=torch.bool, device=query.device)
    replies = scaled_dot_product_attention(
        queries, keys, values, attn_mask=visible.tril(start), **options
    )
    parts = [prompt[0]]
    for reply, length in zip(replies, lengths, strict=True):
        parts.append(reply[:, :length])
    return torch.cat(parts, 1).transpose(0, 1)[None].contiguous(), None


def _as_batch(states, start: int, lengths: list[int]):
    """Return the replies' part of (1,heads,L,d) as a padded batch (G,heads,C,d)."""
    replies = states[0, :, start:].transpose(0, 1).split(lengths)
    return pad_sequence(list(replies), batch_first=True).transpose(1, 2)


def _after_prompt(states, start: int, lengths: list[int]):
    """Return the prompt's states followed by each reply's own (G,heads,P+C,d)."""
    prompt = states[:, :, :start].expand(len(lengths), -1, -1, -1)
    return torch.cat([prompt, _as_batch(states, start, lengths)], 2)


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
