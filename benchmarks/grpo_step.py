"""One GRPO step, three ways: stock TRL with frames as images, plain native video, and ours; same frames, pixels, G, completion.

    python benchmarks/grpo_step.py                  # the tiny model, then 100 M random weights; 4 prompts x 8
    python benchmarks/grpo_step.py tiny 1           # one of them, on one core
    python benchmarks/grpo_step.py checkpointing    # with gradient checkpointing, as on a card

Each way runs in a process of its own, on a cache of its own. Seconds by phase are medians of the steps after the first;
"first" is that one, in which every clip is new; its replies, entropy and gradient are compared between the native ways. Memory is the process's peak, and what of it came after loading.
"""

import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
VIDEOS = ROOT / "sample_data" / "videos"
SIZES = {  # prompts of a step, with 8 replies each: as many backward passes
    "tiny": {"prompts": 4, "steps": 5, "completion": 64},
    "100M": {"prompts": 4, "steps": 3, "completion": 64},
}
WAYS = ("images", "native", "ours")


def random_model(folder: str) -> str:
    """Save about 100 M random weights in Qwen2-VL's architecture, with the tiny model's tokenizer and processor."""
    import torch
    from transformers import AutoConfig, AutoProcessor, Qwen2VLForConditionalGeneration

    tiny = ROOT / "sample_data" / "tiny"
    config = AutoConfig.from_pretrained(tiny)
    config.text_config.update({"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 10,
                               "num_attention_heads": 8, "num_key_value_heads": 8, "layer_types": ["full_attention"] * 10,
                               "rope_parameters": {**config.text_config.rope_parameters, "mrope_section": [16, 16, 16]}})  # fmt: skip
    config.vision_config.update({"embed_dim": 512, "hidden_size": 768, "depth": 6, "num_heads": 8})
    torch.manual_seed(0)
    Qwen2VLForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    AutoProcessor.from_pretrained(tiny).save_pretrained(folder)
    return folder


def as_images(samples, opened):
    """Turn samples into rows for stock TRL: our rows, with the frames of the clip as a list of images before the question."""
    from PIL import Image

    from stlite.data import prompts
    from stlite.data.video import read_clip
    from stlite.train.presets import PRESETS

    chats, frames = {}, {}
    for sample in samples:
        texts = [
            (m["role"], [p["text"] for p in m["content"] if p["type"] == "text"])
            for m in prompts.messages(sample)
        ]
        chats[sample.id] = [{"role": role, "content": "".join(said)} for role, said in texts]
        clip = read_clip(
            sample.video, PRESETS["tiny"]["frames"], PRESETS["tiny"]["max_pixels"], root=VIDEOS
        )
        frames[sample.id] = [Image.fromarray(f) for f in clip.frames]
    plain = OUR_ROWS(samples, opened).with_format(None)
    return plain.with_transform(
        lambda batch: {
            **batch,
            "prompt": [chats[i] for i in batch["id"]],
            "images": [frames[i] for i in batch["id"]],
        }
    )


def by_content(completions, **kwargs) -> list[float]:
    """Reward replies by a hash of what they say: random weights earn nothing else, and without reward there is no gradient."""
    return [zlib.crc32(json.dumps(c).encode()) % 100 / 100 for c in completions]


def plain_trainer(name: str):
    """Return a trainer for the ways that share nothing: stock TRL, or it with video, every copy read by itself."""
    import trl
    from trl.trainer.utils import selective_log_softmax_and_entropy

    from stlite.train import generation, grpo, shared_prefix

    class Native(grpo.VideoGRPOTrainer):
        """Native video: every copy of a prompt is processed, encoded and read by itself, rows shuffled as TRL does."""

        _prepare_inputs = trl.GRPOTrainer._prepare_inputs

        def _tokenize_prompts(self, chats):
            self.copies = self.rows = list(range(len(chats)))
            inputs = generation.encode(self.processing_class, chats, self.videos)
            self.clips = shared_prefix.split_clips(inputs, len(chats))
            ids = [
                row[mask.bool()].tolist()
                for row, mask in zip(inputs["input_ids"], inputs["attention_mask"])
            ]
            return ids, None, {}

        def _get_per_token_logps_and_entropies(
            self, model, ids, mask, keep, batch_size=None, **kwargs
        ):
            kinds = (ids == self.model.config.video_token_id).int() * 2
            outputs = model(input_ids=ids, attention_mask=mask, mm_token_type_ids=kinds, logits_to_keep=keep + 1,
                            use_cache=False, **self._video(self.rows))  # fmt: skip
            values = selective_log_softmax_and_entropy(
                outputs.logits[:, :-1], ids[:, -keep:], False, self.temperature
            )
            return *values, None

    class Images(trl.GRPOTrainer):
        """Stock TRL, to which no root of videos is told."""

        def __init__(self, videos=None, **parts):
            super().__init__(**parts)

    return {"native": Native, "images": Images}[name]


def build(
    way: str, model, processor, samples, size: dict, out: str, rewards: list, checkpointing: bool
):
    """Build the trainer of one way; all three have the same settings, adapter and rewards: stlite's defaults."""
    from stlite.train import grpo as train

    if way != "ours":
        tower = model.model.visual
        tower.forward = tower.feature_cache.plain
        train.VideoGRPOTrainer = plain_trainer(way)
    if way == "images":
        global OUR_ROWS
        OUR_ROWS, train.rows = train.rows, as_images
    settings = train.GRPO | {"gradient_accumulation_steps": size["prompts"], "max_steps": size["steps"], "save_strategy": "no",
                             "max_completion_length": size["completion"], "disable_tqdm": True,
                             "gradient_checkpointing": checkpointing}  # fmt: skip
    trainer = train.make_trainer(
        model, processor, samples, out, rewards, settings=settings, videos=VIDEOS
    )
    if way == "images":
        from stlite.train.generation import suppressed_tokens

        trainer.generation_config.min_new_tokens = size["completion"]
        # or an image's token is drawn, which the log-prob pass has no image for
        trainer.generation_config.suppress_tokens = suppressed_tokens(model, processor)
    else:
        trainer.sampling["min_new_tokens"] = size["completion"]
    return trainer


def watch(trainer, processor) -> tuple[list[dict], Counter]:
    """Time every phase of every step, and count tower rows and prompt tokens; each second is counted once."""
    import torch

    steps, now, counts, stack = [], Counter(), Counter(), []

    def timed(owner, name, phase):
        real = getattr(owner, name)

        @functools.wraps(real)
        def call(*args, **kwargs):
            began, name_ = time.perf_counter(), phase(kwargs) if callable(phase) else phase
            stack.append(0.0)
            try:
                return real(*args, **kwargs)
            finally:
                took = time.perf_counter() - began
                now[name_] += took - stack.pop()
                if stack:
                    stack[-1] += took

        setattr(owner, name, call)

    def phase(kwargs):
        cache = kwargs.get("past_key_values")
        if not trainer.model.training or "generating" in counts:
            return "decoding" if cache is not None and cache.get_seq_length() else "prefill"
        return "log-probs"

    core = trainer.model.get_base_model()
    timed(core.model.visual.patch_embed, "forward", "tower")
    for block in [*core.model.visual.blocks, core.model.visual.merger]:
        timed(block, "forward", "tower")
    timed(core, "forward", phase)
    timed(core.model, "forward", phase)
    timed(trainer, "_tokenize_prompts", "processor")
    timed(trainer, "_generate_single_turn", "rest")
    timed(trainer.accelerator, "backward", "backward")
    core.model.visual.patch_embed.register_forward_pre_hook(
        lambda m, args: counts.update(tower=len(args[0]))
    )

    def count(module, args, kwargs):
        tokens = kwargs["inputs_embeds"].shape[:2].numel()
        if kwargs["inputs_embeds"].shape[1] > 1:
            counts.update(
                {"prompt_tokens": tokens, "trained_tokens": tokens * torch.is_grad_enabled()}
            )

    core.model.language_model.register_forward_pre_hook(count, with_kwargs=True)
    real = trainer._generate_single_turn

    def generating(*args, **kwargs):
        counts["generating"] = 1
        try:
            return real(*args, **kwargs)
        finally:
            del counts["generating"]

    trainer._generate_single_turn = generating
    step = trainer.training_step
    backwards = trainer.args.gradient_accumulation_steps

    def whole(*args, **kwargs):
        began = time.perf_counter()
        found = step(*args, **kwargs)
        counts["backwards"] += 1
        now["step"] += time.perf_counter() - began
        if counts["backwards"] == backwards:  # an optimizer step
            took = now.pop("step")
            steps.append({"step": took, **now, "other": took - sum(now.values()), "tower_rows": counts["tower"],
                          "prompt_tokens": counts["prompt_tokens"], "trained_tokens": counts["trained_tokens"]})  # fmt: skip
            now.clear()
            counts.clear()
        return found

    trainer.training_step = whole
    return steps, counts


def one(way: str, name: str, out: str, checkpointing: str) -> dict:
    """Take the steps of one way; return medians after the first step, the first step's time, and memory."""
    from datasets import Dataset
    from xxhash import xxh3_64_hexdigest

    from stlite.data.egost import read_rows
    from stlite.rewards.rewards import PRESETS
    from stlite.train.models import load

    size, rewards = SIZES[name], PRESETS["st-r1"] if name == "tiny" else [by_content]
    source = "tiny" if name == "tiny" else random_model(f"{out}/model")
    samples = list(
        {
            s.video: s
            for s in read_rows(ROOT / "sample_data/train/total_test_mcq_63.jsonl", videos=VIDEOS)
        }.values()
    )
    model, processor = load(source, four_bit=name == "tiny", frames=16, max_pixels=84 * 84)
    samples = samples[: size["prompts"]]
    trainer = build(way, model, processor, samples, size, out, rewards, checkpointing == "on")
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    steps, _ = watch(trainer, processor)
    trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    names = list(dict.fromkeys(k for s in steps for k in s))
    row = {k: round(statistics.median(s.get(k, 0) for s in steps[1:]), 3) for k in names}
    first = trainer.state.log_history[0]
    replies = Dataset.from_parquet(f"{out}/completions/completions_00001.parquet")["completion"]
    row |= {"replies": xxh3_64_hexdigest(json.dumps(list(replies)).encode()), "grad_norm": first["grad_norm"], "entropy": first["entropy"]}  # fmt: skip
    return {"model": name, "way": way, "checkpointing": checkpointing, **row, "spread": [round(s["step"], 2) for s in steps[1:]], "first": round(steps[0]["step"], 2),
            "first_tower_rows": steps[0]["tower_rows"], "peak_gb": round(peak, 2), "after_loading_gb": round(peak - loaded, 2)}  # fmt: skip


def main() -> None:
    """Run every way in a process of its own and print a row for each, then the ratios."""
    names = [a for a in sys.argv[1:] if a in SIZES] or list(SIZES)
    threads = next((a for a in sys.argv[1:] if a.isdigit()), "2")
    checkpointing = "on" if "checkpointing" in sys.argv else "off"
    for name in names:
        rows = {}
        for way in WAYS:
            with tempfile.TemporaryDirectory() as out:
                env = {
                    **os.environ,
                    "OMP_NUM_THREADS": threads,
                    "STLITE_CACHE": f"{out}/cache",
                    "HF_HUB_OFFLINE": "1",
                }
                command = [
                    sys.executable,
                    "-W",
                    "ignore",
                    __file__,
                    "--one",
                    way,
                    name,
                    out,
                    checkpointing,
                ]
                done = subprocess.run(command, env=env, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr[-3000:])
            rows[way] = json.loads(done.stdout.splitlines()[-1])
            print(json.dumps(rows[way]), flush=True)
        ours, plain = rows["ours"], rows["native"]
        same = {k: [plain[k], ours[k]] for k in ("replies", "grad_norm", "entropy")}
        print(json.dumps({"model": name, "first step, native and ours": same}), flush=True)
        if (
            ours["replies"] == plain["replies"]
            and abs(ours["grad_norm"] / plain["grad_norm"] - 1) > 1e-3
        ):
            sys.exit("the same replies gave other gradients")
        for way in WAYS[:2]:
            ratios = {
                k: round(rows["ours"][k] / rows[way][k], 2)
                for k in ("step", "first", "peak_gb", "after_loading_gb")
            }
            print(
                json.dumps(
                    {
                        "model": name,
                        "ours against": way,
                        "checkpointing": checkpointing,
                        "threads": int(threads),
                        **ratios,
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(*sys.argv[2:])))
    else:
        main()
