"""Supervised fine-tuning on chains of thought.

    model, processor = load("tiny")
    sft(model, processor, samples, "runs/st-cot", videos="sample_data/videos")

Saves adapter and processor together under the run's folder, goes on where it was stopped, and is
not done twice.
"""

import os
from collections.abc import Sequence

import torch

from stlite.data import prompts
from stlite.train import checkpoints, runs
from stlite.train.generation import bare_model, encode  # before trl and transformers
from stlite.train.log_probs import call_inside, token_log_probs
from stlite.train.models import add_lora
from stlite.train.preflight import check_prompts, check_times, check_videos, render

# isort: split
from transformers import Trainer, TrainingArguments

from stlite.data.sample import Sample

SFT = {
    "num_train_epochs": 1,  # as the paper
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,  # 16 rows a step, as the paper's 1 x 4 x 4 cards
    "learning_rate": 2e-4,  # the paper's 8e-5 is for r = 8 on 7 B weights; LoRA of this size takes more
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,  # a share of all steps, as the paper
    "max_grad_norm": 0.3,
}


class Collator:
    """Batch samples with the replies to be taught: their videos, and labels on the reply alone."""

    def __init__(
        self, processor, recipe: str, videos: str | os.PathLike | None = None, direct: bool = False
    ):
        self.processor = processor
        self.recipe = recipe
        self.videos = videos
        self.direct = direct

    def __call__(self, samples: list[Sample]) -> dict:
        """Return input_ids, attention_mask, labels (B,L) and the video tensors."""
        conversations = []
        for sample in samples:
            reply = prompts.target(sample, self.recipe)
            conversations.append(prompts.messages(sample, self.direct, reply))
        batch = dict(encode(self.processor, conversations, self.videos, direct=self.direct))
        ids = batch["input_ids"]
        labels = torch.full_like(ids, -100)
        for row, sample in enumerate(samples):
            asked, taught = render(self.processor, sample, self.recipe, self.direct)
            count = len(taught) - len(asked)  # padded on the left, the reply is the last of a row
            labels[row, -count:] = ids[row, -count:]
        batch["labels"] = labels
        return batch


class ChainTrainer(Trainer):
    """A trainer whose loss never holds the logits of more than a few tokens."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the loss of a batch: negative log-probs of all labels, over their number in the whole step."""
        bare = self.accelerator.unwrap_model(model)
        total, count = call_inside(model, bare, self._negative_log_probs, inputs)
        if num_items_in_batch is None:
            return total / count
        if self.args.average_tokens_across_devices:
            total = total * self.accelerator.num_processes  # gradients are averaged over them
        return total / num_items_in_batch

    def _negative_log_probs(self, bare, inputs: dict) -> tuple:
        """Return the sum over all labels, and how many they are."""
        inputs = dict(inputs)
        labels = inputs.pop("labels")[:, 1:]
        taught = labels != -100
        core = bare_model(bare)
        with self.accelerator.autocast():
            hidden = core.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
            log_probs, _ = token_log_probs(core.lm_head, hidden[taught], labels[taught])
        return -log_probs.sum(), taught.sum()


def sft(
    model, processor, samples: Sequence[Sample], out: str | os.PathLike, videos: str | os.PathLike | None = None,
    recipe: str = "st-cot", lora: str = "default", seed: int = 0, callbacks: Sequence = (), resume: bool = True,
    dry: bool | None = None, direct: bool = False, on_bad_video: str = "raise", **settings,
):  # fmt: skip
    """Teach replies with QLoRA.

    `recipe` is "st-cot", "forward-cot" or "label"; returns the PEFT model. With `direct` the
    questions ask for the answer alone: so the paper trained label SFT, which then need not unlearn
    to think where it is asked to. `settings` override SFT and go to transformers'
    TrainingArguments. The loss is on the assistant's tokens only. With `dry`, the default on CUDA,
    the largest sample is taken first, and rows a backward are halved until it fits. A folder in
    which this was finished is used as it is; one begun with other settings is refused. Videos that
    cannot be read stop it before the first step, or are left out with `on_bad_video="leave out"`.
    """
    chosen = {**SFT, **settings}
    with runs.adapted(model, add_lora, lora, seed) as model:
        made_by = runs.describe(
            model,
            processor,
            samples,
            videos,
            chosen,
            stage="sft",
            recipe=recipe,
            direct=direct,
            seed=seed,
        )
        finished = runs.find_finished(out, made_by, resume)
        if finished is not None:
            return runs.load_finished(model, finished)
        readable, left_out = check_videos(processor, samples, videos, on_bad_video)
        check_times(model, processor, readable, videos)
        check_prompts(processor, readable, recipe, direct)

        def build(chosen):
            args = TrainingArguments(
                **runs.arguments(out, chosen, seed, model), remove_unused_columns=False
            )
            return ChainTrainer(
                model=model,
                args=args,
                train_dataset=readable,
                data_collator=Collator(processor, recipe, videos, direct),
                processing_class=processor,
                callbacks=list(callbacks),
            )

        trainer, taken = runs.build_trainer(build, out, chosen, dry)
        runs.begin(trainer, out, made_by, left_out, resume)
        checkpoints.train(trainer, out)
        return runs.finish(trainer, out, {"settings": taken})
