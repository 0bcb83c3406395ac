"""Supervised fine-tuning on chains, and what both stages of training share.

    model, processor = load("tiny")
    sft(model, processor, samples, "runs/st-cot", videos="sample_data/videos")

Saves adapter and processor together under the run's folder, and goes on where it was stopped.
"""

import argparse
import ast
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from stlite.data import prompts
from stlite.train import checkpoints
from stlite.train.models import (  # before trl, as rollouts
    LORA,
    PRESETS,
    add_lora,
    encode,
    load,
    looking,
)
from stlite.train.preflight import find_batch_size

# isort: split
from transformers import Trainer, TrainingArguments

from stlite.data.egost import read_rows
from stlite.data.sample import Sample, write_text
from stlite.rewards.rewards import PRESETS as REWARDS

SFT = {
    "num_train_epochs": 1,  # as the paper
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,  # 16 rows a step, as the paper's 1 x 4 x 4 cards
    "learning_rate": 2e-4,  # the paper's 8e-5 is for r = 8 on 7 B weights; LoRA of this size takes more
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,  # a share of all steps, as the paper
    "max_grad_norm": 0.3,
}


# ---- supervised fine-tuning ------------------------------------------------------------------------------------------


class Collator:
    """Batch (sample, reply) pairs: prompts and replies with their videos, labels on the reply alone."""

    def __init__(self, processor, recipe: str):
        self.processor, self.recipe = processor, recipe

    def __call__(self, samples: list[Sample]) -> dict:
        """Return input_ids, attention_mask, labels (B,L) and the video tensors."""
        asked = [prompts.messages(s) for s in samples]
        told = [prompts.messages(s, answer=prompts.target(s, self.recipe)) for s in samples]
        batch = encode(self.processor, told, generation=False)
        start = encode(self.processor, asked)["attention_mask"].sum(1)
        first = batch["attention_mask"].argmax(1)
        place = torch.arange(batch["input_ids"].shape[1])[None]
        reply = (place >= (first + start)[:, None]) & batch["attention_mask"].bool()
        batch["labels"] = batch["input_ids"].masked_fill(~reply, -100)
        return dict(batch)


def sft(
    model, processor, samples: Sequence[Sample], out: str | os.PathLike, videos: str | os.PathLike | None = None,
    recipe: str = "st-cot", lora: str = "default", seed: int = 0, callbacks: Sequence = (), resume: bool = True,
    dry: bool | None = None, **settings,
):  # fmt: skip
    """Teach replies with QLoRA; `recipe` is "st-cot", "forward-cot" or "label"; returns the PEFT model.

    `settings` override SFT and go to transformers' TrainingArguments. The loss is on the assistant's tokens only. With
    `dry`, the default on CUDA, the largest sample is taken first, and rows a backward are halved until it fits.
    """
    model = add_lora(model, lora, seed)
    _float32_adapter(model)

    def build(chosen):
        return Trainer(
            model=model, args=TrainingArguments(**_arguments(out, chosen, seed), remove_unused_columns=False),
            train_dataset=list(samples), data_collator=Collator(processor, recipe), processing_class=processor,
            callbacks=list(callbacks),
        )  # fmt: skip

    with looking(processor, videos):
        trainer, chosen = _build(build, {**SFT, **settings}, dry)
        checkpoints.train(trainer, out, resume)
    return _finish(
        trainer, processor, out, {"stage": "sft", "recipe": recipe, "seed": seed, **chosen}
    )


# ---- what both stages share ------------------------------------------------------------------------------------------


def _build(build: Callable, chosen: dict, dry: bool | None) -> tuple:
    """Build a trainer; with `dry`, or on CUDA, one whose largest sample was seen to fit."""
    if torch.cuda.is_available() if dry is None else dry:
        return find_batch_size(build, chosen)
    return build(chosen), chosen


def _arguments(out, chosen: dict, seed: int) -> dict:
    """Return the arguments both stages share: no account, safetensors, resumable, seeded."""
    cpu = not torch.cuda.is_available()
    return {
        "output_dir": str(Path(out) / "checkpoints"), "report_to": "none", "seed": seed, "data_seed": seed,
        "use_cpu": cpu, "bf16": not cpu and torch.cuda.is_bf16_supported(), "logging_steps": 1, "save_total_limit": 2,
        "save_strategy": "steps", "save_steps": 0.1, "dataloader_pin_memory": not cpu, "gradient_checkpointing": not cpu,
        "ddp_backend": "gloo" if cpu and int(os.environ.get("WORLD_SIZE", 1)) > 1 else None, **chosen,
    }  # fmt: skip


def _float32_adapter(model) -> None:
    """Keep the adapter in float32 on a CPU: trl casts it to bfloat16, in which a rate of 1e-5 is lost to rounding."""
    if not torch.cuda.is_available():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()


def _finish(trainer, processor, out, settings: dict):
    """Save adapter, processor, log and settings together; return the model in evaluation mode."""
    out = Path(out)
    trainer.save_model(
        str(out / "adapter")
    )  # gathers what is spread over cards; the processor goes with it
    if trainer.args.should_save:
        (out / "adapter" / "training_args.bin").unlink()  # a pickle that nobody needs
        write_text(out / "log.json", json.dumps(trainer.state.log_history, indent=1))
        write_text(out / "train.json", json.dumps(settings, indent=1, default=str))
        shutil.rmtree(out / "checkpoints")  # a run that is done begins anew when asked for again
    return trainer.model.eval()


# ---- the command -----------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    """Train a model on released rows, on one card or, under `accelerate launch -m`, on several."""
    parser = argparse.ArgumentParser(prog="python -m stlite.train.sft", description=main.__doc__)
    parser.add_argument("stage", choices=("sft", "grpo"))
    parser.add_argument("--data", required=True, help="a file of released rows")
    parser.add_argument(
        "--videos", required=True, help="the folder that paths of videos start from"
    )
    parser.add_argument("--out", required=True, help="the run folder, made or resumed")
    parser.add_argument(
        "--model", default="tiny", help=f"a folder, a hub id, or one of {', '.join(PRESETS)}"
    )
    parser.add_argument("--adapter", help="a folder that training saved, to go on from")
    parser.add_argument("--lora", default="default", choices=LORA)
    parser.add_argument(
        "--recipe", default="st-cot", choices=("st-cot", "forward-cot", "label"), help="of sft"
    )
    parser.add_argument("--rewards", default="st-r1", choices=REWARDS, help="of grpo")
    parser.add_argument(
        "--four-bit", action=argparse.BooleanOptionalAction, default=True, help="nf4 weights"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "settings",
        nargs="*",
        type=_setting,
        help="KEY=VALUE: settings of TrainingArguments or GRPOConfig",
    )
    args = parser.parse_intermixed_args(argv)
    how = {"videos": args.videos, "lora": args.lora, "seed": args.seed, **dict(args.settings)}
    model, processor = load(args.model, four_bit=args.four_bit, adapter=args.adapter)
    samples = list(read_rows(args.data, args.videos))
    if args.stage == "sft":
        sft(model, processor, samples, args.out, recipe=args.recipe, **how)
    else:
        from stlite.train.grpo import grpo

        grpo(model, processor, samples, args.out, rewards=args.rewards, **how)


def _setting(text: str) -> tuple[str, object]:
    """Read "learning_rate=1e-4" as a name and a Python value, or else text."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


if __name__ == "__main__":
    main()
