"""Run folders: what made a run, whether it is finished, and what it leaves behind.

runs/st-r1/run.json    {"training": {"made_by": {"model": …, "starting_adapter": …, "learning_rate": …}, "result": …}}
runs/st-r1/adapter/    the trained adapter with the processor

A stage that is finished is not done again; one that was begun with other settings is refused before
anything runs.
"""

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import torch

from stlite.train.backend import compute_dtype, versions  # before peft: it imports Unsloth

# isort: split
import safetensors.torch
from peft import PeftModel, set_peft_model_state_dict

from stlite.data.cache import content_hash, short_hash
from stlite.data.sample import Sample, SampleError, safe_path, write_text
from stlite.eval.run_folder import fingerprint
from stlite.train.chat import timestamps_of
from stlite.train.checkpoints import last_checkpoint
from stlite.train.dry_run import announce, find_batch_size
from stlite.train.models import adapter_weights, fingerprint_adapter
from stlite.train.preflight import check_disk

# settings that leave the course of a run as it is
HARMLESS = ("dataloader_", "ddp_", "disable_tqdm", "eval_", "hub_", "log_", "logging_", "output_dir", "push_to_hub",
            "project", "report_to", "run_name", "save_", "trackio_", "use_cpu", "gradient_checkpointing")  # fmt: skip
BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")  # their product alone counts
PROBE = 16  # values of each of a model's matrices that its fingerprint reads


# ---- what made a run -----------------------------------------------------------------------------


def describe(
    model, processor, samples: Sequence[Sample], videos: str | os.PathLike | None, settings: dict, **stage
) -> dict:  # fmt: skip
    """Say all that decides a run's course: model, starting adapter, LoRA, reading, data, seed and settings.

    `stage` names the stage and what only it has (recipe, rewards, seed). Everything is by content:
    a folder that moved is the same, other weights, rows or videos under an old name are not.
    """
    made_by = dict(stage)
    made_by["model"] = fingerprint_base(model)
    made_by["starting_adapter"] = fingerprint_adapter(model)
    made_by["lora"] = _lora(model)
    made_by["reading"] = {**processor.reading, **timestamps_of(processor)}
    template = processor.chat_template or processor.tokenizer.chat_template
    made_by["chat_template"] = short_hash(str(template))
    made_by["rows"] = len(samples)
    made_by["rows_hash"] = short_hash(json.dumps([_row(sample) for sample in samples]))
    made_by["videos_hash"] = short_hash(json.dumps(_hash_videos(samples, videos)))
    made_by["rows_a_step"] = int(os.environ.get("WORLD_SIZE", 1))
    for name, value in settings.items():
        if name in BATCH:
            made_by["rows_a_step"] *= value
        elif not name.startswith(HARMLESS):
            made_by[name] = value
    return json.loads(json.dumps(made_by, default=_name))


def _name(value) -> str:
    """Name an object that JSON cannot hold, without its address in memory."""
    return getattr(value, "__name__", type(value).__name__)


def _row(sample: Sample) -> dict:
    return {**asdict(sample), "origin": ""}


def _hash_videos(samples: Sequence[Sample], videos: str | os.PathLike | None) -> dict[str, str]:
    """Return the content hash of each different video.

    One that is missing or outside its root has none.
    """
    hashes = {}
    for path in dict.fromkeys(sample.video for sample in samples):
        try:
            hashes[path] = content_hash(safe_path(path, videos))
        except (OSError, SampleError):
            hashes[path] = ""
    return hashes


def _lora(model) -> dict:
    config = model.peft_config["default"]
    targets = config.target_modules
    return {
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": targets if isinstance(targets, str) else sorted(targets),
    }


def fingerprint_base(model) -> str:
    """Name a model's own weights, adapter apart, by their names, shapes and first values."""
    digest = sha256()
    for name, weight in model.get_base_model().named_parameters():
        if "lora_" in name:
            continue
        values = weight.detach().flatten()[:PROBE].float().tolist()
        digest.update(repr((name.replace(".base_layer", ""), list(weight.shape), values)).encode())
    return digest.hexdigest()[:16]


# ---- finished, begun, or refused -----------------------------------------------------------------


def find_finished(out: str | os.PathLike, made_by: dict, resume: bool = True) -> Path | None:
    """Return the adapter of a run that is finished and was made the same way.

    None where there is work to do. Raises ValueError, naming what differs, where the folder holds a
    run or checkpoints that were made otherwise.
    """
    out = Path(out)
    if not resume:
        return None
    record = read_training(out)
    if record is None:
        _refuse_unknown(out)
        return None
    result = record["result"]
    if result is None and last_checkpoint(out) is None:
        return None
    # its own cell, run again
    if result is not None and made_by["starting_adapter"] == result["adapter"]:
        made_by = {**made_by, "starting_adapter": record["made_by"]["starting_adapter"]}
    different = differences(record["made_by"], made_by)
    if different:
        raise ValueError(
            f"{out}: begun with other {', '.join(different)}; use another folder, or resume=False to train anew"
        )
    return out / "adapter" if result is not None and _is_intact(out, result) else None


def _refuse_unknown(out: Path) -> None:
    if (out / "adapter").exists() or last_checkpoint(out) is not None:
        raise ValueError(
            f"{out}: expected run.json to say what made the adapter or checkpoints here, found none; "
            "use another folder, or resume=False to train anew"
        )


def _is_intact(out: Path, result: dict) -> bool:
    """Say whether a finished run's adapter is there; another in its place is refused."""
    adapter = out / "adapter"
    if not (adapter / "adapter_model.safetensors").is_file():
        print(f"{out}: finished, but its adapter is gone: it is trained again")
        return False
    there = fingerprint(adapter)
    if there != result["adapter"]:
        raise ValueError(
            f"{adapter}: expected the adapter this run ended with ({result['adapter']}), found {there}; "
            "use another folder, or resume=False to train anew"
        )
    return True


def differences(before: dict, now: dict) -> list[str]:
    """List what differs between two descriptions, dictionaries in them entry by entry.

    >>> differences({"seed": 0, "lora": {"r": 8}}, {"seed": 0, "lora": {"r": 16}, "top_p": 0.9})
    ['r (8 then, 16 now)', 'top_p (None then, 0.9 now)']
    """
    different = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            different += differences(old, new)
        elif old != new:
            different.append(f"{name} ({old} then, {new} now)")
    return different


def load_finished(model, adapter: Path):
    """Put a finished run's adapter into a model that has one of the same shape.

    Return it in evaluation mode.
    """
    weights = safetensors.torch.load_file(adapter / "adapter_model.safetensors")
    set_peft_model_state_dict(model, weights)
    print(
        f"{adapter.parent}: this stage is finished with the same data and settings; its adapter is used"
    )
    shutil.rmtree(adapter.parent / "checkpoints", ignore_errors=True)
    return model.eval()


def read_training(out: str | os.PathLike) -> dict | None:
    """Return what run.json says of a folder's training; None where it says nothing."""
    path = Path(out) / "run.json"
    return json.loads(path.read_text("utf-8")).get("training") if path.is_file() else None


def _write_training(out: Path, record: dict) -> None:
    """Write a folder's training into run.json, beside what evaluation wrote there."""
    path = out / "run.json"
    run = json.loads(path.read_text("utf-8")) if path.is_file() else {"name": out.name}
    write_text(path, json.dumps({**run, "training": record}, indent=1, default=_name) + "\n")


def begin(
    trainer, out: str | os.PathLike, made_by: dict, left_out: Sequence[str], resume: bool
) -> None:
    """Note in run.json what makes a run, before its first step.

    Checkpoints without the same rows are refused.
    """
    out = Path(out)
    record = {"made_by": made_by, "left_out": sorted(left_out), "sessions": [], "result": None}
    before = read_training(out)
    trainer.accelerator.wait_for_everyone()
    if not resume and trainer.args.should_save:
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    elif before and last_checkpoint(out):
        different = differences({"left_out": before["left_out"]}, {"left_out": record["left_out"]})
        if different:
            raise ValueError(
                f"{out}: begun with other {', '.join(different)}: videos that could not be read; "
                "use another folder, or resume=False to train anew"
            )
        record["sessions"] = before["sessions"]
    command = shlex.join(sys.argv)
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    record["sessions"].append({"command": command, "started": started, "versions": versions()})
    if trainer.args.should_save:
        _write_training(out, record)
    trainer.accelerator.wait_for_everyone()


@contextmanager
def adapted(model, add_lora: Callable, *how) -> Iterator[PeftModel]:
    """Give a model with its adapter; where training stops short, the model is left as it came.

    What was trained by then is in the checkpoints: the same call with the same model goes on from
    them.
    """
    had_adapter = hasattr(model, "peft_config")
    trained = add_lora(model, *how)
    float32_adapter(trained)
    before = adapter_weights(trained) if had_adapter else None
    try:
        yield trained
    except BaseException:
        if had_adapter:
            set_peft_model_state_dict(trained, before)
        else:
            trained.unload()
        raise


# ---- the trainer, and the end --------------------------------------------------------------------


def build_trainer(
    build: Callable, out: str | os.PathLike, settings: dict, dry: bool | None
) -> tuple:
    """Build a trainer, say what it will take.

    With `dry`, or on CUDA, one whose largest sample was seen to fit. Returns (trainer, settings).
    Raises OSError where the disk has no room for its checkpoints.
    """
    trainer = build(settings)
    announce(trainer)
    check_disk(out, _checkpoint_bytes(trainer))
    if dry is None:
        dry = torch.cuda.is_available()
    if not dry:
        return trainer, settings
    return find_batch_size(trainer, build, settings)


def _checkpoint_bytes(trainer) -> int:
    """Count the bytes of all checkpoints that are kept at once.

    Weights and two moments, with the processor.
    """
    kept = (trainer.args.save_total_limit or 10) + 1  # one is written before another goes
    trained = sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad)
    return kept * (trained * 4 * 3 + 30_000_000)


def arguments(out, settings: dict, seed: int, model=None) -> dict:
    """Return the arguments both stages share: no account, safetensors, resumable, seeded.

    A model trains in the number format that its embeddings are in.
    """
    dtype = compute_dtype() if model is None else model.get_input_embeddings().weight.dtype
    cuda = torch.cuda.is_available()
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    shared = {
        "output_dir": str(Path(out) / "checkpoints"),
        "report_to": "none",
        "seed": seed,
        "data_seed": seed,
        "use_cpu": not cuda,
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
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
    """Keep the adapter in float32.

    Trl casts it to bfloat16, in which a rate of 1e-5 is lost to rounding.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def finish(trainer, out: str | os.PathLike, result: dict):
    """Save adapter, processor, log and result together; return the model in evaluation mode.

    run.json is written when all else is in place: a run killed before that goes on from its last
    checkpoint.
    """
    out = Path(out)
    unfinished = out / "adapter.part"
    trainer.save_model(str(unfinished))  # gathers what is spread over cards; the processor too
    if trainer.args.should_save:
        (unfinished / "training_args.bin").unlink()  # a pickle that nobody needs
        record = read_training(out)
        write_text(unfinished / "stlite.json", json.dumps(record["made_by"]["reading"]))
        shutil.rmtree(out / "adapter", ignore_errors=True)
        os.replace(unfinished, out / "adapter")
        write_text(out / "log.json", json.dumps(trainer.state.log_history, indent=1))
        record["result"] = {"adapter": fingerprint(out / "adapter"), **result}
        _write_training(out, record)
        shutil.rmtree(out / "checkpoints")
    return trainer.model.eval()
