"""Asking a model: clips and chats become its inputs, and replies are drawn by settings of ours alone.

encode(processor, [prompts.messages(sample)], videos="sample_data/videos")   # tensors for one question
generate(model, processor, samples, videos="sample_data/videos")[0]["reply"]
'<think>Let's start by thinking forward ...</think> <answer>B</answer>'
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps

import torch

from stlite.data import prompts
from stlite.data.sample import Sample, SampleError
from stlite.data.video import Clip, ClipError, read_clip
from stlite.train import backend  # noqa: F401  before transformers: on CUDA it imports Unsloth
from stlite.train.caches import RoomyLayer, make_static
from stlite.train.chat import (
    OPENING_TAG,
    render,
    rest_of,
    thinking_opened,
    timestamps_of,
)
from stlite.train.delta_net import has_recurrent_layers, new_cache
from stlite.train.models import fingerprint_adapter

# isort: split

from transformers import GenerationConfig, LogitsProcessor
from transformers.cache_utils import Cache, StaticCache

STATIC = 'cache_implementation: "static" was asked for; replies are drawn without it, as this model'
# <|video_pad|>, <|audio_start|>, <tts_pad>
MODALITIES = ("vision", "image", "video", "audio", "tts")


# ---- clips and chats to inputs -------------------------------------------------------------------


def encode(
    processor, chats: Sequence[list[dict]], videos: str | os.PathLike | None = None, order: str = "forward",
    starts: Sequence[str] = (), direct: bool = False,
):  # fmt: skip
    """Turn chats into model inputs, left-padded, with the pixels of their clips.

    The clips are read by `read_clip` under the root `videos`, as `processor.reading` says. A chat
    that ends with a reply is rendered with it; `starts` are begun replies; `direct` asks for no
    thinking. Raises ClipError or SampleError for a video that cannot be read.
    """
    clips = [read(processor, path, videos, order) for path in video_paths(chats)]
    return encode_clips(processor, chats, clips, starts, direct)


def read(processor, path: str, videos: str | os.PathLike | None, order: str = "forward") -> Clip:
    """Read a clip as the processor's model reads it: so many frames, of such a size."""
    return read_clip(path, root=videos, order=order, **processor.reading)


def video_paths(chats: Sequence[list[dict]]) -> list[str]:
    """List the videos that chats name, in order."""
    paths = []
    for chat in chats:
        for message in chat:
            paths += [part["video"] for part in message["content"] if part["type"] == "video"]
    return paths


def encode_clips(
    processor, chats: Sequence[list[dict]], clips: Sequence[Clip], starts: Sequence[str] = (),
    direct: bool = False,
):  # fmt: skip
    """Turn chats and the clips they name into model inputs; the frames are taken as they are."""
    texts = [render(processor, chat, direct) for chat in chats]
    if starts:
        texts = [text + start for text, start in zip(texts, starts, strict=True)]
    video = {}
    if clips:
        video = {
            "videos": [clip.frames for clip in clips],
            "video_metadata": [clip_metadata(clip) for clip in clips],
            "do_resize": False,
            "do_sample_frames": False,
        }
    return processor(text=texts, padding=True, padding_side="left", return_tensors="pt", **video)


def clip_metadata(clip: Clip) -> dict:
    """Describe a clip to a processor: its frames stand where their measured times put them.

    At a variable rate these are not the frames' numbers in the file.
    """
    places = [round(second * clip.fps) for second in clip.seconds]
    height, width = clip.frames.shape[1:3]
    return {
        "total_num_frames": max(places[-1] + 1, len(places)),
        "fps": clip.fps,
        "width": width,
        "height": height,
        "duration": clip.duration,
        "video_backend": clip.backend,
        "frames_indices": places,
    }


# ---- what decides which tokens are drawn ---------------------------------------------------------


def suppressed_tokens(model, processor) -> list[int]:
    """Return the ids that a model must never write: modality tokens, and rows of the vocabulary that stand for nothing."""
    tokenizer = processor.tokenizer
    ids = []
    for text, token in tokenizer.get_added_vocab().items():
        if text.strip("<|>").startswith(MODALITIES):
            ids.append(token)
    rows = model.get_output_embeddings().weight.shape[0]
    return sorted(ids) + list(range(len(tokenizer), rows))


def end_tokens(model, processor) -> list[int]:
    """Return the ids that end a reply: the tokenizer's, and those the model names."""
    named = model.generation_config.eos_token_id
    if named is None:
        named = []
    elif isinstance(named, int):
        named = [named]
    return list(dict.fromkeys([processor.tokenizer.eos_token_id, *named]))


def sampling(
    model, processor, max_new_tokens: int = 256, temperature: float = 0.0, top_p: float = 1.0, top_k: int = 0,
    min_p: float | None = None, repetition_penalty: float = 1.0, min_new_tokens: int | None = None,
) -> dict:  # fmt: skip
    """Return every setting that decides which tokens are drawn, for evaluation and for training alike.

    `temperature` 0 is greedy. Of a model's own generation settings only the ids that end a reply
    count.
    """
    return {
        "max_new_tokens": max_new_tokens,
        "min_new_tokens": min_new_tokens,
        "do_sample": temperature > 0,
        "temperature": temperature or 1.0,
        "top_p": top_p,
        "top_k": top_k if temperature else None,  # transformers warns of it where nothing is drawn
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "num_beams": 1,
        "eos_token_id": end_tokens(model, processor),
        "pad_token_id": processor.tokenizer.pad_token_id,
        "suppress_tokens": suppressed_tokens(model, processor),
    }


def bare_model(model):
    """Return a model without its adapter's wrapper; the adapter's layers stay in it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def without_own_settings(model) -> Iterator[None]:
    """Set a model's own generation settings aside.

    Transformers fills in with them whatever a caller leaves out.
    """
    core = bare_model(model)
    own = core.generation_config
    core.generation_config = GenerationConfig()
    try:
        yield
    finally:
        core.generation_config = own


# ---- drawing replies -----------------------------------------------------------------------------


class FiniteLogits(LogitsProcessor):
    """Notes whether the logits of every token drawn were finite, without waiting for the card."""

    def __init__(self):
        self.finite = torch.tensor(True)

    def __call__(self, input_ids, scores):
        """Return the scores (B,V).

        A row whose best is NaN or infinite is noted, and made drawable.
        """
        finite = scores.amax(-1, keepdim=True).isfinite()
        self.finite = self.finite.to(scores.device) & finite.all()
        return scores.where(finite, 0.0)


@torch.no_grad()
def draw(
    model, inputs: dict, settings: dict, cache: Cache | None = None, streamer=None
) -> list[list[int]]:
    """Write a reply to each prompt of the inputs: its token ids, up to and with the one that ends it.

    `settings` are those of `sampling`; `cache` holds what was read of the prompts before;
    `streamer` is told each token of a single prompt's reply. Raises FloatingPointError where logits
    are NaN or infinite, which a model would write as "!!!!!!".
    """
    core = bare_model(model)
    if cache is None:
        cache = new_cache(core.config, RoomyLayer)
    compiled = isinstance(cache, StaticCache)  # on a card; a CPU takes the same steps uncompiled
    config = GenerationConfig(**settings, use_cache=True, disable_compile=not compiled)
    finite = FiniteLogits()
    half = core.dtype in (torch.float16, torch.bfloat16)
    with without_own_settings(core), torch.autocast(core.device.type, core.dtype, enabled=half):
        written = type(core).generate(  # the class's: Unsloth puts its own on the instance
            core,
            **inputs,
            past_key_values=cache,
            generation_config=config,
            logits_processor=[finite],
            streamer=streamer,
        )
    if not finite.finite:
        raise FloatingPointError(
            f"generation: logits are not finite in {model.dtype}: the numbers overflow. Load the model in bfloat16 or "
            "float32 (a card from 2020 on), or take another preset"
        )
    replies = written[:, inputs["input_ids"].shape[1] :].tolist()
    return [cut_at_end(reply, settings["eos_token_id"]) for reply in replies]


def draw_compiled(model, inputs: dict, settings: dict, read: Callable[[], Cache | None]):
    """Write replies as `draw` does, in steps that transformers compiles.

    None where this model or machine cannot. `read` returns the cache with what was read of the
    prompts before. On a card the first call of a size compiles, which takes a minute or so. A
    warning tells why where None is returned.
    """
    core = bare_model(model)
    if has_recurrent_layers(core.config):
        warnings.warn(f"{STATIC} has layers with states of their own", stacklevel=2)
        return None
    length = inputs["input_ids"].shape[1] + settings["max_new_tokens"]
    try:
        return draw(model, inputs, settings, make_static(core, read(), length))
    except torch._dynamo.exc.TorchDynamoException as error:
        warnings.warn(f"{STATIC} cannot be compiled here: {str(error)[:300]}", stacklevel=2)
        return None


def cut_at_end(tokens: list[int], ends: list[int]) -> list[int]:
    """Cut tokens after the first that ends a reply; what follows it is padding.

    >>> cut_at_end([5, 6, 2, 0, 0], ends=[2])
    [5, 6, 2]
    """
    for place, token in enumerate(tokens):
        if token in ends:
            return tokens[: place + 1]
    return tokens


def generate(
    model, processor, samples: Sequence[Sample], order: str = "forward", videos: str | os.PathLike | None = None,
    max_new_tokens: int = 256, temperature: float = 0.0, direct: bool = False, seed: int = 0,
    start: Callable[[Sample], str] = lambda sample: "", streamer=None,
    cache_implementation: str | None = None,
) -> list[dict]:  # fmt: skip
    """Reply to a batch of samples: one {"reply", "tokens"} each, or {"error"} where the video cannot be read.

    `temperature` 0 is greedy; `direct` asks for the answer without thinking; `start` begins each
    reply; `streamer` is told each token of a single reply. `cache_implementation` "static" draws in
    compiled steps on a card, where the model allows it.
    """
    model.eval()
    clips = [_clip_or_error(processor, sample, videos, order) for sample in samples]
    readable = [i for i, clip in enumerate(clips) if isinstance(clip, Clip)]
    results = [{"error": str(clip)} for clip in clips]
    if not readable:
        return results
    chats = [prompts.messages(samples[i], direct=direct) for i in readable]
    opened = thinking_opened(processor, direct)
    starts = [start(samples[i]) for i in readable]
    if opened:
        starts = [rest_of(text, OPENING_TAG) for text in starts]
    inputs = encode_clips(processor, chats, [clips[i] for i in readable], starts, direct)
    settings = sampling(model, processor, max_new_tokens, temperature)
    torch.manual_seed(seed)
    inputs = inputs.to(model.device)
    replies = None
    if cache_implementation == "static":
        replies = draw_compiled(model, inputs, settings, lambda: None)
    if replies is None:
        replies = draw(model, inputs, settings, streamer=streamer)
    texts = processor.batch_decode(replies, skip_special_tokens=True)
    for i, begun, text, reply in zip(readable, starts, texts, replies):
        results[i] = {"reply": begun + text, "tokens": len(reply), "thinking_opened": opened}
    return results


def adapter_of(model, processor) -> str | None:
    """Return the fingerprint of a model's adapter.

    None for a model without one, or with an untrained one.
    """
    name = fingerprint_adapter(model) if hasattr(model, "peft_config") else "none"
    return None if name == "none" else name


@wraps(sampling)
def _recorded(model, processor, **chosen) -> dict:
    """Return the settings of `sampling`, and how the prompt writes the times of frames."""
    return sampling(model, processor, **chosen) | timestamps_of(processor)


generate.sampling = _recorded  # `evaluate` writes what these give into run.json
generate.adapter = adapter_of


def _clip_or_error(processor, sample: Sample, videos, order: str) -> Clip | Exception:
    try:
        return read(processor, sample.video, videos, order)
    except (ClipError, SampleError) as error:
        return error
