"""Pictures tested for what they say, not for their pixels."""

import io
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from stlite.data import prompts
from stlite.data.sample import Sample
from stlite.data.video import Clip
from stlite.viz import alignment, figures, plots

SAMPLE = Sample(
    "s", "a.mp4", "direction", "reverse", "Which way back?", "A", ("turn around turn left", "turn around turn right"),
    ("turn right",), ("turn around", "turn left"), moments=(1.0,),
)  # fmt: skip
CLIP = Clip(
    np.zeros((4, 28, 28, 3), np.uint8),
    np.array([0.0, 1.0, 2.0, 3.0]),
    np.array([0, 8, 16, 24]),
    8.0,
    3.1,
    "pyav",
    "k",
)
HOSTILE = "$\\frac{x}{y $ \x00\x1b\u202e <script>" + "漢" * 5000


def texts(figure) -> list[str]:
    """All text in a figure, as a reader sees it."""
    from matplotlib.text import Text

    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def log(steps: int = 3) -> list[dict]:
    rewards = {
        "reward": 0.5,
        "rewards/accuracy_reward/mean": 0.4,
        "rewards/format_reward/mean": 0.6,
    }
    rest = {
        "frac_reward_zero_std": 0.25,
        "completions/mean_length": 40.0,
        "kl": 0.01,
        "entropy": 1.2,
        "loss": 0.1,
    }
    return [{"step": n} | rewards | rest for n in range(1, steps + 1)] + [
        {"step": steps, "train_runtime": 9.0}
    ]


def every() -> dict:
    """One of each picture."""
    said = prompts.reply(prompts.trace(SAMPLE), "A")
    rows = [{"reply": said, "accuracy_reward": 1.0}, {"reply": "B", "accuracy_reward": 0.0}]
    scores = {"base": {"direction": (0.1, -0.1, 0.3)}, "st-r1": {"direction": 0.05}}
    cells = {
        ("direction", "forward"): 0.5,
        ("direction", "reverse"): 0.4,
        ("landmark", "forward"): 0.3,
    }
    return {
        "frames": plots.frame_strip(CLIP, SAMPLE), "chain": plots.chain(CLIP, SAMPLE, said, {"accuracy": 1.0}),
        "group": plots.group(rows), "curves": plots.curves(log()), "radar": plots.radar({"base": cells}),
        "bars": plots.bars(scores), "gap": plots.gap(scores), "audit": plots.audit({"base": {"forward": 0.6, "blank": 0.25}}),
        "ladder": plots.ladder({"st-r1": {63: (0.4, 0.3, 0.5), 126: 0.5}}),
    }  # fmt: skip


def test_every_picture_is_saved_as_png_and_svg_whole_and_the_same_each_time(tmp_path):
    for name, figure in every().items():
        image = plots.save(figure, tmp_path / f"{name}.png").read_bytes()
        assert image.startswith(b"\x89PNG") and image.endswith(b"IEND\xaeB`\x82"), name
        small = plots.png(figure)
        assert figure._repr_png_() == small == image and len(small) < len(
            figures.draw(figure, "png", 120)
        ), name
        assert Image.open(io.BytesIO(small)).convert("RGB").getpixel((0, 0)) == (255, 255, 255), (
            name
        )
        drawing = plots.save(figure, tmp_path / f"{name}.svg").read_text("utf-8")
        assert drawing.rstrip().endswith("</svg>") and "<dc:date>" not in drawing
    again = plots.save(every()["chain"], tmp_path / "again.svg")
    assert again.read_bytes() == (tmp_path / "chain.svg").read_bytes()
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(ValueError, match=r"expected \.png or \.svg, found 'a\.gif'"):
        plots.save(every()["bars"], tmp_path / "a.gif")


def test_a_frame_strip_gives_each_frame_its_index_and_measured_time():
    said = texts(plots.frame_strip(CLIP, SAMPLE))
    assert [t for t in said if t.startswith("#")] == [
        "#0 · 0.00 s",
        "#8 · 1.00 s",
        "#16 · 2.00 s",
        "#24 · 3.00 s",
    ]
    assert any("Which way back?" in t and "answer: A" in t for t in said)


def test_a_chain_puts_the_forward_path_above_the_frames_and_the_way_back_below_with_arrows_back():
    figure = plots.chain(
        CLIP,
        SAMPLE,
        prompts.reply(prompts.trace(SAMPLE), "B"),
        {"accuracy": 0.0, "consistency": None},
    )
    axis = figure.axes[0]
    where = {t.get_text(): t.get_position() for t in axis.texts}
    assert where["✓ turn right"][1] > where["turn right"][1] > 0.5
    assert where["turn left"][1] < -0.5
    assert where["turn left"][0] < where["turn around"][0]  # the way back runs from right to left
    assert [line.get_marker() for line in axis.lines if line.get_marker() in "<>"] == ["<"]
    moments = [line.get_xdata()[1] for line in axis.lines if line.get_linewidth() == 0.8]
    assert moments == [1.0, 3.1, 1.0]  # turn right; turn around at the end of the video; turn left
    title = axis.get_title(loc="left")
    assert "answer B, gold A" in title and "accuracy 0.00" in title and "consistency –" in title


def test_a_group_shows_advantages_and_what_each_function_paid():
    figure = every()["group"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx(
        [0.707, -0.707], abs=1e-3
    )
    assert sum("accuracy_reward 1.00" in t for t in texts(figure)) == 1


def test_curves_draw_each_quantity_in_its_panel_and_say_when_there_is_none():
    figure = plots.curves(log())
    drawn = {axis.get_title(): axis.lines for axis in figure.axes if axis.get_title()}
    assert list(drawn) == list(plots.PANELS)
    assert [line.get_label() for line in drawn["reward"]] == [
        "reward",
        "accuracy_reward",
        "format_reward",
    ]
    assert drawn["entropy"][0].get_xydata().tolist() == [[1, 1.2], [2, 1.2], [3, 1.2]]
    assert texts(plots.curves([])) == ["no steps logged yet"]


def test_the_radar_has_the_cells_of_figure_1_in_its_order_and_closes_its_lines():
    figure = every()["radar"]
    axis = figure.axes[0]
    cells = ["direction\nforward", "direction\nreverse", "landmark\nforward"]
    assert [t.get_text() for t in axis.get_xticklabels()] == cells
    assert axis.lines[0].get_ydata().tolist() == [50, 40, 30, 50]
    assert axis.get_ylim() == (0, 100)


def test_bars_ladder_and_audit_draw_means_intervals_and_chance():
    shares = {"direction": (0.5, 0.4, 0.7), "action": 0.25, "landmark": (0.2, None, None)}
    bars = plots.bars({"base": shares}, chance=0.25).axes[0]
    assert np.allclose([p.get_height() for p in bars.patches], [50, 25, 20])
    spans = [segment[:, 1].tolist() for c in bars.collections for segment in c.get_segments()]
    assert np.allclose(spans, [[40, 70], [25, 25], [20, 20]])  # too few groups: no interval
    assert [line.get_ydata()[0] for line in bars.lines if line.get_linestyle() == ":"] == [25]
    ladder = every()["ladder"].axes[0]
    assert ladder.lines[0].get_xydata().tolist() == [[63, 40], [126, 50]]
    assert [t.get_text() for t in ladder.get_xticklabels()] == ["63", "126"]


def test_the_small_png_keeps_the_colours_that_mean_something():
    noise = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), np.uint8)
    reply = prompts.reply("Let's start by thinking forward: go up, turn right", "B")
    image = Image.open(
        io.BytesIO(plots.png(plots.chain(replace(CLIP, frames=noise), SAMPLE, reply), 80))
    )
    found = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    for colour in (plots.STATE_COLOURS["right"], plots.STATE_COLOURS["extra"], figures.COLOURS[0]):
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(found - wanted).max(axis=1) <= 8).sum() > 50, colour


def test_variants_differ_in_more_than_colour_and_colours_differ_in_print():
    lines = plots.ladder({str(n): {63: 0.1 * n} for n in range(1, 7)}).axes[0].lines
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 6
    bars = plots.bars({str(n): {"a": 0.1} for n in range(1, 7)}).axes[0].patches
    assert len({p.get_hatch() for p in bars}) == 6
    assert len(set(alignment.STATES.values())) == 4  # a sign for each state of a step


@pytest.mark.filterwarnings("error")
def test_hostile_text_is_drawn_as_it_stands():
    s = Sample(
        "s",
        "a.mp4",
        "direction",
        "reverse",
        HOSTILE[:40] + "?",
        "A",
        (HOSTILE[:300], "b"),
        ("x",),
        ("y",),
    )
    reply = (
        "<think>Let's start by thinking forward: " + HOSTILE + ", $x</think> <answer>$\\A$</answer>"
    )
    cells = {HOSTILE: {("direction", "forward"): math.nan}}
    pictures = [plots.chain(CLIP, s, reply), plots.frame_strip(CLIP, s), plots.radar(cells)]
    pictures += [
        plots.ladder({HOSTILE: {63: 0.5}}),
        plots.group([{"reply": HOSTILE, "$\\x": 1.0}]),
        plots.bars({HOSTILE: {HOSTILE: 0.5}}),
    ]
    for figure in pictures:
        assert plots.png(figure).startswith(b"\x89PNG")
        assert not any(re.search("[\x00\x1b\u202e]", t) for t in texts(figure))
