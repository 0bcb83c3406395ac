"""The static pictures: frames, chains, training curves, and results as the paper shows them.

>>> figure = radar({"base": {("direction", "forward"): 0.52, ("action", "forward"): 0.76}})
>>> [text.get_text() for text in figure.axes[0].get_xticklabels()]
['direction\\nforward', 'action\\nforward']
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import product

import numpy as np
from matplotlib.figure import Figure

from stlite.data.prompts import options_text
from stlite.data.sample import TASKS, WAYS, Sample
from stlite.rewards.parse import parse
from stlite.viz import alignment
from stlite.viz.figures import COLOURS, HATCHES, line_style, new_figure, plain
from stlite.viz.figures import png as png
from stlite.viz.figures import save as save

STATE_COLOURS = {
    "right": "#009E73",
    "misplaced": "#E69F00",
    "missing": "#555555",
    "extra": "#D55E00",
}
PANELS = {  # title: the columns of a training log that are drawn in it
    "reward": r"reward|rewards/.+/mean",
    "groups whose rewards are all equal": r"frac_reward_zero_std",
    "length of a reply (tokens)": r"completions/mean_length",
    "KL from the reference": r"kl",
    "entropy": r"entropy",
    "loss": r"loss",
}
REWARD_MEAN = re.compile(r"^rewards/(.+)/mean$")  # "rewards/accuracy_reward/mean"
COLUMNS = 8  # frames in a row of a frame strip
CHAIN_WIDTH = 10.4  # inches: shown at its own size in a notebook, so that its words can be read
TAIL = 260  # characters of a reply's end that a group shows
Shares = Mapping[str, Mapping]  # {variant: {label: mean or (mean, low, high)}}, each 0 to 1


def frame_strip(clip, sample: Sample) -> Figure:
    """Show the frames of a clip, each with its index in the file and its time."""
    rows = math.ceil(len(clip.frames) / COLUMNS)
    figure = new_figure(10.4, 1.55 * rows + 0.9)
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    for axis, frame, index, second in zip(axes, clip.frames, clip.indices, clip.seconds):
        axis.imshow(frame)
        axis.set_title(f"#{index} · {second:.2f} s", fontsize=8)
    lines = [plain(sample.question, 140, 2), plain(options_text(sample.options), 140, 4)]
    lines.append(f"answer: {plain(sample.answer, 130, 2)}")
    figure.suptitle("\n".join(filter(None, lines)), fontsize=9, ha="left", x=0.01)
    return figure


def chain(
    clip, sample: Sample, reply: str, rewards: Mapping[str, float | None] | None = None
) -> Figure:
    """Draw frames on a time line, the forward paths above them, the reverse paths below."""
    tracks = alignment.tracks(sample, {"": reply}, clip.duration)
    forward = [track for track in tracks if track["way"] == "forward"]
    reverse = [track for track in tracks if track["way"] == "reverse"]
    figure = new_figure(CHAIN_WIDTH, 1.8 + 0.75 * len(tracks))
    axis = figure.subplots()
    axis.set_axis_off()
    _draw_frames(axis, clip)
    for i, track in enumerate(forward):
        _draw_track(axis, 1.45 + 1.05 * i, track, clip.duration)
    for i, track in enumerate(reverse):
        _draw_track(axis, -1.45 - 1.05 * i, track, clip.duration)
    axis.set_ylim(-1.3 - 1.05 * len(reverse), 1 + 1.05 * len(forward))
    axis.set_xlim(-0.17 * clip.duration, 1.05 * clip.duration)
    axis.set_title(_chain_title(sample, reply, rewards), fontsize=9, loc="left")
    return figure


def _chain_title(sample: Sample, reply: str, rewards: Mapping[str, float | None] | None) -> str:
    answer = plain(parse(reply).answer, 60, 1) or "none"
    title = f"{plain(sample.question, 120, 2)}\nanswer {answer}, gold {plain(sample.answer, 60, 1)}"
    if rewards:
        title += f"   ·   rewards:   {_rewards_text(rewards)}"
    return title


def _draw_frames(axis, clip) -> None:
    """Draw each frame at its second, almost as wide as the smallest gap between two."""
    gaps = np.diff(clip.seconds)
    width = min(gaps[gaps > 0], default=clip.duration)
    for frame, second in zip(clip.frames, clip.seconds):
        extent = (second - 0.48 * width, second + 0.48 * width, -0.5, 0.5)
        axis.imshow(frame, extent=extent, aspect="auto")
        label = {"ha": "center", "va": "top", "fontsize": 7, "color": "#555555"}
        axis.text(second, -0.55, f"{second:.1f} s", **label)


def _draw_track(axis, y: float, track: Mapping, duration: float) -> None:
    """Draw one path as boxes with arrows; the way back runs from right to left."""
    cells = track["cells"]
    forward = y > 0
    places = [duration * (i + 0.5) / len(cells) for i in range(len(cells))]
    if not forward:
        places.reverse()
    name = plain(track["name"], 18, 2)
    axis.text(-0.05 * duration, y, name, ha="right", va="center", fontsize=9)
    for i, (cell, x) in enumerate(zip(cells, places)):
        _draw_step(axis, x, y, cell, width=max(8, 84 // len(cells)))
        if i:
            _draw_arrow(axis, places[i - 1], x, y, ">" if forward else "<")
        if cell["second"] is not None and not track["thought"]:
            ends = [y, 0.5 if forward else -0.75]
            axis.plot([x, cell["second"]], ends, color=COLOURS[0], lw=0.8, zorder=1)


def _draw_step(axis, x: float, y: float, cell: Mapping, width: int) -> None:
    state = cell["state"]
    label = f"{alignment.STATES.get(state, '')} {plain(cell['text'], width, 2)}".strip()
    box = {
        "boxstyle": "round,pad=0.3",
        "fc": "white",
        "ec": STATE_COLOURS.get(state, COLOURS[0]),
        "lw": 1.6,
        "ls": ":" if state == "missing" else "-",
    }
    axis.text(x, y, label, ha="center", va="center", fontsize=8, bbox=box, zorder=3)


def _draw_arrow(axis, start: float, end: float, y: float, marker: str) -> None:
    axis.plot([start, end], [y, y], color="#888888", lw=1, zorder=1)
    axis.plot((start + end) / 2, y, color="#888888", marker=marker, ms=6, zorder=2)


def _rewards_text(rewards: Mapping[str, float | None]) -> str:
    texts = []
    for name, value in rewards.items():
        texts.append(f"{name} –" if value is None else f"{name} {value:.2f}")
    return "   ".join(texts)


def group(rollouts: Sequence[Mapping]) -> Figure:
    """Draw the rollouts of one prompt: advantages, rewards, and the end of each reply."""
    rows = alignment.group_tokens(rollouts)
    figure = new_figure(10.4, 0.9 + 0.74 * len(rows))
    bars, words = figure.subplots(1, 2, width_ratios=(1, 3.4))
    advantages = [row["advantage"] for row in rows]
    colours = [COLOURS[1] if advantage < 0 else COLOURS[0] for advantage in advantages]
    bars.barh([row["name"] for row in rows], advantages, color=colours)
    bars.axvline(0, color="black", lw=0.8)
    bars.invert_yaxis()
    bars.set(xlabel="advantage", ylabel="rollout")
    words.set(ylim=bars.get_ylim(), xlim=(0, 1))
    words.set_axis_off()
    for y, row in enumerate(rows):
        end = row["text"][-TAIL:]
        if len(row["text"]) > TAIL:
            whole_words = end.partition(" ")[2]
            end = f"… {whole_words or end}"
        text = f"{_rewards_text(row['rewards'])}\n{plain(end, 100, 3)}"
        # outside the layout: a long word takes no room from the bars
        words.text(0, y, text, va="center", fontsize=8, in_layout=False)
    return figure


def curves(log: Sequence[Mapping[str, float]]) -> Figure:
    """Draw the columns of a training log by step, a panel for each of PANELS."""
    panels = _panels(log)
    rows = math.ceil(len(panels) / 3)
    figure = new_figure(10.4, 2.7 * max(1, rows))
    if not panels:
        figure.text(0.5, 0.5, "no steps logged yet", ha="center", va="center")
    for number, (title, names) in enumerate(panels.items(), 1):
        axis = figure.add_subplot(rows, min(3, len(panels)), number)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step", fontsize=9)
        axis.grid(alpha=0.3)
        for i, name in enumerate(names):
            points = [(row["step"], row[name]) for row in log if name in row]
            style = line_style(i, REWARD_MEAN.sub(r"\1", name))
            axis.plot(*zip(*points), **style, markevery=math.ceil(len(points) / 12))
        if len(names) > 1:
            low, high = axis.get_ylim()
            axis.set_ylim(low, high + 0.4 * (high - low))  # room for the legend above the curves
            axis.legend(fontsize=8, ncols=2, frameon=False, columnspacing=1, loc="upper center")
    return figure


def _panels(log: Sequence[Mapping[str, float]]) -> dict[str, list[str]]:
    """Sort the columns of a log by the panel they are drawn in; a panel without any is left out."""
    columns = {}
    for row in log:
        columns |= dict.fromkeys(row)
    panels = {}
    for title, pattern in PANELS.items():
        names = [name for name in columns if re.fullmatch(pattern, name)]
        if names:
            panels[title] = names
    return panels


def radar(variants: Shares) -> Figure:
    """Draw means by task and way, a closed line per variant: the paper's Figure 1."""
    known = set()
    for shares in variants.values():
        known |= set(shares)
    keys = [key for key in product(TASKS, WAYS) if key in known]
    angles = [2 * math.pi * i / len(keys) for i in range(len(keys))]
    figure = new_figure(7, 5)
    axis = figure.subplots(subplot_kw={"projection": "polar"})
    for i, (name, shares) in enumerate(variants.items()):
        means, _, _ = _percent(shares.get(key, math.nan) for key in keys)
        axis.plot(angles + angles[:1], means + means[:1], **line_style(i, name))
    axis.set_xticks(angles, [f"{task}\n{way}" for task, way in keys], fontsize=9)
    axis.tick_params(axis="x", pad=14)
    axis.set(ylim=(0, 100), theta_zero_location="N")
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def _percent(values: Iterable) -> tuple[list[float], list[float], list[float]]:
    """Turn shares of 0 to 1 into lists of means, lows and highs in per cent.

    A share without an interval, as too few groups give none, is its own low and high.
    """
    means = []
    lows = []
    highs = []
    for value in values:
        mean, low, high = value if isinstance(value, Sequence) else (value, value, value)
        means.append(100 * mean)
        lows.append(100 * (mean if low is None else low))
        highs.append(100 * (mean if high is None else high))
    return means, lows, highs


def bars(variants: Shares, chance: float | None = None, label: str = "accuracy (%)") -> Figure:
    """Draw bars by label and variant, with intervals; chance is a dotted line."""
    labels = {}
    for shares in variants.values():
        labels |= dict.fromkeys(shares)
    labels = list(labels)
    figure = new_figure(max(6, 1.1 * len(labels) + 2), 3.2)
    axis = figure.subplots()
    width = 0.8 / max(1, len(variants))
    for i, (name, shares) in enumerate(variants.items()):
        shift = (i - (len(variants) - 1) / 2) * width
        places = [labels.index(key) + shift for key in shares]
        means, lows, highs = _percent(shares.values())
        below = np.subtract(means, lows)
        above = np.subtract(highs, means)
        style = {"color": COLOURS[i % 7], "hatch": HATCHES[i % 7], "label": plain(name, 30, 1)}
        axis.bar(places, means, width, yerr=[below, above], edgecolor="white", capsize=3, **style)
    if chance is not None:
        axis.axhline(100 * chance, color="black", ls=":", label="chance")
    axis.axhline(0, color="black", lw=0.8)
    texts = [" ".join(key) if isinstance(key, tuple) else key for key in labels]
    axis.set_xticks(range(len(labels)), [plain(text, 14, 3) for text in texts])
    axis.set_ylabel(label)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


# Forward minus reverse by task: above zero, forward is easier.
gap = partial(bars, label="forward − reverse (points)")
# Accuracy by what the model was shown: {variant: {order of frames: share}}.
audit = partial(bars, label="accuracy (%) by order of frames")


def bands(variants: Shares, across: str, label: str = "accuracy (%)") -> Figure:
    """Draw lines with bands for their intervals: {variant: {number: share}}."""
    figure = new_figure(7.5, 3.6)
    axis = figure.subplots()
    for i, (name, shares) in enumerate(variants.items()):
        numbers = sorted(shares)
        means, lows, highs = _percent(shares[number] for number in numbers)
        axis.plot(numbers, means, **line_style(i, name))
        axis.fill_between(numbers, lows, highs, color=COLOURS[i % 7], alpha=0.15, lw=0)
    axis.set(xlabel=across, ylabel=label)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def ladder(variants: Shares) -> Figure:
    """Draw accuracy against training rows: {variant: {rows: share}}."""
    figure = bands(variants, "training rows")
    axis = figure.axes[0]
    numbers = set()
    for shares in variants.values():
        numbers |= set(shares)
    axis.set_xscale("log")
    axis.set_xticks(sorted(numbers))
    axis.xaxis.set_major_formatter("{x:.0f}")
    axis.xaxis.set_minor_formatter("")
    return figure
