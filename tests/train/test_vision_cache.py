"""The vision tower once: the same features as the plain tower's, each clip run a single time."""

import pytest
import torch
from random_models import KINDS, architecture

from stlite.data import prompts
from stlite.train import vision_cache as tower
from stlite.train.generation import encode
from stlite.train.models import load


@pytest.fixture(params=KINDS)
def seen(request, training, videos, tmp_path):
    """Load a model of random weights and give it three rows, two of one clip, as model inputs."""
    model, processor = load(str(architecture(request.param, tmp_path)), four_bit=False)
    unlike = list({s.video: s for s in training}.values())[:2]
    chats = [prompts.messages(s) for s in (unlike[0], unlike[1], unlike[0])]
    inputs = encode(processor, chats, videos)
    return model, inputs


def again(model, folder):
    """Forget what the tower knows and keep features under another folder."""
    visual = model.model.visual
    visual.forward = visual.feature_cache.plain
    del visual.feature_cache
    return tower.cache_vision_features(model, folder)


def test_each_clip_is_encoded_once_and_the_logits_are_the_same(seen, tmp_path):
    model, inputs = seen
    memory = model.model.visual.feature_cache
    rows = inputs["video_grid_thw"].prod(1).tolist()
    with torch.no_grad():
        memory.tower.forward = memory.plain
        plain = model(**inputs).logits
        memory = again(model, tmp_path / "kept")
        for asked in (1, 2):
            assert torch.allclose(model(**inputs).logits, plain, atol=1e-5)
            assert (memory.rows_requested, memory.rows_computed) == (
                asked * sum(rows),
                sum(rows[:2]),
            )
        memory = again(model, tmp_path / "kept")  # another run: from disk
        assert (
            torch.allclose(model(**inputs).logits, plain, atol=1e-5) and memory.rows_computed == 0
        )
        first, _ = sorted((tmp_path / "kept").iterdir())
        first.write_bytes(first.read_bytes()[:-10])
        memory = again(model, tmp_path / "kept")  # a torn file: that clip is encoded again
        assert torch.allclose(
            model(**inputs).logits, plain, atol=1e-5
        ) and 0 < memory.rows_computed < sum(rows[:2])
        blind = {**inputs, "pixel_values_videos": inputs["pixel_values_videos"] * 0}
        assert not torch.allclose(model(**blind).logits, plain, atol=1e-3)


def test_a_tower_that_trains_or_has_trained_is_run_again(seen, tmp_path):
    model, inputs = seen
    memory = again(model, tmp_path / "kept")
    with torch.no_grad():
        before = model(**inputs).logits
    model.requires_grad_(True)
    run = memory.rows_computed
    model(**inputs).logits.sum().backward()
    weight = next(memory.tower.parameters())
    assert (
        memory.rows_computed == run and weight.grad.abs().max() > 0
    )  # the plain tower, with its gradient
    with torch.no_grad():
        weight.mul_(-1)
        after = model(**inputs).logits
    assert memory.rows_computed > run and not torch.allclose(before, after, atol=1e-3)
    model.requires_grad_(False)
    assert torch.allclose(model(**inputs).logits, after, atol=1e-5)


@pytest.mark.parametrize(
    "change", ["in place", "replaced", "rows exchanged", "columns exchanged", "frequencies"]
)
def test_weights_changed_through_data_are_noticed(seen, tmp_path, change):
    """As PEFT's merge changes them: the version that autograd counts stays as it was."""
    model, inputs = seen
    memory = again(model, tmp_path / "kept")
    with torch.no_grad():
        before = model(**inputs).logits
        weight = max(memory.tower.parameters(), key=lambda p: p.numel() if p.ndim == 2 else 0)
        if change == "in place":
            weight.data.mul_(1.5)
        elif change == "replaced":
            weight.data = -weight.data
        elif change == "rows exchanged":
            weight.data.copy_(weight.data.flip(0))
        elif change == "frequencies":
            for buffer in memory.tower.buffers():
                buffer.mul_(1.5)
        else:
            weight.data.copy_(weight.data.flip(1))
        after = model(**inputs).logits
        memory.tower.forward = memory.plain
        expected = model(**inputs).logits
    assert torch.allclose(after, expected, atol=1e-5)
    assert not torch.allclose(before, after, atol=1e-3)


def test_features_of_other_libraries_are_not_used(seen, tmp_path, monkeypatch):
    model, inputs = seen
    with torch.no_grad():
        model(**inputs)
        memory = again(model, tmp_path / "kept")
        model(**inputs)
        monkeypatch.setattr(tower, "LIBRARIES", "torch 3.0 transformers 6.0")
        memory = again(model, tmp_path / "kept")
        model(**inputs)
    assert memory.rows_computed > 0
