"""What both stages of training share: a trainer that fits, its arguments, and what a run folder holds at the end."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from stlite.data.sample import write_text
from stlite.train.models import compute_dtype
from stlite.train.preflight import find_batch_size


def build_trainer(build: Callable, settings: dict, dry: bool | None) -> tuple:
    """Build a trainer; with `dry`, or on CUDA, one whose largest sample was seen to fit: (trainer, settings)."""
    if dry is None:
        dry = torch.cuda.is_available()
    if dry:
        return find_batch_size(build, settings)
    return build(settings), settings


def arguments(out, settings: dict, seed: int) -> dict:
    """Return the arguments both stages share: no account, safetensors, resumable, seeded."""
    cuda = torch.cuda.is_available()
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    shared = {
        "output_dir": str(Path(out) / "checkpoints"),
        "report_to": "none",
        "seed": seed,
        "data_seed": seed,
        "use_cpu": not cuda,
        "bf16": compute_dtype() == torch.bfloat16,
        "fp16": compute_dtype() == torch.float16,
        "gradient_checkpointing": cuda,
        "dataloader_pin_memory": cuda,
        "ddp_backend": "gloo" if several and not cuda else None,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 0.1,
        "save_total_limit": 2,
    }
    return {**shared, **settings}


def float32_adapter(model) -> None:
    """Keep the adapter in float32: trl casts it to bfloat16, in which a rate of 1e-5 is lost to rounding."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def finish(trainer, out, settings: dict):
    """Save adapter, processor, log and settings together; return the model in evaluation mode."""
    out = Path(out)
    trainer.save_model(str(out / "adapter"))  # gathers what is spread over cards; the processor too
    if trainer.args.should_save:
        (out / "adapter" / "training_args.bin").unlink()  # a pickle that nobody needs
        write_text(out / "log.json", json.dumps(trainer.state.log_history, indent=1))
        write_text(out / "train.json", json.dumps(settings, indent=1, default=str))
        shutil.rmtree(out / "checkpoints")  # a run that is done begins anew when asked for again
    return trainer.model.eval()
