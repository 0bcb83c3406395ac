"""Checks before the first step: do training and generation see the same, and does the largest sample fit?

check_parity(trainer)        # {"max": 1e-06, "mean": 2e-07, "no_pixels_delta": 0.4}
dry_run(trainer)             # {"id": ..., "tokens": ..., "seconds": ..., "gb": ...}
"""

import gc
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager

import torch

from stlite.data import prompts
from stlite.data.sample import Sample
from stlite.train.checkpoints import row_id
from stlite.train.generation import encode


@torch.no_grad()
def check_parity(trainer, count: int = 2) -> dict:
    """Compare the log-probs that training gives real rollouts with those of a direct forward, and with no pixels.

    Two rollouts of each of the first `count` prompts, in evaluation mode, at the trainer's temperature. In float32 every
    token must agree to 1e-4; in lower precision the mean difference must be at most a fifth of what zeroing the pixels
    changes. Raises RuntimeError with the likely causes. Returns {"max", "mean", "no_pixels_delta"}: differences per
    token (nats).
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
    """Run the processor and the model anew on prompt and reply: log-probs of the reply's tokens (B,keep)."""
    processor = trainer.processing_class
    ids = batch["ids"]
    keep = batch["keep"]
    inputs = encode(processor, batch["chats"], trainer.videos).to(trainer.accelerator.device)
    inputs = dict(inputs)
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"] * brightness
    inputs["input_ids"] = ids
    inputs["attention_mask"] = batch["mask"]
    video_token = processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    inputs["mm_token_type_ids"] = (ids == video_token).int() * 2
    outputs = trainer.model(**inputs, use_cache=False, logits_to_keep=keep + 1)
    logits = outputs.logits[:, :-1]
    logps = (logits.float() / trainer.temperature).log_softmax(-1)
    return logps.gather(-1, ids[:, -keep:, None])[..., 0]


class DoesNotFit(RuntimeError):
    """The largest sample is out of memory; `halve` says whether fewer rows a backward would help."""

    def __init__(self, message: str, halve: bool):
        super().__init__(message)
        self.halve = halve


def find_batch_size(build: Callable, settings: dict) -> tuple:
    """Build a trainer whose largest sample fits; out of memory, half as many rows go through one backward, twice as often.

    `build(settings)` makes the trainer. A step's rows, groups and gradient stay the same. Returns (trainer, settings);
    raises DoesNotFit where fewer rows a backward do not help.
    """
    while True:
        trainer = build(settings)
        try:
            print("dry run:", dry_run(trainer))
            return trainer, settings
        except DoesNotFit as error:
            rows = trainer.args.per_device_train_batch_size
            if not error.halve or rows % 2:
                raise
        backwards = 2 * trainer.args.gradient_accumulation_steps
        print(f"out of memory with {rows} rows a backward: {rows // 2}, {backwards} times a step")
        fewer = {
            "per_device_train_batch_size": rows // 2,
            "gradient_accumulation_steps": backwards,
        }
        settings = {**settings, **fewer}
        del trainer
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def dry_run(trainer) -> dict:
    """Take the largest sample through one forward and backward: full batch or group, completions of full length.

    Leaves weights, random state and logs as they were. Out of memory raises DoesNotFit with the setting to lower.
    Returns {"id", "tokens", "seconds", "gb"}: the sample, its prompt's length, and the peak (of the process, on a CPU).
    """
    row, tokens = _largest(trainer)
    args = trainer.args
    copies = args.per_device_train_batch_size * getattr(args, "steps_per_generation", 1)
    trainer.current_gradient_accumulation_steps = 1
    began = time.perf_counter()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with torch.random.fork_rng(), _full_completions(trainer):
        try:
            trainer.training_step(trainer.model, trainer.data_collator([row] * copies), None)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            advice = _what_to_lower(trainer)
            message = f"memory: {row_id(row)} does not fit. {advice} ({str(error)[:120]})"
            raise DoesNotFit(message, halve="batch_size" in advice) from error
        finally:
            trainer.model.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - began
    return {"id": row_id(row), "tokens": tokens, "seconds": seconds, "gb": peak() / 2**30}


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "memory" in str(error).lower()


def _largest(trainer) -> tuple:
    """Return the row with most prompt tokens among the eight of longest text, and how many."""
    rows = [trainer.train_dataset[i] for i in range(len(trainer.train_dataset))]
    chats = [prompts.messages(r) if isinstance(r, Sample) else r["prompt"] for r in rows]
    videos = trainer.videos if hasattr(trainer, "videos") else trainer.data_collator.videos
    longest = sorted(range(len(rows)), key=lambda i: len(str(chats[i])), reverse=True)[:8]
    counts = {}
    for i in longest:
        counts[i] = encode(trainer.processing_class, [chats[i]], videos)["input_ids"].shape[1]
    largest = max(longest, key=counts.get)
    return rows[largest], counts[largest]


@contextmanager
def _full_completions(trainer):
    """Let every completion run to its full length, and forget afterwards what was generated and logged."""
    if not hasattr(trainer, "generation_config"):
        yield
        return
    _set_least_tokens(trainer, trainer.max_completion_length)
    try:
        yield
    finally:
        _set_least_tokens(trainer, None)
        trainer._step = 0
        trainer._buffered_inputs = None
        trainer._metrics["train"].clear()
        clear_logs(trainer._logs)


def _set_least_tokens(trainer, count: int | None) -> None:
    """Set the least number of tokens of a completion, in our trainer or in Unsloth's."""
    if hasattr(trainer, "sampling"):
        trainer.sampling["min_new_tokens"] = count
    else:
        trainer.generation_config.min_new_tokens = count


def clear_logs(logs: dict) -> None:
    """Empty TRL's buffers of what was sampled."""
    columns = [logs["prompt"], logs["completion"], logs["advantages"]]
    columns += [*logs["rewards"].values(), *logs["extra"].values()]
    for column in columns:
        column.clear()


def _what_to_lower(trainer) -> str:
    """Name the setting to lower: by where memory ran out, and by what is already as low as it goes."""
    generates = hasattr(trainer.args, "num_generations")
    if generates and trainer._buffered_inputs is None:  # while generating
        return "Lower num_generations, max_completion_length or steps_per_generation"
    if trainer.args.per_device_train_batch_size > 1:
        return "Lower per_device_train_batch_size, and raise gradient_accumulation_steps by as much"
    if generates:
        return "Lower frames or max_pixels, or max_completion_length"
    return "Lower frames or max_pixels"


def peak() -> int:
    """Return the peak memory so far (bytes): of the card, or of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
