"""Memory, before the run: what a training step takes, part by part.

    plan("qwen2.5-vl-7b", generations=0, batch=1)["total"]        # QLoRA SFT, 8 frames (GB)
    fitting_settings(8)                                          # settings that fit a card of 8 GB
    largest_batches(generations=0)                                       # the largest batch for cards of 8, 12, 16, 24 GB

Figures are predicted, by counting; CUDA's own context (0.3 to 0.6 GB) and fragmentation come on top.
"""

import json
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
    size = {"hidden": hidden, "layers": layers, "q": heads * head, "kv": kv * head}
    return size | {"mlp": mlp, "vocab": vocab, "tied": tied}


SHAPES = {  # the config.json of each model on the hub
    "qwen2-vl-2b": _text(1536, 28, 12, 2, 8960, 151936, True) | {"tower": QWEN2_TOWER},
    "qwen2-vl-7b": _text(3584, 28, 28, 4, 18944, 152064, False) | {"tower": QWEN2_TOWER},
    "qwen2.5-vl-3b": _text(2048, 36, 16, 2, 11008, 151936, True) | {"tower": QWEN25_TOWER},
    "qwen2.5-vl-7b": _text(3584, 28, 28, 4, 18944, 152064, False) | {"tower": QWEN25_TOWER},
    "qwen3-vl-2b": _text(2048, 28, 16, 8, 6144, 151936, True) | {"tower": QWEN3_TOWER},
    "qwen3-vl-4b": _text(2560, 36, 32, 8, 9728, 151936, True) | {"tower": QWEN3_TOWER},
    "qwen3-vl-8b": _text(4096, 36, 32, 8, 12288, 151936, False) | {"tower": QWEN3_LARGE_TOWER},
}


def shape(preset: str) -> dict:
    """Return a model's sizes: a preset's, or those in the config.json of a local Qwen2-VL folder."""
    if preset in SHAPES:
        return SHAPES[preset]
    path = (TINY if preset == "tiny" else Path(preset)) / "config.json"
    if not path.exists():
        raise ValueError(
            f"preset: expected tiny, {', '.join(SHAPES)} or a folder with a model, found {preset!r}"
        )
    config = json.loads(path.read_text())
    vision, names = config["vision_config"], ("hidden_size", "num_hidden_layers", "num_attention_heads",
                                              "num_key_value_heads", "intermediate_size", "vocab_size")  # fmt: skip
    sizes, width = [config["text_config"][name] for name in names], vision["embed_dim"]
    tower = {"depth": vision["depth"], "width": width, "mlp": int(2 * width * vision["mlp_ratio"])}
    tower |= {"patch": vision["patch_size"], "mergers": 1}
    return _text(*sizes, config["tie_word_embeddings"], head=sizes[0] // sizes[2]) | {
        "tower": tower
    }


def weights(size: dict) -> tuple[int, int]:
    """Count the weights of a model: (in the language layers' matrices, everywhere else)."""
    h, tower = size["hidden"], size["tower"]
    layer = 2 * h * (size["q"] + size["kv"]) + 3 * h * size["mlp"]
    d = tower["width"]
    block = 4 * d * d + d * tower["mlp"]
    merger = (4 * d) ** 2 + 4 * d * h  # four patches become one token
    vision = tower["depth"] * block + tower["mergers"] * merger + 6 * tower["patch"] ** 2 * d
    return size["layers"] * layer, (1 if size["tied"] else 2) * size["vocab"] * h + vision


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
    h, q, kv, mlp, layers = (size[k] for k in ("hidden", "q", "kv", "mlp", "layers"))
    inner, other = weights(size)
    tower, side = size["tower"], size["tower"]["patch"]
    patches = frames / 2 * max_pixels / side**2  # two frames share a patch
    length = patches / 4 + text + completion
    trained = rank * layers * (4 * h + 2 * q + 2 * kv + 3 * (h + mlp))
    # kept by autograd for one token in one layer: both norms' inputs and outputs; q, k, v, the attention's output and
    # its copy; gate, its SiLU, up, and their product; LoRA's inner numbers (Korthikanti et al., arXiv 2205.05198,
    # section 4, counted anew for RMSNorm, SwiGLU, attention that keeps no scores, and frozen weights)
    kept = 4 * h + 5 * q + 4 * mlp + 7 * rank
    layers_kept = (layers * h + kept) if checkpointing else layers * kept
    matrix = h * mlp if four_bit else 0  # one matrix is unpacked at a time
    asked = completion if generations else length  # GRPO asks for the logits of the completion only
    parts = {
        "weights": inner * (NF4 if four_bit else bytes_) + other * bytes_,
        "adapter": trained * ADAM,
        "vision": batch
        * patches
        * bytes_
        * (5 * tower["width"] + tower["mlp"]),  # frozen: one block alive at a time
        "activations": batch * length * layers_kept * bytes_ + matrix * bytes_,
        "logits": batch
        * asked
        * size["vocab"]
        * (bytes_ + 8),  # the logits, their log-softmax and its gradient
        "cache": max(batch, prompts * generations) * length * layers * 2 * kv * bytes_
        if generations
        else 0,
    }
    phases = (parts["vision"], parts["activations"] + parts["logits"], parts["cache"])
    parts["total"] = parts["weights"] + parts["adapter"] + max(phases)
    return {name: round(value / 1e9, 3) for name, value in parts.items()}


def fitting_settings(card: float) -> list[dict]:
    """List, for each preset, the largest GRPO group and the most frames that fit a card (GB), one row a backward.

    One prompt a step; a group is worth more than frames; a group of 0 is SFT alone. 1 GB is left to CUDA and fragmentation.
    """
    found, settings = (
        [],
        [{"generations": g, "frames": f} for g in (8, 4, 2, 0) for f in (32, 16, 8)],
    )
    for preset in SHAPES:
        tried = (
            plan(preset, batch=1, prompts=1, **some) | {"preset": preset} | some
            for some in settings
        )
        found += [t for t in tried if t["total"] + 1 <= card][:1]
    return found


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
        totals = {size: plan(preset, batch=size, **settings)["total"] + 1 for size in sizes}
        largest = {
            f"{card} GB": next((n for n in sizes if totals[n] <= card), None) for card in cards
        }
        rows.append({"preset": preset} | largest)
    return rows
