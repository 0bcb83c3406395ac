"""The memory plan against published sizes, the tiny model's own, and a measured step."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stlite.train.memory import SHAPES, fitting_settings, plan, shape, weights

PUBLISHED = {  # billions of weights, as the model pages on the hub count them
    "qwen2-vl-2b": 2.21, "qwen2-vl-7b": 8.29, "qwen2.5-vl-3b": 3.75, "qwen2.5-vl-7b": 8.29,
    "qwen3-vl-2b": 2.13, "qwen3-vl-4b": 4.44, "qwen3-vl-8b": 8.77,
}  # fmt: skip


@pytest.mark.parametrize("preset", SHAPES)
def test_weights_are_counted_as_published(preset):
    assert sum(weights(shape(preset))) / 1e9 == pytest.approx(PUBLISHED[preset], rel=0.005)


def test_every_preset_has_a_shape():
    from stlite.train.models import PRESETS

    assert set(SHAPES) | {"tiny"} == set(PRESETS)


def test_the_tiny_models_weights_and_adapter_are_counted(tiny):
    from stlite.train.models import add_lora

    model = add_lora(tiny[0])
    inner, other = weights(shape("tiny"))
    packed = [
        p
        for n, p in model.named_parameters()
        if "language_model" in n and type(p).__name__ == "Params4bit"
    ]
    assert sum(p.numel() for p in packed) * 2 == inner  # two weights a byte
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    rest = sum(p.numel() for p in model.parameters() if not p.requires_grad) - inner // 2
    assert rest == pytest.approx(other, rel=0.02)  # norms and biases are not counted
    assert plan("tiny")["adapter"] == round(trained * 16 / 1e9, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_measured_step_is_within_fifteen_percent_of_the_plan():
    root = Path(__file__).parent.parent
    how = {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "0",
        "PYTHONPATH": str(root),
    }
    command = [sys.executable, str(root / "tests" / "memory_peak.py"), "tiny", "16"]
    done = subprocess.run(command, env=os.environ | how, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["total"] == pytest.approx(found["measured"], rel=0.15)


def test_every_setting_asks_for_more():
    base = plan("qwen2-vl-7b", batch=1)["total"]
    for more in ({"frames": 64}, {"max_pixels": 10**6}, {"completion": 4096}, {"batch": 8}, {"checkpointing": False},
                 {"four_bit": False}, {"rank": 64}):  # fmt: skip
        assert plan("qwen2-vl-7b", **{"batch": 1} | more)["total"] > base, more


def test_what_fits_a_card_fits_a_larger_one():
    assert fitting_settings(1) == []
    for small, large in ((8, 12), (12, 16), (16, 24)):
        assert {row["preset"] for row in fitting_settings(small)} <= {
            row["preset"] for row in fitting_settings(large)
        }
        assert all(row["total"] + 1 <= small for row in fitting_settings(small))


def test_an_unknown_preset_is_named():
    with pytest.raises(ValueError, match="expected tiny, qwen2-vl-2b.*found 'huge'"):
        plan("huge")
