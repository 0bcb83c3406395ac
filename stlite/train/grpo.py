"""GRPO on video: TRL's trainer, shown the pixels in every pass, each clip and each prompt read once for its copies.

    model, processor = load("tiny", adapter="runs/st-cot/adapter")
    grpo(model, processor, samples, "runs/st-r1", videos="sample_data/videos")

Stock TRL forgets the video after generation; this trainer shows the same pixels to every log-prob
pass.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial, wraps
from pathlib import Path

from stlite.data import prompts
from stlite.train.generation import suppressed_tokens  # before trl
from stlite.train.models import add_lora
from stlite.train.patched_processor import patch_video_processor
from stlite.train.video_trainer import GRPOConfig, VideoGRPOTrainer

# isort: split
import trl
from datasets import Dataset
from transformers import TrainerCallback

from stlite.data.sample import Sample
from stlite.rewards.rewards import PRESETS as REWARDS
from stlite.rewards.rewards import REWARD_COLUMNS, is_reward
from stlite.train import checkpoints, runs
from stlite.train.chat import thinking_opened
from stlite.train.dry_run import clear_logs
from stlite.train.preflight import check_parity, check_times, check_videos
from stlite.train.temporal import make_temporal_reward

COLUMNS = ("id", *REWARD_COLUMNS, "question")
LOGGED = ("id", "thinking_opened")  # of each row, kept beside its completion

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


def rows(samples: Sequence[Sample], opened: bool = False) -> Dataset:
    """Turn samples into TRL's rows: plain columns, with the messages built when a row is read.

    `opened`: whether the model's template opens the thinking, which rewards must know.
    """
    chats = {sample.id: prompts.messages(sample) for sample in samples}
    if len(chats) != len(samples):
        raise ValueError(f"id: expected {len(samples)} different ids, found {len(chats)}")
    plain = Dataset.from_list([{**_row(sample), "thinking_opened": opened} for sample in samples])

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


def log_columns(reward: Callable) -> Callable:
    """Make a reward leave beside each completion what TRL itself forgets: see LOGGED."""

    @wraps(reward)
    def noted(*args, log_extra, **columns):
        for name in LOGGED:
            log_extra(name, list(columns[name]))
        return reward(*args, log_extra=log_extra, **columns)

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
        table = {name: list(logs["extra"][name]) for name in LOGGED}
        for name in ("prompt", "completion"):
            table[name] = list(logs[name])
        for name, values in logs["rewards"].items():  # a column is a reward by its name
            table[name if is_reward(name) else f"{name}_reward"] = list(values)
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
    parity: bool = True, resume: bool = True, dry: bool | None = None, on_bad_video: str = "raise",
    trainer: str = "stlite", temporal: bool = False, **settings,
):  # fmt: skip
    """Reinforce what earns reward, by TRL's GRPO on native video; returns the PEFT model.

    `rewards` is a preset ("paper", "st-r1", "st-r1-reverse") or a list of functions in TRL's shape;
    `settings` override GRPO and go to trl's GRPOConfig. With `parity`, `check_parity` runs before
    the first step and stops a wrong set-up; with `dry`, the default on CUDA, the largest sample is
    taken first, and rows a backward are halved until it fits. A folder in which this was finished
    is used as it is; one begun with other settings is refused. Videos that cannot be read stop it
    before the first step, or are left out with `on_bad_video="leave out"`. `trainer` "unsloth" is
    the one that Unsloth puts in TRL's place, as it is; it reads every copy of a prompt by itself.
    `temporal` adds T-GRPO's bonus for right replies that need the order of the frames.
    """
    functions = list(REWARDS[rewards] if isinstance(rewards, str) else rewards)
    chosen = {**GRPO, **settings}
    if temporal:
        functions.append(make_temporal_reward(model, processor, samples, videos, chosen))
    stage = {"stage": "grpo", "trainer": trainer, "seed": seed}
    stage["rewards"] = [function.__name__ for function in functions]
    with runs.adapted(model, add_lora, lora, seed) as model:
        made_by = runs.describe(model, processor, samples, videos, chosen, **stage)
        finished = runs.find_finished(out, made_by, resume)
        if finished is not None:
            return runs.load_finished(model, finished)
        readable, left_out = check_videos(processor, samples, videos, on_bad_video)
        check_times(model, processor, readable, videos)
        build = partial(make_trainer, model, processor, readable, out, functions, lora, seed)
        build = partial(build, callbacks, videos=videos, trainer=trainer)
        built, taken = runs.build_trainer(build, out, chosen, dry)
        agreement = check_parity(built) if parity else None
        runs.begin(built, out, made_by, left_out, resume)
        checkpoints.train(built, out)
        drop_reference(model)
        drawn = getattr(built, "sampling", None)
        result = {"settings": taken, "sampling": drawn, "parity": agreement}
        return runs.finish(built, out, result)


def make_trainer(
    model, processor, samples, out, functions, lora="default", seed=0, callbacks=(), settings=GRPO, videos=None,
    trainer="stlite",
):  # fmt: skip
    """Build the GRPO trainer that `grpo` runs: left padding, completions on disk."""
    model = add_lora(model, lora, seed)
    drop_reference(model)
    processor.tokenizer.padding_side = "left"
    ours = trainer == "stlite"
    config = (GRPOConfig if ours else trl.GRPOConfig)(
        **runs.arguments(out, settings, seed, model),
        remove_unused_columns=False,
        log_completions=False,
    )
    completions = Completions(Path(out) / "completions")
    parts = {
        "model": model,
        "args": config,
        "reward_funcs": [log_columns(functions[0]), *functions[1:]],
        "train_dataset": rows(samples, thinking_opened(processor)),
        "processing_class": processor,
        "callbacks": [*callbacks, completions],
    }
    if ours:
        built = VideoGRPOTrainer(videos=videos, **parts)
    else:
        built = _unsloth_trainer(trainer, videos, parts)
    completions.trainer = built
    runs.float32_adapter(model)
    return built


def drop_reference(model) -> None:
    """Remove the copy of the adapter that TRL compares with where beta is not 0, and that it would not make twice."""
    if "ref" in model.peft_config:
        model.delete_adapter("ref")


def _unsloth_trainer(name: str, videos, parts: dict):
    """Build the trainer that Unsloth puts in TRL's place.

    It asks the processor to read the paths of videos.
    """
    if name != "unsloth" or trl.GRPOTrainer.__name__ == "GRPOTrainer":
        raise ValueError(
            f'trainer: expected "stlite", or "unsloth" where Unsloth is installed and a card is seen, found {name!r}'
        )
    processor = parts["processing_class"]
    patch_video_processor(processor, videos)
    parts["args"].generation_kwargs = {
        "suppress_tokens": suppressed_tokens(parts["model"], processor)
    }
    built = trl.GRPOTrainer(**parts)
    built.videos = videos
    return built
