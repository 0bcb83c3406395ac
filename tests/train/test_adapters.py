"""Merging: the same model afterwards, loadable by its folder alone; what is not the same is refused with numbers."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from random_models import KINDS, architecture
from safetensors.torch import load_file, save_file

from stlite.train import adapters
from stlite.train.adapters import merge, verify
from stlite.train.models import add_lora, load
from stlite.train.presets import PRESETS, settings
from stlite.train.sft import sft

SMALL = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "disable_tqdm": True}


def teach(out, training, videos, **how):
    """Teach the tiny model in 4 bits; return the adapter's folder."""
    sft(*load("tiny"), training[:8], out, videos=videos, **SMALL, **how)
    return out / "adapter"


@pytest.fixture(scope="module")
def trained(training, videos, tmp_path_factory):
    """Teach for three steps, at a rate that moves the model far."""
    return teach(
        tmp_path_factory.mktemp("trained"), training, videos, max_steps=3, learning_rate=2e-3
    )


@pytest.fixture(scope="module")
def barely(training, videos, tmp_path_factory):
    """Teach for one step, at a rate that moves the model less than rounding does."""
    out = tmp_path_factory.mktemp("barely")
    return teach(out, training, videos, max_steps=1, learning_rate=3e-6, warmup_steps=0)


@pytest.fixture(scope="module")
def merged(trained):
    """Merge it."""
    return merge("tiny", trained, trained.parent / "merged")


def test_a_merged_model_is_the_model_that_was_trained(merged, trained, training, videos):
    result = verify(merged, "tiny", trained, training[:8], videos, max_new_tokens=48)
    assert result["same"] >= 6
    assert result["mean"] < 0.02 < result["adapter"]
    weights = load_file(merged / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.bfloat16}
    assert settings(str(merged)) == {**PRESETS["tiny"], "source": str(merged)}
    assert [p.name for p in merged.parent.glob("merged*")] == ["merged"]


def test_a_right_merge_after_short_training_is_recognised(barely, training, videos, tmp_path):
    """Formerly refused: what the adapter moved was less than ten times what rounding to bfloat16 moves."""
    folder = merge("tiny", barely, tmp_path / "merged")
    result = verify(folder, "tiny", barely, training[:2], videos, max_new_tokens=24)
    assert result["mean"] > 0.1 * result["adapter"]
    assert result["mean"] == pytest.approx(result["rounding"], rel=0.01)


def test_a_merge_that_was_forgotten_is_refused_after_short_training_too(
    barely, training, videos, tmp_path
):
    folder = merge("tiny", barely, tmp_path / "merged")
    shutil.copy(PRESETS["tiny"]["source"] + "/model.safetensors", folder)
    with pytest.raises(
        RuntimeError, match="nearer to the merge than to the model without its adapter: False"
    ):
        verify(folder, "tiny", barely, training[:2], videos, max_new_tokens=24)


def damage_base(folder):
    """Put the weights back to which nothing was merged."""
    shutil.copy(PRESETS["tiny"]["source"] + "/model.safetensors", folder)


def damage_vision(folder):
    """Double a matrix of the tower."""
    weights = load_file(folder / "model.safetensors")
    name = next(n for n in weights if "visual" in n and "merger" in n and n.endswith("weight"))
    save_file(weights | {name: weights[name] * 2}, folder / "model.safetensors", {"format": "pt"})


def damage_twice(folder):
    """Add what the adapter adds a second time."""
    base = load_file(PRESETS["tiny"]["source"] + "/model.safetensors")
    weights = load_file(folder / "model.safetensors")
    twice = {name: (2 * weights[name].float() - base[name].float()).bfloat16() for name in weights}
    save_file(twice, folder / "model.safetensors", {"format": "pt"})


def damage_processor(folder):
    """Shift the pixels."""
    path = folder / "processor_config.json"
    config = json.loads(path.read_text())
    config["video_processor"]["image_mean"] = [0.0, 0.0, 0.0]
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("damage", [damage_base, damage_vision, damage_twice, damage_processor])
def test_what_is_not_the_same_is_refused_with_numbers(
    merged, trained, training, videos, tmp_path, damage
):
    other = shutil.copytree(merged, tmp_path / "other")
    damage(other)
    with pytest.raises(RuntimeError, match=r"not the model that was trained.*'mean': \d"):
        verify(other, "tiny", trained, training[:2], videos, max_new_tokens=24)


def test_an_unreadable_video_stops_a_comparison(merged, trained, training, tmp_path):
    with pytest.raises(ValueError, match="verify: expected videos that can be read"):
        verify(merged, "tiny", trained, training[:2], tmp_path, max_new_tokens=8)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_weights_are_those_that_peft_merges_in_every_family(kind, tmp_path):
    source = str(architecture(kind, tmp_path))
    model = add_lora(load(source, four_bit=False)[0])
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.05)
    model.save_pretrained(tmp_path / "adapter")
    folder = merge(source, tmp_path / "adapter", tmp_path / "merged")
    expected = dict(model.merge_and_unload().named_parameters())
    found = dict(load(str(folder), four_bit=False)[0].named_parameters())
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(weight.bfloat16(), found[name].bfloat16()), name


def test_a_model_in_several_files_is_merged_file_by_file(merged, trained, tmp_path, monkeypatch):
    model, processor = load("tiny", four_bit=False)
    model.bfloat16().save_pretrained(tmp_path / "parts", max_shard_size="1MB")
    processor.save_pretrained(tmp_path / "parts")
    files = sorted(path.name for path in (tmp_path / "parts").glob("*.safetensors"))
    assert len(files) > 3
    whole = load_file(merged / "model.safetensors")
    held = []
    write = adapters.save_file

    def watch(tensors, *args):
        held.append(sum(weight.numel() for weight in tensors.values()))
        write(tensors, *args)

    monkeypatch.setattr(adapters, "save_file", watch)
    folder = merge(str(tmp_path / "parts"), trained, tmp_path / "merged")
    assert sorted(path.name for path in folder.glob("*.safetensors")) == files
    assert max(held) < sum(held) / 3
    loaded = dict(load(str(folder), four_bit=False)[0].named_parameters())
    plain = dict(load(str(merged), four_bit=False)[0].named_parameters())
    assert all(torch.equal(weight, plain[name]) for name, weight in loaded.items())
    assert len(whole) == sum(len(load_file(folder / name)) for name in files)


def test_four_bit_weights_are_refused(trained, tmp_path):
    load("tiny")[0].save_pretrained(tmp_path / "nf4")
    load("tiny")[1].save_pretrained(tmp_path / "nf4")
    with pytest.raises(ValueError, match="quantised.*name the full model"):
        merge(str(tmp_path / "nf4"), trained, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_another_model_is_refused(trained, tmp_path):
    other = str(architecture("qwen3", tmp_path))
    with pytest.raises(ValueError, match="adapter: .*expected"):
        merge(other, trained, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "kind", [{"use_dora": True}, {"rank_pattern": {"q_proj": 4}}, {"bias": "all"}]
)
def test_an_adapter_that_is_not_plain_lora_is_refused(kind, tmp_path):
    model = load("tiny", four_bit=False)[0]
    config = LoraConfig(target_modules=r".*language_model.*\.q_proj", r=8, **kind)
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="expected an adapter of plain LoRA"):
        merge("tiny", tmp_path / "adapter", tmp_path / "out")


def test_a_rank_stabilised_adapter_is_merged_at_its_own_scale(tmp_path):
    model = load("tiny", four_bit=False)[0]
    config = LoraConfig(
        target_modules=r".*language_model.*\.q_proj", r=4, lora_alpha=8, use_rslora=True
    )
    model = get_peft_model(model, config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.05)
    model.save_pretrained(tmp_path / "adapter")
    folder = merge("tiny", tmp_path / "adapter", tmp_path / "merged")
    expected = dict(model.merge_and_unload().named_parameters())
    found = dict(load(str(folder), four_bit=False)[0].named_parameters())
    assert all(torch.equal(w.bfloat16(), found[n].bfloat16()) for n, w in expected.items())


def test_a_folder_in_use_is_left_alone(merged, trained):
    with pytest.raises(ValueError, match="not there yet"):
        merge("tiny", trained, merged)


def test_a_disk_without_room_is_said_before_anything_is_written(trained, tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="disk: .*out: expected 0.0 GB free, found 0.0"):
        merge("tiny", trained, tmp_path / "out")
    assert not list(tmp_path.iterdir())
