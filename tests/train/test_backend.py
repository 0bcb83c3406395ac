"""What stands under the models: types of numbers by card, a card that torch cannot see, Unsloth first, versions."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stlite.train import backend, runs
from stlite.train.models import load

ROOT = Path(__file__).resolve().parents[2]


def describe(monkeypatch, bfloat16: bool) -> None:
    """Describe a card to torch; one without bfloat16 still says yes when emulation counts, as a T4 does."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: bfloat16 or including_emulation,
    )


@pytest.mark.parametrize(("bfloat16", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_card_computes_in_what_it_has_and_the_trainers_scale_float16(
    monkeypatch, bfloat16, dtype, tmp_path
):
    """On a T4 both stages must have autocast and a loss scaler, which `fp16` switches on."""
    describe(monkeypatch, bfloat16)
    assert backend.compute_dtype() == dtype
    arguments = runs.arguments(tmp_path, {}, 0)
    assert (arguments["bf16"], arguments["fp16"]) == (bfloat16, not bfloat16)


def test_a_cpu_computes_in_float32(tmp_path):
    assert backend.compute_dtype() == torch.float32
    arguments = runs.arguments(tmp_path, {}, 0)
    assert not arguments["bf16"] and not arguments["fp16"]


def test_a_card_that_torch_cannot_see_is_told(monkeypatch, tmp_path):
    driver = tmp_path / "version"
    monkeypatch.setattr(backend, "DRIVERS", (str(driver),))
    monkeypatch.setattr(backend.shutil, "which", lambda name: None)
    assert backend.unseen_card() == ""
    driver.write_text("NVRM version: 470")
    with pytest.warns(
        UserWarning, match="sees no card, and all runs in float32 on the CPU: update the driver"
    ):
        load("tiny", four_bit=False)
    assert "WARNING an NVIDIA driver is here" in backend.versions()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert backend.unseen_card() == ""


MODULES = [
    path.stem for path in (ROOT / "stlite" / "train").glob("*.py") if path.stem != "__init__"
]


@pytest.mark.parametrize("module", MODULES)
def test_unsloth_comes_before_what_it_replaces(module, tmp_path):
    """A stand-in for Unsloth notes what was imported before it; until then torch is told of a card."""
    (tmp_path / "unsloth.py").write_text(
        "import sys, torch\n"
        "early = {'transformers', 'peft', 'trl'} & set(sys.modules)\n"
        "assert not early, early\n"
        "torch.cuda.is_available = lambda: False\n"
    )
    code = f"""
import sys, torch
sys.path.insert(0, {str(tmp_path)!r})
torch.cuda.is_available = lambda: True
import stlite.train.{module}
heavy = {{'transformers', 'peft', 'trl'}} & set(sys.modules)
print(not heavy or 'unsloth' in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "True"


# ---- versions ------------------------------------------------------------------------------------


def test_versions_name_the_device_and_what_works():
    assert "transformers" in backend.versions()
    assert "nf4" in backend.versions() or "Unsloth" in backend.versions()


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
        (
            {"unsloth": "2026.11.1"},
            True,
            [
                "unsloth 2026.11.1 is newer than the 2026.10.9 that stlite was tried with: where something fails, "
                "install unsloth==2026.10.9"
            ],
        ),
        ({"trl": "1.16.0", "torch": "2.15.0", "unsloth": "absent"}, True, []),
    ],
)
def test_known_bad_combinations_come_with_a_remedy(found, cuda, said):
    assert backend.known_bad(found, cuda) == said
