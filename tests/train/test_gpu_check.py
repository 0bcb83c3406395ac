"""The first thirty minutes on a card, on a CPU: the script refuses, or does all of it with the tiny model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(*arguments) -> subprocess.CompletedProcess:
    """Run the script."""
    how = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), *map(str, arguments)]
    return subprocess.run(command, env=how, capture_output=True, text=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so():
    done = run()
    assert done.returncode == 1
    assert "no CUDA card was found; --cpu" in done.stderr


def test_the_tiny_model_is_checked_and_measured_whole(tmp_path):
    how = ["--frames", 8, "--groups", 0, 2, "--tokens", 6, "--questions", 4]
    done = run("--cpu", *how, "--out", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "gpu_check.json").read_text())
    assert len(report["checks"]) == 8
    assert [row["check"] for row in report["checks"] if row["verdict"] != "as expected"] == []
    sft, grpo = report["fits"]
    assert (sft["stage"], grpo["stage"], grpo["G"]) == ("SFT", "GRPO", 2)
    for row in (sft, grpo):
        assert 0.2 < row["peak GB"] < 20 and row["s/step"] > 0, row
    text = (tmp_path / "gpu_check.md").read_text()
    assert "| check | verdict | found |" in text and "| preset | stage | frames | G |" in text
    assert " of 4 right" in text


def test_what_cannot_be_measured_is_noted(tmp_path):
    how = ["--models", "nowhere", "--frames", 8, "--groups", 0, "--tokens", 4]
    checks = ["versions and kernels", "parity in this number format"]
    done = run("--cpu", *how, "--only", *checks, "--out", tmp_path)
    assert done.returncode == 0
    report = json.loads((tmp_path / "gpu_check.json").read_text())
    assert "found 'nowhere'" in report["fits"][0]["note"]
    failed = [row for row in report["checks"] if row["verdict"] == "LOOK HERE"]
    assert [row["check"] for row in failed] == checks[1:]
    assert "found 'nowhere'" in failed[0]["found"]
