"""The CUDA route on a CPU: Unsloth's real loader, LoRA and patched trainer through our own functions; names; calls."""

import json
import os
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KINDS = {"qwen2": "Qwen2VL", "qwen2.5": "Qwen2_5_VL", "qwen3": "Qwen3VL"}


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
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *found, calls = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
    return calls | dict(zip(KINDS, found, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_unsloth_trains_on_videos_through_our_functions(contract, kind):
    seen = contract[kind]
    assert seen["model"] == KINDS[kind] + "ForConditionalGeneration"
    assert seen["trainer"] == "UnslothGRPOTrainer"
    assert seen["sft"]["moved"] > 0
    assert seen["grpo"]["moved"] > 0
    assert all("language_model" in name and "lora_" in name for name in seen["trained"])


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_reach_every_pass_over_a_prompt(contract, kind):
    for stage in ("sft", "grpo"):
        passes = contract[kind][stage]["passes"]
        assert [name for name, _ in passes].count("train") == 3  # the dry run and two steps
        assert all(pixels for _, pixels in passes), passes
    assert [name for name, _ in contract[kind]["grpo"]["passes"]].count("score") >= 8


@pytest.mark.parametrize("kind", KINDS)
def test_the_parity_gate_passes_and_closes_on_black_videos(contract, kind):
    parity = contract[kind]["parity"]
    assert parity["max"] <= 1e-4
    assert parity["no_pixels_delta"] > 100 * parity["max"]
    assert contract[kind]["blinded"].startswith("parity: training and direct forward differ")


@pytest.mark.parametrize("kind", KINDS)
def test_the_tower_runs_once_for_a_clip_and_its_features_are_exact(contract, kind):
    tower = contract[kind]["tower"]
    assert (
        0 < tower["run"] <= (tower["clips"] + 2) * tower["rows"]
    )  # the parity gate blackens two more
    assert tower["asked"] > 5 * tower["run"]
    assert tower["difference"] <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_batches_answer_as_one_by_one_after_training(contract, kind):
    """Unsloth turns the tokenizer's padding to the right for training; replies need it on the left."""
    assert contract[kind]["same"]


def test_our_calls_name_arguments_of_unsloths_signatures(contract):
    assert contract["unknown"] == {"from_pretrained": [], "get_peft_model": []}


def test_every_preset_has_a_four_bit_model_in_unsloths_mapper(contract):
    assert contract["unmapped"] == []
