"""Sizes of models, read without torch, against transformers' own classes and the genuine files."""

import json
import os
from pathlib import Path

import pytest
import torch
import transformers

from stlite.train.shapes import CONFIGS, count_adapter, count_weights, shape

CLASSES = {
    "qwen2_vl": "Qwen2VL",
    "qwen2_5_vl": "Qwen2_5_VL",
    "qwen3_vl": "Qwen3VL",
    "qwen3_5": "Qwen3_5",
}
PUBLISHED = {  # billions of weights, as the model pages on the hub count them
    "qwen2-vl-2b": 2.21, "qwen2-vl-7b": 8.29, "qwen2.5-vl-3b": 3.75, "qwen2.5-vl-7b": 8.29,
    "qwen3-vl-2b": 2.13, "qwen3-vl-4b": 4.44, "qwen3-vl-8b": 8.77,
}  # fmt: skip
GENUINE = {  # folders of genuine files, where there are any
    "qwen2-vl-2b-instruct": "qwen2-vl-2b",
    "qwen3-vl-4b-instruct": "qwen3-vl-4b",
    "qwen3.5-0.8b": "qwen3.5-0.8b",
}
GENUINE_ROOT = Path(
    os.environ.get("STLITE_GENUINE", Path(__file__).parents[3] / "shared" / "genuine")
)


def config_of(written: dict):
    """Build transformers' configuration of what a config.json says."""
    values = {name: value for name, value in written.items() if name != "model_type"}
    return getattr(transformers, CLASSES[written["model_type"]] + "Config")(**values)


def model_of(config):
    """Build a model without memory for its weights."""
    kind = CLASSES[config.model_type] + "ForConditionalGeneration"
    with torch.device("meta"):
        model = getattr(transformers, kind)(config)
    model.tie_weights()
    return model


@pytest.mark.parametrize("preset", PUBLISHED)
def test_weights_are_counted_as_published(preset):
    assert sum(count_weights(shape(preset)).values()) / 1e9 == pytest.approx(
        PUBLISHED[preset], rel=0.005
    )


@pytest.mark.parametrize("preset", CONFIGS)
def test_weights_are_those_of_the_class(preset):
    model = model_of(config_of(CONFIGS[preset]))
    counts = count_weights(shape(preset))
    assert sum(counts.values()) == pytest.approx(
        sum(p.numel() for p in model.parameters()), rel=0.001
    )
    packed = 0
    for name, module in model.named_modules():
        if "language_model.layers" in name and isinstance(module, torch.nn.Linear):
            packed += module.weight.numel()
    assert counts["packed"] == packed


@pytest.mark.parametrize("preset", CONFIGS)
def test_a_saved_folder_has_the_shape_it_was_saved_with(preset, tmp_path):
    """transformers leaves out of config.json what equals the class's own values."""
    config_of(CONFIGS[preset]).save_pretrained(tmp_path)
    assert shape(str(tmp_path)) == shape(preset)


@pytest.mark.parametrize("family", CLASSES)
def test_what_a_config_leaves_out_is_what_its_class_has(family, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    model = model_of(getattr(transformers, CLASSES[family] + "Config")())
    counted = sum(count_weights(shape(str(tmp_path))).values())
    assert counted == pytest.approx(sum(p.numel() for p in model.parameters()), rel=0.01)


def test_a_flat_config_is_read(tmp_path):
    """As Qwen2-VL's were in 2024: the language model's sizes at the top, and a short form of the tower's."""
    flat = {**CONFIGS["qwen2-vl-2b"], **CONFIGS["qwen2-vl-2b"]["text_config"]}
    del flat["text_config"]
    flat["vision_config"] = {"hidden_size": 1536, "in_chans": 3, "spatial_patch_size": 14}
    (tmp_path / "config.json").write_text(json.dumps(flat))
    assert shape(str(tmp_path)) == shape("qwen2-vl-2b")


@pytest.mark.parametrize("name", GENUINE)
def test_the_genuine_files_say_the_same(name):
    folder = GENUINE_ROOT / name
    if not folder.is_dir():
        pytest.skip("the genuine files are not here")
    assert shape(str(folder)) == shape(GENUINE[name])


def test_a_family_that_is_not_supported_is_refused_by_name(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "llava"}')
    with pytest.raises(
        ValueError, match="config.json: model_type: expected one of qwen2_vl.*found 'llava'"
    ):
        shape(str(tmp_path))


def test_an_unknown_preset_is_named():
    with pytest.raises(ValueError, match="expected tiny, qwen2-vl-2b.*found 'huge'"):
        shape("huge")


def test_the_tiny_models_weights_and_adapter_are_counted(tiny):
    from stlite.train.models import add_lora

    model = add_lora(tiny[0])
    counts = count_weights(shape("tiny"))
    packed = 0
    plain = 0
    trained = 0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            trained += parameter.numel()
        elif "language_model" in name and type(parameter).__name__ == "Params4bit":
            packed += parameter.numel()
        else:
            plain += parameter.numel()
    assert packed * 2 == counts["packed"]  # two weights a byte
    assert plain == pytest.approx(counts["plain"], rel=0.02)  # norms and biases are not counted
    assert trained == count_adapter(shape("tiny"), rank=16)
