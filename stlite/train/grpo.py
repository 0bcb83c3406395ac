"""GRPO on video: TRL's trainer, shown the pixels in every pass, each clip and each prompt read once for its copies.

    model, processor = load("tiny", adapter="runs/st-cot/adapter")
    grpo(model, processor, samples, "runs/st-r1", videos="sample_data/videos")

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
from stlite.train.delta_net import new_cache
from stlite.train.generation import (  # before trl: on CUDA it imports Unsloth
    RoomyLayer,
    draw,
    encode,
    patch_video_processor,
    sampling,
    suppressed_tokens,
)
from stlite.train.models import add_lora

# isort: split
import trl
from datasets import Dataset
from transformers import TrainerCallback
from trl.models import unwrap_model_for_generation
from trl.models.utils import _ForwardRedirection, disable_gradient_checkpointing
from trl.trainer.utils import pad

from stlite.data.sample import Sample
from stlite.rewards.rewards import PRESETS as REWARDS
from stlite.rewards.rewards import REWARD_COLUMNS
from stlite.train import checkpoints, runs, shared_prefix
from stlite.train.dry_run import clear_logs
from stlite.train.preflight import check_parity, check_times, check_videos

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
    chats = {sample.id: prompts.messages(sample) for sample in samples}
    if len(chats) != len(samples):
        raise ValueError(f"id: expected {len(samples)} different ids, found {len(chats)}")
    plain = Dataset.from_list([_row(sample) for sample in samples])

    def transform(batch):
        return {**batch, "prompt": [chats[i] for i in batch["id"]]}

    return plain.with_transform(transform)


def _row(sample: Sample) -> dict:
    """Return the columns of a sample that rewards read, tuples as lists."""
    values = {**asdict(sample), "kind": sample.kind}
    row = {}
    for name in COLUMNS:
        value = values[name]
        row[name] = list(value) if isinstance(value, tuple) else value
    return row


class VideoGRPOTrainer(trl.GRPOTrainer):
    """TRL's GRPO trainer on video: each prompt is processed, and read in every pass, once for its G copies.

    A generation's rows keep their order of generation in the column "row", by which passes over some of them find the
    clips. `videos` is the root that paths of videos start from.
    """

    def __init__(self, model, videos: str | os.PathLike | None = None, **kwargs):
        self.videos = videos
        self.clips: list[
            dict
        ] = []  # video tensors of each row of this generation, shared by copies
        self.copies: list[int] = []  # which different prompt each row is a copy of
        self.rows: list[int] = []  # the rows that the next log-prob pass is about
        super().__init__(model=model, **kwargs)
        args = self.args
        self.sampling = sampling(
            model, self.processing_class, args.max_completion_length, args.temperature, args.top_p, args.top_k,
            args.min_p, args.repetition_penalty,
        ) | (args.generation_kwargs or {})  # fmt: skip

    # ---- generation ----

    def _tokenize_prompts(self, prompts: list):
        """Run the processor on each different prompt once; its copies share what comes out."""
        texts = [json.dumps(prompt) for prompt in prompts]
        different = list(dict.fromkeys(texts))
        self.copies = [different.index(text) for text in texts]
        self.rows = list(range(len(prompts)))
        chats = [json.loads(text) for text in different]
        inputs = encode(self.processing_class, chats, self.videos)
        ids = []
        for row, mask in zip(inputs["input_ids"], inputs["attention_mask"]):
            ids.append(row[mask.bool()].tolist())
        clips = shared_prefix.split_clips(inputs, len(chats))
        self.clips = [clips[copy] for copy in self.copies]
        return [ids[copy] for copy in self.copies], None, {}

    def _generate_single_turn(
        self, prompt_ids, images, multimodal_fields, num_generations, **kwargs
    ):
        """Write a reply to each prompt, in evaluation mode; each different prompt is read once."""
        firsts = [self.copies.index(copy) for copy in range(max(self.copies) + 1)]
        prompts = [torch.tensor(prompt_ids[row]) for row in firsts]
        device = self.accelerator.device
        ids = pad(prompts, self._tokenizer.pad_token_id, padding_side="left").to(device)
        mask = pad([torch.ones_like(p) for p in prompts], 0, padding_side="left").to(device)
        clips = self._video(firsts)
        with self._generating() as model:
            core = model.get_base_model()
            cache = new_cache(core.config, RoomyLayer)
            cache = shared_prefix.read_prompts(core, ids, mask, clips, self.copies, cache)
            inputs = {"input_ids": ids[self.copies], "attention_mask": mask[self.copies]}
            return draw(model, inputs, self.sampling, cache), None

    @contextmanager
    def _generating(self):
        """Give the bare model, ready to write: evaluation mode, no gradient, no checkpointing."""
        training = self.model.training
        checkpointing = self.args.gradient_checkpointing_kwargs
        with (
            disable_gradient_checkpointing(self.model, checkpointing),
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
            ) as model,
            torch.no_grad(),
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
        ):
            model.eval()
            yield model
            model.train(training)

    def _generate_and_score_completions(self, inputs):
        """Add to a generation's rows which of them each is."""
        output = super()._generate_and_score_completions(inputs)
        rows = torch.arange(len(output["completion_ids"]))
        output["row"] = rows.to(output["completion_ids"].device)
        return output

    # ---- log-probs ----

    def _prepare_inputs(self, generation_batch):
        """Return the rows of the next backward; copies of a prompt stay together, in groups of random order."""
        if not self.model.training:
            return self._generate_and_score_completions(generation_batch)
        parts = self.args.steps_per_generation
        if self._step % (parts * self.num_iterations) == 0 or self._buffered_inputs is None:
            output = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_by_group(output, self.copies, parts)
        return self._buffered_inputs[self._step % parts]

    def _compute_loss(self, model, inputs):
        """Compute the loss, its log-prob pass being about the rows given."""
        self.rows = inputs["row"].tolist()
        return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **kwargs
    ):  # fmt: skip
        """Return log-probs and entropies of completions (B,keep), 0 where they are padded, and no auxiliary loss."""
        bare = self.accelerator.unwrap_model(model)
        size = batch_size or len(input_ids)
        parts = []
        for start in range(0, len(input_ids), size):
            some = slice(start, start + size)
            arguments = (input_ids[some], attention_mask[some], logits_to_keep, self.rows[some])
            if model is bare:
                parts.append(self._log_probs(bare, *arguments))
            else:  # through its wrapper, which gathers weights and gradients
                enter = _ForwardRedirection()
                parts.append(enter(model, bare, self._log_probs, bare, *arguments))
        log_probs, entropies = zip(*parts)
        return torch.cat(log_probs), torch.cat(entropies) if compute_entropy else None, None

    def _log_probs(self, bare, ids, mask, keep: int, rows: list[int]):
        """Return log-probs and entropies (B,keep): one pass over each different prompt with its completions."""
        core = bare.get_base_model()
        log_probs_of = shared_prefix.separate_log_probs
        if shared_prefix.can_pack(core):
            log_probs_of = shared_prefix.packed_log_probs
        order, log_probs, entropies = [], [], []
        for group in group_rows([self.copies[row] for row in rows]):
            prompt = ids[group[0], :-keep][mask[group[0], :-keep].bool()]
            replies = [ids[i, -keep:][mask[i, -keep:].bool()] for i in group]
            clip = self._video([rows[group[0]]])
            with self.accelerator.autocast():
                values = log_probs_of(
                    core, prompt, replies, clip, self.temperature, self._entropy_bonus_enabled
                )
            order += group
            log_probs.append(values[0])
            entropies.append(values[1])
        written = mask[order, -keep:].bool()
        back = torch.tensor(order).argsort()
        padded = torch.zeros(written.shape, device=ids.device)
        return tuple(
            padded.masked_scatter(written, torch.cat(values))[back]
            for values in (log_probs, entropies)
        )

    def _video(self, rows: list[int]) -> dict:
        """Join the video tensors of some rows, where the model is."""
        fields = shared_prefix.join_clips([self.clips[row] for row in rows])
        return {name: value.to(self.accelerator.device) for name, value in fields.items()}


def group_rows(copies: list[int]) -> list[list[int]]:
    """List the places of each different prompt's copies.

    >>> group_rows([7, 3, 7])
    [[0, 2], [1]]
    """
    groups = {}
    for place, copy in enumerate(copies):
        groups.setdefault(copy, []).append(place)
    return list(groups.values())


def split_by_group(batch: dict, copies: list[int], parts: int) -> list[dict]:
    """Split a generation into equal parts, copies of a prompt side by side, the groups in random order.

    TRL shuffles rows apart, and then hardly a prompt is shared in any part.
    """
    groups = group_rows(copies)
    rows = []
    for number in torch.randperm(len(groups)).tolist():
        rows += groups[number]
    split = []
    for chosen in torch.tensor(rows).chunk(parts):
        part = {}
        for name, value in batch.items():
            per_row = isinstance(value, torch.Tensor) and value.ndim > 0
            part[name] = value[chosen] if per_row else value
        split.append(part)
    return split


def grpo_trainer() -> type:
    """Return the trainer of the route in use: ours, or the one Unsloth put in TRL's place, which feeds videos itself."""
    return VideoGRPOTrainer if trl.GRPOTrainer.__name__ == "GRPOTrainer" else trl.GRPOTrainer


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
        self.folder = folder
        self.trainer = None

    def on_log(self, args, state, control, **kwargs):
        """Write what was sampled since the last file, and forget it."""
        logs = self.trainer._logs
        if not logs["completion"] or not state.is_world_process_zero:
            return clear_logs(logs)
        table = {"id": list(logs["extra"]["id"])}
        for name in ("prompt", "completion"):
            table[name] = list(logs[name])
        for name, values in logs["rewards"].items():
            table[name] = list(values)
        table["advantage"] = list(logs["advantages"])
        table = {"step": [state.global_step] * len(table["prompt"]), **table}
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"completions_{state.global_step:05d}.parquet"
        part = path.with_suffix(".tmp")
        Dataset.from_dict(table).to_parquet(part)
        os.replace(part, path)
        clear_logs(logs)


def grpo(
    model, processor, samples: Sequence[Sample], out: str | os.PathLike, videos: str | os.PathLike | None = None,
    rewards: str | Sequence[Callable] = "st-r1", lora: str = "default", seed: int = 0, callbacks: Sequence = (),
    parity: bool = True, resume: bool = True, dry: bool | None = None, on_bad_video: str = "raise", **settings,
):  # fmt: skip
    """Reinforce what earns reward, by TRL's GRPO on native video; returns the PEFT model.

    `rewards` is a preset ("paper", "st-r1", "st-r1-reverse") or a list of functions in TRL's shape; `settings` override
    GRPO and go to trl's GRPOConfig. With `parity`, `check_parity` runs before the first step and stops a wrong set-up;
    with `dry`, the default on CUDA, the largest sample is taken first, and rows a backward are halved until it fits.
    A folder in which this was finished is used as it is; one begun with other settings is refused. Videos that cannot
    be read stop it before the first step, or are left out with `on_bad_video="leave out"`.
    """
    functions = REWARDS[rewards] if isinstance(rewards, str) else list(rewards)
    chosen = {**GRPO, **settings}
    names = [function.__name__ for function in functions]
    with runs.adapted(model, add_lora, lora, seed) as model:
        made_by = runs.describe(
            model, processor, samples, videos, chosen, stage="grpo", rewards=names, seed=seed
        )
        finished = runs.find_finished(out, made_by, resume)
        if finished is not None:
            return runs.load_finished(model, finished)
        readable, left_out = check_videos(processor, samples, videos, on_bad_video)
        check_times(model, processor, readable, videos)
        build = partial(
            make_trainer,
            model,
            processor,
            readable,
            out,
            functions,
            lora,
            seed,
            callbacks,
            videos=videos,
        )
        trainer, taken = runs.build_trainer(build, out, chosen, dry)
        agreement = check_parity(trainer) if parity else None
        runs.begin(trainer, out, made_by, left_out, resume)
        checkpoints.train(trainer, out)
        return runs.finish(trainer, out, {"settings": taken, "parity": agreement})


def make_trainer(
    model, processor, samples, out, functions, lora="default", seed=0, callbacks=(), settings=GRPO, videos=None
):  # fmt: skip
    """Build the GRPO trainer that `grpo` runs: left padding, completions on disk."""
    model = add_lora(model, lora, seed)
    processor.tokenizer.padding_side = "left"
    args = trl.GRPOConfig(
        **runs.arguments(out, settings, seed), remove_unused_columns=False, log_completions=False
    )
    completions = Completions(Path(out) / "completions")
    trainer_class = grpo_trainer()
    route = {}
    if trainer_class is VideoGRPOTrainer:
        route = {"videos": videos}
    else:
        patch_video_processor(processor, videos)
        args.generation_kwargs = {"suppress_tokens": suppressed_tokens(model, processor)}
    trainer = trainer_class(
        model=model,
        args=args,
        reward_funcs=[log_ids(functions[0]), *functions[1:]],
        train_dataset=rows(samples),
        processing_class=processor,
        callbacks=[*callbacks, completions],
        **route,
    )
    trainer.videos = videos
    completions.trainer = trainer
    runs.float32_adapter(model)
    return trainer
