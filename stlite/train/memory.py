"""Memory, before the run: what a training step takes, part by part.

    plan("qwen2.5-vl-7b", generations=0, batch=1)["total"]        # QLoRA SFT, 8 frames (GB)
    fitting_settings(8)                                          # settings that fit a card of 8 GB
    largest_batches(generations=0)                                       # the largest batch for cards of 8, 12, 16, 24 GB

Figures are predicted, by counting; CUDA's own context (0.3 to 0.6 GB) and fragmentation come on top.
"""

import json
from collections.abc import Sequence
from pathlib import Path

TINY = Path(__file__).resolve().parents[2] / "sample_data" / "tiny"
TEXT = 400  # tokens of a question with four options, a system prompt and the chat's own
NF4 = (
    4 + 8 / 64 + 32 / (64 * 256)
) / 8  # bytes a weight: QLoRA (arXiv 2305.14314) section 3, double quantization
ADAM = 16  # bytes a trained weight: itself, gradient, two moments, in float32 (ZeRO, arXiv 1910.02054, section 3.1)
QWEN2_TOWER = {
    "depth": 32,
    "width": 1280,
    "mlp": 2 * 5120,
    "patch": 14,
    "mergers": 1,
}  # mlp: all its matrices' width
QWEN25_TOWER = {**QWEN2_TOWER, "mlp": 3 * 3420}
QWEN3_TOWER = {"depth": 24, "width": 1024, "mlp": 2 * 4096, "patch": 16, "mergers": 4}
QWEN3_LARGE_TOWER = {**QWEN3_TOWER, "depth": 27, "width": 1152, "mlp": 2 * 4304}


def _text(hidden, layers, heads, kv, mlp, vocab, tied, head=128) -> dict:
    """Return the sizes of a language model: q and kv are the widths of all heads together."""
    return {
        "hidden": hidden,
        "layers": layers,
        "q": heads * head,
        "kv": kv * head,
        "mlp": mlp,
        "vocab": vocab,
        "tied": tied,
    }


SHAPES = {  # the config.json of each model on the hub
    "qwen2-vl-2b": _text(1536, 28, 12, 2, 8960, 151936, True) | {"tower": QWEN2_TOWER},
    "qwen2-vl-7b": _text(3584, 28, 28, 4, 18944, 152064, False) | {"tower": QWEN2_TOWER},
    "qwen2.5-vl-3b": _text(2048, 36, 16, 2, 11008, 151936, True) | {"tower": QWEN25_TOWER},
    "qwen2.5-vl-7b": _text(3584, 28, 28, 4, 18944, 152064, False) | {"tower": QWEN25_TOWER},
    "qwen3-vl-2b": _text(2048, 28, 16, 8, 6144, 151936, True) | {"tower": QWEN3_TOWER},
    "qwen3-vl-4b": _text(2560, 36, 32, 8, 9728, 151936, True) | {"tower": QWEN3_TOWER},
    "qwen3-vl-8b": _text(4096, 36, 32, 8, 12288, 151936, False) | {"tower": QWEN3_LARGE_TOWER},
}

# tried in this order: a group is worth more than frames; a group of 0 is SFT alone
GRPO_SETTINGS = [
    {"generations": group, "frames": frames} for group in (8, 4, 2, 0) for frames in (32, 16, 8)
]


def shape(preset: str) -> dict:
    """Return a model's sizes: a preset's, or those in the config.json of a local Qwen2-VL folder."""
    if preset in SHAPES:
        return SHAPES[preset]
    folder = TINY if preset == "tiny" else Path(preset)
    path = folder / "config.json"
    if not path.exists():
        names = ", ".join(SHAPES)
        raise ValueError(
            f"preset: expected tiny, {names} or a folder with a model, found {preset!r}"
        )
    config = json.loads(path.read_text())
    text = config["text_config"]
    vision = config["vision_config"]
    width = vision["embed_dim"]
    sizes = _text(
        hidden=text["hidden_size"],
        layers=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        kv=text["num_key_value_heads"],
        mlp=text["intermediate_size"],
        vocab=text["vocab_size"],
        tied=config["tie_word_embeddings"],
        head=text["hidden_size"] // text["num_attention_heads"],
    )
    sizes["tower"] = {
        "depth": vision["depth"],
        "width": width,
        "mlp": int(2 * width * vision["mlp_ratio"]),
        "patch": vision["patch_size"],
        "mergers": 1,
    }
    return sizes


def weights(size: dict) -> tuple[int, int]:
    """Count the weights of a model: (in the language layers' matrices, everywhere else)."""
    hidden = size["hidden"]
    attention = 2 * hidden * (size["q"] + size["kv"])
    mlp = 3 * hidden * size["mlp"]
    embeddings = size["vocab"] * hidden * (1 if size["tied"] else 2)
    return size["layers"] * (attention + mlp), embeddings + _tower_weights(size["tower"], hidden)


def _tower_weights(tower: dict, hidden: int) -> int:
    width = tower["width"]
    block = 4 * width**2 + width * tower["mlp"]
    joined = 4 * width  # four patches become one token
    merger = joined**2 + joined * hidden
    patches = 2 * 3 * tower["patch"] ** 2 * width  # two frames of three colours
    return tower["depth"] * block + tower["mergers"] * merger + patches


def plan(
    preset: str, frames: int = 8, max_pixels: int = 360 * 420, generations: int = 8, completion: int = 256,
    batch: int = 8, prompts: int = 4, rank: int = 16, bytes_: int = 2, four_bit: bool = True, checkpointing: bool = True,
    text: int = TEXT,
) -> dict:  # fmt: skip
    """Predict the memory of a LoRA training step, in GB by part, and its peak as "total".

    `batch` rows go through one backward; `generations` 0 is SFT, else the groups of a step's `prompts` generate at once.
    `bytes_` is the size of a computed number: 2 on a card, 4 on a CPU. The peak holds weights, adapter, and the most of the phases:
    seeing, generating, and the backward.
    """
    size = shape(preset)
    tower = size["tower"]
    inner, other = weights(size)
    patches = frames / 2 * max_pixels / tower["patch"] ** 2  # two frames share a patch
    length = patches / 4 + text + completion
    one_matrix = size["hidden"] * size["mlp"] if four_bit else 0  # unpacked, one at a time
    token = _activations(size, rank, checkpointing)
    logits = completion if generations else length  # GRPO asks for those of the completion only
    parts = {
        "weights": inner * (NF4 if four_bit else bytes_) + other * bytes_,
        "adapter": _trained_weights(size, rank) * ADAM,
        # frozen: one block alive at a time
        "vision": batch * patches * bytes_ * (5 * tower["width"] + tower["mlp"]),
        "activations": batch * length * token * bytes_ + one_matrix * bytes_,
        # the logits, their log-softmax and its gradient
        "logits": batch * logits * size["vocab"] * (bytes_ + 8),
        "cache": 0,
    }
    if generations:
        rows = max(batch, prompts * generations)
        parts["cache"] = rows * length * size["layers"] * 2 * size["kv"] * bytes_
    backward = parts["activations"] + parts["logits"]
    phase = max(parts["vision"], backward, parts["cache"])
    parts["total"] = parts["weights"] + parts["adapter"] + phase
    return {name: round(value / 1e9, 3) for name, value in parts.items()}


def _trained_weights(size: dict, rank: int) -> int:
    """Count the weights of a LoRA adapter on all seven matrices of each layer."""
    attention = 4 * size["hidden"] + 2 * size["q"] + 2 * size["kv"]
    mlp = 3 * (size["hidden"] + size["mlp"])
    return rank * size["layers"] * (attention + mlp)


def _activations(size: dict, rank: int, checkpointing: bool) -> int:
    """Count the numbers that autograd keeps for one token.

    In one layer: both norms' inputs and outputs; q, k, v, the attention's output and its copy; gate, its SiLU, up, and
    their product; LoRA's inner numbers (Korthikanti et al., arXiv 2205.05198, section 4, counted anew for RMSNorm,
    SwiGLU, attention that keeps no scores, and frozen weights). With checkpointing, each layer's input and one layer.
    """
    layer = 4 * size["hidden"] + 5 * size["q"] + 4 * size["mlp"] + 7 * rank
    if checkpointing:
        return size["layers"] * size["hidden"] + layer
    return size["layers"] * layer


def fitting_settings(card: float) -> list[dict]:
    """List, for each preset, the largest GRPO group and the most frames that fit a card (GB), one row a backward.

    One prompt a step; a group is worth more than frames; a group of 0 is SFT alone. 1 GB is left to CUDA and fragmentation.
    """
    rows = []
    for preset in SHAPES:
        for settings in GRPO_SETTINGS:
            row = plan(preset, batch=1, prompts=1, **settings)
            if row["total"] + 1 <= card:
                rows.append({**row, "preset": preset, **settings})
                break
    return rows


def largest_batches(
    sizes: tuple[int, ...] = (32, 16, 8, 4, 2, 1),
    cards: tuple[int, ...] = (8, 12, 16, 24),
    **settings,
) -> list[dict]:
    """List, for each preset, the largest batch that `plan` lets fit each card (GB); None where not even one row does.

    `settings` are those of `plan`; 1 GB is left to CUDA and fragmentation.

    >>> largest_batches(frames=16)[0]
    {'preset': 'qwen2-vl-2b', '8 GB': 4, '12 GB': 8, '16 GB': 8, '24 GB': 16}
    """
    rows = []
    for preset in SHAPES:
        row = {"preset": preset}
        for card in cards:
            row[f"{card} GB"] = _largest_batch(preset, sizes, card, settings)
        rows.append(row)
    return rows


def _largest_batch(preset: str, sizes: Sequence[int], card: float, settings: dict) -> int | None:
    for size in sizes:
        if plan(preset, batch=size, **settings)["total"] + 1 <= card:
            return size
    return None
