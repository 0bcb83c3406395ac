"""Checks before the first step: what would stop a run late, or let it learn the wrong thing in silence, stops it now.

check_videos(processor, samples, videos)     # every clip is read once
check_prompts(processor, samples, "st-cot")  # what is taught begins with what is asked
check_parity(trainer)                        # {"max": 1e-06, "mean": 2e-07, "no_pixels_delta": 0.4}
"""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from stlite.data import prompts, video
from stlite.data.sample import Sample
from stlite.train.chat import question_text, taught_text
from stlite.train.generation import bare_model, encode, read

BAD_VIDEO = ("raise", "leave out")
CHUNK = 64  # tokens whose logits are held at once


# ---- data ----------------------------------------------------------------------------------------


def check_videos(
    processor, samples: Sequence[Sample], videos: str | os.PathLike | None = None, on_bad_video: str = "raise"
) -> tuple[list[Sample], list[str]]:  # fmt: skip
    """Read every video once: (the samples whose videos can be read, the ids of the others).

    `on_bad_video` "raise" raises ValueError where there are others; "leave out" prints what is left
    out.
    """
    if on_bad_video not in BAD_VIDEO:
        raise ValueError(
            f"on_bad_video: expected one of {', '.join(BAD_VIDEO)}, found {on_bad_video!r}"
        )
    if not samples:
        raise ValueError("samples: expected at least one, found none")
    _, faults = video.preflight(samples, root=videos, time_limit=None, **processor.reading)
    left_out = [sample.id for sample in samples if sample.video in faults]
    if not left_out:
        return list(samples), []
    reasons = "; ".join(str(fault) for fault in list(faults.values())[:3])
    found = f"{len(faults)} videos of {len(left_out)} samples that cannot be read: {reasons}"
    if on_bad_video == "raise":
        raise ValueError(f"videos: {found}. Repair them, or pass on_bad_video='leave out'")
    if len(left_out) == len(samples):
        raise ValueError(f"videos: expected one that can be read, found {found}")
    print(f"left out: {found}")
    return [sample for sample in samples if sample.video not in faults], left_out


def check_times(
    model, processor, samples: Sequence[Sample], videos: str | os.PathLike | None = None
) -> None:
    """Refuse clips whose frames a model cannot tell apart in time.

    The one sampled most densely is tried.
    """

    def interval(sample: Sample) -> float:
        clip = read(processor, sample.video, videos)
        return (clip.seconds[-1] - clip.seconds[0]) / len(clip.seconds)

    one_of_each = {sample.video: sample for sample in samples}
    check_time(model, processor, min(one_of_each.values(), key=interval), videos)


def check_time(model, processor, sample: Sample, videos: str | os.PathLike | None = None) -> int:
    """Count the distinct temporal positions a model gives a clip.

    Fewer than its pairs of frames raise ValueError. Qwen2.5-VL in transformers up to 5.17 gives
    every frame position 0 when sampled more densely than 2 a second.
    """
    inputs = encode(processor, [prompts.messages(sample)], videos)
    core = bare_model(model)
    fields = {name: value for name, value in inputs.items() if name != "pixel_values_videos"}
    positions, _ = core.model.get_rope_index(**fields)
    is_video = inputs["input_ids"][0] == processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    found = len(positions[0, 0][is_video].unique())
    pairs = int(inputs["video_grid_thw"][0][0])
    if found < pairs:
        raise ValueError(
            f"time axis: expected {pairs} distinct temporal positions for {pairs} pairs of frames, found {found}: the "
            "model cannot tell their order. Sample at most 2 frames a second, or use a Qwen2-VL or Qwen3-VL model."
        )
    return found


def check_prompts(processor, samples: Sequence[Sample], recipe: str, direct: bool = False) -> None:
    """Refuse a chat template with which what SFT teaches does not begin with exactly the tokens that are asked.

    A model so taught is asked something else later. Raises ValueError with the first row and its
    first such tokens.
    """
    different = []
    for sample in samples:
        asked, taught = render(processor, sample, recipe, direct)
        place = _first_difference(asked, taught[: len(asked)])
        if place is not None:
            different.append((sample.id, place, asked, taught))
    if not different:
        return
    name, place, asked, taught = different[0]
    decode = processor.tokenizer.decode
    raise ValueError(
        f"chat template: in {len(different)} of {len(samples)} rows the taught conversation does not begin with the "
        f"prompt. {name}: from token {place} on, asked {decode(asked[place : place + 12])!r}, "
        f"taught {decode(taught[place : place + 12])!r}. The end of the prompt and the start of the "
        "reply become one token: let the template end its prompt with a line break or a special token"
    )


def render(
    processor, sample: Sample, recipe: str, direct: bool = False
) -> tuple[list[int], list[int]]:
    """Return the tokens of a question as it is asked, and of the conversation that SFT teaches, clips as one token."""
    reply = prompts.target(sample, recipe)
    chat = prompts.messages(sample, direct)
    texts = [question_text(processor, chat, direct), taught_text(processor, chat, reply, direct)]
    asked, taught = processor.tokenizer(texts)["input_ids"]
    return asked, taught


def _first_difference(tokens: list[int], others: list[int]) -> int | None:
    """Return the first place where two lists differ, the end of the shorter included.

    None where they are equal.

    >>> _first_difference([5, 6, 7], [5, 8, 7]), _first_difference([5, 6], [5]), _first_difference([5], [5])
    (1, 1, None)
    """
    for place, (token, other) in enumerate(zip(tokens, others)):
        if token != other:
            return place
    return None if len(tokens) == len(others) else min(len(tokens), len(others))


def check_disk(folder: str | os.PathLike, needed: float) -> None:
    """Refuse to begin what the disk of a folder has no room for; `needed` is in bytes."""
    there = Path(folder).resolve()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed:
        raise OSError(
            f"disk: {folder}: expected {needed / 1e9:.1f} GB free, found {free / 1e9:.1f}; free some, or take "
            "a folder on another disk"
        )


# ---- parity --------------------------------------------------------------------------------------


@torch.no_grad()
def check_parity(trainer, count: int = 2) -> dict:
    """Compare the log-probs that training gives real rollouts with those of a direct forward, and with no pixels.

    Two rollouts of each of the first `count` prompts, in evaluation mode, at the trainer's
    temperature. In float32 every token must agree to 1e-4; in lower precision the mean difference
    must be at most a fifth of what zeroing the pixels changes. Raises RuntimeError with the likely
    causes. Returns {"max", "mean", "no_pixels_delta"}: differences per token (nats).
    """
    model = trainer.model
    was_training = model.training
    model.eval()
    count = min(count, len(trainer.train_dataset))
    chats = [trainer.train_dataset[i // 2]["prompt"] for i in range(2 * count)]
    batch = _rollouts(trainer, chats)
    trained = _trained_logps(trainer, batch)
    direct = _direct_logps(trainer, batch, brightness=1.0)
    no_pixels = _direct_logps(trainer, batch, brightness=0.0)
    model.train(was_training)
    real = batch["mask"][:, -batch["keep"] :].bool()
    difference = (trained - direct).abs()[real]
    result = {
        "max": difference.max().item(),
        "mean": difference.mean().item(),
        "no_pixels_delta": (direct - no_pixels).abs()[real].mean().item(),
    }
    _refuse_difference(result, exact=_computes_in_float32(model))
    return result


def _refuse_difference(result: dict, exact: bool) -> None:
    pixels_matter = result["no_pixels_delta"] >= 1e-6
    same_in_float32 = result["max"] <= 1e-4
    same_but_rounded = result["mean"] <= 0.2 * result["no_pixels_delta"]
    if pixels_matter and (same_in_float32 if exact else same_but_rounded):
        return
    raise RuntimeError(
        f"parity: training and direct forward differ by {result['max']:.2e} at most, {result['mean']:.2e} on average; "
        f"pixels zeroed shift log-probs by {result['no_pixels_delta']:.2e} on average. Likely causes: the pixels do not "
        "reach the log-prob passes (a TRL trainer without the video hook), right padding, dropout, a chat template that "
        "writes something after the prompt, or a model that ignores its video."
    )


def _computes_in_float32(model) -> bool:
    for name, parameter in model.named_parameters():
        if "norm" in name:
            return parameter.dtype == torch.float32
    return False


def _rollouts(trainer, chats: list) -> dict:
    """Sample one reply to each prompt, as generation does: ids and mask (B,L), the last `keep` of them the replies."""
    prompt_ids, _, fields = trainer._tokenize_prompts(chats)
    reply_ids, _ = trainer._generate_single_turn(prompt_ids, None, fields, 1)
    keep = max(len(reply) for reply in reply_ids)
    width = max(len(prompt) for prompt in prompt_ids)
    pad = trainer.processing_class.tokenizer.pad_token_id
    ids = []
    mask = []
    for prompt, reply in zip(prompt_ids, reply_ids):
        before = width - len(prompt)
        after = keep - len(reply)
        ids.append([pad] * before + list(prompt) + list(reply) + [pad] * after)
        mask.append([0] * before + [1] * (len(prompt) + len(reply)) + [0] * after)
    device = trainer.accelerator.device
    batch = {"chats": chats, "keep": keep}
    batch["ids"] = torch.tensor(ids, device=device)
    batch["mask"] = torch.tensor(mask, device=device)
    return batch


def _trained_logps(trainer, batch: dict) -> torch.Tensor:
    """Return the log-probs of the replies (B,keep) as the trainer's own pass gives them."""
    inputs = (trainer.model, batch["ids"], batch["mask"], batch["keep"])
    if hasattr(trainer, "clips"):  # ours
        return trainer._get_per_token_logps_and_entropies(*inputs)[0]
    module = sys.modules[type(trainer).__module__]  # Unsloth's trainer
    video = module._unsloth_grpo_video_inputs(trainer, batch["chats"])
    return trainer._get_per_token_logps_and_entropies(*inputs, **video)[0]


def _direct_logps(trainer, batch: dict, brightness: float) -> torch.Tensor:
    """Run the processor and the model anew on prompt and reply: log-probs of the reply's tokens (B,keep).

    A row at a time, and the logits of a few tokens: the check takes no more memory than a step.
    """
    core = trainer.model.get_base_model()
    processor = trainer.processing_class
    keep = batch["keep"]
    video_token = processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    rows = []
    for row, chat in enumerate(batch["chats"]):
        inputs = dict(encode(processor, [chat], trainer.videos).to(trainer.accelerator.device))
        written = batch["mask"][row].bool()
        ids = batch["ids"][row][written][None]
        inputs["pixel_values_videos"] = inputs["pixel_values_videos"] * brightness
        inputs["input_ids"] = ids
        inputs["attention_mask"] = torch.ones_like(ids)
        inputs["mm_token_type_ids"] = (ids == video_token).int() * 2
        count = int(written[-keep:].sum())
        hidden = core.model(**inputs, use_cache=False).last_hidden_state[0, -count - 1 : -1]
        parts = []
        for states, targets in zip(hidden.split(CHUNK), ids[0, -count:].split(CHUNK)):
            logits = core.lm_head(states).float() / trainer.temperature
            parts.append(logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0])
        rows.append(torch.nn.functional.pad(torch.cat(parts), (0, keep - count)))
    return torch.stack(rows)
