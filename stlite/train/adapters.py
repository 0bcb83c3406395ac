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
from stlite.train.generation import encode, generate
from stlite.train.models import load


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
    unfinished = out.with_name(out.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    merged = model.merge_and_unload(safe_merge=True).bfloat16()
    merged.save_pretrained(unfinished, safe_serialization=True)
    processor.save_pretrained(unfinished)
    (unfinished / "stlite.json").write_text(json.dumps(processor.reading))
    os.replace(unfinished, out)
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

    def reply_to_all(model, processor):
        rows = generate(model, processor, samples, videos=videos, max_new_tokens=max_new_tokens)
        return [row["reply"] for row in rows]

    def encode_all(processor, replies):
        return [_conversation(processor, *pair, videos) for pair in zip(samples, replies)]

    model, processor = load(preset, four_bit=False, backend="transformers", adapter=adapter)
    replies = reply_to_all(model, processor)
    batches = encode_all(processor, replies)
    trained = _log_probs(model, batches)
    with model.disable_adapter():
        base = _log_probs(model, batches)
    del model
    model, processor = load(str(merged), four_bit=False, backend="transformers")
    merged_replies = reply_to_all(model, processor)
    merged_batches = encode_all(processor, replies)
    difference = (_log_probs(model, batches) - trained).abs()
    result = {
        "same": sum(reply == other for reply, other in zip(merged_replies, replies)),
        "mean": difference.mean().item(),
        "max": difference.max().item(),
        "adapter": (base - trained).abs().mean().item(),
    }
    same_inputs = _are_equal(batches, merged_batches)
    close = result["mean"] <= 0.1 * result["adapter"]
    if not (same_inputs and close and result["same"] >= len(samples) / 2):
        raise RuntimeError(
            f"{merged}: not the model that was trained: {result}; processor equal: {same_inputs}"
        )
    return result


def _are_equal(batches: list, others: list) -> bool:
    """Say whether two processors gave the same tensors."""
    for (inputs, _), (other_inputs, _) in zip(batches, others):
        for name, tensor in inputs.items():
            if not torch.equal(tensor, other_inputs[name]):
                return False
    return True


def _conversation(processor, sample: Sample, reply: str, videos) -> tuple[dict, int]:
    """Return the inputs of a question with its reply, and where the reply starts."""
    question = encode(processor, [prompts.messages(sample)], videos)
    chat = prompts.messages(sample, answer=reply)
    conversation = encode(processor, [chat], videos, generation=False)
    return dict(conversation), question["input_ids"].shape[1]


@torch.no_grad()
def _log_probs(model, batches: list[tuple[dict, int]]) -> torch.Tensor:
    """Return the log-probs of all tokens of all replies (n,)."""
    parts = []
    for inputs, start in batches:
        inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
        reply_ids = inputs["input_ids"][0, start:]
        logits = model(**inputs, use_cache=False).logits[0, start - 1 : -1].float()
        log_probs = logits.log_softmax(-1).gather(-1, reply_ids[:, None])[:, 0]
        parts.append(log_probs.cpu())
    return torch.cat(parts)
