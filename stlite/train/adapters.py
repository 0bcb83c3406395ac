"""Adapters: merged into plain bfloat16 weights that any other program loads, and compared with what was trained.

folder = merge("qwen3-vl-4b", "runs/st-r1/adapter", "runs/st-r1/merged")
verify(folder, "qwen3-vl-4b", "runs/st-r1/adapter", samples[:8], videos)
{'same': 8, 'mean': 0.002, 'max': 0.04, 'adapter': 0.31}
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from stlite.data import prompts
from stlite.data.sample import Sample
from stlite.train.models import encode, generate, load, looking, settings


def merge(preset: str, adapter: str | os.PathLike, out: str | os.PathLike) -> Path:
    """Merge an adapter into its model's unquantised weights, saved in bfloat16 with the processor; returns the folder.

    `load` reads videos for the new folder as for `preset`. On CUDA the whole model must fit the card in 16 bits; with
    CUDA_VISIBLE_DEVICES empty it is merged in memory, at 4 bytes a weight. Raises ValueError for 4-bit weights and for a folder in use.
    """
    out = Path(out)
    if out.exists():
        raise ValueError(f"{out}: expected a folder that is not there yet")
    model, processor = load(preset, four_bit=False, backend="transformers", adapter=adapter)
    if getattr(model.get_base_model(), "hf_quantizer", None):
        raise ValueError(
            f"{preset}: its weights are quantised, and a merge would be rounded off; name the full model"
        )
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.merge_and_unload(safe_merge=True).bfloat16().save_pretrained(
        part, safe_serialization=True
    )
    processor.save_pretrained(part)
    reading = {k: v for k, v in settings(preset).items() if k != "source"}
    (part / "stlite.json").write_text(json.dumps(reading))
    os.replace(part, out)
    return out


def verify(
    merged: str | os.PathLike, preset: str, adapter: str | os.PathLike, samples: Sequence[Sample],
    videos: str | os.PathLike | None = None, max_new_tokens: int = 128,
) -> dict:  # fmt: skip
    """Compare a merged folder with the adapter over unquantised weights: processor, greedy replies and log-probs.

    Returns {"same": equal replies, "mean", "max": differences a token (nats), "adapter": what the adapter itself moves
    on average}. Raises RuntimeError where the processors differ, where the mean is above a tenth of that, or where
    fewer than half of the replies are equal (rounding to bfloat16 may turn a tie).
    """
    model, processor = load(preset, four_bit=False, backend="transformers", adapter=adapter)
    written = [
        r["reply"]
        for r in generate(model, processor, samples, videos=videos, max_new_tokens=max_new_tokens)
    ]
    with looking(processor, videos):
        batches = [_told(processor, s, r) for s, r in zip(samples, written)]
        trained = _log_probs(model, batches)
        with model.disable_adapter():
            plain = _log_probs(model, batches)
    del model
    model, processor = load(str(merged), four_bit=False, backend="transformers")
    replies = [
        r["reply"]
        for r in generate(model, processor, samples, videos=videos, max_new_tokens=max_new_tokens)
    ]
    with looking(processor, videos):
        again = [_told(processor, s, r) for s, r in zip(samples, written)]
    gap = (_log_probs(model, batches) - trained).abs()
    found = {
        "same": sum(map(str.__eq__, replies, written)),
        "mean": gap.mean().item(),
        "max": gap.max().item(),
    }
    found["adapter"] = (plain - trained).abs().mean().item()
    equal = all(torch.equal(a[k], b[k]) for (a, _), (b, _) in zip(batches, again) for k in a)
    if not equal or found["mean"] > 0.1 * found["adapter"] or found["same"] < len(samples) / 2:
        raise RuntimeError(
            f"{merged}: not the model that was trained: {found}; processor equal: {equal}"
        )
    return found


def _told(processor, sample: Sample, reply: str) -> tuple[dict, int]:
    """Return the inputs of a question with its reply, and where the reply starts."""
    start = encode(processor, [prompts.messages(sample)])["input_ids"].shape[1]
    return dict(
        encode(processor, [prompts.messages(sample, answer=reply)], generation=False)
    ), start


@torch.no_grad()
def _log_probs(model, batches: list[tuple[dict, int]]) -> torch.Tensor:
    """Return the log-probs of all tokens of all replies (n,)."""
    found = []
    for inputs, start in batches:
        inputs = {k: v.to(model.device) for k, v in inputs.items()}
        logits = model(**inputs, use_cache=False).logits[0, start - 1 : -1].float()
        found.append(
            logits.log_softmax(-1).gather(-1, inputs["input_ids"][0, start:, None])[:, 0].cpu()
        )
    return torch.cat(found)
