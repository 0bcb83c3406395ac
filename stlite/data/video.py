"""Video files to clips: the right frames at the right times, decoded once and kept.

The packets are looked at first, which decodes nothing and tells every frame's presentation time.
PyAV then decodes from the key frame before each frame wanted, and in H.264 leaves out what no
other frame refers to: the fastest of the exact readers on every kind of file measured. decord is
refused where the packets show that it would give other frames.
"""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stlite.data.cache import cache_folder, content_hash, keep, pack, short_hash, unpack
from stlite.data.container import Index, index_decoded, index_packets
from stlite.data.decoders import BACKENDS, fit
from stlite.data.sample import safe_path
from stlite.data.structure import CONVERT

ORDERS = ("forward", "reversed", "shuffled", "single", "blank")
READER = "2"  # part of every cache key: raise it when the same file would give other pixels
MAX_BYTES = 8 * 2**30
GREY = 128
SECONDS = r"\d+\.?\d*"  # "3", "3.0"
PLACE = re.compile(  # "walk.mp4", "walk.mp4#t=3.0,9.5", "walk.mp4#t=,9.5"
    rf"(?P<file>.*?)(?:#t=(?P<start>{SECONDS})?(?:,(?P<end>{SECONDS})?)?)?", re.DOTALL
)
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # "https:", "concat:"
FAULTS = (  # what a hostile file makes the libraries raise
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    ImportError,
    subprocess.SubprocessError,
)


class Request(NamedTuple):
    """What is asked of a file; part of the cache key."""

    frames: int
    max_pixels: int
    multiple: int
    start: float
    end: float
    backend: str


class ClipError(Exception):
    """A video that cannot be read: which file, by which backend, and why."""

    def __init__(self, path, backend: str, reason: str):
        super().__init__(str(path), backend, reason)
        self.path = str(path)
        self.backend = backend
        self.reason = reason

    def __str__(self):
        return f"{self.path}: {self.reason} (backend {self.backend})"


class ClipWarning(UserWarning):
    """A clip that holds less than was asked for, or that could not be kept."""


@dataclass(frozen=True, eq=False)
class Clip:
    """The frames sampled from a video, with their measured times."""

    frames: np.ndarray  # uint8 (T, H, W, 3), T even
    seconds: np.ndarray  # (T,), ascending, since the first frame of the file
    indices: np.ndarray  # (T,), which frame of the file is at that time
    fps: float  # of the whole file
    duration: float  # of the whole file, seconds
    backend: str
    key: str
    note: str = ""  # what is less than was asked for

    def __repr__(self):
        count, height, width, _ = self.frames.shape
        first = self.seconds[0]
        last = self.seconds[-1]
        return f"Clip({count} frames of {width}×{height}, {first:.2f}–{last:.2f} s, {self.backend})"


def read_clip(
    path: str | os.PathLike, frames: int = 8, max_pixels: int = 360 * 420, multiple: int = 28,
    root: str | os.PathLike | None = None, order: str = "forward", backend: str = "auto",
    time_limit: float | None = None,
) -> Clip:  # fmt: skip
    """Read frames evenly spread over a video or its `#t=start,end`: first, last, nearest between.

    frames: even; a shorter video gives all it has (the last twice where they are odd) and a
    ClipWarning. max_pixels, multiple: bounds of a frame's area and sides. root: the path stays
    under it. order: one of ORDERS. backend: pyav or decord; auto is STLITE_BACKEND, else pyav.
    time_limit: seconds; given, the file is untrusted and read in a child process. Raises ClipError
    for the file, ValueError for the request.
    """
    if backend == "auto":
        backend = os.environ.get("STLITE_BACKEND", "pyav")
    _check_request(frames, max_pixels, multiple, order, backend)
    try:
        file, start, end = _locate(os.fspath(path), root)
        clip = _cached(file, Request(frames, max_pixels, multiple, start, end, backend), time_limit)
    except FAULTS as error:
        raise ClipError(path, backend, str(error) or type(error).__name__) from error
    if clip.note:
        warnings.warn(f"{path}: {clip.note}", ClipWarning, stacklevel=2)
    return _reorder(clip, order)


def _check_request(frames: int, max_pixels: int, multiple: int, order: str, backend: str):
    even = frames >= 2 and frames % 2 == 0
    if not even or max_pixels < multiple**2 or order not in ORDERS or backend not in BACKENDS:
        found = (frames, max_pixels, multiple, order, backend)
        raise ValueError(
            f"expected even frames, max_pixels ≥ multiple², {ORDERS}, {(*BACKENDS,)}; found {found}"
        )


def preflight(samples: Iterable, root=None, time_limit: float = 20, **settings):
    """Read each video of the samples once, as untrusted: (good videos, {bad video: ClipError})."""
    read = survey(samples, root, time_limit, **settings)
    good = [video for video, clip in read.items() if not isinstance(clip, ClipError)]
    bad = {video: clip for video, clip in read.items() if isinstance(clip, ClipError)}
    return good, bad


def survey(samples: Iterable, root=None, time_limit: float = 20, **settings) -> dict:
    """Read each video of the samples once: {video: {"seconds", "note"} or ClipError}."""
    from tqdm.contrib.concurrent import thread_map

    def read(video):
        try:
            clip = read_clip(video, root=root, time_limit=time_limit, **settings)
        except ClipError as error:
            return error
        return {"seconds": clip.seconds.tolist(), "note": clip.note}

    videos = list(dict.fromkeys(sample.video for sample in samples))
    return dict(zip(videos, thread_map(read, videos, max_workers=os.cpu_count(), desc="videos")))


def _locate(path: str, root) -> tuple[Path, float, float]:
    """Return the file of a path, and the range in seconds."""
    match = PLACE.fullmatch(path)
    if "\0" in path or "#t=" in match["file"] or URL.match(path):
        raise ValueError(
            "expected the path of a file, with a range like #t=3.0,9.5 or none, not a URL"
        )
    file = Path(match["file"]) if root is None else safe_path(path, root)
    file = file.resolve()
    if not file.is_file():
        raise FileNotFoundError("no such file")
    size = file.stat().st_size
    if not 0 < size <= MAX_BYTES:
        raise ValueError(f"expected 1 to {MAX_BYTES:,} bytes, found {size:,}")
    return file, float(match["start"] or 0), float(match["end"] or math.inf)


def _reorder(clip: Clip, order: str) -> Clip:
    """Give other frames at the same times: the times a model is told must not tell the order."""
    if order == "forward":
        return clip
    places = np.arange(len(clip.frames))
    frames = clip.frames
    if order == "blank":
        frames = np.full_like(frames, GREY)
    elif order == "reversed":
        frames = frames[places[::-1]]
    elif order == "single":
        frames = frames[np.full_like(places, len(places) // 2)]
    else:
        mixed = np.random.default_rng(int(clip.key[:16], 16)).permutation(places)
        unchanged = (mixed == places).all()
        frames = frames[np.roll(mixed, 1) if unchanged else mixed]
    return replace(clip, frames=frames, key=f"{clip.key}-{order}")


# ---- which frames


def _choose(index: Index, request: Request) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the times of all frames, places of those to be read, what is less than asked for."""
    seconds = (index.pts - index.pts[0]) * index.base  # IndexError where packets tell no times
    slack = 0.5 * float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0
    starts = (
        seconds > request.start - slack
    )  # a bound is written to two digits, a clock counts more
    inside = np.flatnonzero(starts & (seconds < request.end + slack))
    there = len(inside)
    if not there:
        raise ValueError(
            f"no frame from {request.start} to {request.end} s: "
            f"the video has 0 to {seconds[-1]:.2f} s"
        )
    if there < request.frames:
        note = f"only {there} of the {request.frames} frames asked for are there"
        if there % 2:
            inside = np.append(inside, inside[-1])
        return seconds, inside, note
    return seconds, inside[_spread(seconds[inside], request.frames)], ""


def _spread(seconds: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of the frames nearest to `count` even times, each once.

    >>> _spread(np.array([0, 1, 2, 3, 4, 8]), 4).tolist()
    [0, 3, 4, 5]
    """
    targets = np.linspace(seconds[0], seconds[-1], count)
    nearest = np.array([np.abs(seconds - target).argmin() for target in targets])
    order = np.arange(count)
    rising = np.maximum.accumulate(nearest - order) + order  # each at least one after the last
    latest = len(seconds) - count + order  # and room left for those that follow
    return np.minimum(rising, latest)


# ---- reading them


def _read(file: Path, request: Request, key: str) -> Clip:
    index = index_packets(file)
    try:
        return _sample(file, request, key, index)
    except LookupError:  # decoding gives other frames than the packets promise
        return _sample(file, request, key, index_decoded(file, index))


def _sample(file: Path, request: Request, key: str, index: Index) -> Clip:
    seconds, places, note = _choose(index, request)
    wanted = {int(index.pts[place]): int(place) for place in sorted(places)}
    images = {}
    sizes = {}
    for place, image in BACKENDS[request.backend](file, index, wanted):
        sizes[place] = image.shape[:2]
        images[place] = fit(image, index.aspect, request.max_pixels, request.multiple)
    _check_sizes(sizes, seconds)
    last = float(seconds[-1])
    fps = (len(seconds) - 1) / last if len(seconds) > 1 else 0.0
    return Clip(
        frames=np.stack([images[place] for place in places]),
        seconds=seconds[places],
        indices=places,
        fps=fps,
        duration=last + (1 / fps if fps else 0),
        backend=request.backend,
        key=key,
        note="; ".join(filter(None, (index.note, note))),
    )


def _check_sizes(sizes: dict[int, tuple[int, int]], seconds: np.ndarray):
    """Refuse a film whose picture changes its size."""
    places = sorted(sizes)
    first = sizes[places[0]]
    for place in places:
        if sizes[place] != first:
            before = f"{first[1]}×{first[0]}"
            after = f"{sizes[place][1]}×{sizes[place][0]}"
            raise ValueError(
                f"the picture changes its size, from {before} to {after} "
                f"by {seconds[place]:.2f} s: cut it there, or {CONVERT}"
            )


# ---- through the cache, and in a child


def _cached(file: Path, request: Request, time_limit: float | None) -> Clip:
    """Read a clip through the cache, which holds it under a hash of content and request."""
    folder = cache_folder()
    key = short_hash(json.dumps([READER, content_hash(file), *request]))
    kept = folder / f"{key}.clip" if folder else None
    clip = _load(kept) if kept else None
    if clip:
        return clip
    if time_limit:
        clip = _read_in_child(file, request, key, time_limit)
    else:
        clip = _read(file, request, key)
    if not kept:
        return clip
    try:
        _keep(kept, clip)
    except OSError as error:
        warnings.warn(f"the clip is not kept: {error}", ClipWarning, stacklevel=3)
    return _load(kept) or clip


def _keep(path: Path, clip: Clip):
    keep(path, pack(vars(clip), clip.frames))


def _load(path: Path) -> Clip | None:
    parts = unpack(path)
    if not parts:
        return None
    head, frames = parts
    try:
        seconds = np.array(head.pop("seconds"))
        indices = np.array(head.pop("indices"))
        return Clip(frames=frames, seconds=seconds, indices=indices, **head)
    except (KeyError, TypeError):  # not a whole clip of ours
        path.unlink(missing_ok=True)
        return None


def _read_in_child(file: Path, request: Request, key: str, time_limit: float) -> Clip:
    call = "from stlite.data.video import _read_for_parent; _read_for_parent()"
    home = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        out = Path(folder, "clip")
        order = json.dumps([str(file), request, key, str(out)])
        try:
            done = subprocess.run(
                [sys.executable, "-c", call],
                input=order.encode(),
                capture_output=True,
                timeout=time_limit,
                cwd=home,
            )
        except subprocess.TimeoutExpired:
            raise ValueError(f"not read within {time_limit} s: stopped") from None
        clip = _load(out)
        if clip:
            return clip
        reason = done.stdout.decode() or f"the reader died with exit status {done.returncode}"
        raise ValueError(reason)


def _read_for_parent():
    file, request, key, out = json.load(sys.stdin)
    try:
        _keep(Path(out), _read(Path(file), Request(*request), key))
    except FAULTS as error:
        sys.stdout.write(str(error) or type(error).__name__)
