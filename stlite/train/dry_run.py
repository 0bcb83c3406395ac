"""Does the largest sample fit, and how long will it take: tried, before the first step, and predicted.

announce(trainer)            # predicted for 40 steps on RTX 4070: 29 minutes, 9.9 GB (counted, not measured)
dry_run(trainer)             # {"id": ..., "tokens": ..., "seconds": ..., "gb": ...}
"""

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from stlite.data import prompts
from stlite.data.sample import Sample
from stlite.train import durations, memory
from stlite.train.chat import render
from stlite.train.checkpoints import row_id
from stlite.train.generation import encode, read

ENCODED = 4  # rows of most tokens, as counted, that are encoded to be sure


class DoesNotFit(RuntimeError):
    """The largest sample is out of memory.

    `halve` says whether fewer rows a backward would help.
    """

    def __init__(self, message: str, halve: bool):
        super().__init__(message)
        self.halve = halve


def find_batch_size(trainer, build: Callable, settings: dict) -> tuple:
    """Return a trainer whose largest sample fits.

    Out of memory, half as many rows go through one backward, twice as often. `trainer` was made by
    `build(settings)`, which makes those that are tried after it. A step's rows, groups and gradient
    stay the same. Returns (trainer, settings); raises DoesNotFit where fewer rows a backward do not
    help.
    """
    while True:
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
        trainer = build(settings)


def dry_run(trainer) -> dict:
    """Take the largest sample through one forward and backward: full batch or group, completions of full length.

    Gradient checkpointing is as in training. Leaves weights, random state and logs as they were.
    Out of memory raises DoesNotFit with the setting to lower. Returns {"id", "tokens", "seconds",
    "predicted_seconds", "gb"}: the sample, its tokens (in SFT with the reply), and the peak (of the
    process, on a CPU; 1e9 bytes).
    """
    row, tokens = find_largest(trainer)
    args = trainer.args
    copies = args.per_device_train_batch_size * getattr(args, "steps_per_generation", 1)
    trainer.current_gradient_accumulation_steps = 1
    began = time.perf_counter()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with torch.random.fork_rng(), _full_completions(trainer), _checkpointing(trainer):
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
    return {
        "id": row_id(row),
        "tokens": tokens,
        "seconds": round(time.perf_counter() - began, 2),
        "predicted_seconds": predict(trainer)["dry_run_seconds"],
        "gb": round(peak() / 1e9, 2),
    }


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "memory" in str(error).lower()


# ---- the largest sample --------------------------------------------------------------------------


def find_largest(trainer) -> tuple:
    """Return the row of most tokens that training will process, and how many.

    Text, clip, and in SFT the reply.
    """
    rows = [trainer.train_dataset[i] for i in range(len(trainer.train_dataset))]
    counts = []
    clip_tokens = {}
    for row in rows:
        chat, _ = _chat(trainer, row)
        path = chat[0]["content"][0]["video"]
        if path not in clip_tokens:
            clip_tokens[path] = _count_clip(trainer, path)
        counts.append(_count_text(trainer, row) + clip_tokens[path])
    most = sorted(range(len(rows)), key=counts.__getitem__, reverse=True)[:ENCODED]
    exact = {i: _count_encoded(trainer, rows[i]) for i in most}  # timestamps are tokens, too
    largest = max(most, key=exact.get)
    return rows[largest], exact[largest]


def _chat(trainer, row) -> tuple[list[dict], bool]:
    """Return the chat that a row is processed as, and whether it asks for the answer alone."""
    if not isinstance(row, Sample):
        return row["prompt"], False
    reply = prompts.target(row, trainer.data_collator.recipe)
    direct = trainer.data_collator.direct
    return prompts.messages(row, direct, reply), direct


def _count_text(trainer, row) -> int:
    processor = trainer.processing_class
    text = render(processor, *_chat(trainer, row))
    return len(processor.tokenizer(text)["input_ids"])


def _count_clip(trainer, path: str) -> int:
    """Count a clip's tokens: two frames share a patch, and two by two patches a token."""
    processor = trainer.processing_class
    frames, height, width, _ = read(processor, path, _videos(trainer)).frames.shape
    side = 2 * processor.video_processor.patch_size
    return math.ceil(frames / 2) * (height // side) * (width // side)


def _count_encoded(trainer, row) -> int:
    chat, direct = _chat(trainer, row)
    inputs = encode(trainer.processing_class, [chat], _videos(trainer), direct=direct)
    return inputs["input_ids"].shape[1]


def _videos(trainer):
    return trainer.videos if hasattr(trainer, "videos") else trainer.data_collator.videos


# ---- no trace ------------------------------------------------------------------------------------


@contextmanager
def _checkpointing(trainer) -> Iterator[None]:
    """Switch gradient checkpointing on as `Trainer.train` will, for the length of a `with` block."""
    args = trainer.args
    model = trainer.model
    if not args.gradient_checkpointing or model.is_gradient_checkpointing:
        yield
        return
    model.gradient_checkpointing_enable(
        gradient_checkpointing_kwargs=args.gradient_checkpointing_kwargs
    )
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()


@contextmanager
def _full_completions(trainer) -> Iterator[None]:
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


# ---- predicted -----------------------------------------------------------------------------------


def announce(trainer) -> None:
    """Print how long training will take and what it needs, as counted."""
    predicted = predict(trainer)
    if predicted["card"] is None:
        print(
            f"predicted: {predicted['gb']:.1f} GB; no minutes, as the speed of this card is not known here"
        )
        return
    minutes = max(predicted["minutes"], 0.1)
    print(
        f"predicted for {predicted['steps']} steps on {predicted['card']}: {minutes:.1f} minutes, "
        f"{predicted['gb']:.1f} GB (counted, not measured)"
    )


def predict(trainer) -> dict:
    """Predict steps, minutes, the dry run's seconds and the peak of a trainer (GB), by counting.

    "card" is None where the card is not in `durations.CARDS`; minutes and seconds are then None.
    """
    args = trainer.args
    model = trainer.model
    processor = trainer.processing_class
    generations = getattr(args, "num_generations", 0)
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
    config = model.get_base_model().config.to_dict()
    run = {
        "frames": processor.reading["frames"],
        "max_pixels": processor.reading["max_pixels"],
        "generations": generations,
        "completion": getattr(trainer, "max_completion_length", 0),
        "four_bit": "quantization_config" in config,
        "checkpointing": args.gradient_checkpointing,
        "text": _count_text(trainer, trainer.train_dataset[0]),
        "packed": hasattr(trainer, "sampling") or not generations,
    }
    cuda = torch.cuda.is_available()
    needs = memory.plan(
        config,
        batch=args.per_device_train_batch_size,
        prompts=max(1, rows // max(generations, 1)),
        rank=model.peft_config["default"].r,
        bytes_=2 if cuda else 4,
        **run,
    )
    predicted = {"steps": _count_steps(trainer, rows), "gb": needs["total"]}
    predicted["card"] = durations.find_card(torch.cuda.get_device_name()) if cuda else "CPU"
    predicted["minutes"] = None
    predicted["dry_run_seconds"] = None
    if predicted["card"] is not None:
        step = durations.seconds(config, predicted["card"], rows=rows, **run)
        once = step["backward"] / args.gradient_accumulation_steps
        predicted["minutes"] = round(predicted["steps"] * step["total"] / 60, 1)
        predicted["dry_run_seconds"] = round(step["total"] - step["backward"] + once, 2)
    return predicted


def _count_steps(trainer, rows: int) -> int:
    """Count the optimizer steps of a run; `rows` is how many one of them takes."""
    args = trainer.args
    if args.max_steps > 0:
        return args.max_steps
    samples = rows / getattr(args, "num_generations", 1) * args.world_size
    return math.ceil(args.num_train_epochs * len(trainer.train_dataset) / samples)
