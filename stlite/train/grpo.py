"""Rollouts: TRL's GRPO on video, every pass shown the pixels, each clip and prompt read once for its copies.

    trainer = grpo_trainer()(model, args=args, reward_funcs=functions, train_dataset=rows(samples), ...)

Stock TRL forgets the video after generation; this trainer shows the same pixels to every log-prob pass.
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial, wraps
from pathlib import Path

import torch

from stlite.data import prompts
from stlite.train.models import (  # before trl: on CUDA it imports Unsloth
    RoomyLayer,
    add_lora,
    looking,
    suppressed,
)

# isort: split
import trl
from datasets import Dataset
from transformers import TrainerCallback
from transformers.cache_utils import DynamicLayer

from stlite.data.sample import Sample
from stlite.rewards.rewards import PRESETS as REWARDS
from stlite.rewards.rewards import REWARD_COLUMNS
from stlite.train import checkpoints
from stlite.train.preflight import check_parity, clear_logs
from stlite.train.runs import arguments, build_trainer, finish, float32_adapter

COLUMNS = ("id", *REWARD_COLUMNS, "question")

GRPO = {
    "num_train_epochs": 1,  # as the paper
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
    plain = Dataset.from_list(
        [{k: list(t[k]) if isinstance(t[k], tuple) else t[k] for k in COLUMNS} for t in table]
    )
    chats = {s.id: prompts.messages(s) for s in samples}
    if len(chats) != len(samples):
        raise ValueError(f"id: expected {len(samples)} different ids, found {len(chats)}")

    def transform(batch):
        return {**batch, "prompt": [chats[i] for i in batch["id"]]}

    return plain.with_transform(transform)


class VideoGRPOTrainer(trl.GRPOTrainer):
    """TRL's GRPO trainer, with the video of each prompt shown to every log-prob pass, and each prompt read once for its G copies.

    Copies share the processor's work, the pass that begins their replies, and the prompt's part of the log-prob passes, whose
    gradient flows through the shared cache; gradient checkpointing keeps no cache, and there the prompt is read for every copy.
    """

    def __init__(self, model, **kwargs):
        self.clips: list[
            dict
        ] = []  # the video tensors of this generation's prompts, copies being the same tensors
        self.copies: list[int] = []  # of which different prompt each of them is a copy
        self.shown: torch.Tensor | None = (
            None  # which prompt each row of the next forward passes is about
        )
        super().__init__(model=model, **kwargs)
        self.video_token = self.processing_class.tokenizer.convert_tokens_to_ids("<|video_pad|>")
        core = self.accelerator.unwrap_model(self.model).get_base_model()
        core.forward = self._showing_clips(core, getattr(core.forward, "plain", core.forward))

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
        output["clip"] = torch.arange(
            len(output["completion_ids"]), device=output["completion_ids"].device
        )
        return output

    def _compute_loss(self, model, inputs):
        with self.showing(inputs["clip"]):
            return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, *args, batch_size=None, **kwargs
    ):
        shown, size = self.shown, batch_size or len(input_ids)
        parts = []
        for start in range(0, len(input_ids), size):
            rows_ = slice(start, start + size)
            with self.showing(shown[rows_]):
                parts.append(
                    super()._get_per_token_logps_and_entropies(
                        model,
                        input_ids[rows_],
                        attention_mask[rows_],
                        *args,
                        batch_size=None,
                        **kwargs,
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
            first, copies = (
                [copies.index(i) for i in firsts],
                torch.tensor([firsts.index(i) for i in copies]),
            )
            if cache is not None:
                return self._begin(plain, kwargs, first, copies)
            kwargs |= {"mm_token_type_ids": (kwargs["input_ids"] == self.video_token).int() * 2}
            if len(first) == len(copies) or (model.is_gradient_checkpointing and model.training):
                return plain(**kwargs, **self._video(range(len(copies))))
            return self._read_once(model, plain, kwargs, first, copies)

        forward.plain = plain  # the next trainer of this model puts its own in place
        return forward

    def _video(self, rows_) -> dict:
        """Join the video tensors of some of the rows shown."""
        fields = join_clips([self.clips[self.shown[i]] for i in rows_])
        return {k: v.to(self.accelerator.device) for k, v in fields.items()}

    def _begin(self, plain, kwargs, first, copies):
        """Begin replies with one pass over each different prompt; its cache is copied to all of its rows."""
        alone = {
            k: kwargs[k][first]
            for k in ("input_ids", "attention_mask", "mm_token_type_ids")
            if k in kwargs
        }
        alone |= self._video(first) | {"position_ids": kwargs["position_ids"][:, first]}
        out = plain(**{**kwargs, **alone})
        cache = kwargs["past_key_values"]
        cache.batch_select_indices(copies.to(out.logits.device))
        cache.layers = [
            RoomyLayer(layer) if type(layer) is DynamicLayer else layer for layer in cache.layers
        ]
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
            **prompt,
            **self._video(first),
            position_ids=place[:, first, :start],
            use_cache=True,
            logits_to_keep=1,
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
        raise ValueError(
            f"prompt: expected one video in each of {count} prompts, found {len(grids)} videos"
        )
    pixels = torch.as_tensor(fields["pixel_values_videos"]).split(grids.prod(1).tolist())
    clips = [{"pixel_values_videos": p, "video_grid_thw": g[None]} for p, g in zip(pixels, grids)]
    if "second_per_grid_ts" in fields:  # Qwen2.5-VL's clock
        clips = [
            c | {"second_per_grid_ts": t}
            for c, t in zip(clips, torch.as_tensor(fields["second_per_grid_ts"])[:, None])
        ]
    return clips


def join_clips(clips: list[dict]) -> dict:
    """Join the video tensors of several rows into a batch's."""
    return {key: torch.cat([clip[key] for clip in clips]) for key in clips[0]}


def log_ids(reward: Callable) -> Callable:
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
            return clear_logs(logs)
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
        clear_logs(logs)


def grpo(
    model, processor, samples: Sequence[Sample], out: str | os.PathLike, videos: str | os.PathLike | None = None,
    rewards: str | Sequence[Callable] = "st-r1", lora: str = "default", seed: int = 0, callbacks: Sequence = (),
    parity: bool = True, resume: bool = True, dry: bool | None = None, **settings,
):  # fmt: skip
    """Reinforce what earns reward, by TRL's GRPO on native video; returns the PEFT model.

    `rewards` is a preset ("paper", "st-r1", "st-r1-reverse") or a list of functions in TRL's shape; `settings` override
    GRPO and go to trl's GRPOConfig. With `parity`, `check_parity` runs before the first step and stops a wrong set-up;
    with `dry`, the default on CUDA, the largest sample is taken first, and rows a backward are halved until it fits.
    """
    functions = REWARDS[rewards] if isinstance(rewards, str) else list(rewards)
    model = add_lora(model, lora, seed)
    build = partial(make_trainer, model, processor, samples, out, functions, lora, seed, callbacks)
    with looking(processor, videos):
        trainer, chosen = build_trainer(build, {**GRPO, **settings}, dry)
        found = check_parity(trainer) if parity else None
        checkpoints.train(trainer, out, resume)
    names = [f.__name__ for f in functions]
    return finish(
        trainer,
        out,
        {"stage": "grpo", "rewards": names, "seed": seed, "parity": found, **chosen},
    )


def make_trainer(
    model, processor, samples, out, functions, lora="default", seed=0, callbacks=(), settings=GRPO
):
    """Build the GRPO trainer that `grpo` runs: left padding, vision tokens suppressed, completions on disk."""
    model = add_lora(model, lora, seed)
    processor.tokenizer.padding_side = "left"
    args = trl.GRPOConfig(
        **arguments(out, settings, seed), remove_unused_columns=False, log_completions=False,
        generation_kwargs={"suppress_tokens": suppressed(processor)},
    )  # fmt: skip
    trainer = grpo_trainer()(
        model, args=args, reward_funcs=[log_ids(functions[0]), *functions[1:]], train_dataset=rows(samples), processing_class=processor,
        callbacks=[*callbacks, Completions(Path(out) / "completions")],
    )  # fmt: skip
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, Completions):
            callback.trainer = trainer
    float32_adapter(model)
    return trainer
