"""Checkpoints: a run that was stopped or killed goes on from the last whole one, and ends as if it had not been.

train(trainer, "runs/st-r1")        # again after a crash: the same order, random state and optimizer
"""

import json
import shutil
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback

import stlite.train.models  # noqa: F401  before trl: on CUDA it imports Unsloth

# isort: split
from trl.trainer.utils import RepeatSampler

from stlite.data.sample import Sample, write_text

NOTED = (
    "beta", "gradient_accumulation_steps", "learning_rate", "loss_type", "lr_scheduler_type", "max_completion_length",
    "max_grad_norm", "max_steps", "num_generations", "num_train_epochs", "per_device_train_batch_size", "seed",
    "temperature", "warmup_steps",
)  # fmt: skip


def row_id(row) -> str:
    """Return the sample's id of a row of either stage."""
    return row.id if isinstance(row, Sample) else row["id"]


def train(trainer, out, resume: bool = True) -> None:
    """Train, from the last whole checkpoint if there is one; interrupting (the notebook's stop button) saves one.

    Raises ValueError where the checkpoints are those of other settings or samples.
    """
    folder, keeper = Path(out) / "checkpoints", CheckpointCallback(trainer)
    trainer.add_callback(keeper)
    with trainer.accelerator.main_process_first():
        if trainer.args.should_save and not resume:
            shutil.rmtree(folder, ignore_errors=True)
        found = last_checkpoint(out)
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
    ours = {k: getattr(trainer.args, k, None) for k in NOTED}
    ours |= {
        "recipe": getattr(trainer.data_collator, "recipe", None),
        "ids": [row_id(r) for r in trainer.train_dataset],
    }
    ours |= {"rewards": [f.__name__ for f in getattr(trainer, "reward_funcs", [])]}
    ours = json.loads(json.dumps(ours, default=str))
    if found and path.exists() and (before := json.loads(path.read_text())) != ours:
        said = [k for k in ours if ours[k] != before.get(k)]
        raise ValueError(
            f"{path.parent}: begun with other {', '.join(said)}; use another folder, or resume=False"
        )
    if trainer.args.should_save:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(ours))


class CheckpointCallback(TrainerCallback):
    """Let checkpoints be saved between whole steps alone, and keep the random state of the last such place.

    A GRPO trainer resumes by generating: with several optimizer steps to a generation, it saves after the last of them.
    """

    def __init__(self, trainer):
        self.trainer, self.whole, self.asked = trainer, False, False
        self.random = tempfile.TemporaryDirectory()

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        """Draw the orders of the epochs that are done: TRL's sampler would begin with the first one's again."""
        batches = getattr(
            train_dataloader.batch_sampler, "batch_sampler", train_dataloader.batch_sampler
        )
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


def last_checkpoint(out) -> str | None:
    """Return the newest whole checkpoint of a run folder; half-written ones are passed over."""
    found = sorted(
        (Path(out) / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1])
    )
    return next((str(folder) for folder in reversed(found) if _whole(folder)), None)


def _whole(folder: Path) -> bool:
    """Say whether adapter, optimizer, random and trainer state are there, and every file of them to its end."""
    parts = (
        "adapter_model.safetensors",
        "rng_state*.pth",
        "trainer_state.json",
        "processor_config.json",
    )
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
