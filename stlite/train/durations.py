"""Durations, before the run: seconds a step and minutes a stage, predicted by counting.

    seconds("qwen3-vl-4b", "RTX 4070")["total"]          # one GRPO step
    minutes("qwen3-vl-4b", "RTX 4070", steps=100)        # {'sft': 21.6, 'grpo': 41.5, 'evaluation': 8.2}

What multiplies is counted in floating-point operations, what is written token by token in bytes
read; a card's rate and bandwidth come from a small table. Expect the right order: a factor of two
either way is no surprise.
"""

from stlite.train.memory import NF4, TEXT, cache_bytes, count_video_tokens
from stlite.train.shapes import CONFIGS, count_weights, shape

CARDS = {  # bandwidth (GB/s), rate (TFLOP/s, 16 bits, dense, summed in float32): the makers' sheets
    "T4": (320, 65),
    "RTX 3060": (360, 25),
    "RTX 3090": (936, 71),
    "RTX 4060": (272, 30),
    "RTX 4070": (504, 58),
    "RTX 4090": (1008, 165),
    "RTX 5090": (1792, 210),
    "L4": (300, 121),
    "A10G": (600, 70),
    "A100": (1555, 312),
    "H100": (3350, 989),
    "CPU": (10, 0.03),  # two cores, float32, small matrices
}
USED_RATE = 0.5  # of the rate, in training of this size
USED_BANDWIDTH = 0.7
LAUNCH = 0.0012  # seconds in which a layer's kernels are launched, adapters included
UNPACKED = NF4 + 2 + 2  # bytes moved for a 4-bit weight: read, written unpacked, read again


def find_card(name: str) -> str | None:
    """Return the table's name of a device, the longest that its own name holds.

    None where it is not there.

    >>> find_card("NVIDIA GeForce RTX 4070 Laptop GPU"), find_card("Tesla T4"), find_card("Radeon")
    ('RTX 4070', 'T4', None)
    """
    words = f" {name} ".replace("-", " ")
    known = [card for card in CARDS if f" {card} " in words]
    return max(known, key=len, default=None)


def seconds(
    preset: str | dict, card: str, frames: int = 8, max_pixels: int = 360 * 420, generations: int = 8,
    completion: int = 256, rows: int = 32, four_bit: bool = True, checkpointing: bool = True, text: int = TEXT,
    packed: bool = True,
) -> dict:  # fmt: skip
    """Predict the seconds of one step by phase: "vision", "prefill", "decoding", "backward", and their "total".

    A step has `rows` rows: in SFT (`generations` 0) questions with their replies, else replies to
    rows / generations prompts. `packed` reads each prompt once for its replies.
    """
    size = shape(preset)
    video = count_video_tokens(size, frames, max_pixels)
    prompts = rows / (generations or 1)
    read = prompts if packed else rows
    tokens = read * (video + text) + rows * completion
    weights = count_weights(size)["packed"]  # those that every token is multiplied with
    # forward, forward again, and backward: frozen weights have no gradient of their own
    passes = 3 if checkpointing else 2
    phases = {
        "vision": _compute(card, prompts * 4 * video * _tower_weights(size)),
        "prefill": 0.0,
        "decoding": 0.0,
        "backward": _compute(card, passes * tokens * weights),
    }
    if generations:
        phases["prefill"] = _compute(card, read * (video + text) * weights)
        length = video + text + completion / 2
        phases["decoding"] = completion * _token_seconds(size, card, rows, length, four_bit)
    phases["total"] = sum(phases.values())
    return {name: round(value, 2) for name, value in phases.items()}


def minutes(
    preset: str | dict, card: str, rows: int = 630, steps: int = 150, questions: int = 300, completion: int = 256,
    reply: int = 150, batch: int = 8, **settings,
) -> dict:  # fmt: skip
    """Predict the minutes of each stage: SFT over `rows`, GRPO of `steps` (32 replies each), evaluation of `questions`.

    `settings` are those of `seconds`. Evaluation writes `completion` tokens to each of `batch`
    questions at once.
    """
    size = shape(preset)
    sft = seconds(preset, card, generations=0, completion=reply, rows=rows, **settings)
    grpo = seconds(preset, card, completion=completion, **settings)
    video = count_video_tokens(
        size, settings.get("frames", 8), settings.get("max_pixels", 360 * 420)
    )
    prompt = video + settings.get("text", TEXT)
    question = prompt * count_weights(size)["packed"] + 4 * video * _tower_weights(size)
    reading = _compute(card, questions * question)
    four_bit = settings.get("four_bit", True)
    a_token = _token_seconds(size, card, batch, prompt + completion / 2, four_bit)
    asking = reading + questions / batch * completion * a_token
    return {
        "sft": round(sft["total"] / 60, 1),
        "grpo": round(steps * grpo["total"] / 60, 1),
        "evaluation": round(asking / 60, 1),
    }


def table(
    cards: tuple[str, ...] = ("RTX 4060", "RTX 4070", "RTX 4090", "T4"), **settings
) -> list[dict]:
    """List the predicted minutes of SFT, GRPO and evaluation for each preset and card, as "5 + 40 + 8"."""
    rows = []
    for preset in CONFIGS:
        row = {"preset": preset}
        for card in cards:
            stages = minutes(preset, card, **settings).values()
            row[card] = " + ".join(f"{stage:.0f}" for stage in stages)
        rows.append(row)
    return rows


def _compute(card: str, weights_times_tokens: float) -> float:
    """Return the seconds of so many multiplications with a weight, each two operations."""
    rate = CARDS[card][1] * 1e12 * USED_RATE
    return 2 * weights_times_tokens / rate


def _token_seconds(size: dict, card: str, rows: int, length: float, four_bit: bool) -> float:
    """Return the seconds in which all rows get one token: bytes read, multiplications, or kernels launched."""
    counts = count_weights(size)
    bytes_ = 4 if card == "CPU" else 2
    head = size["vocab"] * size["hidden"]
    read = counts["packed"] * (UNPACKED if four_bit else bytes_) + head * bytes_
    read += cache_bytes(size, rows, length, bytes_)
    reading = read / (CARDS[card][0] * 1e9 * USED_BANDWIDTH)
    computing = _compute(card, rows * (counts["packed"] + head))
    launching = LAUNCH * sum(size["layers"].values())
    return max(reading, computing, launching)


def _tower_weights(size: dict) -> int:
    """Count the weights that every patch is multiplied with."""
    tower = size["tower"]
    return tower["depth"] * (4 * tower["width"] ** 2 + tower["width"] * tower["mlp"])
