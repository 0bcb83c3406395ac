"""Models of random weights, tiny, in every architecture that presets name, each with its own processor."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("qwen2", "qwen2.5", "qwen3", "qwen3.5")


TEMPLATES = {"qwen2": "qwen2_5_vl", "qwen2.5": "qwen2_5_vl", "qwen3": "qwen3_vl", "qwen3.5": "qwen3_5_think"}  # fmt: skip


def architecture(kind: str, folder: Path) -> Path:
    """Save a model of random weights (2 layers of 64) and its processor, in one of the architectures."""
    sys.path.insert(0, str(ROOT / "sample_data"))
    import make_tiny

    return _save(kind, folder, make_tiny.tokenizer(), make_tiny.CHAT, vocabulary=384)


def genuine_architecture(kind: str, folder: Path) -> Path:
    """Save the same with the genuine tokenizer, template and padded vocabulary of the family."""
    from importlib import resources

    from genuine import genuine_tokenizer

    chat = (resources.files("trl") / "chat_templates" / f"{TEMPLATES[kind]}.jinja").read_text(
        "utf-8"
    )
    vocabulary = 248_320 if kind == "qwen3.5" else 151_936
    return _save(kind, folder, genuine_tokenizer(kind), chat, vocabulary)


def _save(kind: str, folder: Path, tok, chat: str, vocabulary: int) -> Path:
    import torch
    import transformers as hf

    token = tok.convert_tokens_to_ids
    ids = {f"{n}_id": token(f"<|{t}|>") for n, t in (("video_token", "video_pad"), ("image_token", "image_pad"),
           ("vision_start_token", "vision_start"), ("vision_end_token", "vision_end"))}  # fmt: skip
    text = {"vocab_size": vocabulary, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 4096, "head_dim": 32,
            "bos_token_id": None, "eos_token_id": tok.eos_token_id, "pad_token_id": tok.pad_token_id,
            "rope_scaling": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 1e4}}  # fmt: skip
    names = {"qwen2": "Qwen2VL", "qwen2.5": "Qwen2_5_VL", "qwen3": "Qwen3VL", "qwen3.5": "Qwen3_5"}
    name = names[kind]
    if kind == "qwen3.5":  # two recurrent layers, two that attend
        text |= {"num_hidden_layers": 4, "layer_types": ["linear_attention", "full_attention"] * 2,
                 "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2,
                 "linear_num_value_heads": 4}  # fmt: skip
        text["rope_parameters"] = text.pop("rope_scaling") | {
            "mrope_section": [2, 1, 1],
            "partial_rotary_factor": 0.25,
            "mrope_interleaved": True,
        }
    vision = {
        "qwen2": {"depth": 1, "embed_dim": 32, "num_heads": 2, "hidden_size": 64},
        "qwen2.5": {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 64},
        "qwen3": {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 64,
                  "deepstack_visual_indexes": [0]},
        "qwen3.5": {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 64},
    }[kind]  # fmt: skip
    torch.manual_seed(0)
    config = getattr(hf, f"{name}Config")(text_config=text, vision_config=vision, **ids)
    net = getattr(hf, f"{name}ForConditionalGeneration")(config)
    for part in net.parameters():  # so that the pixels move the log-probs by more than rounding
        part.data.mul_(3) if part.ndim > 1 else None
    folder = folder / (kind if kind == "qwen3.5" else f"{kind}-vl")
    net.save_pretrained(folder)
    processor(kind, tok, chat).save_pretrained(folder)
    return folder


def processor(kind: str, tok, chat: str):
    """Build an architecture's own processor around the tiny tokenizer."""
    import transformers as hf

    images = hf.Qwen2VLImageProcessor(**({"patch_size": 16} if kind.startswith("qwen3") else {}))
    video = hf.Qwen3VLVideoProcessor() if kind.startswith("qwen3") else hf.Qwen2VLVideoProcessor()
    name = {
        "qwen2": "Qwen2VLProcessor",
        "qwen2.5": "Qwen2_5_VLProcessor",
        "qwen3": "Qwen3VLProcessor",
        "qwen3.5": "Qwen3VLProcessor",
    }[kind]
    return getattr(hf, name)(
        image_processor=images, tokenizer=tok, video_processor=video, chat_template=chat
    )
