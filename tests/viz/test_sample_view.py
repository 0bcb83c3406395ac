"""One sample as a view, and saved three ways."""

import numpy as np

from stlite.data import prompts
from stlite.viz import sample_view
from stlite.viz.sample_view import show_chain
from tests.viewed import samples


def test_noise_of_any_size_stays_under_300_kb():
    noise = np.random.default_rng(0).integers(0, 256, (16, 256, 256, 3), np.uint8)
    assert sum(map(len, sample_view.jpegs(noise))) <= sample_view.LIMIT < 300_000


def test_show_chain_pays_as_the_rewards_do_and_is_saved_three_ways(videos, tmp_path):
    s = samples()[0]
    view = show_chain(s, prompts.reply(prompts.trace(s), "A"), videos)
    (run,) = view.view["runs"]
    assert run["rewards"] == {
        "accuracy": 1.0,
        "format": 1.0,
        "reverse_steps": 1.0,
        "consistency": 1.0,
    }
    assert [c["state"] for c in view.view["tracks"][-1]["cells"]] == ["right"]
    assert view.save(tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert view.save(tmp_path / "c.svg").read_text("utf-8").rstrip().endswith("</svg>")
    assert "turn around" in view.save(tmp_path / "c.html").read_text("utf-8")
    shown, _ = view._repr_mimebundle_()
    assert "image/png" in shown and len(shown["text/plain"]) < 80
