"""The tiny model: made by the script beside it, sees walks it never saw, and thinks over steps given as text."""

import importlib.util
import json
from pathlib import Path

import pytest
from safetensors import safe_open

from sample_data import tiny_check, walks
from stlite.rewards.parse import parse
from stlite.train.generation import generate

HERE = Path(__file__).parent.parent / "sample_data"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_tiny", HERE / "make_tiny.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def unseen(tmp_path_factory):
    """Render 12 dev walks; return their samples and folder."""
    folder, made = tmp_path_factory.mktemp("walks"), []
    for i in range(12):
        walk = walks.draw(walks.SEEDS["dev"] + i, 1 + i % 4, "test")
        made += walks.samples(
            walk, walks.write_video(walk, folder / f"{walk['id']}.mp4").name, seed=1
        )
    return made, folder


def test_the_weights_are_small_safetensors_of_the_script_s_architecture(script):
    files = [p for p in (HERE / "tiny").iterdir() if p.suffix in (".safetensors", ".bin", ".pt")]
    assert [p.name for p in files] == ["model.safetensors"]
    assert sum(p.stat().st_size for p in (HERE / "tiny").iterdir()) < 13e6
    with safe_open(files[0], "pt") as weights:
        shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    made = script.model(script.tokenizer()).state_dict()
    assert {tuple(v.shape) for v in made.values()} == set(shapes.values())
    assert json.loads((HERE / "tiny" / "config.json").read_text())["model_type"] == "qwen2_vl"


def test_it_describes_unseen_walks_also_behind_a_long_question(tiny, unseen):
    samples, folder = unseen
    shares = tiny_check.described(*tiny, samples, folder)
    assert len(shares) == 2
    assert min(shares.values()) >= 0.85  # 0.95 and 0.90 when it was made


def test_it_thinks_over_steps_given_as_text(tiny, unseen):
    choices = [sample for sample in unseen[0] if sample.kind == "choice"]
    assert tiny_check.over_text(*tiny, choices) >= 0.8  # 0.83 when it was made


def test_its_replies_can_be_read(tiny, unseen):
    choices = [s for s in unseen[0] if s.kind == "choice"]
    said = [r["reply"] for r in generate(*tiny, choices, videos=unseen[1], max_new_tokens=96)]
    assert sum(not parse(text).reason for text in said) >= 0.95 * len(said)
