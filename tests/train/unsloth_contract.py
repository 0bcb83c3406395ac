"""Train through Unsloth's real loader, LoRA and patched GRPO trainer where there is no GPU; prints a JSON line for each.

    python tests/train/unsloth_contract.py FOLDER qwen2 qwen2.5 qwen3

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
GROUP = {"num_generations": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "max_steps": 2,
         "max_completion_length": 8, "learning_rate": 1e-2, "disable_tqdm": True, "beta": 0.1}  # fmt: skip


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
    from unsloth.models import rl, vision

    card = SimpleNamespace(
        name="none", total_memory=8 << 30, major=8, minor=0, multi_processor_count=1
    )
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
    """Note of every forward pass over a whole prompt: is a gradient kept, and are the pixels there."""
    import torch

    def note(module, args, kwargs):
        ids = kwargs.get("input_ids")
        if ids is not None and ids.shape[1] > 1:
            kind = "train" if torch.is_grad_enabled() else "score"
            seen.append((kind, kwargs.get("pixel_values_videos") is not None))

    core = model.get_base_model()
    core.register_forward_pre_hook(note, with_kwargs=True)


def run(kind: str, folder: Path) -> dict:
    """Take two SFT and two GRPO steps with one architecture; return what was seen."""
    from random_models import architecture

    from stlite.data.egost import read_rows
    from stlite.train import generation, models, runs
    from stlite.train import grpo as rollouts
    from stlite.train import sft as train

    samples = list(read_rows(ROOT / "sample_data/train/total_test_mcq_63.jsonl"))[:4]
    videos, seen, found = ROOT / "sample_data/videos", [], {}
    model, proc = models.load(str(architecture(kind, folder)), backend="unsloth", four_bit=False)
    model = models.add_lora(model)
    watch(model, seen)
    adapter = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for stage in ("sft", "grpo"):
        before = {n: p.detach().clone() for n, p in adapter.items()}
        if stage == "sft":
            train.sft(model, proc, samples, folder / stage, videos=videos, max_steps=2, per_device_train_batch_size=2,
                      gradient_accumulation_steps=1, disable_tqdm=True, dry=True)  # fmt: skip
        else:
            rollouts.grpo(
                model,
                proc,
                samples,
                folder / stage,
                videos=videos,
                rewards=[spread],
                dry=True,
                **GROUP,
            )
        moved = max((p.detach() - before[n]).abs().max().item() for n, p in adapter.items())
        found[stage] = {"passes": list(seen), "moved": moved}
        seen.clear()
    replies = generation.generate(model, proc, samples, videos=videos, max_new_tokens=8)
    alone = [
        generation.generate(model, proc, [s], videos=videos, max_new_tokens=8)[0] for s in samples
    ]
    return {
        **found, "model": type(model.get_base_model()).__name__, "trained": list(adapter), "same": replies == alone,
        "parity": runs.read_training(folder / "grpo")["result"]["parity"],
        "tower": tower(model, proc, samples, videos), "trainer": rollouts.grpo_trainer().__name__, "blinded": blinded(model, proc, samples, folder, videos),
    }  # fmt: skip


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
