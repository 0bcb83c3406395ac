"""The script for whoever has a card, on a CPU: it refuses, or measures the tiny model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def check(*arguments) -> subprocess.CompletedProcess:
    """Run the script."""
    how = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), *map(str, arguments)]
    return subprocess.run(command, env=how, capture_output=True, text=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so():
    done = check()
    assert done.returncode == 1
    assert "no CUDA card was found; --cpu" in done.stderr


def test_the_tiny_model_is_measured(tmp_path):
    done = check("--cpu", "--frames", 8, "--groups", 0, 2, "--tokens", 6, "--out", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    sft, grpo = json.loads((tmp_path / "gpu_check.json").read_text())["rows"]
    assert (sft["stage"], grpo["stage"], grpo["G"]) == ("SFT", "GRPO", 2)
    assert all(0.2 < row["peak GB"] < 20 and 0 < row["s/step"] < 60 for row in (sft, grpo)), (
        sft,
        grpo,
    )
    lines = (tmp_path / "gpu_check.md").read_text().splitlines()
    assert lines[2].startswith("| preset | stage | frames | G |")
    assert len({line.count("|") for line in lines[2:]}) == 1


def test_what_cannot_be_measured_is_noted(tmp_path):
    done = check("--cpu", "--models", "nowhere", "--frames", 8, "--groups", 0, "--out", tmp_path)
    assert done.returncode == 0
    assert "found 'nowhere' |" in (tmp_path / "gpu_check.md").read_text()
