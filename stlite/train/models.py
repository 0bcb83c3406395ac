"""Models: load a preset, see videos through our reader, generate replies.

    model, processor = load("tiny")
    generate(model, processor, samples, videos="sample_data/videos")[0]["reply"]
    '<think>Let's start by thinking forward ...</think> <answer>B</answer>'

Unsloth is imported on CUDA only, and before trl; everywhere else transformers and bitsandbytes do the same work.
"""

import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata, util
from pathlib import Path

import torch
from packaging.version import Version

if torch.cuda.is_available() and util.find_spec("unsloth"):
    import unsloth  # noqa: F401  before transformers and trl, of which it replaces parts

# isort: split

from transformers.cache_utils import Cache, DynamicLayer

from stlite.data import prompts
from stlite.data.sample import Sample, SampleError
from stlite.data.video import Clip, ClipError, read_clip
from stlite.train.vision_cache import cache_vision_features

UNSLOTH = torch.cuda.is_available() and util.find_spec("unsloth") is not None
TINY = Path(__file__).resolve().parents[2] / "sample_data" / "tiny"
QWEN2 = {
    "frames": 8,
    "max_pixels": 360 * 420,
    "multiple": 28,
}  # the paper's GRPO setting (section 4)
QWEN3 = {"frames": 8, "max_pixels": 360 * 420, "multiple": 32}
PRESETS = {
    "tiny": {"source": str(TINY), "frames": 16, "max_pixels": 84 * 84, "multiple": 28},
    "qwen2-vl-2b": {"source": "Qwen/Qwen2-VL-2B-Instruct", **QWEN2},
    "qwen2-vl-7b": {"source": "Qwen/Qwen2-VL-7B-Instruct", **QWEN2},
    "qwen2.5-vl-3b": {"source": "Qwen/Qwen2.5-VL-3B-Instruct", **QWEN2},
    "qwen2.5-vl-7b": {"source": "Qwen/Qwen2.5-VL-7B-Instruct", **QWEN2},
    "qwen3-vl-2b": {"source": "Qwen/Qwen3-VL-2B-Instruct", **QWEN3},
    "qwen3-vl-4b": {"source": "Qwen/Qwen3-VL-4B-Instruct", **QWEN3},
    "qwen3-vl-8b": {"source": "Qwen/Qwen3-VL-8B-Instruct", **QWEN3},
}
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
LORA = {
    "paper": {
        "r": 8,
        "lora_alpha": 8,
        "lora_dropout": 0.1,
        "modules": ATTENTION,
    },  # paper section 4
    "default": {
        "r": 16,  # room for a new way of replying; 4-bit LoRA of 16 is still under 1 % of the weights
        "lora_alpha": 32,  # twice r: the usual scale, so that a rate of 1e-4 moves it
        "lora_dropout": 0.0,  # dropout makes training log-probs differ from those of generation in GRPO
        "modules": (
            *ATTENTION,
            "gate_proj",
            "up_proj",
            "down_proj",
        ),  # MLPs hold what is composed from the steps
    },
}
UNSLOTH_TAKES = {
    "torch": "2.14.1",
    "transformers": "5.17.0",
    "trl": "1.15.0",
    "datasets": "4.8.5",
}  # at most
VISION_TOKENS = (
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def settings(preset: str) -> dict:
    """Return a preset's source, frames, max_pixels and multiple; a local folder or hub id takes the Qwen2-VL ones.

    >>> settings("tiny")["frames"]
    16
    """
    if preset in PRESETS:
        return PRESETS[preset]
    if (noted := Path(preset, "stlite.json")).is_file():  # a folder that `merge` wrote
        return {"source": preset, **json.loads(noted.read_text())}
    if Path(preset).is_dir() or preset.count("/") == 1:
        return {"source": preset, **(QWEN3 if "qwen3" in preset.lower() else QWEN2)}
    raise ValueError(
        f"preset: expected one of {', '.join(PRESETS)}, a local folder or a hub id, found {preset!r}"
    )


def load(
    preset: str,
    four_bit: bool = True,
    backend: str = "auto",
    adapter: str | os.PathLike | None = None,
):
    """Load a model and its processor, the processor reading videos through `read_clip`.

    `backend` is "unsloth", "transformers", or "auto": Unsloth on CUDA, where it is installed. `adapter` is a folder that training saved; it
    stays trainable. Returns (model, processor). Raises ValueError for an unknown preset, RuntimeError where 4-bit
    weights are not supported.
    """
    chosen = settings(preset)
    if (
        torch.cuda.is_available() and "LOCAL_RANK" in os.environ
    ):  # one of several processes, each with its card
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if backend == "auto":
        backend = "unsloth" if UNSLOTH else "transformers"
    model, processor = (_load_unsloth if backend == "unsloth" else _load_transformers)(
        chosen["source"], four_bit
    )
    processor.tokenizer.padding_side = "left"
    cache_vision_features(model)
    reading = {k: chosen[k] for k in ("frames", "max_pixels", "multiple")}
    attach(processor, partial(read_clip, **reading))
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    return model.eval(), processor


def compute_dtype() -> torch.dtype:
    """Return bfloat16 where the card has it, float16 on older cards, float32 on a CPU."""
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _load_transformers(source: str, four_bit: bool):
    from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

    kwargs = {"dtype": compute_dtype(), "use_safetensors": True}
    if four_bit:
        try:
            import bitsandbytes  # noqa: F401
        except ImportError as error:
            raise RuntimeError(
                f"4-bit weights need bitsandbytes ({error}); install it or pass four_bit=False"
            ) from None
        kwargs["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype(), llm_int8_skip_modules=[".*visual", "lm_head"],
        )  # fmt: skip
    if torch.cuda.is_available():
        kwargs["device_map"] = {"": torch.cuda.current_device()}
    model = AutoModelForImageTextToText.from_pretrained(source, **kwargs)
    for module in (
        model.modules()
    ):  # bitsandbytes 0.50 repacks weights on the first reply, in bfloat16, and then has no
        if hasattr(
            module, "support_avx512bf16_for_cpu"
        ):  # gradient through them: training after generating would stop
            module.support_avx512bf16_for_cpu = False
    return model, AutoProcessor.from_pretrained(source)


def _load_unsloth(source: str, four_bit: bool):
    from unsloth import FastVisionModel

    kwargs = {} if torch.cuda.is_available() else {"device_map": "cpu"}
    return FastVisionModel.from_pretrained(
        source, load_in_4bit=four_bit, dtype=compute_dtype(), max_seq_length=4096,
        use_gradient_checkpointing="unsloth" if torch.cuda.is_available() else False, **kwargs,
    )  # fmt: skip


def add_lora(model, name: str = "default", seed: int = 0):
    """Attach a LoRA adapter to the language layers; `name` is "paper" or "default"; a model that has one is returned.

    Returns a PEFT model in which the adapter alone is trainable, in float32.
    """
    if hasattr(model, "peft_config"):
        return model
    if name not in LORA:
        raise ValueError(f"lora: expected one of {', '.join(LORA)}, found {name!r}")
    chosen = dict(LORA[name])
    modules = chosen.pop("modules")
    torch.manual_seed(seed)
    if type(model).__module__.startswith("unsloth") or hasattr(model, "_saved_temp_tokenizer"):
        from unsloth import FastVisionModel

        return FastVisionModel.get_peft_model(
            model, finetune_vision_layers=False, finetune_mlp_modules="down_proj" in modules, random_state=seed,
            use_gradient_checkpointing="unsloth" if torch.cuda.is_available() else False, **chosen,
        )  # fmt: skip
    from peft import LoraConfig, get_peft_model

    target = rf".*language_model.*\.({'|'.join(modules)})"
    return get_peft_model(model, LoraConfig(target_modules=target, task_type="CAUSAL_LM", **chosen))


# ---- the seam: every consumer of the processor sees the frames of our reader -----------------------------------------


def attach(processor, read: Callable[..., Clip]):
    """Make a processor read video paths with `read(path) -> Clip` and take the frames as they are.

    The video processor becomes a subclass of the same name, so that it still saves and reloads. Paths are the reader's
    to judge: URLs and paths outside its root are refused there.
    """
    from transformers.video_utils import VideoMetadata

    video = processor.video_processor
    kind = getattr(type(video), "plain", type(video))

    def fetch_videos(self, video_url_or_urls, sample_indices_fn=None):
        if isinstance(video_url_or_urls, (list, tuple)):
            return list(zip(*[self.fetch_videos(path) for path in video_url_or_urls]))
        clip = read(video_url_or_urls)
        places = [
            round(second * clip.fps) for second in clip.seconds
        ]  # measured: at a variable rate not the indices
        height, width = clip.frames.shape[1:3]
        return clip.frames, VideoMetadata(
            total_num_frames=max(places[-1] + 1, len(places)), fps=clip.fps, width=width, height=height,
            duration=clip.duration, video_backend=clip.backend, frames_indices=places,
        )  # fmt: skip

    def fetch_images(self, urls):
        raise ValueError(
            f"video: expected the path of a video file, found a list of images: {str(urls)[:200]}"
        )

    body = {
        "fetch_videos": fetch_videos,
        "fetch_images": fetch_images,
        "plain": kind,
        "read": staticmethod(read),
    }
    video.__class__ = type(kind.__name__, (kind,), {**body, "__module__": kind.__module__})
    video.do_resize = video.do_sample_frames = False
    return processor


@contextmanager
def looking(processor, videos: str | os.PathLike | None = None, order: str = "forward"):
    """Point a processor's reader at a root of videos, and at an order of frames, for the length of a `with` block."""
    before = processor.video_processor.read
    attach(processor, partial(before, root=videos, order=order))
    try:
        yield processor
    finally:
        attach(processor, before)


def encode(
    processor, chats: list[list[dict]], generation: bool = True, starts: Sequence[str] = ()
) -> dict:
    """Turn chats into model inputs, left-padded, with the pixels of their videos; `starts` are begun replies."""
    texts = processor.apply_chat_template(chats, tokenize=False, add_generation_prompt=generation)
    texts = [text + start for text, start in zip(texts, starts)] if starts else texts
    videos = [
        part["video"]
        for chat in chats
        for m in chat
        for part in m["content"]
        if part["type"] == "video"
    ]
    return processor(
        text=texts, videos=videos or None, padding=True, padding_side="left", return_tensors="pt"
    )


class RoomyLayer(DynamicLayer):
    """A layer of the key-value cache with room ahead: a token is written without copying all that was before it."""

    ROOM = 64  # tokens

    def __init__(self, layer: DynamicLayer | None = None):
        super().__init__()
        self.rooms = {}
        if layer is not None:
            self.lazy_initialization(layer.keys, layer.values)
            self.keys, self.values = layer.keys, layer.values

    def update(self, key_states, value_states, *args, **kwargs):
        """Add keys and values (B,heads,new,d); return all of them."""
        if not self.get_seq_length():
            return super().update(key_states, value_states)
        self.keys, self.values = (
            self._added("keys", key_states),
            self._added("values", value_states),
        )
        return self.keys, self.values

    def _added(self, name: str, new):
        old, room = getattr(self, name), self.rooms.get(name)
        start, end = old.shape[-2], old.shape[-2] + new.shape[-2]
        if room is None or end > room.shape[-2] or old.data_ptr() != room.data_ptr():
            ahead = old.new_empty(*old.shape[:-2], new.shape[-2] + self.ROOM, old.shape[-1])
            room = self.rooms[name] = torch.cat([old, ahead], -2)
        room[..., start:end, :] = new
        return room[..., :end, :]


def suppressed(processor) -> list[int]:
    """Return the ids of the vision tokens, which a policy must never write."""
    tokens = [processor.tokenizer.convert_tokens_to_ids(t) for t in VISION_TOKENS]
    return [t for t in tokens if isinstance(t, int) and t != processor.tokenizer.unk_token_id]


@torch.no_grad()
def generate(
    model, processor, samples: Sequence[Sample], order: str = "forward", videos: str | os.PathLike | None = None,
    max_new_tokens: int = 256, temperature: float = 0.0, direct: bool = False, seed: int = 0,
    start: Callable[[Sample], str] = lambda sample: "",
) -> list[dict]:  # fmt: skip
    """Reply to a batch of samples: one {"reply", "tokens"} each, or {"error"} where the video cannot be read.

    `temperature` 0 is greedy; `direct` asks for the answer without thinking; `start` begins each reply.
    """
    model.eval()
    with looking(processor, videos, order):
        results = [_unreadable(processor, s) for s in samples]
        good = [i for i, result in enumerate(results) if not result]
        if not good:
            return results
        chats, starts = (
            [prompts.messages(samples[i], direct=direct) for i in good],
            [start(samples[i]) for i in good],
        )
        inputs = encode(processor, chats, starts=starts).to(model.device)
    torch.manual_seed(seed)
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": 0}
        if temperature
        else {"do_sample": False}
    )
    cache = (
        {}
        if "unsloth" in sys.modules
        else {"past_key_values": Cache(layer_class_to_replicate=RoomyLayer)}
    )
    how = {
        "max_new_tokens": max_new_tokens,
        "suppress_tokens": suppressed(processor),
        "use_cache": True,
    }
    written = model.generate(**inputs, **cache, **how, **sampling)[
        :, inputs["input_ids"].shape[1] :
    ]
    counts = (written != processor.tokenizer.pad_token_id).sum(1).tolist()
    texts = processor.batch_decode(written, skip_special_tokens=True)
    for i, begun, text, count in zip(good, starts, texts, counts):
        results[i] = {"reply": begun + text, "tokens": count}
    return results


def _unreadable(processor, sample: Sample) -> dict:
    try:
        processor.video_processor.read(sample.video)
    except (ClipError, SampleError) as error:
        return {"error": str(error)}
    return {}


def check_time(model, processor, sample: Sample, videos: str | os.PathLike | None = None) -> int:
    """Count the distinct temporal positions a model gives a clip; fewer than its pairs of frames raise ValueError.

    Qwen2.5-VL in transformers up to 5.17 gives every frame position 0 when sampled more densely than 2 a second.
    """
    with looking(processor, videos):
        inputs = encode(processor, [prompts.messages(sample)])
    core = getattr(model, "base_model", model)
    core = getattr(getattr(core, "model", core), "model", getattr(core, "model", core))
    keys = (
        "input_ids",
        "mm_token_type_ids",
        "video_grid_thw",
        "second_per_grid_ts",
        "attention_mask",
    )
    place, _ = core.get_rope_index(**{k: inputs[k] for k in keys if k in inputs})
    video = inputs["input_ids"][0] == processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    found, pairs = len(place[0, 0][video].unique()), int(inputs["video_grid_thw"][0][0])
    if found < pairs:
        raise ValueError(
            f"time axis: expected {pairs} distinct temporal positions for {pairs} pairs of frames, found {found}: the "
            "model cannot tell their order. Sample at most 2 frames a second, or use a Qwen2-VL or Qwen3-VL model."
        )
    return found


def versions() -> str:
    """Say in one line which versions run, on which device, and which known-bad combination was met."""
    names = ("torch", "transformers", "trl", "peft", "datasets", "bitsandbytes", "unsloth")
    found, cuda = {name: _version(name) for name in names}, torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else f"CPU ({torch.get_num_threads()} threads)"
    line = f"{device} | python {platform.python_version()} | " + " ".join(
        f"{k} {v}" for k, v in found.items()
    )
    line += f" | {'Unsloth 4-bit' if UNSLOTH else 'transformers + bitsandbytes nf4'}"
    return line + "".join(f" | WARNING {bad}" for bad in known_bad(found, cuda))


def known_bad(found: dict[str, str], cuda: bool) -> list[str]:
    """List what is known not to work together among installed versions ("absent" where there is none), with the remedy."""
    there = {name: Version(version) for name, version in found.items() if version != "absent"}
    bad = [f"Unsloth refuses {name} {there[name]}: install {name}=={last}" for name, last in UNSLOTH_TAKES.items()
           if "unsloth" in there and name in there and there[name].release > Version(last).release]  # fmt: skip
    if "trl" in there and there["trl"].release[:2] == (1, 15) and not cuda:
        bad.append("trl 1.15 needs Triton for every log-prob: install trl==1.14.2")
    return bad


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"
