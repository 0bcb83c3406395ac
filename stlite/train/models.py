"""Models: presets, loading in 4 bits, and LoRA.

    model, processor = load("tiny")
    model, processor = load("qwen3-vl-4b", frames=16, adapter="runs/st-r1/adapter")

Unsloth is imported on CUDA only, and before trl; everywhere else transformers and bitsandbytes do
the same work.
"""

import os
import warnings
from hashlib import sha256

import torch
from safetensors.torch import save

from stlite.train.backend import UNSLOTH, dtype_for, unseen_card
from stlite.train.chat import check_processor, load_processor
from stlite.train.delta_net import fork_states
from stlite.train.downloads import announce, refuse_other_families, refuse_unreachable
from stlite.train.packed_attention import allow_packed
from stlite.train.presets import READING, TIMESTAMPS, settings, trained_run
from stlite.train.sharing import adapter_folder, adapter_reading, is_hub_name, model_folder
from stlite.train.vision_cache import cache_vision_features

RECURRENT = ("in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj")  # Qwen3.5's DeltaNet
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", *RECURRENT)
MLP = ("gate_proj", "up_proj", "down_proj")  # they hold what is composed from the steps
LORA = {
    # paper section 4
    "paper": {"r": 8, "lora_alpha": 8, "lora_dropout": 0.1, "modules": ATTENTION},
    "default": {
        "r": 16,  # room for a new way of replying; 4-bit LoRA of 16 is still under 1 % of the weights
        "lora_alpha": 32,  # twice r: the usual scale, so that a rate of 1e-4 moves it
        "lora_dropout": 0.0,  # dropout makes training log-probs differ from those of generation in GRPO
        "modules": (*ATTENTION, *MLP),
    },
}


def load(
    preset: str, four_bit: bool = True, backend: str = "auto", adapter: str | os.PathLike | None = None,
    frames: int | None = None, max_pixels: int | None = None, timestamps: str | None = None,
):  # fmt: skip
    """Load a model and its processor; `processor.reading` says how clips are read for it.

    `preset` is a name of PRESETS, a folder of weights, a hub id, or the folder of a run: its base
    model, its adapter and its reading are then those that the run was trained with. `backend` is
    "unsloth", "transformers", or "auto": Unsloth on CUDA, where it is installed. `adapter` is a
    folder that training saved, or the name of one that was pushed ("user/name"); it stays
    trainable. `frames` and `max_pixels` replace the preset's, or those that the adapter was trained
    with; so does `timestamps`, "bare" or "wrapped", for models that write the times of frames (see
    `chat.unwrap_clips`). Returns (model, processor). Raises ValueError for an unknown preset or reading,
    ConnectionError where the hub cannot be reached, RuntimeError where 4-bit weights are not
    supported, FloatingPointError where the model's numbers overflow.
    """
    base, trained, run_reading = trained_run(preset)
    if adapter is None:
        preset, adapter = base, trained
    if adapter is not None:
        adapter = adapter_folder(adapter)
        run_reading = run_reading or adapter_reading(adapter)
    frames = run_reading.get("frames") if frames is None else frames
    max_pixels = run_reading.get("max_pixels") if max_pixels is None else max_pixels
    if is_hub_name(preset):
        preset = model_folder(preset, online=refuse_unreachable(preset))
    chosen = settings(preset)
    reading = _reading(chosen, frames, max_pixels)
    timestamps = _timestamps(preset, chosen, run_reading, timestamps)
    if unseen_card():
        warnings.warn(unseen_card(), stacklevel=2)
    announce(preset, chosen["source"], four_bit)
    dtype = dtype_for(refuse_other_families(chosen["source"]))
    if torch.cuda.is_available() and "LOCAL_RANK" in os.environ:  # one of several processes
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if backend == "auto":
        backend = "unsloth" if UNSLOTH else "transformers"
    load_with = _load_unsloth if backend == "unsloth" else _load_transformers
    model, processor = load_with(chosen["source"], four_bit, dtype)
    check_processor(processor, preset)
    processor.tokenizer.padding_side = "left"
    processor.reading = reading
    processor.timestamps = timestamps
    fork_states(model)
    check_finite(model)
    cache_vision_features(model)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    return model.eval(), processor


def _reading(chosen: dict, frames: int | None, max_pixels: int | None) -> dict:
    """Return how clips are read: a preset's settings, but for those given."""
    reading = {key: chosen[key] for key in READING}
    if frames is not None:
        reading["frames"] = frames
    if max_pixels is not None:
        reading["max_pixels"] = max_pixels
    if (
        reading["frames"] < 2
        or reading["frames"] % 2
        or reading["max_pixels"] < chosen["multiple"] ** 2
    ):
        raise ValueError(
            f"load: expected an even number of frames and max_pixels of at least {chosen['multiple']}², found {reading}"
        )
    return reading


def _timestamps(preset: str, chosen: dict, trained: dict, given: str | None) -> str | None:
    """Return how a prompt writes the times of frames: as given, as trained, or as the preset says.

    None where it has none.
    """
    if "timestamps" not in chosen:
        if given is not None:
            raise ValueError(
                f"timestamps: expected none for {preset}, whose prompts hold no times, found {given!r}"
            )
        return None
    if given is None and trained:
        given = trained.get("timestamps", "wrapped")  # older runs had no choice
    given = given or chosen["timestamps"]
    if given not in TIMESTAMPS:
        raise ValueError(f"timestamps: expected one of {', '.join(TIMESTAMPS)}, found {given!r}")
    return given


# ---- numbers that a type of number can hold ------------------------------------------------------


@torch.no_grad()
def check_finite(model) -> None:
    """Take one small forward.

    A tower that overflows float16 is put in float32, another overflow is an error. Such a model
    would answer "!!!!!!", and be scored as wrong.
    """
    tower = model.model.visual
    if not _tower_is_finite(tower) and tower.dtype == torch.float16:
        tower.float()
        print("the vision tower overflows float16 and is put in float32")
    ids = torch.arange(10, 26, device=model.device)[None]  # any text
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    if not (_tower_is_finite(tower) and logits.isfinite().all()):
        raise FloatingPointError(
            f"load: NaN or infinite numbers in {model.dtype}: the weights are damaged, or too large for it. Download them "
            "again, load in bfloat16 or float32 (a card from 2020 on), or take another preset"
        )


def _tower_is_finite(tower) -> bool:
    """Run the tower on noise of the size of pixels: two frames of four by four patches."""
    config = tower.config
    values = getattr(config, "in_channels", 3) * config.temporal_patch_size * config.patch_size**2
    noise = torch.randn(16, values, generator=torch.Generator().manual_seed(0))
    grid = torch.tensor([[1, 4, 4]], device=tower.device)
    output = tower(noise.to(tower.device, tower.dtype), grid_thw=grid)
    return bool(output.pooler_output.isfinite().all())


# ---- the two loaders -----------------------------------------------------------------------------


def _load_transformers(source: str, four_bit: bool, dtype: torch.dtype):
    from transformers import AutoModelForImageTextToText

    processor = load_processor(source)
    kwargs = {"dtype": dtype, "use_safetensors": True}
    if four_bit:
        kwargs["quantization_config"] = _nf4(dtype)
    if torch.cuda.is_available():
        kwargs["device_map"] = {"": torch.cuda.current_device()}
    model = AutoModelForImageTextToText.from_pretrained(source, **kwargs)
    # bitsandbytes 0.50 repacks weights on the first reply, in bfloat16, and then has no gradient
    # through them: training after generating would stop
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    allow_packed(model)
    return model, processor


def _nf4(dtype: torch.dtype):
    """Return QLoRA's quantisation (arXiv 2305.14314); vision tower and head stay as they are."""
    from transformers import BitsAndBytesConfig

    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise RuntimeError(
            f"4-bit weights need bitsandbytes ({error}); install it or pass four_bit=False"
        ) from None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[".*visual", "lm_head"],
    )


def _load_unsloth(source: str, four_bit: bool, dtype: torch.dtype):
    from unsloth import FastVisionModel

    kwargs = {} if torch.cuda.is_available() else {"device_map": "cpu"}
    return FastVisionModel.from_pretrained(
        source,
        load_in_4bit=four_bit,
        dtype=dtype,
        max_seq_length=4096,
        use_gradient_checkpointing=_unsloth_checkpointing(),
        **kwargs,
    )


def _unsloth_checkpointing() -> str | bool:
    """Return Unsloth's own checkpointing on CUDA, none elsewhere."""
    return "unsloth" if torch.cuda.is_available() else False


def add_lora(model, name: str = "default", seed: int = 0):
    """Attach a LoRA adapter to the language layers.

    `name` is "paper" or "default"; a model that has one is returned. Returns a PEFT model in which
    the adapter alone is trainable, in float32.
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
            model,
            finetune_vision_layers=False,
            finetune_mlp_modules="down_proj" in modules,
            random_state=seed,
            use_gradient_checkpointing=_unsloth_checkpointing(),
            **chosen,
        )
    from peft import LoraConfig, get_peft_model

    target = rf".*language_model.*\.({'|'.join(modules)})"
    return get_peft_model(model, LoraConfig(target_modules=target, task_type="CAUSAL_LM", **chosen))


def fingerprint_adapter(model) -> str:
    """Name the adapter in a model as `run_folder.fingerprint` names its saved file.

    "none" where it has learned nothing.
    """
    weights = adapter_weights(model)
    learned = any(bool(weight.any()) for name, weight in weights.items() if "lora_B" in name)
    if not learned:
        return "none"
    return sha256(save(weights, {"format": "pt"})).hexdigest()[:16]


def adapter_weights(model) -> dict:
    """Return a copy of the weights of a model's adapter, by the names they are saved under."""
    from peft import get_peft_model_state_dict

    weights = {}
    for name, weight in get_peft_model_state_dict(model).items():
        weights[name] = weight.detach().cpu().clone().contiguous()
    return weights
