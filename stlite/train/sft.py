"""Supervised fine-tuning on chains of thought.

    model, processor = load("tiny")
    sft(model, processor, samples, "runs/st-cot", videos="sample_data/videos")

Saves adapter and processor together under the run's folder, and goes on where it was stopped.
"""

import os
from collections.abc import Sequence

import torch

from stlite.data import prompts
from stlite.train import checkpoints
from stlite.train.generation import encode  # before trl: on CUDA it imports Unsloth
from stlite.train.models import add_lora
from stlite.train.runs import arguments, build_trainer, finish, float32_adapter

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
        self,
        processor,
        recipe: str,
        direct: bool = False,
        videos: str | os.PathLike | None = None,
    ):
        self.processor = processor
        self.recipe = recipe
        self.direct = direct
        self.videos = videos

    def __call__(self, samples: list[Sample]) -> dict:
        """Return input_ids, attention_mask, labels (B,L) and the video tensors."""
        questions = [prompts.messages(sample, self.direct) for sample in samples]
        conversations = []
        for sample in samples:
            reply = prompts.target(sample, self.recipe)
            conversations.append(prompts.messages(sample, self.direct, reply))
        batch = dict(encode(self.processor, conversations, self.videos, generation=False))
        prompt_lengths = encode(self.processor, questions, self.videos)["attention_mask"].sum(1)
        mask = batch["attention_mask"]
        padding = mask.argmax(1)  # padded on the left
        reply_starts = (padding + prompt_lengths)[:, None]
        places = torch.arange(mask.shape[1])[None]
        is_reply = (places >= reply_starts) & mask.bool()
        batch["labels"] = batch["input_ids"].masked_fill(~is_reply, -100)
        return batch


def sft(
    model, processor, samples: Sequence[Sample], out: str | os.PathLike, videos: str | os.PathLike | None = None,
    recipe: str = "st-cot", lora: str = "default", seed: int = 0, callbacks: Sequence = (), resume: bool = True,
    dry: bool | None = None, direct: bool = False, **settings,
):  # fmt: skip
    """Teach replies with QLoRA; `recipe` is "st-cot", "forward-cot" or "label"; returns the PEFT model.

    With `direct` the questions ask for the answer alone: so the paper trained label SFT, which then
    need not unlearn to think where it is asked to.
    `settings` override SFT and go to transformers' TrainingArguments. The loss is on the assistant's tokens only. With
    `dry`, the default on CUDA, the largest sample is taken first, and rows a backward are halved until it fits.
    """
    model = add_lora(model, lora, seed)
    float32_adapter(model)

    def build(chosen):
        args = TrainingArguments(**arguments(out, chosen, seed), remove_unused_columns=False)
        return Trainer(
            model=model,
            args=args,
            train_dataset=list(samples),
            data_collator=Collator(processor, recipe, direct, videos),
            processing_class=processor,
            callbacks=list(callbacks),
        )

    trainer, chosen = build_trainer(build, {**SFT, **settings}, dry)
    checkpoints.train(trainer, out, resume)
    taught = {"stage": "sft", "recipe": recipe, "direct": direct, "seed": seed}
    return finish(trainer, out, {**taught, **chosen})
