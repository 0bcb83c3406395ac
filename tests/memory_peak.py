"""Measure the peak memory of one nf4 LoRA step on a CPU, and print it beside the plan's figure (JSON, GB).

    MALLOC_MMAP_THRESHOLD_=65536 MALLOC_TRIM_THRESHOLD_=0 python tests/memory_peak.py tiny 32    # or 100m 8, 500m 2

Those two settings give every freed tensor back to the system: without them glibc keeps up to twice what is in use.
"""

import gc
import json
import sys
import tempfile
from pathlib import Path

import torch
from transformers import Qwen2VLForConditionalGeneration

from stlite.data.egost import read_rows
from stlite.train import sft as train
from stlite.train.memory import plan
from stlite.train.models import add_lora, load
from stlite.train.runs import float32_adapter

DATA = Path(__file__).resolve().parent.parent / "sample_data"


SIZES = {"100m": (768, 12, 2048), "500m": (1280, 24, 3456)}  # width, layers, width of the MLP


def larger(name: str, folder: Path) -> str:
    """Save a model of random weights, shaped as the tiny one but larger, and its processor."""
    sys.path.insert(0, str(DATA))
    import make_tiny

    processor, (width, layers, mlp) = make_tiny.processor(), SIZES[name]
    config = make_tiny.model(processor.tokenizer).config
    config.vision_config.hidden_size = width
    config.text_config.layer_types = ["full_attention"] * layers
    config.text_config.rope_parameters["mrope_section"] = [16, 8, 8]
    for key, value in {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": mlp,
                       "num_attention_heads": width // 64, "num_key_value_heads": width // 64}.items():  # fmt: skip
        setattr(config.text_config, key, value)
    Qwen2VLForConditionalGeneration(config).bfloat16().save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def status(key: str) -> int:
    """Read a size of this process from the kernel (bytes)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key))
    return int(line.split()[1]) * 1024


def step(source: str, rows: list) -> tuple[dict, int]:
    """Load a model, take one step; return the batch and the peak over the step (bytes)."""
    model, processor = load(source, frames=16, max_pixels=84 * 84)
    model = add_lora(model).train()
    float32_adapter(model)
    batch = train.Collator(processor, "st-cot", videos=DATA / "videos")(rows)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    for _ in range(2):  # the optimizer's moments exist from the second step on
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return batch, status("VmHWM")


def main(source: str, count: int) -> None:
    """Take a step with one row first, so that the libraries' own memory is not counted, then the step to measure."""
    torch.set_num_threads(1)
    if source in SIZES:
        source = larger(source, Path(tempfile.mkdtemp()) / source)
    rows = list(read_rows(DATA / "train" / "total_test_mcq_63.jsonl"))[:count]
    step("tiny", rows[:1])
    gc.collect()
    before = status("VmRSS")
    batch, peak = step(source, rows)
    grid = batch["video_grid_thw"][0].prod().item()
    found = plan(
        source,
        16,
        84 * 84,
        0,
        0,
        count,
        bytes_=4,
        checkpointing=False,
        text=batch["input_ids"].shape[1] - grid // 4,
        packed=False,
    )
    print(json.dumps({"measured": (peak - before) / 1e9, **found}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
