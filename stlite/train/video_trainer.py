"""TRL's GRPO trainer on video: each clip and each prompt read once for its copies, in every pass.

    VideoGRPOTrainer(model, videos="sample_data/videos", args=config, reward_funcs=functions, train_dataset=rows, ...)

Stock TRL forgets the video after generation, and shuffles the copies of a prompt apart. It is the
class that TRL ships on every route: Unsloth, once imported, has put its own in TRL's place.
"""

import importlib.util
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import torch

from stlite.train.caches import RoomyLayer  # before trl: on CUDA it imports Unsloth
from stlite.train.delta_net import new_cache
from stlite.train.generation import (
    bare_model,
    draw,
    draw_compiled,
    encode,
    sampling,
)

# isort: split
import trl
from trl.models import unwrap_model_for_generation
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import pad

from stlite.train import shared_prefix
from stlite.train.log_probs import call_inside


def _as_shipped(name: str):
    """Return a module of TRL's trainers as TRL ships it."""
    shipped = f"trl.trainer.{name}"
    if trl.GRPOTrainer.__name__ == "GRPOTrainer":
        return importlib.import_module(shipped)
    again = f"{shipped}_as_shipped"
    if again not in sys.modules:
        path = Path(trl.__file__).parent / "trainer" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(again, path)
        sys.modules[again] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[again])
    return sys.modules[again]


GRPOConfig = _as_shipped("grpo_config").GRPOConfig


class VideoGRPOTrainer(_as_shipped("grpo_trainer").GRPOTrainer):
    """TRL's GRPO trainer on video: each prompt is processed, and read in every pass, once for its G copies.

    A generation's rows keep their order of generation in the column "row", by which passes over
    some of them find the clips. `videos` is the root that paths of videos start from.
    """

    def __init__(self, model, videos: str | os.PathLike | None = None, **kwargs):
        self.videos = videos
        # of each row of this generation: its video tensors, shared by copies
        self.clips: list[dict] = []
        # and which different prompt it is a copy of
        self.copies: list[int] = []
        # the rows that the next log-prob pass is about
        self.rows: list[int] = []
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
            core = bare_model(model)

            def read():
                cache = new_cache(core.config, RoomyLayer)
                return shared_prefix.read_prompts(core, ids, mask, clips, self.copies, cache)

            inputs = {"input_ids": ids[self.copies], "attention_mask": mask[self.copies]}
            if self.args.cache_implementation == "static":
                replies = draw_compiled(model, inputs, self.sampling, read)
                if replies is not None:
                    return replies, None
                self.args.cache_implementation = None  # said once
            return draw(model, inputs, self.sampling, read()), None

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
        """Return the rows of the next backward.

        Copies of a prompt stay together, in groups of random order.
        """
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
            parts.append(call_inside(model, bare, self._log_probs, *arguments))
        log_probs, entropies = zip(*parts)
        return torch.cat(log_probs), torch.cat(entropies) if compute_entropy else None, None

    def _log_probs(self, bare, ids, mask, keep: int, rows: list[int]):
        """Return log-probs and entropies (B,keep): one pass over each different prompt with its completions."""
        core = bare_model(bare)
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
