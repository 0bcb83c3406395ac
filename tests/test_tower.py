"""The vision tower once: the same features as the plain tower's, each clip run a single time."""

import pytest
import torch
from unsloth_contract import architecture

from stlite.data import prompts
from stlite.train import vision_cache as tower
from stlite.train.models import encode, load, looking


@pytest.fixture(params=["qwen2", "qwen2.5", "qwen3"])
def seen(request, training, videos, tmp_path):
    """Load a model of random weights and give it three rows, two of one clip, as model inputs."""
    model, processor = load(str(architecture(request.param, tmp_path)), four_bit=False)
    unlike = list({s.video: s for s in training}.values())[:2]
    with looking(processor, videos):
        inputs = encode(processor, [prompts.messages(s) for s in (unlike[0], unlike[1], unlike[0])])
    return model, inputs


def again(model, folder):
    """Forget what the tower knows and keep features under another folder."""
    model.model.visual.forward = model.model.visual.memory.plain
    del model.model.visual.memory
    return tower.cache_vision_features(model, folder)


def test_each_clip_is_encoded_once_and_the_logits_are_the_same(seen, tmp_path):
    model, inputs = seen
    memory = model.model.visual.memory
    rows = inputs["video_grid_thw"].prod(1).tolist()
    with torch.no_grad():
        memory.tower.forward = memory.plain
        plain = model(**inputs).logits
        memory = again(model, tmp_path / "kept")
        for asked in (1, 2):
            assert torch.allclose(model(**inputs).logits, plain, atol=1e-5)
            assert (memory.asked, memory.run) == (asked * sum(rows), sum(rows[:2]))
        memory = again(model, tmp_path / "kept")  # another run: from disk
        assert torch.allclose(model(**inputs).logits, plain, atol=1e-5) and memory.run == 0
        first, _ = sorted((tmp_path / "kept").iterdir())
        first.write_bytes(first.read_bytes()[:-10])
        memory = again(model, tmp_path / "kept")  # a torn file: that clip is encoded again
        assert torch.allclose(model(**inputs).logits, plain, atol=1e-5) and 0 < memory.run < sum(
            rows[:2]
        )
        blind = {**inputs, "pixel_values_videos": inputs["pixel_values_videos"] * 0}
        assert not torch.allclose(model(**blind).logits, plain, atol=1e-3)


def test_a_tower_that_trains_or_has_trained_is_run_again(seen, tmp_path):
    model, inputs = seen
    memory = again(model, tmp_path / "kept")
    with torch.no_grad():
        before = model(**inputs).logits
    model.requires_grad_(True)
    run = memory.run
    model(**inputs).logits.sum().backward()
    weight = next(memory.tower.parameters())
    assert memory.run == run and weight.grad.abs().max() > 0  # the plain tower, with its gradient
    with torch.no_grad():
        weight.mul_(-1)
        after = model(**inputs).logits
    assert memory.run > run and not torch.allclose(before, after, atol=1e-3)
    model.requires_grad_(False)
    assert torch.allclose(model(**inputs).logits, after, atol=1e-5)
