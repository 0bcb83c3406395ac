"""Train through Unsloth's real loader, LoRA and patched GRPO trainer where there is no GPU; prints a JSON line for each.

    python tests/train/unsloth_contract.py FOLDER qwen2 qwen2.5 qwen3 qwen3.5

Unsloth takes its CUDA branches on a CPU once a card's properties are described to it (`pretend`); the weights are
random and tiny, everything else is real: our `load`, `sft`, `grpo` and parity gate, on the shipped videos.
"""

import inspect
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
GROUP = {"num_generations": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1,
         "max_completion_length": 8, "learning_rate": 1e-2, "beta": 0.1}  # fmt: skip


UNKNOWN: dict[str, list] = {}  # arguments of ours that Unsloth's signatures do not name


def spy(owner: type, name: str) -> None:
    """Compare the arguments of every call of one of Unsloth's functions with its signature."""
    real = getattr(owner, name)
    named = inspect.signature(real).parameters

    def call(*args, **kwargs):
        UNKNOWN.setdefault(name, []).extend(set(kwargs) - set(named))
        return real(*args, **kwargs)

    setattr(owner, name, staticmethod(call))


def unmapped() -> list[str]:
    """List the presets for which Unsloth has no 4-bit model of its own."""
    from unsloth.models.mapper import FLOAT_TO_INT_MAPPER

    from stlite.train.presets import PRESETS

    return [
        n
        for n, p in PRESETS.items()
        if n != "tiny" and p["source"].lower() not in FLOAT_TO_INT_MAPPER
    ]


def pretend() -> None:
    """Import Unsloth as on CUDA, describe a card of 8 GB to it, and let it replace TRL's GRPO trainer."""
    os.environ |= dict.fromkeys(
        ("UNSLOTH_ALLOW_CPU", "UNSLOTH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE"), "1"
    )
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import unsloth
    from unsloth.kernels import cross_entropy_loss
    from unsloth.models import _utils, loader, rl, vision

    card = SimpleNamespace(
        name="none", total_memory=8 << 30, major=8, minor=0, multi_processor_count=1
    )
    # a card of 2020: without bfloat16 Unsloth puts Qwen3.5's weights into float16, whatever is asked for
    _utils.SUPPORTS_BFLOAT16 = True
    loader.SUPPORTS_BFLOAT16 = True
    vision.get_device_stats = lambda: ("none", "", 8.0)
    for name, value in {
        "mem_get_info": (8 << 30, 8 << 30), "get_device_properties": card, "get_device_capability": (8, 0),
        "empty_cache": None, "synchronize": None, "memory_reserved": 0, "max_memory_reserved": 0,
    }.items():  # fmt: skip
        setattr(torch.cuda, name, lambda *args, _value=value, **kwargs: _value)
    cross_entropy_loss.Fast_CrossEntropyLoss = SimpleNamespace(apply=cross_entropy)
    os.environ["UNSLOTH_ALLOW_CPU"] = "0"
    rl.PatchFastRL("GRPO", unsloth.FastVisionModel)
    spy(unsloth.FastVisionModel, "from_pretrained")
    spy(vision.FastBaseModel, "get_peft_model")  # FastVisionModel's only passes on what it gets


def cross_entropy(logits, labels, *scales):
    """Compute what Unsloth's one Triton kernel on this route computes: the loss of each row (N,)."""
    import torch

    return torch.nn.functional.cross_entropy(
        logits.float(), labels, ignore_index=-100, reduction="none"
    )


def watch(model, seen: list) -> None:
    """Note of every pass over a whole prompt: its rows, whether a gradient is kept, and whether the pixels are there."""
    import torch

    def note(module, args, kwargs):
        ids = kwargs.get("input_ids")
        if ids is not None and ids.shape[1] > 1:
            kind = "train" if torch.is_grad_enabled() else "score"
            seen.append((kind, kwargs.get("pixel_values_videos") is not None, len(ids)))

    model.get_base_model().model.register_forward_pre_hook(note, with_kwargs=True)


def run(kind: str, folder: Path) -> dict:
    """Take two SFT steps and two GRPO steps with either trainer, with one architecture; return what was seen."""
    from random_models import architecture
    from transformers import modeling_utils

    from stlite.data.egost import read_rows
    from stlite.train import generation, models, runs

    samples = list(read_rows(ROOT / "sample_data/train/total_test_mcq_63.jsonl"))[:4]
    videos, seen = ROOT / "sample_data/videos", []
    model, proc = models.load(str(architecture(kind, folder)), backend="unsloth", four_bit=False)
    model = models.add_lora(model)
    modeling_utils.checkpoint = offloaded  # as on a card: what is kept goes to the host's memory
    found = {"model": type(model.get_base_model()).__name__}
    watch(model, seen)
    for stage in ("sft", "grpo", "unsloth"):
        before = trained(model)
        model.save_pretrained(folder / f"before-{stage}")
        seen.clear()
        take_steps(stage, model, proc, samples, folder, videos)
        moved = max((p - before[n]).abs().max().item() for n, p in trained(model).items())
        found[stage] = {"passes": list(seen), "moved": moved}
        if stage != "sft":
            found[stage] |= runs.read_training(folder / stage)["result"]["parity"]
    replies = generation.generate(model, proc, samples, videos=videos, max_new_tokens=8)
    alone = [
        generation.generate(model, proc, [s], videos=videos, max_new_tokens=8)[0] for s in samples
    ]
    return {
        **found, "trained": list(trained(model)), "same": replies == alone, "tower": tower(model, proc, samples, videos),
        "blinded": blinded(model, proc, samples, folder, videos),
    }  # fmt: skip


def offloaded(function, *args, **kwargs):
    """Checkpoint with Unsloth's own function, past the part of it that asks for a card's pinned memory."""
    from unsloth_zoo.gradient_checkpointing import Unsloth_Offloaded_Gradient_Checkpointer

    return Unsloth_Offloaded_Gradient_Checkpointer.apply(function, *args)


def trained(model) -> dict:
    """Copy the weights that train."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def take_steps(stage: str, model, proc, samples, folder: Path, videos: Path) -> None:
    """Take two steps of SFT, or of GRPO with our trainer or Unsloth's, in a folder named after the stage."""
    from stlite.train.grpo import grpo
    from stlite.train.sft import sft

    how = {
        "videos": videos,
        "dry": True,
        "max_steps": 2,
        "disable_tqdm": True,
        "gradient_checkpointing": True,
    }
    if stage == "sft":
        how |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
        sft(model, proc, samples, folder / stage, **how)
    else:
        trainer = "unsloth" if stage == "unsloth" else "stlite"
        grpo(
            model, proc, samples, folder / stage, rewards=[spread], trainer=trainer, **GROUP, **how
        )


def tower(model, proc, samples, videos: Path) -> dict:
    """Count the rows of patches the tower was asked for and run on; compare the logits it gives with the plain tower's."""
    import torch

    from stlite.data import prompts
    from stlite.train.generation import encode

    visual = model.get_base_model().model.visual
    cache = visual.feature_cache
    found = {
        "asked": cache.rows_requested,
        "run": cache.rows_computed,
        "clips": len({s.video for s in samples}),
    }
    inputs = encode(proc, [prompts.messages(s) for s in samples], videos)
    with torch.no_grad():
        kept, wrapped = model(**inputs).logits, visual.forward
        visual.forward = cache.plain
        found["difference"] = (model(**inputs).logits - kept).abs().max().item()
        visual.forward = wrapped
    return found | {"rows": inputs["video_grid_thw"].prod(1).max().item()}


def blinded(model, proc, samples, folder: Path, videos: Path) -> str:
    """Let the trainer show black videos to its log-prob passes; return what the parity gate then says."""
    from stlite.train import grpo as rollouts
    from stlite.train import preflight as gates

    trainer = rollouts.make_trainer(
        model,
        proc,
        samples,
        folder / "blind",
        [spread],
        settings=rollouts.GRPO | GROUP,
        videos=videos,
        trainer="unsloth",
    )
    module = sys.modules[type(trainer).__module__]
    feed = module._unsloth_grpo_video_inputs

    def black(*args):
        fed = feed(*args)
        return {**fed, "pixel_values_videos": fed["pixel_values_videos"] * 0}

    module._unsloth_grpo_video_inputs = black
    try:
        return json.dumps(gates.check_parity(trainer))
    except RuntimeError as error:
        return str(error)
    finally:
        module._unsloth_grpo_video_inputs = feed


def spread(completions, **kwargs) -> list[float]:
    """Reward by length in characters, so that rollouts of a group differ."""
    return [float(len(c[-1]["content"])) for c in completions]


if __name__ == "__main__":
    pretend()
    for kind in sys.argv[2:]:
        print(json.dumps(run(kind, Path(sys.argv[1]) / kind)))
    print(json.dumps({"unknown": UNKNOWN, "unmapped": unmapped()}))
