"""Make the tiny model: a Qwen2-VL of 4 million parameters, trained from scratch on rendered walks.

    python sample_data/make_tiny.py pool            # render the walks it learns from (none of them shipped or evaluated)
    python sample_data/make_tiny.py train           # hours; resumes; prints every skill's accuracy by itself
    python sample_data/make_tiny.py save            # writes sample_data/tiny/
    python sample_data/make_tiny.py check           # measures it on dev walks

What it is taught: to describe a walk it sees; to think in the reply format over steps given as text, in both kinds of
chain; and, on few walks, to put the two together, so that GRPO finds replies that are sometimes right.
"""

import argparse
import json
import math
import random
import re
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from sample_data import walks
from stlite.data import prompts
from stlite.data.annotations import build
from stlite.data.egost import read_rows
from stlite.data.sample import replace
from stlite.data.steps import AROUND
from stlite.rewards.parse import parse, split_steps
from stlite.rewards.rewards import score

HERE = Path(__file__).resolve().parent
FRAMES, SIZE = 16, 84
SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT_WALK = "The walk:"


def phrases() -> list[str]:
    """List the phrases that are one token each: the fixed wording of prompts and chains, steps, landmarks, letters."""
    fixed = [
        prompts.OPENING,
        "Based on this video,",
        "Please describe in detail how to get to the final location.",
    ]
    fixed += [f" {q}" for (task, _), q in prompts.QUESTIONS.items() if task != "route"]
    fixed += [
        prompts.QUESTIONS["route", "reverse"],
        f" {prompts.INSTRUCTION}",
        f" {prompts.DIRECT_INSTRUCTION}",
    ]
    fixed += [
        " Options:",
        f"\n\nInstructions: {prompts.CHOOSE}",
        "Let's start by thinking",
        " And then think about",
    ]
    fixed += [
        " Hence, the correct answer is",
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        " <answer>",
        TEXT_WALK,
    ]
    fixed += [f" {letter}." for letter in "ABCDEFGH"] + ["user\n", "assistant\n", "system\n"]
    steps = [AROUND, *walks.TURNS, *walks.LANDMARKS, *walks.ALL_ACTIONS]
    return fixed + [lead + step for step in steps for lead in ("", " ")]


def tokenizer() -> PreTrainedTokenizerFast:
    """Build a byte-level tokenizer whose vocabulary holds those phrases, common words, and every byte."""
    words = [
        "forward",
        "reverse",
        "then",
        "past",
        "at",
        "the",
        "and",
        "to",
        "of",
        "a",
        "is",
        "in",
        "on",
        "back",
        "A",
        "B",
        "C",
        "D",
        "E",
        "F",
        "G",
        "H",
    ]
    pieces = (
        phrases()
        + [f" {w}" for w in words]
        + list("ABCDEFGH")
        + ["user", "assistant", ",", ", then", ".", "\n"]
    )
    byte = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocab = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab += [
        p
        for p in ("".join(part for part, _ in byte.pre_tokenize_str(p)) for p in pieces)
        if p not in vocab
    ]
    vocab = list(dict.fromkeys(vocab))
    core = Tokenizer(BPE({p: i for i, p in enumerate(vocab)}, [], ignore_merges=True))
    longest = sorted(pieces, key=len, reverse=True)
    pattern = "|".join([*map(re.escape, longest), r" ?[A-Za-z]+", r"\s+", r"[^A-Za-z\s]"]).replace(
        "'", "'"
    )
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), byte]
    )
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left",
        additional_special_tokens=SPECIAL[1:], model_max_length=4096, chat_template=CHAT,
    )  # fmt: skip


def processor() -> Qwen2VLProcessor:
    """Build the processor: Qwen2-VL's own, with this tokenizer and the tiny preset's frames."""
    size = {"shortest_edge": 28 * 28, "longest_edge": SIZE * SIZE}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size), tokenizer=tokenizer(),
        video_processor=Qwen2VLVideoProcessor(size=size, do_sample_frames=False), chat_template=CHAT,
    )  # fmt: skip


def model(tok: PreTrainedTokenizerFast) -> Qwen2VLForConditionalGeneration:
    """Build the untrained model: 6 layers of 192, and a vision tower of 4 layers of 160."""
    ids = {t: tok.convert_tokens_to_ids(t) for t in SPECIAL}
    text = {
        "vocab_size": math.ceil(len(tok) / 64) * 64, "hidden_size": 192, "intermediate_size": 512,
        "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True,
        "max_position_embeddings": 4096, "rope_theta": 10000.0, "bos_token_id": None,
        "rope_scaling": {"type": "mrope", "mrope_section": [8, 8, 8]},
        "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"],
    }  # fmt: skip
    vision = {"depth": 4, "embed_dim": 160, "num_heads": 4, "hidden_size": 192, "mlp_ratio": 4}
    config = Qwen2VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True,
        video_token_id=ids["<|video_pad|>"], image_token_id=ids["<|image_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    net = Qwen2VLForConditionalGeneration(config)
    net.generation_config.update(
        eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"], do_sample=False
    )
    return net


# ---- what it learns from ---------------------------------------------------------------------------------------------

PARTS = (1, 2, 3, 4, 4, 3, 2, 4)  # the part of a walk by its seed: actions need the most practice
SKILLS = ("describe", "text", "video")


def part_of(seed: int) -> int:
    """Return the part that a base-training seed draws."""
    return PARTS[seed % len(PARTS)]


def frame_times(walk: dict, fps: int = 8) -> np.ndarray:
    """Return the times that `read_clip` samples from a walk's video (seconds)."""
    last = math.ceil(walks.timeline(walk)["seconds"] * fps) - 1
    return np.round(np.linspace(0, last, FRAMES)) / fps


def view(walk: dict) -> np.ndarray:
    """Render a walk's sampled frames, averaged down as a video reader does: uint8 (FRAMES, SIZE, SIZE, 3)."""
    wide = walks.render(walk, frame_times(walk), 2 * SIZE).astype(np.uint16)
    return (
        (wide[:, ::2, ::2] + wide[:, 1::2, ::2] + wide[:, ::2, 1::2] + wide[:, 1::2, 1::2] + 2) // 4
    ).astype(np.uint8)


def pool(path: Path, count: int, first: int) -> None:
    """Render `count` base walks into a .npy file (count, FRAMES, SIZE, SIZE, 3)."""
    out = np.lib.format.open_memmap(path, "w+", np.uint8, (count, FRAMES, SIZE, SIZE, 3))
    for i in range(count):
        out[i] = view(walks.draw(first + i, part_of(first + i), "base"))


def random_walk(rng: random.Random) -> dict:
    """Draw a walk that is only told, never shown."""
    return walks.draw(rng.randrange(10**9), rng.choice((1, 2, 3, 4, 4)), "base")


def ask(walk: dict, rng: random.Random):
    """Make one choice question, task and way at random, with options as hard as those of the shipped data."""
    forward, reverse = walks.annotation(walk)
    task = rng.choice([t for t in forward if t != "route"])
    pool = {
        "direction": list(walks.TURNS),
        "landmark": walks.LANDMARKS,
        "action": walks.ALL_ACTIONS,
    }
    made = build(
        "x.mp4", {task: forward[task]}, {task: reverse[task]}, id=walk["id"], part=str(walk["part"]), group="x", pool=pool,
        seed=rng.random(),
    )  # fmt: skip
    return rng.choice(made)


def easier(sample, rng: random.Random, hard: float):
    """Make a question easier with probability 1 - hard: fewer options, or options that share nothing with the truth."""
    if rng.random() < hard:
        return sample
    keep = [o for o in sample.options if o != sample.gold]
    if rng.random() < 0.7:  # strangers: the lists of other walks of the same length
        keep = []
        while len(keep) < 3:
            walk = walks.draw(rng.randrange(10**9), int(sample.part), "base")
            keep.append(" ".join(walks.annotation(walk)[sample.way == "reverse"][sample.task]))
    keep = [sample.gold, *dict.fromkeys(o for o in keep if o != sample.gold)][
        : rng.choice((2, 3, 4))
    ]
    rng.shuffle(keep)
    return replace(sample, options=keep, answer="ABCD"[keep.index(sample.gold)], trace="")


def text_chat(rng: random.Random, hard: float) -> list[dict]:
    """Write a question over steps given as text after it, or in the chain alone, thought through in either kind of chain."""
    sample = easier(ask(random_walk(rng), rng), rng, hard)
    recipe = rng.choice(("st-cot", "forward-cot"))
    told = f"\n{TEXT_WALK} {' '.join(sample.steps_forward)}" if rng.random() < 0.6 else ""
    question = prompts.problem(sample) + told
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": prompts.target(sample, recipe)},
    ]


def describe_chat(seed: int, rng: random.Random) -> list[dict]:
    """Ask for the route of a rendered walk, plainly or behind a long question with options."""
    walk = walks.draw(seed, part_of(seed), "base")
    forward, reverse = walks.annotation(walk)
    way = "forward" if rng.random() < 0.7 else "reverse"
    route = build(
        "x.mp4", {"route": forward["route"]}, {"route": reverse["route"]}, id="x", group="x"
    )[way == "reverse"]
    text = prompts.problem(route, direct=rng.random() < 0.5)
    if rng.random() < 0.5:
        text = prompts.problem(ask(walk, rng)) + "\n" + text
    content = [{"type": "video", "video": "x.mp4"}, {"type": "text", "text": text}]
    answer = [{"type": "text", "text": prompts.reply("", route.answer)}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]


def video_chat(seed: int, rng: random.Random) -> list[dict]:
    """Ask a choice question about a rendered walk, thought through in either kind of chain."""
    sample = ask(walks.draw(seed, part_of(seed), "base"), rng)
    return prompts.messages(
        sample, answer=prompts.target(sample, rng.choice(("st-cot", "forward-cot")))
    )


# ---- batches ---------------------------------------------------------------------------------------------------------

TOKENS = FRAMES // 2 * (SIZE // 28) ** 2
STEPS = [AROUND, *walks.TURNS, *walks.LANDMARKS, *walks.ALL_ACTIONS]
STATES = (len(walks.LANDMARKS), 5, 1 + len(walks.ALL_ACTIONS))
EARLY = 2  # the layer that should know what has happened so far
MIDDLE = 3  # the layer that should have read a list
LIST = 6  # steps in the longest list
HENCE = "\u0120Hence,\u0120the\u0120correct\u0120answer\u0120is"


def encode(tok, chats: list[list[dict]], letter_weight: float = 8.0) -> dict:
    """Tokenize chats, right-padded: ids, mask, labels on the assistant's tokens (B,L), and a weight for each label."""
    texts = [tok.apply_chat_template(c, tokenize=False) for c in chats]
    texts = [t.replace("<|video_pad|>", "<|video_pad|>" * TOKENS).rstrip("\n") for t in texts]
    rows = tok(texts)["input_ids"]
    length, pad = max(map(len, rows)), tok.pad_token_id
    ids = torch.tensor([r + [pad] * (length - len(r)) for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (length - len(r)) for r in rows])
    begin = tok.convert_tokens_to_ids("assistant\u010a")
    after = (ids == begin).int().cumsum(1) - (ids == begin).int() > 0
    labels = torch.where(after & mask.bool(), ids, -100)
    letters = torch.tensor(tok.convert_tokens_to_ids([f"\u0120{x}" for x in "ABCD"] + list("ABCD")))
    weight = 1.0 + (letter_weight - 1) * torch.isin(labels, letters).float()
    shown = torch.isin(
        ids,
        torch.tensor(
            tok.convert_tokens_to_ids([TEXT_WALK.replace(" ", "\u0120"), "<|video_pad|>"])
        ),
    )
    hence = ids == tok.convert_tokens_to_ids(HENCE)
    labels[
        ~shown.any(1)[:, None] & (hence.int().cumsum(1) == 0)
    ] = -100  # nobody can know a chain over nothing
    first = labels.where(torch.isin(labels, letters), -100).argmax(1)  # the chain's own letter
    return {
        "input_ids": ids, "attention_mask": mask, "labels": labels, "weight": weight, "letters": letters, "first": first,
        "lists": lists(tok, ids),
    }  # fmt: skip


def lists(tok, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Find the lists of steps that a network should have read by a place: places (N,2), lists (N,LIST), kinds (N,).

    Kind 0 is the end of an option, which has just been read; kind 1 the end of a chain, where the right one is due.
    The fourth tensor (M,3) points from the end of a chain to the end of the right option: row, from, to.
    """
    names = [f"\u0120{s}".replace(" ", "\u0120") for s in STEPS]
    step = {t: i for i, t in enumerate(tok.convert_tokens_to_ids(names))}
    letter = {t: x for x in "ABCDEFGH" for t in [tok.convert_tokens_to_ids(f"\u0120{x}.")]}
    answers = {tok.convert_tokens_to_ids(f"\u0120{x}"): x for x in "ABCDEFGH"}
    hence = tok.convert_tokens_to_ids(HENCE)
    places, found, kinds, picks, named = [], [], [], [], []
    for b, row in enumerate(ids.tolist()):
        options: dict[str, list[int]] = {}
        ends, now = {}, None
        for i, token in enumerate(row):
            if token in letter:
                options[now := letter[token]] = []
            elif now and token in step:
                options[now].append(step[token])
            elif now:
                places.append((b, i - 1)), found.append(options[now]), kinds.append(0)
                named.append("ABCDEFGH".index(now))
                ends[now], now = i - 1, None
            if token == hence:
                gold = answers[row[i + 1]]
                (
                    places.append((b, i)),
                    found.append(options[gold]),
                    kinds.append(1),
                    picks.append((b, i, ends[gold])),
                )
    padded = torch.full((len(found), LIST), len(STEPS))
    for n, row in enumerate(found):
        padded[n, : len(row)] = torch.tensor(row)
    return (
        torch.tensor(places).reshape(-1, 2),
        padded,
        torch.tensor(kinds),
        torch.tensor(picks, dtype=torch.long).reshape(-1, 3),
        torch.tensor(named),
    )


def patches(proc, frames: np.ndarray) -> torch.Tensor:
    """Cut frames (B,T,H,W,3) into the processor's rows (B*T/2*H/14*W/14, 1176), normalised as it does."""
    video = proc.video_processor
    mean, std = torch.tensor(video.image_mean), torch.tensor(video.image_std)
    x = (torch.from_numpy(np.ascontiguousarray(frames)).float() / 255 - mean) / std
    b, g = len(x), SIZE // 28
    x = x.permute(0, 1, 4, 2, 3).reshape(b, FRAMES // 2, 2, 3, g, 2, 14, g, 2, 14)
    return x.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(-1, 1176)


def quicken(net) -> None:
    """Train faster on a CPU, with the same numbers: plain products for attention, a linear layer for the patches.

    The library's own ways spend two thirds of a step in the backward pass of two kernels. Frame pairs are equally long
    here, so the vision tower attends to all of them in one call.
    """
    from transformers.models.qwen2_vl import modeling_qwen2_vl as qwen

    def attend(q, k, v, scale):
        return ((q @ k.transpose(-1, -2)).float() * scale).softmax(-1).to(v.dtype) @ v

    def vision(self, hidden_states, cu_seqlens, position_embeddings=None, **kwargs):
        n, rows = len(cu_seqlens) - 1, len(hidden_states)
        q, k, v = self.qkv(hidden_states).reshape(rows, 3, self.num_heads, -1).unbind(1)
        q, k = qwen.apply_rotary_pos_emb_vision(q, k, *position_embeddings)
        q, k, v = (
            t.reshape(n, rows // n, self.num_heads, -1).transpose(1, 2).to(v.dtype)
            for t in (q, k, v)
        )
        return self.proj(attend(q, k, v, self.scaling).transpose(1, 2).reshape(rows, -1))

    def embed(self, rows):
        return torch.nn.functional.linear(rows, self.proj.weight.flatten(1))

    qwen.VisionAttention.forward, qwen.PatchEmbed.forward = vision, embed
    net.set_attn_implementation("eager")


def positions(tok, batch: dict, video: bool) -> torch.Tensor:
    """Lay out Qwen2-VL's three position axes (3,B,L) for one video of TOKENS tokens, or plain text."""
    b, length = batch["input_ids"].shape
    if not video:
        return torch.arange(length).expand(3, b, length)
    first = (batch["input_ids"] == tok.convert_tokens_to_ids("<|video_pad|>")).int().argmax(1)
    t, g = FRAMES // 2, SIZE // 28
    grid = torch.stack(
        torch.meshgrid(torch.arange(t), torch.arange(g), torch.arange(g), indexing="ij")
    ).reshape(3, -1)
    out = torch.arange(length).repeat(3, b, 1)
    for i, start in enumerate(first.tolist()):
        out[:, i, start : start + TOKENS] = start + grid
        out[:, i, start + TOKENS :] += (
            g - TOKENS
        )  # transformers 5.17 goes on after the height, not after the time
    return out


def readers() -> torch.nn.ModuleList:
    """Build linear readers of a middle layer, for training alone.

    They ask for the list just read (two: of an option, of a chain), the letter of an option, and what has happened by each
    pair of frames.
    """
    sizes = (LIST * (len(STEPS) + 1), LIST * (len(STEPS) + 1), 8, sum(STATES))
    return torch.nn.ModuleList(torch.nn.Linear(192, size) for size in sizes)


def states(walk: dict) -> torch.Tensor:
    """Tell for each pair of frames what the walker has come to: landmark, turn made there, action done there (T/2,3)."""
    seconds = frame_times(walk)[1::2]
    moments = walks.timeline(walk)["moments"]
    turned, done, first = (
        np.array(moments["direction"]),
        np.array(moments["action"]),
        walk["ends"][0] * 1,
    )
    out = []
    for second, k in zip(seconds, walks._poses(walk, seconds)[2]):
        made = [*map(walk["directions"].__getitem__, range(len(turned)))]
        now = 0
        if second >= turned[first + k]:
            now = 1 + [*walks.TURNS].index(made[first + k])
        if (first and k == 0 and turned[0] <= second < turned[1]) or (
            walk["ends"][1] and second >= turned[-1]
        ):
            now = 4
        act = (
            1 + walks.ALL_ACTIONS.index(walk["actions"][k])
            if len(done) and second >= done[k]
            else 0
        )
        out.append((walks.LANDMARKS.index(walk["landmarks"][k]), now, act))
    return torch.tensor(out)


def forward(
    net, proc, chats: list, frames: np.ndarray | None = None, happened=None, heads=None
) -> tuple[torch.Tensor, dict]:
    """Return the weighted loss of a batch and how often each kind of token was right."""
    batch = encode(proc.tokenizer, chats)
    extra = {}
    if frames is not None:
        extra["pixel_values_videos"] = patches(proc, frames)
        extra["video_grid_thw"] = torch.tensor(
            [[FRAMES // 2, SIZE // 14, SIZE // 14]] * len(frames)
        )
    place = positions(proc.tokenizer, batch, frames is not None)
    with torch.autocast("cpu", torch.bfloat16):
        out = net.model(  # right-padded: no mask needed
            input_ids=batch["input_ids"], position_ids=place, use_cache=False, output_hidden_states=True,
            output_attentions=True, **extra,
        )  # fmt: skip
        hidden = out.last_hidden_state[:, :-1]
        labels, weight = batch["labels"][:, 1:], batch["weight"][:, 1:]
        taught = labels != -100
        logits = net.lm_head(hidden[taught]).float()
    loss = torch.nn.functional.cross_entropy(logits, labels[taught], reduction="none")
    right = logits.argmax(-1) == labels[taught]
    whole = torch.zeros(labels.shape, dtype=torch.bool).masked_scatter(taught, ~right).any(1)
    seen = {"all": right.float().mean().item(), "whole": 1 - whole.float().mean().item()}
    total = (loss * weight[taught]).sum() / weight[taught].sum()
    letter = torch.zeros(labels.shape, dtype=torch.bool)
    letter[torch.arange(len(labels)), batch["first"] - 1] = torch.isin(
        labels, batch["letters"]
    ).any(1)
    if (letter := letter[taught]).any():
        seen["letter"] = right[letter].float().mean().item()
    where, wanted, kinds, picks, named = batch["lists"]
    if heads is not None and len(where):
        middle = out.hidden_states[MIDDLE][where[:, 0], where[:, 1]].float()
        for kind, name in ((0, "option"), (1, "chain")):
            if (kinds == kind).any():
                guess = heads[kind](middle[kinds == kind]).unflatten(-1, (LIST, len(STEPS) + 1))
                total = total + torch.nn.functional.cross_entropy(
                    guess.flatten(0, 1), wanted[kinds == kind].flatten()
                )
                seen[name] = (
                    (guess.argmax(-1) == wanted[kinds == kind]).all(1).float().mean().item()
                )
        if len(named):
            guess = heads[2](middle[kinds == 0])
            total = total + torch.nn.functional.cross_entropy(guess, named)
            seen["named"] = (guess.argmax(-1) == named).float().mean().item()
        if len(picks):
            look = out.attentions[MIDDLE][picks[:, 0], 0, picks[:, 1], picks[:, 2]].float()
            total = total - 0.5 * look.clamp(1e-3).log().mean()
            seen["look"] = look.mean().item()
    if heads is not None and happened is not None:
        first = (
            (batch["input_ids"] == proc.tokenizer.convert_tokens_to_ids("<|video_pad|>"))
            .int()
            .argmax(1)
        )
        ends = first[:, None] + torch.arange(1, FRAMES // 2 + 1) * (TOKENS // (FRAMES // 2)) - 1
        early = out.hidden_states[EARLY][torch.arange(len(ends))[:, None], ends].float()
        for i, (name, guess) in enumerate(
            zip(("place", "turn", "act"), heads[3](early).split(STATES, -1))
        ):
            total = total + torch.nn.functional.cross_entropy(
                guess.flatten(0, 1), happened[..., i].flatten()
            )
            seen[name] = (guess.argmax(-1) == happened[..., i]).float().mean().item()
    return total, seen


# ---- training --------------------------------------------------------------------------------------------------------


class Data:
    """The three kinds of batches, and the held-out walks each skill is measured on."""

    def __init__(self, pools: list[Path], held_out: int = 64):
        self.frames = [np.load(p, mmap_mode="r") for p in pools]
        self.first = [1_000_000 + sum(map(len, self.frames[:i])) for i in range(len(pools))]
        self.seeds = [first + i for first, f in zip(self.first, self.frames) for i in range(len(f))]
        self.test, self.train = self.seeds[-held_out:], self.seeds[:-held_out]

    def look(self, seeds: list[int], rng: random.Random | None = None) -> np.ndarray:
        """Fetch frames; with `rng`, with a little noise and light, as a camera and a codec add."""
        which = [max(i for i, first in enumerate(self.first) if first <= s) for s in seeds]
        frames = np.stack([self.frames[w][s - self.first[w]] for w, s in zip(which, seeds)])
        if rng is None:
            return frames
        noise = np.random.default_rng(rng.randrange(2**32))
        light = noise.uniform(0.9, 1.1, (len(seeds), 1, 1, 1, 1)).astype(np.float32)
        grain = noise.integers(-4, 5, frames.shape, dtype=np.int8)
        return (frames * light + grain).clip(0, 255).astype(np.uint8)

    def batch(self, skill: str, size: int, rng: random.Random, hard: float, held_out: bool = False):
        """Return chats, frames or None, and what happens by each pair of frames or None, for one skill."""
        if skill == "text":
            return [text_chat(rng, hard) for _ in range(size)], None, None
        seeds = rng.sample(self.test if held_out else self.train, size)
        chat = describe_chat if skill == "describe" else video_chat
        happened = torch.stack([states(walks.draw(s, part_of(s), "base")) for s in seeds])
        return [chat(s, rng) for s in seeds], self.look(seeds, None if held_out else rng), happened


def measure(net, proc, heads, data: Data, skills, size: int = 64) -> dict:
    """Measure each skill by itself on unseen walks, at full difficulty, teacher-forced."""
    net.eval()
    rows = {}
    with torch.no_grad():
        for skill in skills:
            rows[skill] = forward(
                net, proc, *data.batch(skill, size, random.Random(5), 1.0, True), heads=heads
            )[1]
    net.train()
    return {f"{s}/{k}": round(v, 3) for s, row in rows.items() for k, v in row.items()}


def optimizers(net, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the rest."""
    inner = [
        p for n, p in net.named_parameters() if p.ndim == 2 and ("layers" in n or "blocks" in n)
    ]
    chosen = {id(p) for p in inner}
    rest = [p for p in net.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(
            inner, lr=rate, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def train(args) -> None:
    """Train, or go on with, the base model: each step takes a batch of every skill asked for."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    proc = processor()
    net = model(proc.tokenizer)
    quicken(net)
    heads = readers()
    opts = [*optimizers(net, args.rate), torch.optim.AdamW(heads.parameters(), lr=args.rate)]
    begin, path = 0, Path(args.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        state = torch.load(path, weights_only=True)
        net.load_state_dict(state["net"])
        heads.load_state_dict(state["heads"], strict=False)
        begin = state["step"]
        if not args.fresh_optimizer:
            for opt, saved in zip(opts, state["opts"]):
                opt.load_state_dict(saved)
    data = Data([Path(p) for p in args.pool])
    sizes = {"text": args.text, "describe": args.describe, "video": args.video}
    sizes = {k: v for k, v in sizes.items() if v}
    started, seen = time.time(), {}
    for step in range(begin, args.steps):
        rng = random.Random(f"{args.seed}/{step}")
        left = (args.steps - step) / max(1, args.decay)
        rate = args.rate * min(1, (step - begin + 1) / 100, left)
        hard = min(args.hard, 0.1 + step / args.ramp)
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = rate
        for skill, size in sizes.items():
            loss, row = forward(net, proc, *data.batch(skill, size, rng, hard), heads=heads)
            loss.backward()
            for key, value in row.items():
                name = f"{skill}/{key}"
                seen[name] = 0.98 * seen.get(name, value) + 0.02 * value
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad()
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            held = measure(net, proc, heads, data, sizes)
            line = {
                "step": step + 1,
                "minutes": round((time.time() - started) / 60, 1),
                "hard": round(hard, 2),
                **held,
            }
            line["running"] = {k: round(v, 3) for k, v in seen.items() if "all" not in k}
            print(json.dumps(line), flush=True)
            state = {
                "net": net.state_dict(),
                "heads": heads.state_dict(),
                "opts": [o.state_dict() for o in opts],
                "step": step + 1,
            }
            torch.save(state, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)


def save(args) -> None:
    """Write the trained model in bfloat16 safetensors with its processor."""
    proc = processor()
    net = model(proc.tokenizer)
    net.load_state_dict(torch.load(args.out, weights_only=True)["net"])
    net.to(torch.bfloat16).save_pretrained(HERE / "tiny")
    proc.save_pretrained(HERE / "tiny")


# ---- what it can do --------------------------------------------------------------------------------------------------


def check(args) -> None:
    """Measure the saved model on dev walks: seeing, thinking over text, the choice tasks, and pass@8 on training walks."""
    from stlite.train.models import generate, load

    torch.set_num_threads(args.threads)
    net, proc = load("tiny", four_bit=not args.full)
    folder = HERE.parent / "work" / "dev"
    seeds = range(walks.SEEDS["dev"], walks.SEEDS["dev"] + args.count)
    drawn = [walks.draw(seed, 1 + seed % 4, "test") for seed in seeds]
    for walk in drawn:
        if not (folder / f"{walk['id']}.mp4").exists():
            walks.write_video(walk, folder / f"{walk['id']}.mp4")
    asked = [s for w in drawn for s in walks.samples(w, f"{w['id']}.mp4", seed=1)]

    def replies(samples, videos=folder, **how) -> list[str]:
        parts = [samples[i : i + 32] for i in range(0, len(samples), 32)]
        return [
            r["reply"]
            for part in parts
            for r in generate(net, proc, part, videos=videos, max_new_tokens=96, **how)
        ]

    routes = [s for s in asked if (s.task, s.way) == ("route", "forward")]
    others = {s.group: s for s in asked if s.kind == "choice"}
    longer = [
        replace(s, question=prompts.problem(others[s.group]) + "\n" + s.question) for s in routes
    ]
    found = {
        "described": described(routes, replies(routes)),
        "described behind a question": described(routes, replies(longer)),
    }
    choices = [s for s in asked if s.kind == "choice"]
    found["over text"] = over_text(net, proc, choices)
    said = replies(choices)
    for task in ("direction", "landmark", "action"):
        for way in ("forward", "reverse"):
            rows = [
                score(s, r).value for s, r in zip(choices, said) if (s.task, s.way) == (task, way)
            ]
            found[f"{task} {way}"] = sum(rows) / len(rows)
    found["mean of six"] = sum(list(found.values())[-6:]) / 6
    found["readable"] = np.mean([not parse(r).reason for r in said])
    found["thinks the opposite way"] = np.mean([parse(r).way == {"forward": "reverse", "reverse": "forward"}[s.way]
                                                for s, r in zip(choices, said)])  # fmt: skip
    train_rows = list(
        read_rows(HERE / "train" / "total_test_mcq_630.jsonl", videos=HERE / "videos")
    )[: 2 * args.count]
    tries = [replies(train_rows, HERE / "videos", temperature=1.0, seed=i) for i in range(8)]
    right = np.array([[score(s, r).value for s, r in zip(train_rows, t)] for t in tries])
    found |= {
        "pass@8 on training walks": right.max(0).mean(),
        "mean at temperature 1": right.mean(),
    }
    print(json.dumps({k: round(float(v), 3) for k, v in found.items()}, indent=1))


def described(routes, said: list[str]) -> float:
    """Return the share of annotated clauses, turn and landmark together, found at their place in a description."""
    right = total = 0
    for sample, text in zip(routes, said):
        clauses = split_steps(parse(text).answer)
        right += sum(a == b for a, b in zip(sample.steps_forward, clauses))
        total += len(sample.steps_forward)
    return right / total


def over_text(net, proc, samples) -> float:
    """Return the share of questions answered right when the steps are given as text in place of the video."""
    from stlite.train.models import encode

    right = 0
    for i in range(0, len(samples), 32):
        part = samples[i : i + 32]
        told = [f"{prompts.problem(s)}\n{TEXT_WALK} {' '.join(s.steps_forward)}" for s in part]
        inputs = encode(
            proc, [[{"role": "user", "content": [{"type": "text", "text": t}]}] for t in told]
        )
        out = net.generate(**inputs, max_new_tokens=96)[:, inputs["input_ids"].shape[1] :]
        right += sum(
            score(s, t).value
            for s, t in zip(part, proc.batch_decode(out, skip_special_tokens=True))
        )
    return right / len(samples)


def main() -> None:
    """Run one of the four commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("pool", "train", "save", "check"))
    parser.add_argument("--pool", nargs="+", default=["work/pool.npy"])
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--first", type=int, default=1_000_000)
    parser.add_argument("--out", default="work/tiny.pt")
    for name, value in (
        ("text", 64), ("describe", 16), ("video", 0), ("steps", 6000), ("decay", 800), ("every", 200), ("ramp", 4000),
        ("threads", 2), ("seed", 0),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument(
        "--hard", type=float, default=0.8, help="the most questions at full difficulty, as a share"
    )
    parser.add_argument("--fresh-optimizer", action="store_true")
    parser.add_argument(
        "--full", action="store_true", help="check the model in float32, not in nf4"
    )
    args = parser.parse_args()
    if args.command == "pool":
        pool(Path(args.pool[0]), args.count, args.first)
    else:
        {"train": train, "save": save, "check": check}[args.command](args)


if __name__ == "__main__":
    main()
