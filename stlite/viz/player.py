"""The real film in a notebook cell, beside the frames that the model saw.

    >>> play(sample, videos="sample_data/videos")  # doctest: +SKIP

The film travels in small pieces through the widget's own messages: no second port, and never the
whole file.
"""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anywidget
import traitlets

from stlite.data.sample import Sample, SampleError, safe_path
from stlite.data.video import ClipError, read_clip
from stlite.viz import frontend
from stlite.viz.film import Film
from stlite.viz.sample_view import TINY, jpegs, keep

FAULTS = (OSError, ValueError, LookupError, ArithmeticError, RuntimeError)


class FilmView(anywidget.AnyWidget):
    """A front end that plays the films of one root; `film` says which is open, or why none is."""

    _esm = frontend.script("film", "player")
    _css = frontend.style("player")
    film = traitlets.Dict().tag(sync=True)
    view = traitlets.Dict().tag(sync=True)
    reply = traitlets.Dict().tag(sync=True)

    def __init__(self, root, **traits):
        super().__init__(**traits)
        self.root = root
        self.opened = None
        self.lock = threading.Lock()
        self.pool = ThreadPoolExecutor(1, "film")
        self.on_msg(self._on_message)

    def __repr__(self) -> str:  # the inherited one would write out every frame
        return f"{type(self).__name__}({self.film.get('name', '')})"

    def show(self, video: str):
        """Show another film of the root; what is wrong with it is shown in its place."""
        facts = {"key": self.film.get("key", 0) + 1, "name": video, "error": ""}
        with self.lock:
            self._shut()
            try:
                self.opened = Film(locate(video, self.root))
                facts |= self.opened.facts()
            except SampleError as error:
                facts["error"] = f"{video}: expected {error.expected}"
            except FAULTS as error:
                facts["error"] = f"{video}: {error}"
        self.film = facts

    def close(self):
        """Close the widget and its film."""
        with self.lock:
            self._shut()
        self.pool.shutdown(wait=False, cancel_futures=True)
        super().close()

    def _shut(self):
        if self.opened is not None:
            self.opened.close()
            self.opened = None

    def _on_message(self, widget, message: dict, buffers=None):
        """Do what the front end asks for; films are made ready beside the kernel's own work."""
        if message.get("do") in ("piece", "still"):
            self.pool.submit(self._serve, message)

    def _serve(self, message: dict):
        try:
            with self.lock:
                if self.opened is None or message["film"] != self.film["key"]:
                    return
                answer, data = self._answer(message)
        except FAULTS as error:
            answer, data = {"do": "fault", "text": str(error)}, b""
        self.send(message | answer, [data])

    def _answer(self, message: dict) -> tuple[dict, bytes]:
        if message["do"] == "still":
            second, data = self.opened.still(float(message["second"]))
            return {"second": second}, data
        piece = self.opened.piece(int(message["number"]), str(message["kind"]))
        return {"times": piece["times"]}, piece["data"]


def locate(video: str, root) -> Path:
    """Return the file of a video under its root, whatever its range. Raises ValueError, OSError."""
    path = safe_path(video, root)
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    return path


def play(film: Sample | str, videos=".", **size) -> FilmView:
    """Play a film, or a sample's with its steps, beside the frames that the model sees.

    `videos` is the root of the files; `size` (frames, max_pixels, multiple) is the model's, else
    the tiny preset's.
    """
    sample = film if isinstance(film, Sample) else None
    video = sample.video if sample else str(film)
    view = keep(FilmView(videos))
    view.show(video)
    view.view = steps_view(sample, view.film.get("duration", 0.0)) | frames_view(
        video, videos, **size
    )
    return view


def steps_view(sample: Sample | None, duration: float) -> dict:
    """Describe a sample's question and its two paths: each step's text, and its second if known."""
    if sample is None:
        return {"paths": [], "question": ""}
    there = list(sample.moments)
    back = there[::-1]
    if len(sample.steps_reverse) == len(there) + 1:  # the turn that begins the way back
        back = [duration, *back]
    paths = [
        _path("The way there", sample.task, sample.steps_forward, there),
        _path("The way back", sample.task, sample.steps_reverse, back),
    ]
    return {"paths": [path for path in paths if path["steps"]], "question": sample.question}


def _path(name: str, task: str, texts, seconds) -> dict:
    known = list(seconds) if len(seconds) == len(texts) else [None] * len(texts)
    steps = [{"text": t, "second": s, "task": task} for t, s in zip(texts, known)]
    return {"name": name, "steps": steps}


def frames_view(video: str, root, **size) -> dict:
    """Describe the frames that the model sees: JPEGs with their seconds, or why there are none."""
    try:
        with warnings.catch_warnings(action="ignore"):  # what a clip lacks is in its note
            clip = read_clip(video, root=root, **(TINY | size))
    except (ClipError, SampleError, OSError) as error:
        return {"frames": [], "seconds": [], "trouble": str(error)}
    return {
        "frames": jpegs(clip.frames),
        "seconds": clip.seconds.tolist(),
        "trouble": clip.note,
    }
