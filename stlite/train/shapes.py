"""Shapes of models: the sizes that decide memory and time, of the presets and of any local folder, read without torch.

shape("qwen3.5-4b")["layers"]           # {'full': 8, 'linear': 24}
count_weights(shape("my/folder"))       # {'packed': 3570000000, 'plain': 960000000}
"""

from pathlib import Path

from stlite.train.presets import TINY, read_config_file

# what a config.json leaves out: transformers writes only what differs from a class's own values
TEXT = {
    "qwen2_vl": {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
                 "intermediate_size": 29568, "vocab_size": 152064},
    "qwen3_vl": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
                 "intermediate_size": 22016, "vocab_size": 151936, "head_dim": 128},
    "qwen3_5": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 16, "num_key_value_heads": 4,
                "intermediate_size": 12288, "vocab_size": 248320, "head_dim": 256, "full_attention_interval": 4,
                "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
                "linear_num_key_heads": 16, "linear_num_value_heads": 32},
}  # fmt: skip
VISION = {
    "qwen2_vl": {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "mlp_ratio": 4, "patch_size": 14},
    "qwen2_5_vl": {"depth": 32, "hidden_size": 3584, "intermediate_size": 3420, "patch_size": 14, "out_hidden_size": 3584},
    "qwen3_vl": {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "patch_size": 16, "out_hidden_size": 3584,
                 "num_position_embeddings": 2304, "deepstack_visual_indexes": [8, 16, 24]},
    "qwen3_5": {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "patch_size": 16, "out_hidden_size": 3584,
                "num_position_embeddings": 2304, "deepstack_visual_indexes": []},
}  # fmt: skip
TEXT["qwen2_5_vl"] = TEXT["qwen2_vl"]


def _config(family: str, sizes: tuple, vision: dict, tied: bool) -> dict:
    """Return what a preset's config.json says; `sizes` are in the order of `names`."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size",
             "vocab_size", "linear_num_value_heads")  # fmt: skip
    text = dict(zip(names, sizes))
    vision = {"out_hidden_size": text["hidden_size"], **vision}
    if family == "qwen2_vl":
        vision["hidden_size"] = vision.pop("out_hidden_size")
    return {
        "model_type": family,
        "text_config": text,
        "vision_config": vision,
        "tie_word_embeddings": tied,
    }


QWEN25_VISION = {"hidden_size": 1280}
SMALL_VISION = {"depth": 12, "hidden_size": 768, "intermediate_size": 3072}
MIDDLE_VISION = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096}
QWEN3_VISION = {**MIDDLE_VISION, "deepstack_visual_indexes": [5, 11, 17]}
CONFIGS = {  # the config.json of each model on the hub
    "qwen2-vl-2b": _config("qwen2_vl", (1536, 28, 12, 2, 8960, 151936), {}, tied=True),
    "qwen2-vl-7b": _config("qwen2_vl", (3584, 28, 28, 4, 18944, 152064), {}, tied=False),
    "qwen2.5-vl-3b": _config("qwen2_5_vl", (2048, 36, 16, 2, 11008, 151936), QWEN25_VISION, tied=True),
    "qwen2.5-vl-7b": _config("qwen2_5_vl", (3584, 28, 28, 4, 18944, 152064), QWEN25_VISION, tied=False),
    "qwen3-vl-2b": _config("qwen3_vl", (2048, 28, 16, 8, 6144, 151936), QWEN3_VISION, tied=True),
    "qwen3-vl-4b": _config("qwen3_vl", (2560, 36, 32, 8, 9728, 151936), QWEN3_VISION, tied=True),
    "qwen3-vl-8b": _config("qwen3_vl", (4096, 36, 32, 8, 12288, 151936), {}, tied=False),
    "qwen3.5-0.8b": _config("qwen3_5", (1024, 24, 8, 2, 3584, 248320, 16), SMALL_VISION, tied=True),
    "qwen3.5-2b": _config("qwen3_5", (2048, 24, 8, 2, 6144, 248320, 16), MIDDLE_VISION, tied=True),
    "qwen3.5-4b": _config("qwen3_5", (2560, 32, 16, 4, 9216, 248320, 32), MIDDLE_VISION, tied=True),
    "qwen3.5-9b": _config("qwen3_5", (4096, 32, 16, 4, 12288, 248320, 32), {}, tied=False),
}  # fmt: skip


def shape(preset: str | dict) -> dict:
    """Return a model's sizes: a preset's, or those that the config.json of a local folder says, or that dictionary.

    Widths: hidden, q and kv (all heads together), key and value (of linear layers, all heads), mlp.
    Counts: layers of either kind, vocab, kernel, value_heads. "tower": its depth, width, mlp,
    patch, mergers and positions. Raises ValueError for an unknown preset, and for a folder of
    another family.
    """
    if isinstance(preset, dict):
        return read_config(preset, "config")
    if preset in CONFIGS:
        return read_config(CONFIGS[preset], preset)
    folder = TINY if preset == "tiny" else Path(preset)
    path = folder / "config.json"
    if not path.is_file():
        names = ", ".join(CONFIGS)
        raise ValueError(
            f"preset: expected tiny, {names} or a folder with a model, found {preset!r}"
        )
    return read_config(read_config_file(path), str(path))


def read_config(config: dict, where: str) -> dict:
    """Return the sizes that a config.json says, whether the language model's stand apart or at its top."""
    family = config.get("model_type")
    if family not in VISION:
        raise ValueError(
            f"{where}: model_type: expected one of {', '.join(VISION)}, found {family!r}"
        )
    written = config.get("text_config") or config
    text = {**TEXT[family], **{name: value for name, value in written.items() if value is not None}}
    heads = text["num_attention_heads"]
    head = text.get("head_dim") or text["hidden_size"] // heads
    tied = config.get("tie_word_embeddings", written.get("tie_word_embeddings", False))
    return {
        "hidden": text["hidden_size"],
        "layers": _count_layers(text),
        "q": heads * head,
        "kv": text["num_key_value_heads"] * head,
        "gated": family == "qwen3_5",  # q_proj gives a gate beside the queries
        "key": text.get("linear_num_key_heads", 0) * text.get("linear_key_head_dim", 0),
        "value": text.get("linear_num_value_heads", 0) * text.get("linear_value_head_dim", 0),
        "value_heads": text.get("linear_num_value_heads", 0),
        "kernel": text.get("linear_conv_kernel_dim", 0),
        "mlp": text["intermediate_size"],
        "vocab": text["vocab_size"],
        "tied": bool(tied),
        "tower": _tower(family, config.get("vision_config") or {}),
    }


def _count_layers(text: dict) -> dict:
    """Count the layers of full attention, and of linear attention (Gated DeltaNet)."""
    count = text["num_hidden_layers"]
    if "full_attention_interval" not in text:
        return {"full": count, "linear": 0}
    full = count // text["full_attention_interval"]
    if text.get("layer_types"):
        full = text["layer_types"].count("full_attention")
    return {"full": full, "linear": count - full}


def _tower(family: str, written: dict) -> dict:
    """Return the sizes of a vision tower; mlp is the width of all its matrices together."""
    vision = {**VISION[family], **written}
    width = vision["hidden_size"]
    if family == "qwen2_vl":
        width = vision["embed_dim"]
        mlp = 2 * int(width * vision["mlp_ratio"])
    else:
        mlp = vision["intermediate_size"] * (3 if family == "qwen2_5_vl" else 2)  # gated
    return {
        "depth": vision["depth"],
        "width": width,
        "mlp": mlp,
        "patch": vision.get("spatial_patch_size", vision["patch_size"]),
        "mergers": 1 + len(vision.get("deepstack_visual_indexes", [])),
        "positions": vision.get("num_position_embeddings", 0),
    }


def matrices(size: dict) -> dict[str, list[tuple[int, int]]]:
    """List the matrices (inputs, outputs) of a layer of either kind, which 4 bits pack and LoRA adapts."""
    hidden, mlp = size["hidden"], size["mlp"]
    feed = [(hidden, mlp), (hidden, mlp), (mlp, hidden)]
    queries = size["q"] * (2 if size["gated"] else 1)
    full = [(hidden, queries), (hidden, size["kv"]), (hidden, size["kv"]), (size["q"], hidden)]
    mixed = 2 * size["key"] + size["value"]
    linear = [
        (hidden, mixed),
        (hidden, size["value"]),
        (hidden, size["value_heads"]),
        (hidden, size["value_heads"]),
        (size["value"], hidden),
    ]
    return {"full": full + feed, "linear": linear + feed}


def count_weights(size: dict) -> dict[str, int]:
    """Count a model's weights: "packed", in the matrices that 4 bits pack, and "plain", everywhere else."""
    packed = 0
    for kind, layer in matrices(size).items():
        packed += size["layers"][kind] * sum(inputs * outputs for inputs, outputs in layer)
    embeddings = size["vocab"] * size["hidden"] * (1 if size["tied"] else 2)
    mixed = 2 * size["key"] + size["value"]
    convolutions = size["layers"]["linear"] * mixed * size["kernel"]
    return {"packed": packed, "plain": embeddings + convolutions + _count_tower(size)}


def count_adapter(size: dict, rank: int) -> int:
    """Count the weights of a LoRA adapter on all matrices of all layers."""
    total = 0
    for kind, layer in matrices(size).items():
        total += size["layers"][kind] * sum(inputs + outputs for inputs, outputs in layer)
    return rank * total


def _count_tower(size: dict) -> int:
    tower = size["tower"]
    width = tower["width"]
    block = 4 * width**2 + width * tower["mlp"]
    joined = 4 * width  # four patches become one token
    merger = joined**2 + joined * size["hidden"]
    pixels = 2 * 3 * tower["patch"] ** 2  # of a patch: two frames of three colours
    embedding = (pixels + tower["positions"]) * width
    return tower["depth"] * block + tower["mergers"] * merger + embedding
