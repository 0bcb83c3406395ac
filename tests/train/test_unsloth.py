"""The CUDA route on a CPU: Unsloth's real loader and LoRA under our trainer, and under its own; names; calls."""

import json
import os
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest
from safetensors.torch import load_file
from unsloth_contract import GROUP, spread

from stlite.train.grpo import grpo
from stlite.train.models import add_lora, load
from stlite.train.presets import PRESETS

ROOT = Path(__file__).resolve().parents[2]
KINDS = {"qwen2": "Qwen2VL", "qwen2.5": "Qwen2_5_VL", "qwen3": "Qwen3VL", "qwen3.5": "Qwen3_5"}


@pytest.fixture(scope="module")
def contract(tmp_path_factory) -> dict:
    """Run the contract in its own process, because Unsloth replaces parts of transformers and TRL for good."""
    if not util.find_spec("unsloth"):
        pytest.skip("unsloth is not installed")
    folder = tmp_path_factory.mktemp("unsloth")  # Unsloth writes its compiled cache where it runs
    script = Path(__file__).parent / "unsloth_contract.py"
    command = [sys.executable, str(script), str(folder), *KINDS]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "STLITE_CACHE": str(folder / "cache"),
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    *found, calls = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
    return calls | dict(zip(KINDS, found, strict=True)) | {"folder": folder}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", ["sft", "grpo", "unsloth"])
def test_each_stage_trains_on_videos(contract, kind, stage):
    seen = contract[kind]
    assert seen["model"] == KINDS[kind] + "ForConditionalGeneration"
    assert seen[stage]["moved"] > 0
    assert all("language_model" in name and "lora_" in name for name in seen["trained"])
    assert all(pixels for _, pixels, _ in seen[stage]["passes"])


@pytest.mark.parametrize("kind", KINDS)
def test_our_trainer_reads_each_prompt_once_and_unsloths_every_copy(contract, kind):
    """Two groups of two go through each of three backward passes: the dry run's and two steps'."""
    rows = {}
    for stage in ("grpo", "unsloth"):
        passes = contract[kind][stage]["passes"]
        rows[stage] = [rows for name, _, rows in passes if name == "train"]
    assert rows["grpo"][-4:] == [1] * 4
    assert len(rows["grpo"]) == 5  # the dry run's copies are all of one prompt
    assert rows["unsloth"] == [4] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", ["grpo", "unsloth"])
def test_parity_holds_and_closes_on_black_videos(contract, kind, stage):
    parity = contract[kind][stage]
    assert parity["max"] <= 1e-4
    assert parity["no_pixels_delta"] > 100 * parity["max"]
    assert contract[kind]["blinded"].startswith("parity: training and direct forward differ")


@pytest.mark.parametrize("kind", KINDS)
def test_our_steps_are_those_of_the_plain_route(contract, kind, training, videos, tmp_path):
    """From the same adapter, two GRPO steps without Unsloth end at the same weights."""
    folder = contract["folder"] / kind
    before = folder / "before-grpo"
    source = folder / (kind if kind == "qwen3.5" else f"{kind}-vl")
    model, processor = load(str(source), four_bit=False, adapter=before)
    how = {"max_steps": 2, "disable_tqdm": True, "dry": True, "rewards": [spread], **GROUP}
    grpo(model, processor, training[:4], tmp_path, videos=videos, **how)
    start = load_file(before / "adapter_model.safetensors")
    expected = load_file(folder / "grpo" / "adapter" / "adapter_model.safetensors")
    found = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert found.keys() == expected.keys() == start.keys()
    for name, value in expected.items():
        moved = (value - start[name]).abs().max()
        assert (found[name] - value).abs().max() <= 0.01 * moved, name


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_of_both_routes_train_the_same_matrices(contract, kind):
    """Of Qwen3.5 also those of its recurrent layers."""
    folder = contract["folder"] / kind
    source = folder / (kind if kind == "qwen3.5" else f"{kind}-vl")
    model = add_lora(load(str(source), four_bit=False)[0])
    plain = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert set(contract[kind]["trained"]) == plain
    recurrent = {name.split(".")[-4] for name in plain if "linear_attn" in name}
    expected = {"in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj"}
    assert recurrent == (expected if kind == "qwen3.5" else set())


@pytest.mark.parametrize("kind", KINDS)
def test_the_tower_runs_once_for_a_clip_and_its_features_are_exact(contract, kind):
    tower = contract[kind]["tower"]
    # the parity gate blackens two clips
    assert 0 < tower["run"] <= (tower["clips"] + 2) * tower["rows"]
    assert tower["asked"] > 4 * tower["run"]
    assert tower["difference"] <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_batches_answer_as_one_by_one_after_training(contract, kind):
    """Unsloth turns the tokenizer's padding to the right for training; replies need it on the left."""
    assert contract[kind]["same"]


def test_our_calls_name_arguments_of_unsloths_signatures(contract):
    assert contract["unknown"] == {"from_pretrained": [], "get_peft_model": []}


def test_every_preset_has_a_four_bit_model_in_unsloths_mapper(contract):
    recurrent = [name for name in PRESETS if name.startswith("qwen3.5")]  # quantised as they load
    assert contract["unmapped"] == recurrent
