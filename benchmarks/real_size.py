"""A model of real size on a CPU: Qwen2.5-VL-3B's architecture with random weights, in 4 bits, one SFT and one GRPO step.

    python benchmarks/real_size.py            # about half an hour on one core, 8 GB of disk; memory and time, printed

Eight frames in the preset's pixels, G = 2, completions of 16 tokens, gradient checkpointing as on a card. Text is the
tiny tokenizer's. Each stage runs in a process of its own, whose peak is reported beside the plan's figure.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "sample_data")]
DATA, NAME = ROOT / "sample_data", "qwen2.5-vl-3b"


def build(folder: str) -> None:
    """Save random bfloat16 weights in the architecture, and its processor around the tiny tokenizer."""
    import make_tiny
    import torch
    import transformers as hf
    from random_models import processor

    from stlite.train.memory import shape

    size, tok = shape(NAME), make_tiny.tokenizer()
    tower = size["tower"]
    text = {"vocab_size": size["vocab"], "hidden_size": size["hidden"], "intermediate_size": size["mlp"],
            "num_hidden_layers": size["layers"], "num_attention_heads": size["q"] // 128, "bos_token_id": None,
            "num_key_value_heads": size["kv"] // 128, "tie_word_embeddings": True, "max_position_embeddings": 8192,
            "eos_token_id": tok.eos_token_id, "pad_token_id": tok.pad_token_id,
            "rope_scaling": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}}  # fmt: skip
    vision = {"depth": tower["depth"], "hidden_size": tower["width"], "num_heads": 16, "out_hidden_size": size["hidden"],
              "intermediate_size": tower["mlp"] // 3}  # fmt: skip
    ids = {f"{n}_id": tok.convert_tokens_to_ids(f"<|{t}|>") for n, t in (("video_token", "video_pad"),
           ("image_token", "image_pad"), ("vision_start_token", "vision_start"), ("vision_end_token", "vision_end"))}  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = hf.Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True, **ids
    )
    net = hf.Qwen2_5_VLForConditionalGeneration(config)
    print(json.dumps({"weights": sum(p.numel() for p in net.parameters())}), flush=True)
    net.save_pretrained(folder)
    processor("qwen2.5", tok, make_tiny.CHAT).save_pretrained(folder)


def stage(name: str, folder: str) -> None:
    """Load in 4 bits and take one step; print seconds and the peak of this process."""
    began = time.perf_counter()
    from stlite.data.egost import read_rows
    from stlite.train import memory
    from stlite.train.grpo import grpo
    from stlite.train.models import load
    from stlite.train.presets import settings
    from stlite.train.sft import sft

    reading = {key: settings(NAME)[key] for key in ("frames", "max_pixels")}
    model, processor = load(folder, **reading)
    loaded, rows = (
        time.perf_counter(),
        list(read_rows(DATA / "train" / "total_test_mcq_63.jsonl"))[:1],
    )
    gc.collect()
    Path("/proc/self/clear_refs").write_text(
        "5"
    )  # the peak counts from here, without what loading took
    how = {"videos": DATA / "videos", "max_steps": 1, "save_strategy": "no", "gradient_checkpointing": True,
           "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "disable_tqdm": True}  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        if name == "grpo":
            how |= {
                "gradient_accumulation_steps": 2,
                "num_generations": 2,
                "max_completion_length": 16,
                "parity": False,
            }
        (grpo if name == "grpo" else sft)(model, processor, rows, out, **how)
        log = json.loads(Path(out, "log.json").read_text())
    peak = next(
        int(x.split()[1])
        for x in Path("/proc/self/status").read_text().splitlines()
        if x.startswith("VmHWM")
    )
    planned = memory.plan(NAME, generations=2 * (name == "grpo"), completion=16, batch=1, prompts=1, bytes_=4, **{k: reading[k] for k in ("frames", "max_pixels")})  # fmt: skip
    found = {
        "stage": name,
        "peak_gb": round(peak * 1024 / 1e9, 2),
        "plan_gb": planned["total"],
        "load_s": round(loaded - began),
    }
    print(
        json.dumps(
            found | {"step_s": round(time.perf_counter() - loaded), "loss": log[0].get("loss")}
        ),
        flush=True,
    )


def main() -> None:
    """Build the model, then take each stage in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("build", "sft", "grpo"):
            env = {
                "OMP_NUM_THREADS": "1",
                "MALLOC_MMAP_THRESHOLD_": "65536",
                "MALLOC_TRIM_THRESHOLD_": "0",
                **os.environ,
            }
            command = [sys.executable, "-W", "ignore", __file__, name, folder]
            subprocess.run(
                command, check=True, env=env | {"HF_HUB_OFFLINE": "1", "STLITE_CACHE": "off"}
            )


if __name__ == "__main__":
    build(sys.argv[2]) if sys.argv[1:2] == ["build"] else stage(*sys.argv[1:3]) if sys.argv[
        1:
    ] else main()
