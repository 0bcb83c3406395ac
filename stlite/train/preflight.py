"""Gates before the first step: do training and generation see the same, and does the largest sample fit?

check_parity(trainer)        # {"max": 1e-06, "mean": 2e-07, "blind": 0.4}
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
from stlite.train.models import encode


@torch.no_grad()
def check_parity(trainer, prompts_: int = 2) -> dict:
    """Compare the log-probs that training gives real rollouts with those of a direct forward, and with no pixels.

    Evaluation mode, raw logits, the trainer's temperature. In float32 every token must agree to 1e-4; in lower
    precision the mean difference must be at most a fifth of the one with the pixels zeroed. Raises RuntimeError with
    the likely causes. Returns {"max", "mean", "blind"}: differences per token (nats).
    """
    model, was = trainer.model, trainer.model.training
    model.eval()
    count = min(prompts_, len(trainer.train_dataset))
    asked = [
        trainer.train_dataset[i]["prompt"] for i in range(count) for _ in range(2)
    ]  # two rollouts of each
    batch = _rollouts(trainer, asked)
    ids, mask, keep = batch["ids"], batch["mask"], batch["keep"]
    if hasattr(trainer, "showing"):
        with trainer.showing(torch.arange(len(ids))):
            trained = trainer._get_per_token_logps_and_entropies(model, ids, mask, keep)[0]
    else:
        video = sys.modules[type(trainer).__module__]._unsloth_grpo_video_inputs(trainer, asked)
        trained = trainer._get_per_token_logps_and_entropies(model, ids, mask, keep, **video)[0]
    direct = _direct_logps(trainer, batch, 1.0)
    blind = _direct_logps(trainer, batch, 0.0)
    model.train(was)
    real = mask[:, -keep:].bool()
    gap, shift = (trained - direct).abs()[real], (direct - blind).abs()[real]
    found = {"max": gap.max().item(), "mean": gap.mean().item(), "blind": shift.mean().item()}
    exact = next(p for n, p in model.named_parameters() if "norm" in n).dtype == torch.float32
    if found["blind"] < 1e-6 or (
        found["max"] > 1e-4 if exact else found["mean"] > 0.2 * found["blind"]
    ):
        raise RuntimeError(
            f"parity: training and direct forward differ by {found['max']:.2e} at most, {found['mean']:.2e} on average; "
            f"pixels zeroed shift log-probs by {found['blind']:.2e} on average. Likely causes: the pixels do not reach the "
            "log-prob passes (a TRL trainer without the video hook), right padding, dropout, a chat template that writes "
            "something after the prompt, or a model that ignores its video."
        )
    return found


def _rollouts(trainer, asked: list) -> dict:
    """Sample one reply to each prompt, as generation does."""
    ids, _, fields = trainer._tokenize_prompts(asked)
    written, _ = trainer._generate_single_turn(ids, None, fields, 1)
    trainer.shown = None
    keep, width = max(map(len, written)), max(map(len, ids))
    pad = trainer.processing_class.tokenizer.pad_token_id
    full = [
        [pad] * (width - len(p)) + list(p) + c + [pad] * (keep - len(c))
        for p, c in zip(ids, written)
    ]
    mask = [
        [0] * (width - len(p)) + [1] * (len(p) + len(c)) + [0] * (keep - len(c))
        for p, c in zip(ids, written)
    ]
    device = trainer.accelerator.device
    return {
        "ids": torch.tensor(full, device=device),
        "mask": torch.tensor(mask, device=device),
        "keep": keep,
        "asked": asked,
    }


def _direct_logps(trainer, batch: dict, light: float) -> torch.Tensor:
    """Run the processor and the model anew on prompt and reply: log-probs of the reply's tokens (B,keep)."""
    fresh = encode(trainer.processing_class, batch["asked"]).to(trainer.accelerator.device)
    kinds = (
        batch["ids"] == trainer.processing_class.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    ).int() * 2
    video = {
        k: v
        for k, v in fresh.items()
        if k not in ("input_ids", "attention_mask", "mm_token_type_ids")
    }
    video["pixel_values_videos"] = video["pixel_values_videos"] * light
    inputs = {
        "input_ids": batch["ids"],
        "attention_mask": batch["mask"],
        "mm_token_type_ids": kinds,
        **video,
    }
    logits = trainer.model(**inputs, use_cache=False).logits[:, -batch["keep"] - 1 : -1]
    logps = (logits.float() / trainer.temperature).log_softmax(-1)
    return logps.gather(-1, batch["ids"][:, -batch["keep"] :, None])[..., 0]


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
            rows, times = (
                trainer.args.per_device_train_batch_size,
                trainer.args.gradient_accumulation_steps,
            )
            if not error.halve or rows % 2:
                raise
            print(
                f"out of memory with {rows} rows a backward: {rows // 2}, {2 * times} times a step"
            )
        settings = {
            **settings,
            "per_device_train_batch_size": rows // 2,
            "gradient_accumulation_steps": 2 * times,
        }
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
    args, began = trainer.args, time.perf_counter()
    rows_ = [row] * (args.per_device_train_batch_size * getattr(args, "steps_per_generation", 1))
    trainer.current_gradient_accumulation_steps = 1
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with torch.random.fork_rng(), _full_completions(trainer):
        try:
            trainer.training_step(trainer.model, trainer.data_collator(rows_), None)
        except (RuntimeError, MemoryError) as error:
            if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
                raise
            advice = _lower(trainer)
            raise DoesNotFit(
                f"memory: {row_id(row)} does not fit. {advice} ({str(error)[:120]})",
                "batch_size" in advice,
            ) from error
        finally:
            trainer.model.zero_grad(set_to_none=True)
    return {
        "id": row_id(row),
        "tokens": tokens,
        "seconds": time.perf_counter() - began,
        "gb": peak() / 2**30,
    }


def _largest(trainer) -> tuple:
    """Return the row with most prompt tokens among the eight of longest text, and how many."""
    data = [trainer.train_dataset[i] for i in range(len(trainer.train_dataset))]
    chats = [prompts.messages(r) if isinstance(r, Sample) else r["prompt"] for r in data]
    longest = sorted(range(len(data)), key=lambda i: -len(str(chats[i])))[:8]
    counts = {
        i: encode(trainer.processing_class, [chats[i]])["input_ids"].shape[1] for i in longest
    }
    best = max(longest, key=counts.get)
    return data[best], counts[best]


@contextmanager
def _full_completions(trainer):
    """Let every completion run to its full length, and forget afterwards what was generated and logged."""
    if not hasattr(trainer, "generation_config"):
        yield
        return
    trainer.generation_config.min_new_tokens = trainer.max_completion_length
    try:
        yield
    finally:
        trainer.generation_config.min_new_tokens = None
        trainer._step, trainer._buffered_inputs = 0, None
        trainer._metrics["train"].clear()
        clear_logs(trainer._logs)


def clear_logs(logs: dict) -> None:
    """Empty TRL's buffers of what was sampled."""
    columns = (
        logs["prompt"],
        logs["completion"],
        logs["advantages"],
        *logs["rewards"].values(),
        *logs["extra"].values(),
    )
    for column in columns:
        column.clear()


def _lower(trainer) -> str:
    """Name the setting to lower: by where memory ran out, and by what is already as low as it goes."""
    args = trainer.args
    if hasattr(args, "num_generations") and trainer._buffered_inputs is None:  # while generating
        return "Lower num_generations, max_completion_length or steps_per_generation"
    if args.per_device_train_batch_size > 1:
        return "Lower per_device_train_batch_size, and raise gradient_accumulation_steps by as much"
    return "Lower frames or max_pixels" + (
        ", or max_completion_length" if hasattr(args, "num_generations") else ""
    )


def peak() -> int:
    """Return the peak memory so far (bytes): of the card, or of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
