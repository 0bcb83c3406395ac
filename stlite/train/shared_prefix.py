"""Each prompt once for its replies: in generation through a cache, in log-prob passes as one packed sequence.

    [prompt | reply 1 | reply 2 | ... ]

A reply sees the prompt and itself; its positions go on from the prompt's end. The packed pass needs no cache, so that gradient checkpointing may stay on. Log-probs and gradients
equal those of a pass over every copy of the prompt; with dropout, the replies share what is dropped
of the prompt.
"""

import torch

from stlite.train import packed_attention
from stlite.train.delta_net import has_recurrent_layers
from stlite.train.log_probs import token_log_probs

VIDEO = 2  # what a video's tokens are called in `mm_token_type_ids`; text is 0


# ---- the parts of a batch ------------------------------------------------------------------------


def split_clips(fields: dict, count: int) -> list[dict]:
    """Split a batch's video tensors into one dictionary a row; one video a prompt."""
    grids = torch.as_tensor(fields["video_grid_thw"])
    if len(grids) != count:
        raise ValueError(
            f"prompt: expected one video in each of {count} prompts, found {len(grids)} videos"
        )
    pixels = torch.as_tensor(fields["pixel_values_videos"]).split(grids.prod(1).tolist())
    clips = []
    for i in range(count):
        clip = {"pixel_values_videos": pixels[i], "video_grid_thw": grids[i : i + 1]}
        if "second_per_grid_ts" in fields:  # Qwen2.5-VL's clock
            seconds = torch.as_tensor(fields["second_per_grid_ts"])
            clip["second_per_grid_ts"] = seconds[i : i + 1]
        clips.append(clip)
    return clips


def join_clips(clips: list[dict]) -> dict:
    """Join the video tensors of several rows into a batch's."""
    return {key: torch.cat([clip[key] for clip in clips]) for key in clips[0]}


def prompt_positions(core, ids, mask, clips: dict) -> torch.Tensor:
    """Return the positions (3,B,P) of left-padded prompts in time, height and width."""
    kinds = (ids == core.config.video_token_id).int() * VIDEO
    grids = {key: value for key, value in clips.items() if key != "pixel_values_videos"}
    positions, _ = core.model.get_rope_index(
        ids, attention_mask=mask, mm_token_type_ids=kinds, **grids
    )
    return positions


# ---- log-probs -----------------------------------------------------------------------------------


def can_pack(core) -> bool:
    """Say whether a model's attention takes a mask of any shape.

    Others read every copy of a prompt by itself.
    """
    config = core.config.get_text_config()
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    known = {"full_attention", "linear_attention"}
    ways = ("sdpa", "eager", packed_attention.NAME)
    return set(layers) <= known and config._attn_implementation in ways


def packed_log_probs(
    core, prompt, replies: list, clip: dict, temperature: float, entropy_gradient: bool = False
):
    """Return log-probs and entropies of all tokens of the replies (sum of their lengths,), one after another.

    core: the model without its adapter's wrapper. prompt: ids (P,). replies: ids (C,) each. clip:
    the prompt's video tensors.
    """
    packed = torch.cat([prompt, *replies])
    output = core.model(
        input_ids=packed[None],
        **_separation(core, len(prompt), replies),
        position_ids=_packed_positions(core, prompt, replies, clip),
        mm_token_type_ids=(packed[None] == core.config.video_token_id).int() * VIDEO,
        use_cache=False,
        **clip,
    )
    before = _tokens_before(len(prompt), replies).to(packed.device)
    hidden = output.last_hidden_state[0, before]
    return token_log_probs(core.lm_head, hidden, torch.cat(replies), temperature, entropy_gradient)


def _packed_positions(core, prompt, replies: list, clip: dict) -> torch.Tensor:
    """Return positions (3,1,L): the prompt's own, and every reply's from the prompt's end on."""
    ids = prompt[None]
    positions = prompt_positions(core, ids, torch.ones_like(ids), clip)
    parts = [positions]
    for reply in replies:
        steps = torch.arange(1, len(reply) + 1, device=ids.device)
        parts.append(positions[..., -1:] + steps)
    return torch.cat(parts, -1)


def _tokens_before(start: int, replies: list) -> torch.Tensor:
    """Return, for each token of each reply, where in the packed sequence the token before it stands."""
    places = []
    end = start
    for reply in replies:
        if len(reply):
            places += [start - 1, *range(end, end + len(reply) - 1)]
        end += len(reply)
    return torch.tensor(places, dtype=torch.long)


def _separation(core, start: int, replies: list) -> dict:
    """Return the arguments by which a reply sees the prompt and itself; a single reply needs none.

    Attention takes the lengths of prompt and replies (see `packed_attention`), or where it is not
    ours, a mask (1,1,L,L). Recurrent layers take the lengths as their mask (see `delta_net`).
    """
    if len(replies) == 1:
        return {}
    lengths = [start, *(len(reply) for reply in replies)]
    visible = None
    separation = {}
    if core.config.get_text_config()._attn_implementation == packed_attention.NAME:
        separation["packed_lengths"] = lengths
    else:
        visible = _visible(core, start, replies)
    if has_recurrent_layers(core.config):
        masks = {"full_attention": visible, "linear_attention": torch.tensor(lengths)}
        return {**separation, "attention_mask": masks}
    return {**separation, "attention_mask": visible}


def _visible(core, start: int, replies: list):
    device = replies[0].device
    owners = [torch.zeros(start, dtype=torch.long, device=device)]
    for number, reply in enumerate(replies, 1):
        owners.append(torch.full_like(reply, number))
    owner = torch.cat(owners)  # 0 for the prompt, else the number of the reply
    place = torch.arange(len(owner), device=device)
    earlier = place[:, None] >= place
    visible = earlier & ((owner == 0) | (owner[:, None] == owner))
    visible = visible[None, None]
    if core.config.get_text_config()._attn_implementation == "sdpa":
        return visible
    hidden = torch.finfo(core.dtype).min
    return torch.zeros(visible.shape, dtype=core.dtype, device=device).masked_fill(~visible, hidden)


def separate_log_probs(
    core, prompt, replies: list, clip: dict, temperature: float, entropy_gradient: bool = False
):
    """Return what `packed_log_probs` does, reading the prompt anew for every reply."""
    parts = []
    for reply in replies:
        parts.append(packed_log_probs(core, prompt, [reply], clip, temperature, entropy_gradient))
    log_probs, entropies = zip(*parts)
    return torch.cat(log_probs), torch.cat(entropies)


# ---- generation ----------------------------------------------------------------------------------


@torch.no_grad()
def read_prompts(core, ids, mask, clips: dict, copies: list[int], cache):
    """Read different prompts but for their last token, and give each copy of them its part of the cache.

    ids, mask: (U,P), left-padded. copies: for each reply to be written, which prompt it is a copy
    of. The first pass of generation then reads the last token alone. Returns the cache.
    """
    positions = prompt_positions(core, ids, mask, clips)
    kinds = (ids == core.config.video_token_id).int() * VIDEO
    core.model(
        input_ids=ids[:, :-1],
        attention_mask=mask[:, :-1],
        position_ids=positions[..., :-1],
        mm_token_type_ids=kinds[:, :-1],
        past_key_values=cache,
        use_cache=True,
        **clips,
    )
    chosen = torch.tensor(copies, device=ids.device)
    cache.batch_select_indices(chosen)
    # a reply's positions go on from the last token's: transformers adds this to the count of tokens
    ahead = positions[0, :, -1] + 1 - mask.sum(1)
    core.model.rope_deltas = ahead[chosen, None]
    return cache
