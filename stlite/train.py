"""Training: supervised fine-tuning on chains, then GRPO on video.

    model, processor = load("tiny")
    sft(model, processor, samples, "runs/st-cot", videos="sample_data/videos")
    grpo(model, processor, samples, "runs/st-r1", videos="sample_data/videos", rewards="st-r1")

Both save adapter and processor together under the run's folder. Stock TRL forgets the video after generation; the
trainer here shows the same pixels to every log-prob pass, and `check_parity` proves it before the first step.
"""

import argparse
import ast
import json
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import wraps
from pathlib import Path

import torch

from stlite import prompts
from stlite.model import (
    LORA,
    PRESETS,
    add_lora,
    encode,
    load,
    looking,
    suppressed,
)  # before trl: on CUDA it imports Unsloth

# isort: split
import trl
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from transformers import Trainer, TrainerCallback, TrainingArguments
from trl.trainer.utils import RepeatSampler

from stlite.egost import read_rows
from stlite.rewards import PRESETS as REWARDS
from stlite.sample import Sample, write_text

COLUMNS = ("id", "task", "way", "kind", "options", "answer", "steps_forward", "steps_reverse", "question")
SFT = {
    "num_train_epochs": 1,  # as the paper
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,  # 16 rows a step, as the paper's 1 x 4 x 4 cards
    "learning_rate": 2e-4,  # the paper's 8e-5 is for r = 8 on 7 B weights; LoRA of this size takes more
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,  # a share of all steps, as the paper
    "max_grad_norm": 0.3,
}
GRPO = {
    "num_generations": 8,  # as the paper
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 4,  # four prompts a step
    "learning_rate": 1e-5,  # as the paper
    "beta": 0.0,  # no second reference pass; the paper's 0.1 is one argument away
    "temperature": 1.0,
    "max_completion_length": 256,
    "max_grad_norm": 0.2,
    "loss_type": "grpo",
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 0.05,
}


def rows(samples: Sequence[Sample]) -> Dataset:
    """Turn samples into TRL's rows: plain columns, with the messages built when a row is read."""
    table = [{**asdict(s), "kind": s.kind} for s in samples]
    plain = Dataset.from_list([{k: list(t[k]) if isinstance(t[k], tuple) else t[k] for k in COLUMNS} for t in table])
    chats = {s.id: prompts.messages(s) for s in samples}
    if len(chats) != len(samples):
        raise ValueError(f"id: expected {len(samples)} different ids, found {len(chats)}")

    def transform(batch):
        return {**batch, "prompt": [chats[i] for i in batch["id"]]}

    return plain.with_transform(transform)


# ---- supervised fine-tuning ------------------------------------------------------------------------------------------


class Collator:
    """Batch (sample, reply) pairs: prompts and replies with their videos, labels on the reply alone."""

    def __init__(self, processor, recipe: str):
        self.processor, self.recipe = processor, recipe

    def __call__(self, samples: list[Sample]) -> dict:
        """Return input_ids, attention_mask, labels (B,L) and the video tensors."""
        asked = [prompts.messages(s) for s in samples]
        told = [prompts.messages(s, answer=prompts.target(s, self.recipe)) for s in samples]
        batch = encode(self.processor, told, generation=False)
        start = encode(self.processor, asked)["attention_mask"].sum(1)
        first = batch["attention_mask"].argmax(1)
        place = torch.arange(batch["input_ids"].shape[1])[None]
        reply = (place >= (first + start)[:, None]) & batch["attention_mask"].bool()
        batch["labels"] = batch["input_ids"].masked_fill(~reply, -100)
        return dict(batch)


def sft(
    model, processor, samples: Sequence[Sample], out: str | os.PathLike, videos: str | os.PathLike | None = None,
    recipe: str = "st-cot", lora: str = "default", seed: int = 0, callbacks: Sequence = (), resume: bool = True,
    dry: bool | None = None, **settings,
):  # fmt: skip
    """Teach replies with QLoRA; `recipe` is "st-cot", "forward-cot" or "label"; returns the PEFT model.

    `settings` override SFT and go to transformers' TrainingArguments. The loss is on the assistant's tokens only. With
    `dry`, the default on CUDA, `dry_run` takes the largest sample first.
    """
    model = add_lora(model, lora, seed)
    chosen = {**SFT, **settings}
    args = TrainingArguments(**_arguments(out, chosen, seed), remove_unused_columns=False)
    with looking(processor, videos):
        trainer = Trainer(
            model=model, args=args, train_dataset=list(samples), data_collator=Collator(processor, recipe),
            processing_class=processor, callbacks=list(callbacks),
        )  # fmt: skip
        _float32_adapter(model)
        if torch.cuda.is_available() if dry is None else dry:
            print("dry run:", dry_run(trainer))
        _train(trainer, out, resume)
    return _finish(trainer, processor, out, {"stage": "sft", "recipe": recipe, "seed": seed, **chosen})


# ---- GRPO on video ---------------------------------------------------------------------------------------------------


class VideoGRPOTrainer(trl.GRPOTrainer):
    """TRL's GRPO trainer, with the video of each prompt shown to every log-prob pass, and each prompt read once for its G copies.

    Copies share the processor's work, the pass that begins their replies, and the prompt's part of the log-prob passes, whose
    gradient flows through the shared cache; gradient checkpointing keeps no cache, and there the prompt is read for every copy.
    """

    def __init__(self, model, **kwargs):
        self.clips: list[dict] = []  # the video tensors of this generation's prompts, copies being the same tensors
        self.copies: list[int] = []  # of which different prompt each of them is a copy
        self.shown: torch.Tensor | None = None  # which prompt each row of the next forward passes is about
        super().__init__(model=model, **kwargs)
        self.video_token = self.processing_class.tokenizer.convert_tokens_to_ids("<|video_pad|>")
        core = self.accelerator.unwrap_model(self.model).get_base_model()
        core.forward = self._showing_clips(core, core.forward)

    def _tokenize_prompts(self, asked):
        """Run the processor on each different prompt once; its copies share what comes out."""
        texts = [json.dumps(prompt) for prompt in asked]
        places = {text: texts.index(text) for text in texts}
        self.copies = [list(places).index(text) for text in texts]
        ids, images, fields = super()._tokenize_prompts([asked[i] for i in places.values()])
        clips = split_clips(fields, len(ids))
        self.clips, self.shown = [clips[i] for i in self.copies], torch.arange(len(asked))
        kinds = fields.get("mm_token_type_ids")
        kinds = {} if kinds is None else {"mm_token_type_ids": [kinds[i] for i in self.copies]}
        return [ids[i] for i in self.copies], images, {**join_clips(self.clips), **kinds}

    def _generate_and_score_completions(self, inputs):
        try:
            output = super()._generate_and_score_completions(inputs)
        finally:
            self.shown = None
        output["clip"] = torch.arange(len(output["completion_ids"]), device=output["completion_ids"].device)
        return output

    def _compute_loss(self, model, inputs):
        with self.showing(inputs["clip"]):
            return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, *args, batch_size=None, **kwargs):
        shown, size = self.shown, batch_size or len(input_ids)
        parts = []
        for start in range(0, len(input_ids), size):
            rows_ = slice(start, start + size)
            with self.showing(shown[rows_]):
                parts.append(
                    super()._get_per_token_logps_and_entropies(
                        model, input_ids[rows_], attention_mask[rows_], *args, batch_size=None, **kwargs
                    )
                )
        return tuple(None if column[0] is None else torch.cat(column) for column in zip(*parts))

    @contextmanager
    def showing(self, which: torch.Tensor):
        """Show the clips of the given prompts, one a row, to the forward passes of a `with` block."""
        before, self.shown = self.shown, which
        try:
            yield
        finally:
            self.shown = before

    def _showing_clips(self, model, plain):
        """Wrap a model's forward pass: it sees the clips of the rows shown, and reads equal prompts once."""

        @wraps(plain)
        def forward(*args, **kwargs):
            cache = kwargs.get("past_key_values")
            if self.shown is None or (cache is not None and cache.get_seq_length()):
                return plain(*args, **kwargs)
            copies = [self.copies[i] for i in self.shown.tolist()]
            firsts = list(dict.fromkeys(copies))
            first, copies = [copies.index(i) for i in firsts], torch.tensor([firsts.index(i) for i in copies])
            if cache is not None:
                return self._begin(plain, kwargs, first, copies)
            kwargs |= {"mm_token_type_ids": (kwargs["input_ids"] == self.video_token).int() * 2}
            if len(first) == len(copies) or (model.is_gradient_checkpointing and model.training):
                return plain(**kwargs, **self._video(range(len(copies))))
            return self._read_once(model, plain, kwargs, first, copies)

        return forward

    def _video(self, rows_) -> dict:
        """Join the video tensors of some of the rows shown."""
        fields = join_clips([self.clips[self.shown[i]] for i in rows_])
        return {k: v.to(self.accelerator.device) for k, v in fields.items()}

    def _begin(self, plain, kwargs, first, copies):
        """Begin replies with one pass over each different prompt; its cache is copied to all of its rows."""
        alone = {k: kwargs[k][first] for k in ("input_ids", "attention_mask", "mm_token_type_ids") if k in kwargs}
        alone |= self._video(first) | {"position_ids": kwargs["position_ids"][:, first]}
        out = plain(**{**kwargs, **alone})
        kwargs["past_key_values"].batch_select_indices(copies.to(out.logits.device))
        out.logits = out.logits[copies]
        return out

    def _read_once(self, model, plain, kwargs, first, copies):
        """Run equal prompts once and all completions on their cache: logits (B,keep,V) as of whole rows, gradients too."""
        names = ("input_ids", "attention_mask", "mm_token_type_ids")
        ids, mask, kinds = (kwargs[k] for k in names)
        start, copies = ids.shape[1] - kwargs["logits_to_keep"] + 1, copies.to(ids.device)
        video = self._video(range(len(ids)))
        place, _ = model.model.get_rope_index(
            ids,
            attention_mask=mask,
            mm_token_type_ids=kinds,
            **{k: v for k, v in video.items() if k != "pixel_values_videos"},
        )
        prompt = dict(zip(names, (ids[first, :start], mask[first, :start], kinds[first, :start])))
        begun = plain(
            **prompt, **self._video(first), position_ids=place[:, first, :start], use_cache=True, logits_to_keep=1
        )
        cache = begun.past_key_values
        cache.batch_select_indices(copies)
        out = plain(
            input_ids=ids[:, start:],
            attention_mask=mask,
            position_ids=place[:, :, start:],
            past_key_values=cache,
            use_cache=True,
        )
        out.logits = torch.cat([begun.logits[copies], out.logits], 1)
        return out


def grpo_trainer() -> type:
    """Return the trainer of the route in use: ours, or the one Unsloth put in TRL's place, which feeds videos itself."""
    return VideoGRPOTrainer if trl.GRPOTrainer.__name__ == "GRPOTrainer" else trl.GRPOTrainer


def split_clips(fields: dict, count: int) -> list[dict]:
    """Part a batch's video tensors into one dictionary a row; one video a prompt."""
    grids = torch.as_tensor(fields["video_grid_thw"])
    if len(grids) != count:
        raise ValueError(f"prompt: expected one video in each of {count} prompts, found {len(grids)} videos")
    pixels = torch.as_tensor(fields["pixel_values_videos"]).split(grids.prod(1).tolist())
    clips = [{"pixel_values_videos": p, "video_grid_thw": g[None]} for p, g in zip(pixels, grids)]
    if "second_per_grid_ts" in fields:  # Qwen2.5-VL's clock
        clips = [
            c | {"second_per_grid_ts": t} for c, t in zip(clips, torch.as_tensor(fields["second_per_grid_ts"])[:, None])
        ]
    return clips


def join_clips(clips: list[dict]) -> dict:
    """Join the video tensors of several rows into a batch's."""
    return {key: torch.cat([clip[key] for clip in clips]) for key in clips[0]}


def grpo(
    model, processor, samples: Sequence[Sample], out: str | os.PathLike, videos: str | os.PathLike | None = None,
    rewards: str | Sequence[Callable] = "st-r1", lora: str = "default", seed: int = 0, callbacks: Sequence = (),
    parity: bool = True, resume: bool = True, dry: bool | None = None, **settings,
):  # fmt: skip
    """Reinforce what earns reward, by TRL's GRPO on native video; returns the PEFT model.

    `rewards` is a preset ("paper", "st-r1", "st-r1-reverse") or a list of functions in TRL's shape; `settings` override
    GRPO and go to trl's GRPOConfig. With `parity`, `check_parity` runs before the first step and stops a wrong set-up;
    with `dry`, the default on CUDA, `dry_run` takes the largest sample first.
    """
    functions = REWARDS[rewards] if isinstance(rewards, str) else list(rewards)
    chosen = {**GRPO, **settings}
    with looking(processor, videos):
        trainer = make_trainer(model, processor, samples, out, functions, lora, seed, callbacks, chosen)
        found = check_parity(trainer) if parity else None
        if torch.cuda.is_available() if dry is None else dry:
            print("dry run:", dry_run(trainer))
        _train(trainer, out, resume)
    names = [f.__name__ for f in functions]
    return _finish(
        trainer, processor, out, {"stage": "grpo", "rewards": names, "seed": seed, "parity": found, **chosen}
    )


def make_trainer(model, processor, samples, out, functions, lora="default", seed=0, callbacks=(), settings=GRPO):
    """Build the GRPO trainer that `grpo` runs: left padding, vision tokens suppressed, completions on disk."""
    model = add_lora(model, lora, seed)
    processor.tokenizer.padding_side = "left"
    args = trl.GRPOConfig(
        **_arguments(out, settings, seed), remove_unused_columns=False, log_completions=False,
        generation_kwargs={"suppress_tokens": suppressed(processor)},
    )  # fmt: skip
    trainer = grpo_trainer()(
        model, args=args, reward_funcs=[noting_ids(functions[0]), *functions[1:]], train_dataset=rows(samples), processing_class=processor,
        callbacks=[*callbacks, Completions(Path(out) / "completions")],
    )  # fmt: skip
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, Completions):
            callback.trainer = trainer
    _float32_adapter(model)
    return trainer


def noting_ids(reward: Callable) -> Callable:
    """Make a reward leave the id of each row's sample beside its completion, which TRL itself forgets."""

    @wraps(reward)
    def noted(*args, id, log_extra, **kwargs):
        log_extra("id", list(id))
        return reward(*args, id=id, log_extra=log_extra, **kwargs)

    return noted


class Completions(TrainerCallback):
    """Write every generation's completions to disk, one parquet file a logged step."""

    def __init__(self, folder: Path):
        self.folder, self.trainer = folder, None

    def on_log(self, args, state, control, **kwargs):
        """Write what was sampled since the last file, and forget it."""
        logs = self.trainer._logs
        if not logs["completion"] or not state.is_world_process_zero:
            return _forget(logs)
        table = {
            "id": list(logs["extra"]["id"]),
            "prompt": list(logs["prompt"]),
            "completion": list(logs["completion"]),
        }
        table |= {name: list(values) for name, values in logs["rewards"].items()} | {
            "advantage": list(logs["advantages"])
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"completions_{state.global_step:05d}.parquet"
        Dataset.from_dict({"step": [state.global_step] * len(table["prompt"]), **table}).to_parquet(
            path.with_suffix(".tmp")
        )
        os.replace(path.with_suffix(".tmp"), path)
        _forget(logs)


def _forget(logs: dict) -> None:
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


# ---- the parity gate -------------------------------------------------------------------------------------------------


@torch.no_grad()
def check_parity(trainer: VideoGRPOTrainer, prompts_: int = 2) -> dict:
    """Compare the log-probs that training gives real rollouts with those of a direct forward, and with no pixels.

    Evaluation mode, raw logits, the trainer's temperature. In float32 every token must agree to 1e-4; in lower
    precision the mean difference must be at most a fifth of the one with the pixels zeroed. Raises RuntimeError with
    the likely causes. Returns {"max", "mean", "blind"}: differences per token (nats).
    """
    model, was = trainer.model, trainer.model.training
    model.eval()
    count = min(prompts_, len(trainer.train_dataset))
    asked = [trainer.train_dataset[i]["prompt"] for i in range(count) for _ in range(2)]  # two rollouts of each
    batch = _rollouts(trainer, asked)
    ids, mask, keep = batch["ids"], batch["mask"], batch["keep"]
    if isinstance(trainer, VideoGRPOTrainer):
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
    if found["blind"] < 1e-6 or (found["max"] > 1e-4 if exact else found["mean"] > 0.2 * found["blind"]):
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
    full = [[pad] * (width - len(p)) + list(p) + c + [pad] * (keep - len(c)) for p, c in zip(ids, written)]
    mask = [[0] * (width - len(p)) + [1] * (len(p) + len(c)) + [0] * (keep - len(c)) for p, c in zip(ids, written)]
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
    kinds = (batch["ids"] == trainer.processing_class.tokenizer.convert_tokens_to_ids("<|video_pad|>")).int() * 2
    video = {k: v for k, v in fresh.items() if k not in ("input_ids", "attention_mask", "mm_token_type_ids")}
    video["pixel_values_videos"] = video["pixel_values_videos"] * light
    inputs = {"input_ids": batch["ids"], "attention_mask": batch["mask"], "mm_token_type_ids": kinds, **video}
    logits = trainer.model(**inputs, use_cache=False).logits[:, -batch["keep"] - 1 : -1]
    logps = (logits.float() / trainer.temperature).log_softmax(-1)
    return logps.gather(-1, batch["ids"][:, -batch["keep"] :, None])[..., 0]


# ---- the dry run -----------------------------------------------------------------------------------------------------


def dry_run(trainer: Trainer) -> dict:
    """Take the largest sample through one forward and backward: full batch or group, completions of full length.

    Leaves weights, random state and logs as they were. Out of memory raises RuntimeError with the setting to lower.
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
            raise RuntimeError(f"memory: {row_id(row)} does not fit. {_lower(trainer)} ({str(error)[:120]})") from error
        finally:
            trainer.model.zero_grad(set_to_none=True)
    return {"id": row_id(row), "tokens": tokens, "seconds": time.perf_counter() - began, "gb": _peak() / 2**30}


def row_id(row) -> str:
    """Return the sample's id of a row of either stage."""
    return row.id if isinstance(row, Sample) else row["id"]


def _largest(trainer) -> tuple:
    """Return the row with most prompt tokens among the eight of longest text, and how many."""
    data = [trainer.train_dataset[i] for i in range(len(trainer.train_dataset))]
    chats = [prompts.messages(r) if isinstance(r, Sample) else r["prompt"] for r in data]
    longest = sorted(range(len(data)), key=lambda i: -len(str(chats[i])))[:8]
    counts = {i: encode(trainer.processing_class, [chats[i]])["input_ids"].shape[1] for i in longest}
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
        _forget(trainer._logs)


def _lower(trainer) -> str:
    """Name the setting to lower: by where memory ran out, and by what is already as low as it goes."""
    args = trainer.args
    if hasattr(args, "num_generations") and trainer._buffered_inputs is None:  # while generating
        return "Lower num_generations, max_completion_length or steps_per_generation"
    if args.per_device_train_batch_size > 1:
        return "Lower per_device_train_batch_size, and raise gradient_accumulation_steps by as much"
    return "Lower frames or max_pixels" + (", or max_completion_length" if hasattr(args, "num_generations") else "")


def _peak() -> int:
    """Return the peak memory so far (bytes): of the card, or of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ---- what both stages share ------------------------------------------------------------------------------------------


def _arguments(out, chosen: dict, seed: int) -> dict:
    """Return the arguments both stages share: no account, safetensors, resumable, seeded."""
    cpu = not torch.cuda.is_available()
    return {
        "output_dir": str(Path(out) / "checkpoints"), "report_to": "none", "seed": seed, "data_seed": seed,
        "use_cpu": cpu, "bf16": not cpu and torch.cuda.is_bf16_supported(), "logging_steps": 1, "save_total_limit": 2,
        "save_strategy": "steps", "save_steps": 0.1, "dataloader_pin_memory": not cpu, "gradient_checkpointing": not cpu,
        "ddp_backend": "gloo" if cpu and int(os.environ.get("WORLD_SIZE", 1)) > 1 else None, **chosen,
    }  # fmt: skip


def _float32_adapter(model) -> None:
    """Keep the adapter in float32 on a CPU: trl casts it to bfloat16, in which a rate of 1e-5 is lost to rounding."""
    if not torch.cuda.is_available():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()


def _train(trainer, out, resume: bool) -> None:
    """Train, from the last whole checkpoint if there is one; interrupting (the notebook's stop button) saves one.

    Raises ValueError where the checkpoints are those of other settings or samples.
    """
    folder, keeper = Path(out) / "checkpoints", Keeper(trainer)
    trainer.add_callback(keeper)
    with trainer.accelerator.main_process_first():
        if trainer.args.should_save and not resume:
            shutil.rmtree(folder, ignore_errors=True)
        found = _checkpoint(out)
        _same_settings(folder / "settings.json", trainer, found)
    try:
        trainer.train(resume_from_checkpoint=found)
    except KeyboardInterrupt:
        if keeper.whole and trainer.state.global_step:
            trainer._load_rng_state(keeper.random.name)
            trainer._save_checkpoint(trainer.model, trial=None)
        raise


def _same_settings(path: Path, trainer, found: str | None) -> None:
    """Note what decides a run's course beside its checkpoints; refuse to go on from those of another."""
    ours = {k: getattr(trainer.args, k, None) for k in sorted({*SFT, *GRPO, "max_steps", "seed"})}
    ours |= {
        "recipe": getattr(trainer.data_collator, "recipe", None),
        "ids": [row_id(r) for r in trainer.train_dataset],
    }
    ours |= {"rewards": [f.__name__ for f in getattr(trainer, "reward_funcs", [])]}
    ours = json.loads(json.dumps(ours, default=str))
    if found and path.exists() and (before := json.loads(path.read_text())) != ours:
        said = [k for k in ours if ours[k] != before.get(k)]
        raise ValueError(f"{path.parent}: begun with other {', '.join(said)}; use another folder, or resume=False")
    if trainer.args.should_save:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(ours))


class Keeper(TrainerCallback):
    """Let checkpoints be saved between whole steps alone, and keep the random state of the last such place.

    A GRPO trainer resumes by generating: with several optimizer steps to a generation, it saves after the last of them.
    """

    def __init__(self, trainer):
        self.trainer, self.whole, self.asked = trainer, False, False
        self.random = tempfile.TemporaryDirectory()

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        """Draw the orders of the epochs that are done: TRL's sampler would begin with the first one's again."""
        batches = getattr(train_dataloader.batch_sampler, "batch_sampler", train_dataloader.batch_sampler)
        if isinstance(batches.sampler, RepeatSampler):
            for _ in range(int(state.epoch or 0)):
                torch.randperm(batches.sampler.num_samples, generator=batches.sampler.generator)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """From here to the step's end the weights belong to no step."""
        self.whole = False

    def on_step_end(self, args, state, control, **kwargs):
        """Put a save off to the end of the generation, and note the random state."""
        uses = getattr(args, "steps_per_generation", 1) * getattr(args, "num_iterations", 1)
        self.whole = getattr(self.trainer, "_step", 0) % uses == 0
        self.asked |= control.should_save
        control.should_save = self.asked and self.whole
        if self.whole:
            self.asked = False
            self.trainer._save_rng_state(self.random.name)


def _checkpoint(out) -> str | None:
    """Return the newest whole checkpoint; half-written ones are passed over."""
    found = sorted((Path(out) / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    return next((str(folder) for folder in reversed(found) if _whole(folder)), None)


def _whole(folder: Path) -> bool:
    """Say whether adapter, optimizer, random and trainer state are there, and every file of them to its end."""
    parts = "adapter_model.safetensors", "rng_state*.pth", "trainer_state.json", "processor_config.json"
    optimizer = any(folder.glob("optimizer*")) and (folder / "scheduler.pt").exists()
    optimizer = optimizer or any(folder.glob("global_step*"))  # DeepSpeed's
    try:
        for path in folder.rglob("*.json"):
            json.loads(path.read_text())
        for path in folder.rglob("*.safetensors"):
            safe_open(path, "pt")
        for path in [*folder.rglob("*.pt"), *folder.rglob("*.pth"), *folder.rglob("*.bin")]:
            zipfile.ZipFile(path).close()  # its directory comes last
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile):
        return False
    return optimizer and all(any(folder.glob(part)) for part in parts)


def _finish(trainer, processor, out, settings: dict):
    """Save adapter, processor, log and settings together; return the model in evaluation mode."""
    out = Path(out)
    trainer.save_model(str(out / "adapter"))  # gathers what is spread over cards; the processor goes with it
    if trainer.args.should_save:
        (out / "adapter" / "training_args.bin").unlink()  # a pickle that nobody needs
        write_text(out / "log.json", json.dumps(trainer.state.log_history, indent=1))
        write_text(out / "train.json", json.dumps(settings, indent=1, default=str))
        shutil.rmtree(out / "checkpoints")  # a run that is done begins anew when asked for again
    return trainer.model.eval()


# ---- the command -----------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    """Train a model on released rows, on one card or, under `accelerate launch -m`, on several."""
    parser = argparse.ArgumentParser(prog="python -m stlite.train", description=main.__doc__)
    parser.add_argument("stage", choices=("sft", "grpo"))
    parser.add_argument("--data", required=True, help="a file of released rows")
    parser.add_argument("--videos", required=True, help="the folder that paths of videos start from")
    parser.add_argument("--out", required=True, help="the run folder, made or resumed")
    parser.add_argument("--model", default="tiny", help=f"a folder, a hub id, or one of {', '.join(PRESETS)}")
    parser.add_argument("--adapter", help="a folder that training saved, to go on from")
    parser.add_argument("--lora", default="default", choices=LORA)
    parser.add_argument("--recipe", default="st-cot", choices=("st-cot", "forward-cot", "label"), help="of sft")
    parser.add_argument("--rewards", default="st-r1", choices=REWARDS, help="of grpo")
    parser.add_argument("--four-bit", action=argparse.BooleanOptionalAction, default=True, help="nf4 weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "settings", nargs="*", type=_setting, help="KEY=VALUE: settings of TrainingArguments or GRPOConfig"
    )
    args = parser.parse_intermixed_args(argv)
    how = {"videos": args.videos, "lora": args.lora, "seed": args.seed, **dict(args.settings)}
    model, processor = load(args.model, four_bit=args.four_bit, adapter=args.adapter)
    samples = list(read_rows(args.data, args.videos))
    if args.stage == "sft":
        sft(model, processor, samples, args.out, recipe=args.recipe, **how)
    else:
        grpo(model, processor, samples, args.out, rewards=args.rewards, **how)


def _setting(text: str) -> tuple[str, object]:
    """Read "learning_rate=1e-4" as a name and a Python value, or else text."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


if __name__ == "__main__":
    main()
