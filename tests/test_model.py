"""Loading, the seam between processor and reader, generation, and guards."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (
    AutoProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLProcessor,
)
from transformers.cache_utils import Cache, DynamicLayer

from stlite.data import prompts
from stlite.data.sample import SampleError
from stlite.data.video import ClipError, read_clip
from stlite.rewards.parse import parse
from stlite.train import models
from stlite.train.models import (
    RoomyLayer,
    add_lora,
    attach,
    check_time,
    encode,
    generate,
    load,
    looking,
    suppressed,
)


def test_an_unknown_preset_lists_the_presets():
    with pytest.raises(ValueError, match="tiny, qwen2-vl-2b.*found 'qwen9'"):
        load("qwen9")


def test_without_bitsandbytes_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(RuntimeError, match="four_bit=False"):
        load("tiny")


def test_weights_are_four_bit_and_the_tower_is_not(tiny):
    model, _ = tiny
    kinds = {n: type(m).__name__ for n, m in model.named_modules() if n.endswith(("q_proj", "qkv"))}
    assert {kinds[n] for n in kinds if "language_model" in n} == {"Linear4bit"}
    assert {kinds[n] for n in kinds if "visual" in n} == {"Linear"}


def test_the_processor_sees_the_frames_of_the_reader(tiny, training, videos):
    _, processor = tiny
    sample = training[0]
    clip = read_clip(sample.video, frames=16, max_pixels=84 * 84, multiple=28, root=videos)
    with looking(processor, videos):
        seen = encode(processor, [prompts.messages(sample)])
    again = processor.video_processor(
        videos=[torch.tensor(np.moveaxis(clip.frames, -1, 1))], return_tensors="pt"
    )
    assert torch.equal(seen["pixel_values_videos"], again["pixel_values_videos"])
    assert seen["video_grid_thw"].tolist() == [[8, 6, 6]]


def test_the_seam_carries_measured_times(tiny, training, videos):
    _, processor = tiny
    clip = read_clip(training[0].video, frames=16, max_pixels=84 * 84, multiple=28, root=videos)
    with looking(processor, videos):
        frames, about = processor.video_processor.fetch_videos(training[0].video)
    assert (frames == clip.frames).all()
    assert about.frames_indices == list(clip.indices)  # the walks have a constant rate
    assert np.allclose(about.timestamps, clip.seconds, atol=0.5 / clip.fps)


def test_an_order_of_frames_reaches_the_pixels(tiny, training, videos):
    _, processor = tiny
    pixels = {}
    for order in ("forward", "reversed", "blank"):
        with looking(processor, videos, order):
            frames, _ = processor.video_processor.fetch_videos(training[0].video)
            pixels[order] = frames
    assert (pixels["forward"][::-1] == pixels["reversed"]).all()
    assert len(np.unique(pixels["blank"])) == 1


def test_a_processor_with_the_seam_saves_and_reloads(tiny, tmp_path):
    _, processor = tiny
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is Qwen2VLProcessor
    assert (
        type(again.video_processor).__name__
        == type(processor.video_processor).__name__
        == "Qwen2VLVideoProcessor"
    )
    assert again.chat_template == processor.chat_template


@pytest.mark.parametrize("path", ["https://example.com/a.mp4", "/etc/passwd", "../videos/a.mp4"])
def test_the_seam_refuses_urls_and_paths_outside_its_root(tiny, videos, path):
    _, processor = tiny
    with looking(processor, videos), pytest.raises((SampleError, ClipError)):
        processor.video_processor.fetch_videos([path])


def test_the_seam_refuses_lists_of_images(tiny, videos):
    _, processor = tiny
    with looking(processor, videos), pytest.raises(ValueError, match="list of images"):
        processor.video_processor.fetch_images([["a.png", "b.png"]])


def test_an_unreadable_video_is_named_and_its_neighbours_are_answered(tiny, training, videos):
    lost = replace(training[0], video="part1/lost.mp4")
    good, bad = generate(*tiny, [training[0], lost], videos=videos, max_new_tokens=4)
    assert good["tokens"] == 4
    assert "part1/lost.mp4" in bad["error"]


def test_batches_answer_as_one_by_one(tiny, training, videos):
    together = generate(*tiny, training[:6], videos=videos, max_new_tokens=40)
    alone = [generate(*tiny, [s], videos=videos, max_new_tokens=40)[0] for s in training[:6]]
    assert together == alone


def test_a_cache_with_room_gives_the_logits_of_the_plain_one(tiny, training, videos):
    """Across the end of its room, after rows were chosen anew, and from a plain layer on."""
    model, processor = tiny
    with looking(processor, videos):
        inputs = encode(processor, [prompts.messages(s) for s in training[:2]])
    found = []
    for kind in (DynamicLayer, RoomyLayer):
        cache, logits = Cache(layer_class_to_replicate=kind), []
        with torch.no_grad():
            model(**inputs, past_key_values=cache, use_cache=True)
            cache.batch_select_indices(torch.tensor([1, 0]))
            if kind is RoomyLayer:
                cache.layers = [RoomyLayer(layer) for layer in cache.layers]
            for token in range(RoomyLayer.ROOM + 10):
                if token == 5:
                    cache.batch_select_indices(torch.tensor([1, 1]))
                logits.append(
                    model(
                        input_ids=torch.full((2, 1), 70 + token),
                        past_key_values=cache,
                        use_cache=True,
                    ).logits
                )
        found.append(logits)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*found, strict=True))
    assert found[0][6].std() > 0.1


def test_a_reply_goes_on_from_the_start_it_is_given(tiny, training, videos):
    model, processor = tiny
    asked = zip(training[:6], generate(model, processor, training[:6], videos=videos))
    plain = {s.id: r["reply"] for s, r in asked if "thinking" in r["reply"]}
    samples = [s for s in training[:6] if s.id in plain]
    assert len(samples) > 2
    cut = {name: text[: text.index("thinking") + 8] for name, text in plain.items()}
    again = generate(model, processor, samples, videos=videos, start=lambda s: cut[s.id])
    assert [r["reply"] for r in again] == [*plain.values()]
    turned = generate(
        model, processor, samples, videos=videos, start=lambda s: f"{cut[s.id]} forward"
    )
    assert {parse(r["reply"]).way for r in turned} == {"forward"}


def test_vision_tokens_are_never_written(tiny):
    _, processor = tiny
    names = processor.tokenizer.convert_ids_to_tokens(suppressed(processor))
    assert {"<|video_pad|>", "<|image_pad|>", "<|vision_start|>"} <= set(names)


def test_lora_touches_the_language_layers_alone_and_once(tiny):
    model = add_lora(tiny[0], "paper")
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all("language_model" in n and "lora_" in n for n in trained)
    assert not any("mlp" in n for n in trained)
    assert add_lora(model) is model
    with pytest.raises(ValueError, match="paper, default"):
        add_lora(load("tiny", four_bit=False)[0], "huge")


def test_the_tiny_model_tells_frames_apart(tiny, training, videos):
    assert check_time(*tiny, training[0], videos) == 8


def test_collapsed_time_is_an_error_with_its_remedy(tiny, training, videos):
    """Qwen2.5-VL gives every pair of frames position 0 when they are less than half a second apart."""
    _, processor = tiny
    net = Qwen2_5_VLForConditionalGeneration(collapsing(processor.tokenizer))
    other = load("tiny")[1]

    def dense(path, **kwargs):
        return replace(
            read_clip(path, frames=16, max_pixels=84 * 84, multiple=28, **kwargs), fps=100.0
        )

    attach(other, dense)
    kind = type(other)
    call = kind.__call__
    faster = type(kind.__name__, (kind,), {"__call__": lambda self, **kw: {
        **call(self, **kw), "second_per_grid_ts": torch.tensor([0.4])}})  # fmt: skip
    other.__class__ = faster
    with pytest.raises(
        ValueError, match="expected 8 distinct temporal positions.*at most 2 frames a second"
    ):
        check_time(net, other, training[0], videos)


def collapsing(tokenizer) -> Qwen2_5_VLConfig:
    """Describe the smallest Qwen2.5-VL that knows this tokenizer's vision tokens."""
    ids = {
        name: tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("video_pad", "image_pad", "vision_start")
    }
    text = {"vocab_size": 384, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 2,
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}  # fmt: skip
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 32,
        "out_hidden_size": 32,
    }
    return Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, video_token_id=ids["video_pad"], image_token_id=ids["image_pad"],
        vision_start_token_id=ids["vision_start"],
    )  # fmt: skip


def test_versions_name_the_device_and_what_works():
    assert "transformers" in models.versions()
    assert "nf4" in models.versions() or "Unsloth" in models.versions()


@pytest.mark.parametrize(
    ("found", "cuda", "said"),
    [
        (
            {
                "trl": "1.14.2",
                "unsloth": "2026.10.7",
                "torch": "2.14.1+cu128",
                "transformers": "5.17.0",
            },
            True,
            [],
        ),
        (
            {"trl": "1.16.0", "unsloth": "2026.10.7"},
            True,
            ["Unsloth refuses trl 1.16.0: install trl==1.15.0"],
        ),
        (
            {"torch": "2.15.0", "unsloth": "2026.10.7"},
            True,
            ["Unsloth refuses torch 2.15.0: install torch==2.14.1"],
        ),
        (
            {"trl": "1.15.0", "unsloth": "absent"},
            False,
            ["trl 1.15 needs Triton for every log-prob: install trl==1.14.2"],
        ),
        ({"trl": "absent", "unsloth": "2026.10.7"}, True, []),
        ({"trl": "1.16.0", "torch": "2.15.0", "unsloth": "absent"}, True, []),
    ],
)
def test_known_bad_combinations_come_with_a_remedy(found, cuda, said):
    assert models.known_bad(found, cuda) == said
