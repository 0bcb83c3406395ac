"""The tiny model before training: its tokenizer, its processor, and an untrained Qwen2-VL.

Whole phrases of the prompts and chains are one token each, so that a chain of thought is about 20 tokens long.
"""

import math
import re

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

from sample_data import walks
from stlite.data import prompts
from stlite.data.steps import AROUND

FRAMES = 16
SIZE = 84  # pixels, width and height
PATCH = 14
MERGE = 2  # patches a side that become one token
LAYERS = 6
WIDTH = 192
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT_WALK = "The walk:"
HENCE = " Hence, the correct answer is"
STEPS = (AROUND, *walks.TURNS, *walks.LANDMARKS, *walks.ALL_ACTIONS)
WORDS = ["forward", "reverse", "then", "past", "at", "the", "and", "to", "of", "a", "is", "in"]
WORDS += ["on", "back", *"ABCDEFGH"]  # common words, with a space before them


def phrases() -> list[str]:
    """List the phrases that are one token each: prompts' and chains' wording, letters, steps."""
    fixed = [prompts.OPENING, "Based on this video,", prompts.QUESTIONS["route", "forward"]]
    fixed += [f" {text}" for (task, _), text in prompts.QUESTIONS.items() if task != "route"]
    fixed += [prompts.QUESTIONS["route", "reverse"]]
    fixed += [f" {prompts.INSTRUCTION}", f" {prompts.DIRECT_INSTRUCTION}"]
    fixed += [" Options:", f"\n\nInstructions: {prompts.CHOOSE}"]
    fixed += ["Let's start by thinking", " And then think about", HENCE]
    fixed += ["<think>", "</think>", "<answer>", "</answer>", " <answer>", TEXT_WALK]
    fixed += [f" {letter}." for letter in "ABCDEFGH"]
    fixed += ["user\n", "assistant\n", "system\n"]
    for step in STEPS:
        fixed += [step, f" {step}"]
    return fixed


def tokenizer() -> PreTrainedTokenizerFast:
    """Build a byte-level tokenizer whose vocabulary holds the phrases, common words, all bytes."""
    pieces = phrases() + [f" {word}" for word in WORDS] + list("ABCDEFGH")
    pieces += ["user", "assistant", ",", ", then", ".", "\n"]
    by_byte = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocabulary = sorted(pre_tokenizers.ByteLevel.alphabet())
    for piece in pieces:
        vocabulary.append("".join(part for part, _ in by_byte.pre_tokenize_str(piece)))
    ids = {token: i for i, token in enumerate(dict.fromkeys(vocabulary))}
    core = Tokenizer(BPE(ids, [], ignore_merges=True))
    split = pre_tokenizers.Split(Regex(_pattern(pieces)), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([split, by_byte])
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        additional_special_tokens=list(SPECIAL[1:]),
        model_max_length=4096,
        chat_template=CHAT,
    )


def _pattern(pieces: list[str]) -> str:
    """Return the pattern that cuts a text: the longest phrase, a word, white space, or one mark."""
    longest_first = sorted(pieces, key=len, reverse=True)
    return "|".join([*map(re.escape, longest_first), r" ?[A-Za-z]+", r"\s+", r"[^A-Za-z\s]"])


def token_id(tok: PreTrainedTokenizerFast, phrase: str) -> int:
    """Return the id of a phrase that is one token."""
    ids = tok.encode(phrase)
    if len(ids) != 1:
        raise ValueError(f"phrase: expected one token, found {len(ids)} for {phrase!r}")
    return ids[0]


def processor() -> Qwen2VLProcessor:
    """Build the processor: Qwen2-VL's own, with this tokenizer and the tiny preset's frames."""
    size = {"shortest_edge": 28 * 28, "longest_edge": SIZE * SIZE}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer(),
        video_processor=Qwen2VLVideoProcessor(size=size, do_sample_frames=False),
        chat_template=CHAT,
    )


def model(tok: PreTrainedTokenizerFast) -> Qwen2VLForConditionalGeneration:
    """Build the untrained model: 6 layers of 192, and a vision tower of 4 layers of 160."""
    ids = {token: tok.convert_tokens_to_ids(token) for token in SPECIAL}
    text = {
        "vocab_size": math.ceil(len(tok) / 64) * 64,
        "hidden_size": WIDTH,
        "intermediate_size": 512,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [8, 8, 8]},
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {"depth": 4, "embed_dim": 160, "num_heads": 4, "hidden_size": WIDTH, "mlp_ratio": 4}
    config = Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=True,
        video_token_id=ids["<|video_pad|>"],
        image_token_id=ids["<|image_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    network = Qwen2VLForConditionalGeneration(config)
    network.generation_config.update(
        eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"], do_sample=False
    )
    return network
