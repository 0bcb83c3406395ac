"""One sample as a plain dictionary, and the widget and the static page that draw it.

>>> show_chain(sample, reply, videos="sample_data/videos")  # doctest: +SKIP
"""

import base64
import io
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import anywidget
import traitlets

from stlite.data.sample import Sample, SampleError, write_text
from stlite.data.video import ClipError, read_clip
from stlite.eval.records import record
from stlite.rewards.rewards import PRESETS, reward_columns
from stlite.viz import alignment, frontend, plots
from stlite.viz.finder import SAMPLE_FIELDS

REPLY_FIELDS = ("reply", "answer", "reason", "value", "rewards", "explanation", "error")
SIZES = ((256, 85), (256, 60), (192, 50), (128, 40), (64, 30))  # (longest side, JPEG quality)
TINY = {"frames": 16, "max_pixels": 84 * 84, "multiple": 28}  # the frames the tiny model sees
LIMIT = 270_000  # bytes of pictures sent for one sample


def jpegs(frames) -> list[bytes]:
    """Encode frames (T, H, W, 3) as JPEG, as large as LIMIT bytes in all allow."""
    for side, quality in SIZES:
        pictures = [_jpeg(frame, side, quality) for frame in frames]
        if sum(map(len, pictures)) <= LIMIT:
            break
    return pictures


def _jpeg(frame, side: int, quality: int) -> bytes:
    from PIL import Image

    image = Image.fromarray(frame)
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def sample_view(
    sample: Sample, records: Mapping[str, dict], clip_of: Callable, **more: object
) -> dict:
    """Describe a sample and its records by run as the front end draws them.

    A video that cannot be read is an error in the view. `more` is added to it.
    """
    view = {name: getattr(sample, name) for name in SAMPLE_FIELDS}
    view |= {"kind": "sample", "error": "", "duration": 0.0, "findings": []} | more
    view["options"] = [
        [letter, text, letter == sample.answer]
        for letter, text in zip(sample.letters, sample.options)
    ]
    view["runs"] = [_run_view(name, row) for name, row in records.items()]
    orders = [row["order"] for row in records.values() if row.get("order")]
    order = orders[0] if orders else "forward"
    try:
        view |= _frames_view(clip_of, sample.video, order)
    except (ClipError, SampleError, OSError) as error:
        view["error"] = str(error)
    replies = {name: row.get("reply") or "" for name, row in records.items()}
    return view | {"tracks": alignment.tracks(sample, replies, view["duration"])}


def _run_view(name: str, row: Mapping) -> dict:
    return {"name": name} | {key: row.get(key) for key in REPLY_FIELDS}


def _frames_view(clip_of: Callable, video: str, order: str) -> dict:
    with warnings.catch_warnings(action="ignore"):  # what a clip lacks is shown beside its frames
        clip = clip_of(video, order=order)
    return {
        "duration": clip.duration,
        "notice": getattr(clip, "note", ""),
        "frames": jpegs(clip.frames),
        "seconds": clip.seconds.tolist(),
        "indices": clip.indices.tolist(),
    }


class SampleView(anywidget.AnyWidget):
    """The front end of `view`; `figure()` draws the same without a browser, for GitHub."""

    _esm = frontend.script(*frontend.INSPECTOR)
    _css = frontend.style("inspector")
    view = traitlets.Dict().tag(sync=True)
    fixed = traitlets.Bool(True).tag(sync=True)  # nothing to mark
    figure = traitlets.Any()

    def __repr__(self) -> str:  # the inherited one would write out every frame
        return f"SampleView({self.view.get('kind', '')} {self.view.get('id', '')})"

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        # what is wrong with a video stands in the view
        with warnings.catch_warnings(action="ignore"), suppress(ClipError, SampleError, OSError):
            figure = self.figure()
            data["image/png"] = base64.b64encode(plots.png(figure, dpi=80)).decode()
            figure.clear()  # twenty figures waiting for the collector are 20 MB
        return data, metadata

    def save(self, path) -> Path:
        """Write the view as .html, .png or .svg."""
        if Path(path).suffix == ".html":
            title = self.view.get("id", self.view["kind"])
            return write_text(path, frontend.page({"views": [self.view], "marks": {}}, title))
        return plots.save(self.figure(), path)


_OPEN: dict[str, tuple[int, list]] = {}  # notebook cell: (its execution count, its widgets)


def keep(widget):
    """Close the widgets of this cell's earlier runs; neither ipywidgets nor IPython does."""
    from IPython import get_ipython

    shell = get_ipython()
    parent = getattr(shell, "get_parent", dict)()
    if not parent:
        return widget
    code = parent.get("content", {}).get("code", "")
    cell = parent.get("metadata", {}).get("cellId") or code
    count, widgets = _OPEN.get(cell, (0, []))
    if count != shell.execution_count:
        for old in widgets:
            _close(old)
        widgets = []
    _OPEN[cell] = (shell.execution_count, [*widgets, widget])
    return widget


def _close(widget) -> None:
    for child in getattr(widget, "children", ()):
        _close(child)
    for name in ("layout", "style"):
        if widget.has_trait(name):
            _close(getattr(widget, name))
    widget.close()
    widget.unobserve_all()
    if isinstance(widget, SampleView):
        widget.view = {}


def show_chain(sample: Sample, reply: str, videos=".", **size) -> SampleView:
    """Show a reply's thinking beside the frames and the annotated paths, and what each reward pays.

    `size` (frames, max_pixels, multiple) is the model's; without it, the tiny preset's.
    """
    clip_of = partial(read_clip, root=videos, **(TINY | size))
    rewards = rewards_of(sample, reply)
    row = valid_text(record(sample, {"reply": reply}) | {"rewards": rewards})
    view = sample_view(sample, {"reply": row}, clip_of)

    def figure():
        return plots.chain(clip_of(sample.video), sample, reply, rewards)

    return keep(SampleView(view=view, figure=figure))


def rewards_of(
    sample: Sample, reply: str, preset: str = "st-r1-reverse"
) -> dict[str, float | None]:
    """Return what a reply earns from each reward of a preset."""
    columns = reward_columns([sample])
    rewards = {}
    for function in PRESETS[preset]:
        name = function.__name__.removesuffix("_reward")
        rewards[name] = function([reply], **columns)[0]
    return rewards


def valid_text(row: Mapping) -> dict:
    """Return a record whose texts UTF-8 can carry: a lone surrogate is written as \\\\udc80."""
    texts = {}
    for name, value in row.items():
        if isinstance(value, str):
            texts[name] = value.encode("utf-8", "backslashreplace").decode()
    return {**row, **texts}
