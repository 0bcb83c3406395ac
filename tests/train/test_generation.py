"""Clips and chats to inputs, replies drawn by settings of ours alone, and guards."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_models import KINDS, architecture
from transformers import AutoProcessor, GenerationConfig, Qwen2VLProcessor
from transformers.cache_utils import Cache, DynamicLayer

from stlite.data import prompts
from stlite.data.sample import SampleError
from stlite.data.video import ClipError, read_clip
from stlite.rewards.parse import parse
from stlite.train.caches import RoomyLayer
from stlite.train.generation import (
    clip_metadata,
    cut_at_end,
    encode,
    generate,
    sampling,
    suppressed_tokens,
    without_own_settings,
)
from stlite.train.models import add_lora, load
from stlite.train.patched_processor import patch_video_processor


def test_the_processor_is_given_the_frames_of_the_reader(tiny, training, videos):
    _, processor = tiny
    sample = training[0]
    clip = read_clip(sample.video, frames=16, max_pixels=84 * 84, multiple=28, root=videos)
    inputs = encode(processor, [prompts.messages(sample)], videos)
    again = processor.video_processor(
        videos=[torch.tensor(np.moveaxis(clip.frames, -1, 1))],
        return_tensors="pt",
        do_resize=False,
        do_sample_frames=False,
    )
    assert torch.equal(inputs["pixel_values_videos"], again["pixel_values_videos"])
    assert inputs["video_grid_thw"].tolist() == [[8, 6, 6]]


def test_metadata_carry_measured_times(training, videos):
    clip = read_clip(training[0].video, frames=16, max_pixels=84 * 84, multiple=28, root=videos)
    about = clip_metadata(clip)
    assert about["frames_indices"] == list(clip.indices)  # the walks have a constant rate
    late = replace(clip, seconds=clip.seconds + 2)
    moved = np.array(clip_metadata(late)["frames_indices"]) - about["frames_indices"]
    assert set(moved) == {round(2 * clip.fps)}


def test_times_reach_a_prompt_that_writes_them(training, videos, tmp_path):
    """Qwen3-VL's prompt holds the mean second of each pair of frames."""
    _, processor = load(str(architecture("qwen3", tmp_path)), four_bit=False)
    clip = read_clip(training[0].video, root=videos, **processor.reading)
    inputs = encode(processor, [prompts.messages(training[0])], videos)
    text = processor.decode(inputs["input_ids"][0])
    for first, second in clip.seconds.reshape(-1, 2):
        assert f"<{(first + second) / 2:.1f} seconds>" in text


def test_an_order_of_frames_reaches_the_pixels(tiny, training, videos):
    _, processor = tiny
    chats = [prompts.messages(training[0])]
    pixels = {
        o: encode(processor, chats, videos, o)["pixel_values_videos"]
        for o in ("forward", "reversed", "blank")
    }
    assert pixels["forward"].shape == pixels["reversed"].shape
    assert not torch.equal(pixels["forward"], pixels["reversed"])
    assert len(pixels["blank"].unique()) <= 3  # one grey in each of three channels


def test_nothing_of_a_call_stays_on_the_processor(tiny, training, videos, tmp_path):
    _, processor = tiny
    before = processor.video_processor.to_dict()
    encode(processor, [prompts.messages(training[0])], videos, "reversed")
    assert processor.video_processor.to_dict() == before
    assert type(processor.video_processor).__name__ == "Qwen2VLVideoProcessor"


@pytest.mark.parametrize("path", ["https://example.com/a.mp4", "/etc/passwd", "../videos/a.mp4"])
def test_urls_and_paths_outside_the_root_are_refused(tiny, videos, training, path):
    _, processor = tiny
    sample = replace(training[0], id="x")
    object.__setattr__(sample, "video", path)
    with pytest.raises((SampleError, ClipError)):
        encode(processor, [prompts.messages(sample)], videos)


def test_a_patched_processor_reads_saves_and_reloads(training, videos, tmp_path):
    """For a trainer that hands it paths: the frames of our reader, no URL, no list of images."""
    _, processor = load("tiny")
    patch_video_processor(processor, videos)
    clip = read_clip(training[0].video, root=videos, **processor.reading)
    frames, about = processor.video_processor.fetch_videos(training[0].video)
    assert (frames == clip.frames).all()
    assert np.allclose(about.timestamps, clip.seconds, atol=0.5 / clip.fps)
    with pytest.raises((SampleError, ClipError)):
        processor.video_processor.fetch_videos(["https://example.com/a.mp4"])
    with pytest.raises(ValueError, match="list of images"):
        processor.video_processor.fetch_images([["a.png", "b.png"]])
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is Qwen2VLProcessor
    assert type(again.video_processor).__name__ == "Qwen2VLVideoProcessor"
    assert again.chat_template == processor.chat_template


def test_an_unreadable_video_is_named_and_its_neighbours_are_answered(tiny, training, videos):
    lost = replace(training[0], video="part1/lost.mp4")
    good, bad = generate(*tiny, [training[0], lost], videos=videos, max_new_tokens=4)
    assert good["tokens"] == 4
    assert "part1/lost.mp4" in bad["error"]


def test_batches_answer_as_one_by_one(tiny, training, videos):
    together = generate(*tiny, training[:6], videos=videos, max_new_tokens=40)
    alone = [generate(*tiny, [s], videos=videos, max_new_tokens=40)[0] for s in training[:6]]
    assert together == alone


def test_a_reply_goes_on_from_the_start_it_is_given(tiny, training, videos):
    model, processor = tiny
    replies = generate(model, processor, training[:6], videos=videos)
    plain = {s.id: r["reply"] for s, r in zip(training, replies) if "thinking" in r["reply"]}
    samples = [s for s in training[:6] if s.id in plain]
    assert len(samples) > 2
    cut = {name: text[: text.index("thinking") + 8] for name, text in plain.items()}
    again = generate(model, processor, samples, videos=videos, start=lambda s: cut[s.id])
    assert [r["reply"] for r in again] == [*plain.values()]
    turned = generate(
        model, processor, samples, videos=videos, start=lambda s: f"{cut[s.id]} forward"
    )
    assert {parse(r["reply"]).way for r in turned} == {"forward"}


# ---- what decides which tokens are drawn ---------------------------------------------------------

HOSTILE = {  # what a model's own settings might be: each of these alone changes replies
    "do_sample": True, "temperature": 0.01, "top_k": 1, "top_p": 0.001, "min_p": 0.9, "typical_p": 0.1, "top_h": 0.1,
    "epsilon_cutoff": 0.5, "eta_cutoff": 0.5, "repetition_penalty": 5.0, "no_repeat_ngram_size": 2, "num_beams": 3,
    "bad_words_ids": [[270], [271]], "sequence_bias": [[[272], 9.0]], "begin_suppress_tokens": [60, 61, 62],
    "suppress_tokens": [65, 66, 67], "forced_bos_token_id": 70, "forced_eos_token_id": 70, "min_length": 4000,
    "min_new_tokens": 60, "exponential_decay_length_penalty": (1, 5.0), "encoder_repetition_penalty": 3.0,
    "length_penalty": 9.0, "guidance_scale": 2.0, "max_time": 0.001, "renormalize_logits": True,
    "num_return_sequences": 2, "prompt_lookup_num_tokens": 3, "stop_strings": ["the"], "max_length": 3,
    "watermarking_config": {"greenlist_ratio": 0.1, "bias": 20.0},
}  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("adapter", [False, True])
def test_a_models_own_generation_settings_never_count(training, videos, temperature, adapter):
    model, processor = load("tiny", four_bit=False)
    if adapter:
        model = add_lora(model)
    how = {"videos": videos, "max_new_tokens": 40, "temperature": temperature}
    expected = generate(model, processor, training[:3], **how)
    core = model.get_base_model() if adapter else model
    ends = core.generation_config.eos_token_id
    core.generation_config = GenerationConfig(eos_token_id=ends)
    for name, value in HOSTILE.items():
        setattr(core.generation_config, name, value)
    hostile = core.generation_config.to_dict()
    assert generate(model, processor, training[:3], **how) == expected
    assert core.generation_config.to_dict() == hostile  # and are put back


def test_every_setting_of_transformers_is_ours(tiny):
    """Whatever a future version adds: a setting that a model could bring in must come out as if the model had none."""
    model, processor = tiny
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    ours = GenerationConfig(**sampling(model, processor, temperature=1.0))
    with without_own_settings(model):
        expected, _ = core._prepare_generation_config(ours)
    own = core.generation_config
    core.generation_config = GenerationConfig(
        **{k: v for k, v in HOSTILE.items() if k != "watermarking_config"}
    )
    try:
        with without_own_settings(model):
            found, _ = core._prepare_generation_config(ours)
    finally:
        core.generation_config = own
    assert found.to_dict() == expected.to_dict()


def test_sampling_at_temperature_one_draws_different_replies(tiny, training, videos):
    seeds = [
        generate(*tiny, training[3:4], videos=videos, temperature=1.5, seed=n, max_new_tokens=30)
        for n in range(4)
    ]
    assert len({rows[0]["reply"] for rows in seeds}) > 1


def test_modality_tokens_and_rows_that_stand_for_nothing_are_never_written(tiny):
    model, processor = tiny
    ids = suppressed_tokens(model, processor)
    names = processor.tokenizer.convert_ids_to_tokens(
        [i for i in ids if i < len(processor.tokenizer)]
    )
    assert {"<|video_pad|>", "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"} <= set(names)
    assert not {"<think>", "</think>", "<|im_end|>"} & set(names)
    rows = model.get_output_embeddings().weight.shape[0]
    assert set(range(len(processor.tokenizer), rows)) <= set(ids)


def test_suppressed_tokens_know_the_modalities_of_other_families(tiny, training, videos):
    """Qwen3.5 has audio and speech tokens too."""
    model, processor = load("tiny", four_bit=False)
    processor.tokenizer.add_tokens(
        ["<|audio_pad|>", "<tts_text_bos>", "<tool_call>"], special_tokens=True
    )
    ids = suppressed_tokens(model, processor)
    token = processor.tokenizer.convert_tokens_to_ids
    assert {token("<|audio_pad|>"), token("<tts_text_bos>")} <= set(ids)
    assert token("<tool_call>") not in ids


def test_tokens_of_a_reply_end_with_the_one_that_ends_it():
    assert cut_at_end([5, 6, 2, 0, 0], [2, 3]) == [5, 6, 2]
    assert cut_at_end([5, 3, 2, 2], [2, 3]) == [5, 3]
    assert cut_at_end([5, 6], [2]) == [5, 6]
    assert cut_at_end([0, 0, 2], [2]) == [0, 0, 2]  # what pads may also be written


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_an_error_not_a_reply(training, videos, value, temperature):
    """As a model in float16 whose numbers overflow: it would write "!!!!!!" and be scored as wrong."""
    model, processor = load("tiny", four_bit=False)
    model.model.language_model.norm.weight.data[3] = value
    with pytest.raises(FloatingPointError, match="not finite.*bfloat16"):
        generate(
            model, processor, training[:1], videos=videos, max_new_tokens=4, temperature=temperature
        )


def test_a_cache_with_room_gives_the_logits_of_the_plain_one(tiny, training, videos):
    """Across the end of its room, and after rows were chosen anew."""
    model, processor = tiny
    inputs = encode(processor, [prompts.messages(s) for s in training[:2]], videos)
    found = []
    for kind in (DynamicLayer, RoomyLayer):
        cache = Cache(layer_class_to_replicate=kind)
        logits = []
        with torch.no_grad():
            model(**inputs, past_key_values=cache, use_cache=True)
            cache.batch_select_indices(torch.tensor([1, 0]))
            for token in range(RoomyLayer.ROOM + 10):
                if token == 5:
                    cache.batch_select_indices(torch.tensor([1, 1]))
                ids = torch.full((2, 1), 70 + token)
                logits.append(model(input_ids=ids, past_key_values=cache, use_cache=True).logits)
        found.append(logits)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*found, strict=True))
    assert found[0][6].std() > 0.1


@pytest.mark.parametrize("four_bit", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_every_family_answer_as_one_by_one(kind, four_bit, training, videos, tmp_path):
    """Prompts of unequal length are padded on the left, which no attention or recurrent state may see."""
    loaded = load(str(architecture(kind, tmp_path)), four_bit=four_bit, frames=4)
    samples = [training[0], training[7], training[20]]
    how = {"videos": videos, "max_new_tokens": 12}
    alone = [generate(*loaded, [sample], **how)[0] for sample in samples]
    assert generate(*loaded, samples, **how) == alone
