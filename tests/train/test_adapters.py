"""Merging: the same model afterwards, loadable by its folder alone; what is not the same is refused with numbers."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from stlite.train import sft as train
from stlite.train.adapters import merge, verify
from stlite.train.models import load
from stlite.train.presets import PRESETS, settings


@pytest.fixture(scope="module")
def trained(training, videos, tmp_path_factory):
    """Teach the tiny model in 4 bits for three steps; return the adapter's folder."""
    out = tmp_path_factory.mktemp("trained")
    train.sft(*load("tiny"), training[:8], out, videos=videos, max_steps=3, per_device_train_batch_size=4,
              gradient_accumulation_steps=1, learning_rate=2e-3, disable_tqdm=True)  # fmt: skip
    return out / "adapter"


@pytest.fixture(scope="module")
def merged(trained):
    """Merge it."""
    return merge("tiny", trained, trained.parent / "merged")


def test_a_merged_model_is_the_model_that_was_trained(merged, trained, training, videos):
    found = verify(merged, "tiny", trained, training[:8], videos, max_new_tokens=48)
    assert found["same"] >= 6
    assert found["mean"] < 0.02 < found["adapter"]
    weights = load_file(merged / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.bfloat16}
    assert settings(str(merged)) == {**PRESETS["tiny"], "source": str(merged)}
    assert [p.name for p in merged.parent.glob("merged*")] == ["merged"]


@pytest.mark.parametrize("damage", ["base", "vision", "processor"])
def test_what_is_not_the_same_is_refused_with_numbers(
    merged, trained, training, videos, tmp_path, damage
):
    other = tmp_path / "other"
    shutil.copytree(merged, other)
    if damage == "base":  # the adapter was never merged
        shutil.copy(PRESETS["tiny"]["source"] + "/model.safetensors", other)
    elif damage == "vision":
        weights = load_file(other / "model.safetensors")
        name = next(n for n in weights if "visual" in n and "merger" in n and n.endswith("weight"))
        save_file(
            weights | {name: weights[name] * 2}, other / "model.safetensors", {"format": "pt"}
        )
    else:
        path = other / "processor_config.json"
        config = json.loads(path.read_text())
        config["video_processor"]["image_mean"] = [0.0, 0.0, 0.0]
        path.write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match=r"not the model that was trained.*'mean': \d"):
        verify(other, "tiny", trained, training[:2], videos, max_new_tokens=24)


def test_four_bit_weights_are_refused(trained, tmp_path):
    load("tiny")[0].save_pretrained(tmp_path / "nf4")
    load("tiny")[1].save_pretrained(tmp_path / "nf4")
    with pytest.raises(ValueError, match="quantised.*name the full model"):
        merge(str(tmp_path / "nf4"), trained, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_left_alone(merged, trained):
    with pytest.raises(ValueError, match="not there yet"):
        merge("tiny", trained, merged)
