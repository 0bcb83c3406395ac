"""A run in training, and one group of its rollouts, from a run folder or while it trains.

>>> TrainingView("runs/demo/st-r1")  # doctest: +SKIP
"""

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from stlite.data.sample import Sample
from stlite.data.video import read_clip
from stlite.viz import alignment, plots
from stlite.viz.sample_view import TINY, SampleView, keep, sample_view


def show_group(
    rollouts: Sequence[Mapping],
    prompt: str = "",
    *,
    sample: Sample | None = None,
    videos=".",
    **size,
) -> SampleView:
    """Show the rollouts of one prompt, as `alignment.group_tokens` takes them.

    With the `sample` asked about, its question, its answer and its frames stand above them.
    `size` (frames, max_pixels, multiple) is the model's; without it, the tiny preset's.
    """
    view = group_view(rollouts, prompt)
    if sample is not None:
        clip_of = partial(read_clip, root=videos, **(TINY | size))
        view["sample"] = sample_view(sample, {}, clip_of)
    return keep(SampleView(view=view, figure=lambda: plots.group(rollouts)))


def group_view(rollouts: Sequence[Mapping], prompt: str = "") -> dict:
    """Describe a group as the front end draws it: rewards, advantages and replies."""
    rows = alignment.group_tokens(rollouts)
    prompts = [str(rollout["prompt"]) for rollout in rollouts if "prompt" in rollout]
    names = {}
    for row in rows:
        names |= dict.fromkeys(row["rewards"])
    caption = f"{len(rows)} rollouts"
    if len({row["total"] for row in rows}) < 2:
        caption += "; all earn the same, so the group teaches nothing"
    return {
        "kind": "group",
        "prompt": prompt or (prompts[0] if prompts else ""),
        "names": list(names),
        "rows": rows,
        "caption": caption,
    }


class TrainingView:
    """The curves and the latest group of a run folder, from disk or as a callback in training.

    With the `samples` trained on, the question, answer and frames of the group are shown too.
    """

    def __init__(self, folder, samples: Sequence[Sample] = (), videos=".", **size):
        self.folder = Path(folder)
        self.samples = {sample.id: sample for sample in samples}
        self.clip_of = partial(read_clip, root=videos, **(TINY | size))
        self.log = read_log(folder)
        self.widget = keep(SampleView(figure=lambda: plots.curves(self.log)))
        self.draw()

    def on_log(self, args, state, control, **kwargs):
        """Take the trainer's log; drawing takes at most a twentieth of the training's time."""
        self.log = list(state.log_history)
        if time.monotonic() > self.next_draw:
            self.draw()

    def on_train_end(self, args, state, control, **kwargs):
        """Draw the whole log."""
        self.draw()

    def __getattr__(self, name: str):
        # a transformers TrainerCallback has more events, but inheriting from it would need torch
        if name.startswith("on_"):
            return lambda *args, **kwargs: None
        return getattr(self.widget, name)

    def draw(self):
        """Draw what is known now."""
        started = time.monotonic()
        view = {"kind": "training", "caption": f"training, {len(self.log)} entries"}
        if self.log:
            view["frames"] = [plots.png(plots.curves(self.log), 90)]
        rollouts = read_rollouts(self.folder)
        if rollouts:
            view["group"] = self._group(rollouts)
        self.widget.view = view
        self.next_draw = time.monotonic() + 20 * (time.monotonic() - started)

    def _group(self, rollouts: Sequence[Mapping]) -> dict:
        view = group_view(rollouts)
        sample = self.samples.get(rollouts[0].get("id"))
        if sample is not None:
            view["sample"] = sample_view(sample, {}, self.clip_of)
        return view


def read_log(folder) -> list[dict]:
    """Read the log of a run: log.json or, before its end, its newest checkpoint's."""
    path = Path(folder) / "log.json"
    if path.exists():
        return json.loads(path.read_text("utf-8"))
    states = []
    for path in Path(folder).rglob("trainer_state.json"):
        states.append(json.loads(path.read_text("utf-8")))
    if not states:
        return []
    return max(states, key=lambda state: state["global_step"])["log_history"]


def read_rollouts(folder, step: int | None = None) -> list[dict]:
    """Read a group of rollouts of a run folder: the latest, or the last of a step."""
    number = "*" if step is None else f"{step:05d}"
    files = sorted(Path(folder, "completions").glob(f"completions_{number}.parquet"))
    if not files:
        return []
    import pandas

    rows = pandas.read_parquet(files[-1]).to_dict("records")
    groups = groupby(rows, key=lambda row: row.get("id", row["prompt"]))
    sizes = [len(list(group)) for _, group in groups]
    return rows[-min(sizes) :]  # a question may be drawn twice in a row, hence the smallest
