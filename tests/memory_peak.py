"""Measure the peak memory of one nf4 LoRA step on a CPU, and print it beside the plan's figure (JSON, GB).

    MALLOC_MMAP_THRESHOLD_=65536 MALLOC_TRIM_THRESHOLD_=0 python tests/memory_peak.py tiny sft 32
    python tests/memory_peak.py 100m grpo 8           # one group of eight, each prompt once; also 500m
    python tests/memory_peak.py 100m plain 8          # whole rows and whole logits, as transformers takes them

Those two settings give every freed tensor back to the system: without them glibc keeps up to twice what is in use.
Pages of files are left out: a busy system takes them away and brings them back.
"""

import gc
import json
import sys
import tempfile
from pathlib import Path

import torch
from transformers import Qwen2VLForConditionalGeneration, Trainer, TrainingArguments

from stlite.data.egost import read_rows
from stlite.rewards.rewards import PRESETS
from stlite.train import dry_run, runs
from stlite.train.grpo import GRPO, make_trainer
from stlite.train.memory import plan
from stlite.train.models import add_lora, load
from stlite.train.sft import ChainTrainer, Collator

DATA = Path(__file__).resolve().parent.parent / "sample_data"


COMPLETION = 64
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


def build(source: str, stage: str, count: int, out: str):
    """Build the trainer of a stage: `count` rows go through one backward, in GRPO one group."""
    rows = list(read_rows(DATA / "train" / "total_test_mcq_63.jsonl"))
    model, processor = load(source, frames=16, max_pixels=84 * 84)
    common = {"per_device_train_batch_size": count, "gradient_accumulation_steps": 1,
              "gradient_checkpointing": source != "tiny", "disable_tqdm": True}  # fmt: skip
    if stage == "grpo":
        group = {"num_generations": count, "max_completion_length": COMPLETION}
        return make_trainer(model, processor, rows[:1], out, PRESETS["st-r1"],
                            settings=GRPO | common | group, videos=DATA / "videos")  # fmt: skip
    model = add_lora(model)
    runs.float32_adapter(model)
    args = TrainingArguments(**runs.arguments(out, common, 0), remove_unused_columns=False)
    trainer = ChainTrainer if stage == "sft" else Trainer
    return trainer(
        model=model,
        args=args,
        train_dataset=rows[:count],
        data_collator=Collator(processor, "st-cot", DATA / "videos"),
        processing_class=processor,
    )


def step(trainer, count: int) -> int:
    """Take two steps with replies of full length; return the peak over them (bytes)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    optimizer = torch.optim.AdamW([p for p in trainer.model.parameters() if p.requires_grad])
    for _ in range(2):  # the optimizer's moments exist from the second step on
        rows = [trainer.train_dataset[0]] * count
        if not hasattr(trainer, "sampling"):
            rows = [trainer.train_dataset[i] for i in range(count)]
        trainer.current_gradient_accumulation_steps = 1
        with dry_run._full_completions(trainer), dry_run._checkpointing(trainer):
            trainer.training_step(trainer.model, trainer.data_collator(rows), None)
        optimizer.step()
        optimizer.zero_grad()
    return status("VmHWM") - status("RssFile")


def predicted(trainer, source: str, stage: str, count: int) -> dict:
    """Return the plan of the same step; in SFT of rows as long as the longest."""
    grid = 8 * 6 * 6 // 4
    if stage == "grpo":
        _, tokens = dry_run.find_largest(trainer)
        how = {"generations": count, "completion": COMPLETION, "prompts": 1}
    else:
        tokens = trainer.data_collator(list(trainer.train_dataset))["input_ids"].shape[1]
        how = {"generations": 0, "completion": 0, "packed": stage == "sft"}
    return plan(source, 16, 84 * 84, batch=count, bytes_=4, text=tokens - grid,
                checkpointing=trainer.args.gradient_checkpointing, **how)  # fmt: skip


def main(source: str, stage: str, count: int) -> None:
    """Take a small step first, so that the libraries' own memory is not counted, then the step to measure."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as out:
        if source in SIZES:
            source = larger(source, Path(out) / source)
        step(build("tiny", stage, 2, out), 2)
        gc.collect()
        before = status("RssAnon")
        trainer = build(source, stage, count, out)
        peak = step(trainer, count)
        amounts = predicted(trainer, source, stage, count)
    measured = (peak - before) / 1e9
    print(json.dumps({"measured": measured, "ratio": amounts["total"] / measured, **amounts}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
