"""Memory, before the run: what every phase of a training step takes.

    plan("qwen2.5-vl-7b", generations=0, batch=1)["total"]   # SFT in 4 bits, 8 frames (GB)
    fitting_settings(8)                                      # settings that fit a card of 8 GB
    largest_batches(generations=0)                           # the largest batch for cards of 8, 12, 16, 24 GB

Figures are predicted, by counting, in GB of 1e9 bytes; 1 GB of a card is left to CUDA's own context
(0.3 to 0.6 GB) and fragmentation.
"""

from collections.abc import Sequence

from stlite.train.shapes import CONFIGS, count_adapter, count_weights, shape

TEXT = 400  # tokens of a question with four options, a system prompt and the chat's own
NF4 = (
    4 + 8 / 64 + 32 / (64 * 256)
) / 8  # bytes a weight: QLoRA (arXiv 2305.14314) section 3, double quantization
ADAM = 16  # bytes a trained weight: itself, gradient, two moments, in float32 (ZeRO, arXiv 1910.02054, section 3.1)
CHUNK = 64  # tokens whose logits are held at once, as in `log_probs`
LEFT_TO_CUDA = 1.0  # GB
# tried in this order: a group is worth more than frames; a group of 0 is SFT alone
GRPO_SETTINGS = [
    {"generations": group, "frames": frames} for group in (8, 4, 2, 0) for frames in (32, 16, 8)
]


def plan(
    preset: str | dict, frames: int = 8, max_pixels: int = 360 * 420, generations: int = 8, completion: int = 256,
    batch: int = 8, prompts: int = 4, rank: int = 16, bytes_: int = 2, four_bit: bool = True, checkpointing: bool = True,
    text: int = TEXT, packed: bool = True,
) -> dict:  # fmt: skip
    """Predict the memory of a LoRA training step, in GB: what stays, what each phase adds, and the peak as "total".

    `preset` may be a config.json as a dictionary. `batch` rows go through one backward;
    `generations` 0 is SFT, else the groups of a step's `prompts` generate at once. `bytes_` is the
    size of a computed number: 2 on a card, 4 on a CPU. `packed` is this package's trainer: each
    prompt once for its replies, logits in chunks; without it every copy of a prompt is read and its
    logits are held, as in Unsloth's own trainer.
    """
    size = shape(preset)
    counts = count_weights(size)
    trained = count_adapter(size, rank)
    prompt = count_video_tokens(size, frames, max_pixels) + text
    run = {"size": size, "prompt": prompt, "completion": completion, "generations": generations, "batch": batch,
           "prompts": prompts, "rank": rank, "bytes": bytes_, "four_bit": four_bit, "packed": packed,
           "checkpointing": checkpointing}  # fmt: skip
    clips = batch
    if generations:
        clips = prompts if packed else prompts * generations
    stays = {
        "weights": counts["packed"] * (NF4 if four_bit else bytes_) + counts["plain"] * bytes_,
        "adapter": trained * ADAM,
    }
    phases = {
        "vision": clips
        * 4
        * count_video_tokens(size, frames, max_pixels)
        * _patch_bytes(size, bytes_),
        "prefill": _prefill(run) if generations else 0,
        "generation": _generation(run) if generations else 0,
        "log_probs": _log_probs(run) if generations else 0,
        "backward": _backward(run),
        "optimizer": 2 * 4 * trained,  # the update and its denominator, in float32
    }
    total = sum(stays.values()) + max(phases.values())
    amounts = {**stays, **phases, "total": total}
    return {name: round(amount / 1e9, 3) for name, amount in amounts.items()}


def count_video_tokens(size: dict, frames: int, max_pixels: int) -> float:
    """Count the tokens of a clip: two frames share a patch, and two by two patches a token."""
    return frames / 2 * max_pixels / size["tower"]["patch"] ** 2 / 4


def _patch_bytes(size: dict, bytes_: int) -> int:
    """Count the bytes of one patch in a tower that is frozen.

    Its pixels, and the widest block, one alive at a time.
    """
    tower = size["tower"]
    pixels = 2 * 3 * tower["patch"] ** 2 * 4
    return pixels + bytes_ * (5 * tower["width"] + tower["mlp"])


def cache_bytes(size: dict, rows: float, length: float, bytes_: int) -> float:
    """Count the bytes of what generation keeps of `rows` of `length` tokens.

    Keys and values, and recurrent states.
    """
    layers = size["layers"]
    keys_and_values = layers["full"] * length * 2 * size["kv"] * bytes_
    if not layers["linear"]:
        return rows * keys_and_values
    head = size["value"] // size["value_heads"]
    state = size["value"] * head * 4  # in float32: heads of head x head
    convolution = (2 * size["key"] + size["value"]) * size["kernel"] * bytes_
    return rows * (keys_and_values + layers["linear"] * (state + convolution))


def _prefill(run: dict) -> float:
    """Read the prompts: their part of the cache, and one layer's numbers at a time."""
    rows = run["prompts"] * (1 if run["packed"] else run["generations"])
    kept = cache_bytes(run["size"], rows, run["prompt"], run["bytes"])
    return (
        kept + rows * run["prompt"] * _forward_numbers(run["size"]) * run["bytes"] + _unpacked(run)
    )


def _generation(run: dict) -> float:
    """Write the replies.

    The cache of all rows, one layer of it copied, and the logits of a token (float32, twice).
    """
    rows = max(run["batch"], run["prompts"] * run["generations"])
    cache = cache_bytes(run["size"], rows, run["prompt"] + run["completion"], run["bytes"])
    copied = cache / sum(run["size"]["layers"].values())
    return cache + copied + rows * run["size"]["vocab"] * (run["bytes"] + 8) + _unpacked(run)


def _log_probs(run: dict) -> float:
    """Score the replies without a gradient: one layer's numbers at a time."""
    numbers = _tokens(run) * _forward_numbers(run["size"])
    return numbers * run["bytes"] + _logits(run) + _mask(run) + _unpacked(run)


def _backward(run: dict) -> float:
    """Keep what autograd needs of the rows of one backward, and take the loss."""
    size = run["size"]
    layers = size["layers"]
    full = _kept_numbers(size, "full", run["rank"])
    linear = _kept_numbers(size, "linear", run["rank"]) if layers["linear"] else 0
    if run["checkpointing"]:  # each layer's input, and one layer at a time
        kept = sum(layers.values()) * size["hidden"] + max(full, linear)
    else:
        kept = layers["full"] * full + layers["linear"] * linear
    return _tokens(run) * kept * run["bytes"] + _logits(run) + _mask(run) + _unpacked(run)


def _tokens(run: dict) -> float:
    """Count the tokens that go through one backward."""
    if not run["generations"] or not run["packed"]:
        return run["batch"] * (run["prompt"] + run["completion"])
    groups = max(1, run["batch"] / run["generations"])
    return groups * run["prompt"] + run["batch"] * run["completion"]


def _kept_numbers(size: dict, kind: str, rank: int) -> int:
    """Count the numbers that autograd keeps of one token in one layer.

    Both norms' inputs and outputs; gate, its SiLU, up, and their product; LoRA's inner numbers; and
    of attention q, k, v, its output and its copy (Korthikanti et al., arXiv 2205.05198, section 4,
    counted anew for RMSNorm, SwiGLU, attention that keeps no scores, and frozen weights). Of a
    linear layer its projections before and after the convolution, gates, and the chunks of 64
    tokens that its recurrence multiplies.
    """
    rest = 4 * size["hidden"] + 4 * size["mlp"] + 7 * rank
    if kind == "full":
        return rest + 5 * size["q"] + (size["q"] if size["gated"] else 0)
    mixed = 2 * size["key"] + size["value"]
    return rest + 2 * mixed + 8 * size["value"] + 2 * 64 * size["value_heads"]


def _forward_numbers(size: dict) -> int:
    """Count the numbers that a pass without gradient holds of one token.

    The residual, and the wider half of a layer.
    """
    attention = 2 * size["q"] + 2 * size["kv"]
    recurrence = 2 * (2 * size["key"] + size["value"]) + 4 * size["value"]
    return 3 * size["hidden"] + max(attention, recurrence, 4 * size["mlp"])


def _logits(run: dict) -> float:
    """Count the bytes of logits, their log-softmax and its gradient."""
    asked = run["completion"] if run["generations"] else run["prompt"] + run["completion"]
    tokens = CHUNK if run["packed"] else run["batch"] * asked
    return tokens * run["size"]["vocab"] * (run["bytes"] + 8)


def _mask(run: dict) -> float:
    """Count the bytes of the mask that keeps a group's replies apart, as truth values and as numbers."""
    if not run["packed"] or run["generations"] < 2:
        return 0
    length = run["prompt"] + min(run["batch"], run["generations"]) * run["completion"]
    return length**2 * (4 + run["bytes"])


def _unpacked(run: dict) -> float:
    """Count the bytes of the one matrix that is unpacked from 4 bits at a time."""
    return run["size"]["hidden"] * run["size"]["mlp"] * run["bytes"] if run["four_bit"] else 0


def fitting_settings(card: float) -> list[dict]:
    """List, for each preset, the largest GRPO group and the most frames that fit a card (GB), one row a backward.

    One prompt a step; a group is worth more than frames; a group of 0 is SFT alone.
    """
    rows = []
    for preset in CONFIGS:
        for settings in GRPO_SETTINGS:
            row = plan(preset, batch=1, prompts=1, **settings)
            if row["total"] + LEFT_TO_CUDA <= card:
                rows.append({**row, "preset": preset, **settings})
                break
    return rows


def largest_batches(
    sizes: Sequence[int] = (32, 16, 8, 4, 2, 1),
    cards: Sequence[int] = (8, 12, 16, 24),
    **settings,
) -> list[dict]:
    """List, for each preset, the largest batch that `plan` lets fit each card (GB).

    None where not even one row does. `settings` are those of `plan`.

    >>> largest_batches(generations=0, checkpointing=False)[0]
    {'preset': 'qwen2-vl-2b', '8 GB': 1, '12 GB': 2, '16 GB': 2, '24 GB': 4}
    """
    rows = []
    for preset in CONFIGS:
        row = {"preset": preset}
        for card in cards:
            row[f"{card} GB"] = _largest_batch(preset, sizes, card, settings)
        rows.append(row)
    return rows


def _largest_batch(preset: str, sizes: Sequence[int], card: float, settings: dict) -> int | None:
    for size in sizes:
        if plan(preset, batch=size, **settings)["total"] + LEFT_TO_CUDA <= card:
            return size
    return None
