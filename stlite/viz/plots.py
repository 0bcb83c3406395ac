"""The static pictures: frames, a chain beside them, training curves, and results as the paper shows them.

>>> figure = radar({"base": {("direction", "forward"): 0.52, ("direction", "reverse"): 0.62, ("action", "forward"): 0.76}})
>>> [text.get_text() for text in figure.axes[0].get_xticklabels()]
['direction\\nforward', 'direction\\nreverse', 'action\\nforward']
"""

import io
import math
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text

from stlite.data.prompts import options_text
from stlite.data.sample import TASKS, WAYS, Sample, write_bytes
from stlite.rewards.parse import parse
from stlite.viz import alignment as chains

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)  # Okabe and Ito, 2008
DASHES, MARKERS, HATCHES = (
    ("-", "--", "-.", ":"),
    "osD^vPX",
    ("", "//", "..", "xx", "\\\\", "++", "oo"),
)
STATE_COLOURS = {
    "right": "#009E73",
    "misplaced": "#E69F00",
    "missing": "#555555",
    "extra": "#D55E00",
}
PANELS = {
    "reward": r"reward|rewards/.+/mean",
    "groups whose rewards are all equal": r"frac_reward_zero_std",
    "length of a reply (tokens)": r"completions/mean_length",
    "KL from the reference": r"kl",
    "entropy": r"entropy",
    "loss": r"loss",
}


def png(figure: Figure, dpi: int = 120) -> bytes:
    """Draw a figure as PNG of 256 colours, which is less than half as large: notebooks and reports hold many."""
    from PIL import Image

    image, file = Image.open(io.BytesIO(_draw(figure, "png", dpi))).convert("RGB"), io.BytesIO()
    image = image.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    image.putpalette(
        [255 if part > 252 else part for part in image.getpalette()]
    )  # white paper, not nearly white
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _draw(figure: Figure, kind: str, dpi: int) -> bytes:
    file = io.BytesIO()
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # dollars are what someone wrote, not mathematics
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": "stlite"}):
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font"
        )  # a reply may hold any script
        figure.savefig(
            file, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None
        )
    return file.getvalue()


def save(figure: Figure, path) -> Path:
    """Write a figure as .png or .svg, atomically."""
    if (kind := Path(path).suffix[1:]) not in ("png", "svg"):
        raise ValueError(f"path: expected .png or .svg, found {Path(path).name!r}")
    return write_bytes(path, [png(figure) if kind == "png" else _draw(figure, kind, 120)])


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure._repr_png_ = lambda: png(
        figure
    )  # notebooks show it without pyplot and its global list of figures
    return figure


def _style(i: int, name: str) -> dict:
    look = {"color": COLOURS[i % 7], "ls": DASHES[i % 4], "marker": MARKERS[i % 7], "ms": 4}
    return look | {"label": _plain(name, 30, 1)}


def _plain(text: str, width: int = 100, lines: int = 3) -> str:
    """Wrap hostile text to a few lines: no control characters, the rest cut off with an ellipsis."""
    text = "".join(c if c.isprintable() else " " for c in text[: 4 * width * lines])
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))


def frame_strip(clip, sample: Sample) -> Figure:
    """Show the frames of a clip, eight in a row, with their index in the file and measured time, under the question."""
    rows = math.ceil(len(clip.frames) / 8)
    figure = _figure(10.4, 1.55 * rows + 0.9)
    axes = list(figure.subplots(rows, 8, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    for axis, frame, index, second in zip(axes, clip.frames, clip.indices, clip.seconds):
        axis.imshow(frame)
        axis.set_title(f"#{index} · {second:.2f} s", fontsize=8)
    lines = (_plain(sample.question, 140, 2), _plain(options_text(sample.options), 140, 4))
    said = "\n".join(filter(None, (*lines, f"answer: {_plain(sample.answer, 130, 2)}")))
    figure.suptitle(said, fontsize=9, ha="left", x=0.01)
    return figure


def chain(
    clip, sample: Sample, reply: str, rewards: Mapping[str, float | None] | None = None
) -> Figure:
    """Draw frames on a time line, the forward path above, the way back below, and each step of the thinking matched."""
    lanes = chains.tracks(sample, {"": reply}, clip.duration)
    above, below = ([x for x in lanes if x["way"] == way] for way in WAYS)
    figure = _figure(13, 2 + 0.75 * len(lanes))
    axis = figure.subplots()
    width = min(
        (b - a for a, b in zip(clip.seconds, clip.seconds[1:]) if b > a), default=clip.duration
    )
    for frame, second in zip(clip.frames, clip.seconds):
        axis.imshow(
            frame, extent=(second - 0.48 * width, second + 0.48 * width, -0.5, 0.5), aspect="auto"
        )
        axis.text(
            second, -0.55, f"{second:.1f} s", ha="center", va="top", fontsize=7, color="#555555"
        )
    for side, rows in ((1, above), (-1, below)):
        for i, row in enumerate(rows):
            _lane(axis, side * (1.45 + 1.05 * i), row, clip.duration)
    axis.set(
        ylim=(-1.3 - 1.05 * len(below), 1 + 1.05 * len(above)),
        xlim=(-0.17 * clip.duration, 1.05 * clip.duration),
    )
    axis.set_axis_off()
    answer = f"answer {_plain(parse(reply).answer, 60, 1) or 'none'}, gold {_plain(sample.answer, 60, 1)}"
    paid = f"   ·   rewards:   {_paid(rewards)}" if rewards else ""
    axis.set_title(f"{_plain(sample.question, 140, 2)}\n{answer}{paid}", fontsize=9, loc="left")
    return figure


def _lane(axis, y: float, lane: Mapping, duration: float):
    """Draw one path as boxes in the order it is walked; the way back runs from right to left, with arrows."""
    cells, ink = lane["cells"], "#888888"
    places = [duration * (i + 0.5) / len(cells) for i in range(len(cells))][:: 1 if y > 0 else -1]
    axis.text(-0.05 * duration, y, _plain(lane["name"], 18, 2), ha="right", va="center", fontsize=9)
    for i, (cell, x) in enumerate(zip(cells, places)):
        state, second = cell["state"], cell["second"]
        label = f"{chains.STATES.get(state, '')} {_plain(cell['text'], max(8, 105 // len(cells)), 2)}".strip()
        box = {
            "boxstyle": "round,pad=0.3",
            "fc": "white",
            "ec": STATE_COLOURS.get(state, COLOURS[0]),
            "lw": 1.6,
        }
        box["ls"] = ":" if state == "missing" else "-"
        axis.text(x, y, label, ha="center", va="center", fontsize=8, bbox=box, zorder=3)
        if i:
            axis.plot([places[i - 1], x], [y, y], color=ink, lw=1, zorder=1)
            axis.plot(
                (x + places[i - 1]) / 2, y, color=ink, marker=">" if y > 0 else "<", ms=6, zorder=2
            )
        if second is not None and not lane["thought"]:
            axis.plot([x, second], [y, 0.5 if y > 0 else -0.75], color=COLOURS[0], lw=0.8, zorder=1)


def _paid(rewards: Mapping[str, float | None]) -> str:
    return "   ".join(
        f"{name} {'–' if value is None else f'{value:.2f}'}" for name, value in rewards.items()
    )


def group(rollouts: Sequence[Mapping]) -> Figure:
    """Draw the rollouts of one prompt: a bar for each advantage, the reward of each function, the end of the reply."""
    rows = chains.group_tokens(rollouts)
    figure = _figure(12, 0.9 + 0.62 * len(rows))
    bar, words = figure.subplots(1, 2, width_ratios=(1, 3))
    colours = [COLOURS[row["advantage"] < 0] for row in rows]
    bar.barh([row["name"] for row in rows], [row["advantage"] for row in rows], color=colours)
    bar.axvline(0, color="black", lw=0.8)
    bar.invert_yaxis()
    bar.set(xlabel="advantage", ylabel="rollout")
    words.set(ylim=bar.get_ylim(), xlim=(0, 1))
    words.set_axis_off()
    for y, row in enumerate(rows):
        end = "… " * (len(row["text"]) > 220) + row["text"][-220:]
        text = f"{_paid(row['rewards'])}\n{_plain(end, 130, 2)}"
        words.text(
            0, y, text, va="center", fontsize=8, in_layout=False
        )  # a long word takes no room from the bars
    return figure


def curves(log: Sequence[Mapping[str, float]]) -> Figure:
    """Draw a training log: rewards by function, share of groups without a signal, length, KL, entropy, loss, by step."""
    names = list(dict.fromkeys(key for row in log for key in row))
    found = {
        title: keys
        for title, key in PANELS.items()
        if (keys := [k for k in names if re.fullmatch(key, k)])
    }
    rows = math.ceil(len(found) / 3)
    figure = _figure(11, 2.4 * max(1, rows))
    if not found:
        figure.text(0.5, 0.5, "no steps logged yet", ha="center", va="center")
        return figure
    for n, (title, keys) in enumerate(found.items(), 1):
        axis = figure.add_subplot(rows, min(3, len(found)), n, title=title)
        for i, key in enumerate(keys):
            points = [(row["step"], row[key]) for row in log if key in row]
            style = _style(i, re.sub(r"^rewards/(.+)/mean$", r"\1", key))
            axis.plot(*zip(*points), **style, markevery=math.ceil(len(points) / 12))
        axis.title.set_fontsize(9)
        axis.grid(alpha=0.3)
        if len(keys) > 1:
            axis.legend(fontsize=7)
    return figure


def radar(variants: Mapping[str, Mapping]) -> Figure:
    """Draw means or (mean, low, high), each 0 to 1, by task and way, a closed line per variant: the paper's Figure 1."""
    keys = [(t, w) for t in TASKS for w in WAYS if any((t, w) in row for row in variants.values())]
    angles = [2 * math.pi * i / len(keys) for i in range(len(keys))]
    figure = _figure(7, 5)
    axis = figure.subplots(subplot_kw={"projection": "polar"})
    for i, (name, row) in enumerate(variants.items()):
        values, *_ = _percent(row.get(key, math.nan) for key in keys)
        axis.plot(angles + angles[:1], values + values[:1], **_style(i, name))
    axis.set_xticks(angles, [f"{task}\n{way}" for task, way in keys], fontsize=9)
    axis.tick_params(axis="x", pad=14)
    axis.set(ylim=(0, 100), theta_zero_location="N")
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def _percent(values) -> list[list[float]]:
    """Turn means, or (mean, low, high), each 0 to 1, into three lists of per cent."""
    rows = [value if isinstance(value, Sequence) else (value, value, value) for value in values]
    return [[100 * row[k] for row in rows] for k in range(3)]


def bars(
    variants: Mapping[str, Mapping], chance: float | None = None, label: str = "accuracy (%)"
) -> Figure:
    """Draw bars by label and variant; a value is a mean or (mean, low, high), each 0 to 1; chance is a dotted line."""
    labels = list(dict.fromkeys(key for row in variants.values() for key in row))
    figure = _figure(max(6, 1.1 * len(labels) + 2), 3.2)
    axis, width = figure.subplots(), 0.8 / max(1, len(variants))
    for i, (name, row) in enumerate(variants.items()):
        x = [labels.index(key) + (i - (len(variants) - 1) / 2) * width for key in row]
        mean, low, high = _percent(row.values())
        error = [[m - a for m, a in zip(mean, low)], [b - m for m, b in zip(mean, high)]]
        style = {"color": COLOURS[i % 7], "hatch": HATCHES[i % 7], "label": _plain(name, 30, 1)}
        axis.bar(x, mean, width, yerr=error, edgecolor="white", capsize=3, **style)
    if chance is not None:
        axis.axhline(100 * chance, color="black", ls=":", label="chance")
    axis.axhline(0, color="black", lw=0.8)
    axis.set_xticks(
        range(len(labels)),
        [_plain(" ".join(k) if isinstance(k, tuple) else k, 14, 3) for k in labels],
    )
    axis.set_ylabel(label)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


# Forward minus reverse by task, {variant: {task: mean or (mean, low, high)}}: above zero, forward is easier.
gap = partial(bars, label="forward − reverse (points)")
# Accuracy by what the model was shown, {variant: {order: mean or (mean, low, high)}}.
audit = partial(bars, label="accuracy (%) by order of frames")


def bands(variants: Mapping[str, Mapping], across: str, label: str = "accuracy (%)") -> Figure:
    """Draw lines with bands for intervals: {variant: {number: mean or (mean, low, high)}}, means from 0 to 1."""
    figure = _figure(7.5, 3.6)
    axis = figure.subplots()
    for i, (name, row) in enumerate(variants.items()):
        sizes = sorted(row)
        mean, low, high = _percent(row[n] for n in sizes)
        axis.plot(sizes, mean, **_style(i, name))
        axis.fill_between(sizes, low, high, color=COLOURS[i % 7], alpha=0.15, lw=0)
    axis.set(xlabel=across, ylabel=label)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def ladder(variants: Mapping[str, Mapping]) -> Figure:
    """Draw accuracy against training rows, as `bands` does: {variant: {rows: mean or (mean, low, high)}}."""
    figure = bands(variants, "training rows")
    (axis,) = figure.axes
    axis.set_xscale("log")
    axis.set_xticks(sorted({n for row in variants.values() for n in row}))
    axis.xaxis.set_major_formatter("{x:.0f}")
    axis.xaxis.set_minor_formatter("")
    return figure
