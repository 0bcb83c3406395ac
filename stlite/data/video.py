"""Video files to clips: the right frames at the right times, decoded once and kept, hostile files kept at bay.

The packets are looked at first, which decodes nothing and tells every frame's presentation time. PyAV then decodes from
the key frame before each frame wanted, and in H.264 leaves out what no other frame refers to: the fastest of the exact
readers on every kind of file measured. decord is refused where the packets show that it would give other frames.
"""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections import namedtuple
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import blake2b, file_digest
from pathlib import Path

import numpy as np

from stlite.data.sample import safe_path, write_bytes

ORDERS = ("forward", "reversed", "shuffled", "single", "blank")
READER = "1"  # part of every cache key: raise it when the same file would give other pixels
MAX_BYTES, MAX_SECONDS, MAX_PIXELS, MAX_FRAMES = 8 * 2**30, 4 * 3600, 8192 * 4320, 1_000_000
SEEK = 12  # frames that are decoded rather than passed over
FORMATS = "mov,matroska,avi,mpegts"  # no playlists: they name other files and URLs
FAULTS = (
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    ImportError,
    subprocess.SubprocessError,
)

Request = namedtuple("Request", "frames max_pixels multiple start end backend")
Index = namedtuple("Index", "pts sure keys base skips aspect doubt note", defaults=[""])


class ClipError(Exception):
    """A video that cannot be read: which file, by which backend, and why."""

    def __init__(self, path, backend: str, reason: str):
        super().__init__(str(path), backend, reason)
        self.path, self.backend, self.reason = str(path), backend, reason

    def __str__(self):
        return f"{self.path}: {self.reason} (backend {self.backend})"


class ClipWarning(UserWarning):
    """A clip that holds less than was asked for, or that could not be kept."""


@dataclass(frozen=True, eq=False)
class Clip:
    """The frames sampled from a video, with their measured times.

    frames: uint8 (T, H, W, 3), T even. seconds: (T,), ascending, since the first frame of the file. indices: (T,), which
    frame of the file is at that time. fps, duration (s): of the whole file. note: what is less than was asked for.
    """

    frames: np.ndarray
    seconds: np.ndarray
    indices: np.ndarray
    fps: float
    duration: float
    backend: str
    key: str
    note: str = ""

    def __repr__(self):
        count, height, width, _ = self.frames.shape
        first, last = self.seconds[0], self.seconds[-1]
        return f"Clip({count} frames of {width}×{height}, {first:.2f}–{last:.2f} s, {self.backend})"


def read_clip(
    path: str | os.PathLike, frames: int = 8, max_pixels: int = 360 * 420, multiple: int = 28,
    root: str | os.PathLike | None = None, order: str = "forward", backend: str = "auto",
    time_limit: float | None = None,
) -> Clip:  # fmt: skip
    """Read frames evenly spread over a video or its `#t=start,end`: first, last, and the nearest to each time between.

    frames: even; a shorter video gives all it has (the last twice where they are odd) and a ClipWarning. max_pixels,
    multiple: bounds of a frame's area and sides. root: the path stays under it. order: one of ORDERS, for the audits.
    backend: pyav, decord, torchcodec; auto is STLITE_BACKEND, else pyav. time_limit: seconds; given, the file is
    untrusted and read in a child process. Raises ClipError for the file, ValueError for the request.
    """
    backend = os.environ.get("STLITE_BACKEND", "pyav") if backend == "auto" else backend
    if (
        frames < 2
        or frames % 2
        or max_pixels < multiple**2
        or order not in ORDERS
        or backend not in BACKENDS
    ):
        asked = (frames, max_pixels, multiple, order, backend)
        raise ValueError(
            f"expected even frames, max_pixels ≥ multiple², {ORDERS}, {(*BACKENDS,)}; found {asked}"
        )
    try:
        file, start, end = _locate(os.fspath(path), root)
        clip = _cached(file, Request(frames, max_pixels, multiple, start, end, backend), time_limit)
    except FAULTS as error:
        raise ClipError(path, backend, str(error) or type(error).__name__) from error
    if clip.note:
        warnings.warn(f"{path}: {clip.note}", ClipWarning, stacklevel=2)
    return _reorder(clip, order)


def preflight(samples: Iterable, root=None, time_limit: float = 20, **settings):
    """Read each video of the samples once, as untrusted, in parallel: (good videos, {bad video: ClipError})."""
    from tqdm.contrib.concurrent import thread_map

    def fault(video):
        try:
            read_clip(video, root=root, time_limit=time_limit, **settings)
        except ClipError as error:
            return error

    videos = list(dict.fromkeys(sample.video for sample in samples))
    faults = dict(zip(videos, thread_map(fault, videos, max_workers=os.cpu_count(), desc="videos")))
    return [v for v in videos if not faults[v]], {v: error for v, error in faults.items() if error}


def _locate(path, root):
    match = re.fullmatch(r"(.*?)(?:#t=(\d+\.?\d*)?(?:,(\d+\.?\d*))?)?", path, re.DOTALL)
    if "\0" in path or "#t=" in match[1] or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", path):
        raise ValueError(
            "expected the path of a file, with a range like #t=3.0,9.5 or none, not a URL"
        )
    file = (Path(match[1]) if root is None else safe_path(path, root)).resolve()
    if not file.is_file():
        raise FileNotFoundError("no such file")
    if not 0 < file.stat().st_size <= MAX_BYTES:
        raise ValueError(f"expected 1 to {MAX_BYTES:,} bytes, found {file.stat().st_size:,}")
    return file, float(match[2] or 0), float(match[3] or math.inf)


def _reorder(clip, order):
    """Other frames at the same times: what a model is told of the times must not give the order away."""
    if order == "forward":
        return clip
    place = np.arange(len(clip.frames))
    if order == "shuffled":
        mixed = np.random.default_rng(int(clip.key[:16], 16)).permutation(place)
        place = np.roll(mixed, (mixed == place).all())
    place = {"reversed": place[::-1], "single": np.full_like(place, len(place) // 2)}.get(
        order, place
    )
    frames = np.full_like(clip.frames, 128) if order == "blank" else clip.frames[place]
    return replace(clip, frames=frames, key=f"{clip.key}-{order}")


@contextmanager
def _opened(file):
    import av

    only = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        with av.open(str(file), options=only, metadata_errors="replace") as container:
            cover = av.stream.Disposition.attached_pic
            shown = (
                s for s in container.streams.video if s.codec_context and not s.disposition & cover
            )
            if not (stream := next(shown, None)):
                raise ValueError("no video in the file that FFmpeg can decode")
            codec, stream.thread_type = stream.codec_context, "AUTO"
            small = codec.width * codec.height < 500_000  # these decode faster in one thread
            codec.thread_count = 1 if small else min(4, os.cpu_count() or 1)
            codec.options = {"max_pixels": str(MAX_PIXELS), "err_detect": "explode"}
            yield container, stream
    except av.FFmpegError as error:
        raise ValueError(f"damaged, or not a video: {error.strerror}") from error


def _index(file):
    """Index of a file: times of its frames and key frames in units of base, and what else its packets tell."""
    with _opened(file) as (container, stream):
        size = stream.codec_context.width * stream.codec_context.height
        if size > MAX_PIXELS or (container.duration or 0) > MAX_SECONDS * 10**6:
            raise ValueError(
                f"expected at most {MAX_PIXELS:,} pixels and {MAX_SECONDS} s, found more"
            )
        rows, end, whole = [], 0, True
        for packet in container.demux(stream):
            if packet.is_corrupt or len(rows) >= MAX_FRAMES:
                whole = False
                break
            if packet.size:
                rows.append((packet.pts, packet.is_keyframe, packet.is_discard, packet.dts))
                end = max(end, (packet.pts or 0) + (packet.duration or 0))
        if not whole or all(row[2] for row in rows) or _ends_early(file, container, stream, end):
            shown = [pts for pts, _, discard, _ in rows if pts is not None and not discard] or [0]
            of = f" of {container.duration / 1e6:.2f}" if container.duration else ""
            raise ValueError(
                f"truncated: {float((max(shown) - min(shown)) * stream.time_base):.2f}{of} s are there"
            )
        return _indexed(container.format.name, stream, rows)


def _ends_early(file, container, stream, end):
    if "mp4" in container.format.name:
        return (
            max((entry.pos + entry.size for entry in stream.index_entries), default=0)
            > file.stat().st_size
        )
    if container.format.name == "avi":
        declared = stream.frames / (stream.average_rate or math.inf)
    else:  # Matroska has a tag for each of its streams
        declared = sum(
            float(n) * 60**i
            for i, n in enumerate(stream.metadata.get("DURATION", "0").split(":")[::-1])
        )
    return declared - end * stream.time_base > 1


def _indexed(name, stream, rows):
    """AVI has no presentation times: those of decoding stand in, and are sure once every frame was decoded."""
    at, codec, aspect = (
        3 if name == "avi" else 0,
        stream.codec_context.name,
        float(stream.sample_aspect_ratio or 1),
    )
    timed = all(row[at] is not None for row in rows)
    pts = np.unique([row[at] for row in rows if timed and not row[2]])
    keys = np.unique([row[0] for row in rows if row[1] and timed and name not in ("avi", "mpegts")])
    doubt = "pixels that are not square" if aspect != 1 else _doubt(name, codec, rows)
    return Index(
        pts, timed and not at, keys, float(stream.time_base), codec == "h264", aspect, doubt
    )


def _doubt(name, codec, rows):
    """Why decord, which counts packets from a key frame on, may give other frames; empty where it is exact."""
    pts = np.array([math.nan if row[0] is None else row[0] for row in rows])
    before, after = np.maximum.accumulate(pts), np.minimum.accumulate(pts[::-1])[::-1]
    if "mp4" not in name or codec not in ("h264", "hevc", "mpeg4"):
        return f"{codec} in {name}"
    if any(row[2] for row in rows):
        return "an edit list leaves out frames"
    closed = all(before[i] == pts[i] == after[i] for i, row in enumerate(rows) if row[1])
    return "" if closed else "open groups of pictures"


def _choose(index, request):
    """Times of all frames, places of those to be read, and what is less than was asked for."""
    seconds = (
        index.pts - index.pts[0]
    ) * index.base  # an IndexError where the packets tell no times
    inside = np.flatnonzero((seconds >= request.start) & (seconds <= request.end))
    if not len(inside):
        raise ValueError(
            f"no frame from {request.start} to {request.end} s: the video has 0 to {seconds[-1]:.2f} s"
        )
    if len(inside) < request.frames:
        note = f"only {len(inside)} of the {request.frames} frames asked for are there"
        return seconds, np.append(inside, inside[len(inside) - len(inside) % 2 :]), note
    return seconds, inside[_spread(seconds[inside], request.frames)], ""


def _spread(seconds, count):
    """Positions of the frames nearest to `count` even times, each once.

    >>> _spread(np.array([0, 1, 2, 3, 4, 8]), 4).tolist()
    [0, 3, 4, 5]
    """
    near = [np.abs(seconds - at).argmin() for at in np.linspace(seconds[0], seconds[-1], count)]
    steps = np.arange(count)
    return np.minimum(np.maximum.accumulate(near - steps) + steps, len(seconds) - count + steps)


def _read(file, request, key):
    index = _index(file)
    try:
        return _sampled(file, request, key, index)
    except LookupError:  # decoding gives other frames than the packets promise
        return _sampled(file, request, key, _index_decoded(file, index))


def _sampled(file, request, key, index):
    seconds, where, note = _choose(index, request)
    found = BACKENDS[request.backend](
        file, index, {int(index.pts[place]): int(place) for place in sorted(where)}
    )
    images = {place: _resize(image, turn, index.aspect, request) for place, image, turn in found}
    fps = float((len(seconds) - 1) / seconds[-1]) if len(seconds) > 1 else 0.0
    duration, notes = (
        float(seconds[-1]) + (1 / fps if fps else 0),
        "; ".join(filter(None, (index.note, note))),
    )
    frames = np.stack([images[place] for place in where])
    return Clip(frames, seconds[where], where, fps, duration, request.backend, key, notes)


def _index_decoded(file, index):
    """The index of the frames that decoding gives, for files whose packets promise others."""
    with _opened(file) as (container, stream):
        pts = [frame.pts for frame in _frames(container, stream) if not frame.is_corrupt]
    if not pts or None in pts or (np.diff(pts) <= 0).any():
        raise ValueError(
            "the times of the frames are missing or go backwards: convert the file to mp4"
        )
    lost = len(index.pts) - len(pts)
    note = (
        f"{lost} of the {len(index.pts)} frames of the file cannot be decoded and are left out"
        if lost > 0
        else ""
    )
    return index._replace(pts=np.array(pts), sure=True, keys=np.array([]), skips=False, note=note)


def _frames(container, stream, needed=None):
    for packet in container.demux(stream):
        if needed:
            stream.codec_context.skip_frame = "DEFAULT" if packet.pts in needed else "NONREF"
        yield from packet.decode()


def _by_pyav(file, index, wanted):
    """Place, pixels and rotation of each frame wanted, {pts: place}; LookupError where there are others."""
    found, seen = 0, []
    with (
        suppress(ValueError),
        _opened(file) as (container, stream),
    ):  # what is damaged is looked into by _index_decoded
        for key, group in _groups(index, wanted):
            if key is not None:
                container.seek(key, stream=stream)
            for frame in _frames(container, stream, wanted if index.skips and index.sure else None):
                seen.append(frame.pts)
                if frame.pts in group and not frame.is_corrupt:
                    found += 1
                    yield wanted[frame.pts], frame.to_ndarray(format="rgb24"), frame.rotation
                if index.sure and (frame.pts or 0) >= group[-1]:
                    break
    if found < len(wanted) or (not index.sure and seen != index.pts.tolist()):
        raise LookupError(
            f"damaged: {len(wanted) - found} of the {len(wanted)} frames wanted cannot be decoded"
        )


def _groups(index, wanted):
    """Wanted frames to be decoded in one go, and the key frame to seek first, if any: a seek costs a dozen frames."""
    groups, last = [(None, [])], 0
    for pts, place in wanted.items():
        key = (
            int(index.keys[max(0, np.searchsorted(index.keys, pts, "right") - 1)])
            if len(index.keys)
            else -math.inf
        )
        if np.searchsorted(index.pts, key) - last > SEEK:
            groups.append((key, []))
        groups[-1][1].append(pts)
        last = place
    return [group for group in groups if group[1]]


def _by_decord(file, index, wanted):
    if index.doubt:
        raise ValueError(
            f"decord may give wrong frames here ({index.doubt}): read it with backend='pyav'"
        )
    import decord

    try:
        reader = decord.VideoReader(str(file))
        if len(reader) != len(index.pts):
            raise ValueError(f"decord finds {len(reader)} frames where there are {len(index.pts)}")
        for place in wanted.values():
            yield place, reader.get_batch([place]).asnumpy()[0], 0  # decord turns it itself
    except decord.DECORDError as error:
        raise ValueError(f"decord: {str(error).splitlines()[0]}") from error


def _by_torchcodec(file, index, wanted):
    if not len(index.keys):
        raise ValueError(
            "torchcodec may give wrong frames here (no index to seek by): read it with backend='pyav'"
        )
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(file), seek_mode="exact", dimension_order="NHWC")
    for pts, place in wanted.items():
        frame = decoder.get_frame_at(place)
        if abs(frame.pts_seconds - pts * index.base) > 0.002:
            raise ValueError(
                f"torchcodec gives the frame of {frame.pts_seconds:.3f} s for frame {place}"
            )
        yield place, frame.data.numpy(), 0  # and this turns it itself


BACKENDS = {"pyav": _by_pyav, "decord": _by_decord, "torchcodec": _by_torchcodec}


def _resize(image, turn, aspect, request):
    from PIL import Image

    quarters = round(turn / 90) % 4
    sides = (image.shape[0], round(image.shape[1] * aspect))
    flip = -1 if quarters % 2 else 1
    rows, columns = _fit(*sides[::flip], request.max_pixels, request.multiple)[::flip]
    small = Image.fromarray(image).resize(
        (columns, rows), Image.Resampling.BICUBIC
    )  # antialiased, as the processors'
    return np.rot90(np.asarray(small), quarters)


def _fit(height, width, max_pixels, multiple):
    """Height and width to the multiple and within max_pixels, aspect kept as far as both allow.

    >>> _fit(1408, 1408, 84 * 84, 28), _fit(480, 640, 360 * 420, 28)
    ((84, 84), (336, 448))
    """
    rows, columns = max(1, round(height / multiple)), max(1, round(width / multiple))
    if (
        rows * columns * multiple**2 > max_pixels
    ):  # whole numbers: a float root can lose a whole row
        most = max_pixels // multiple**2
        rows = min(max(1, math.isqrt(max_pixels * height // width) // multiple), most)
        columns = min(max(1, math.isqrt(max_pixels * width // height) // multiple), most)
        rows, columns = min(rows, most // columns), min(columns, most // rows)
    return rows * multiple, columns * multiple


def _cached(file, request, time_limit):
    """Read through the cache: <key>.clip holds a line of JSON and the pixels, <name>.sum the content hash of a file."""
    folder = cache_folder()
    key = _hash(json.dumps([READER, _content(file, folder), *request]))
    kept = folder and folder / f"{key}.clip"
    if clip := kept and _load(kept):
        return clip
    clip = (
        _read_in_child(file, request, key, time_limit) if time_limit else _read(file, request, key)
    )
    try:
        if kept:
            keep(kept, _packed(clip))
    except OSError as error:
        warnings.warn(f"the clip is not kept: {error}", ClipWarning, stacklevel=3)
    return (kept and _load(kept)) or clip


def _hash(text):
    return blake2b(text.encode(), digest_size=16).hexdigest()


def cache_folder() -> Path | None:
    """Return the folder of what is kept: STLITE_CACHE, or one under the home folder; None where it is "off"."""
    name = os.environ.get("STLITE_CACHE") or str(Path.home() / ".cache" / "stlite")
    return None if name == "off" else Path(name)


def _content(file, folder):
    stat = file.stat()
    memo = (
        folder
        and folder
        / f"{_hash(repr((str(file), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)))}.sum"
    )
    if memo and memo.is_file() and len(known := memo.read_text()) == 64:
        return known
    with open(file, "rb") as stream:
        digest = file_digest(stream, "sha256").hexdigest()
    if memo:
        with suppress(OSError):  # said by _cached, once
            keep(memo, [digest.encode()])
    return digest


def _packed(clip):
    head = json.dumps(vars(clip) | {"frames": clip.frames.shape}, default=np.ndarray.tolist)
    return [head.encode() + b"\n", clip.frames.tobytes()]


def _load(path):
    try:
        with open(path, "rb") as stream:
            head = json.loads(stream.readline())
            frames = np.memmap(stream, np.uint8, "c", stream.tell(), tuple(head["frames"]))
            os.utime(path)  # what is used last is removed last
        head |= {name: np.array(head[name]) for name in ("seconds", "indices")}
        return Clip(**head | {"frames": np.asarray(frames)})
    except OSError:  # not there, or said by _cached when it cannot be kept
        return None
    except (ValueError, KeyError, TypeError):  # not a whole clip of ours
        path.unlink(missing_ok=True)
        return None


_grown = math.inf  # bytes written by this process since it last looked how big the cache is


def keep(path: Path, parts: list[bytes]) -> None:
    """Write a file into the cache; what was used longest ago goes, down to nine tenths of STLITE_CACHE_GB (20), each fiftieth of it."""
    global _grown
    write_bytes(path, parts)
    limit, total = float(os.environ.get("STLITE_CACHE_GB", 20)) * 2**30, 0
    _grown += sum(map(len, parts))
    if _grown >= limit / 50:
        _grown = 0
        for _, size, file in sorted(_ours(path.parent), reverse=True):
            total += size
            if total > 0.9 * limit:
                file.unlink(missing_ok=True)


def _ours(folder):
    for file in folder.glob("*.*") if folder else ():
        if file.suffix in (".clip", ".sum", ".features", ".tmp"):
            with suppress(FileNotFoundError):
                stat = file.stat()
                yield stat.st_mtime_ns, stat.st_size, file


def cache_stats() -> dict:
    """Folder, clips and bytes of the cache; STLITE_CACHE names the folder ("off": none), STLITE_CACHE_GB its bound."""
    sizes = {file: size for _, size, file in _ours(cache_folder())}
    clips = sum(file.suffix == ".clip" for file in sizes)
    return {"folder": str(cache_folder()), "clips": clips, "bytes": sum(sizes.values())}


def clear_cache() -> dict:
    """Remove every kept clip and say what was there."""
    stats = cache_stats()
    for *_, file in _ours(cache_folder()):
        file.unlink(missing_ok=True)
    return stats


def _read_in_child(file, request, key, time_limit):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        out = Path(folder, "clip")
        order = json.dumps([str(file), request, key, str(out)])
        command = [
            sys.executable,
            "-c",
            "from stlite.data.video import _read_for_parent; _read_for_parent()",
        ]
        home = Path(__file__).parents[2]
        try:
            done = subprocess.run(
                command, input=order.encode(), capture_output=True, timeout=time_limit, cwd=home
            )
        except subprocess.TimeoutExpired:
            raise ValueError(f"not read within {time_limit} s: stopped") from None
        if clip := _load(out):
            return clip
        raise ValueError(
            done.stdout.decode() or f"the reader died with exit status {done.returncode}"
        )


def _read_for_parent():
    file, request, key, out = json.load(sys.stdin)
    try:
        keep(Path(out), _packed(_read(Path(file), Request(*request), key)))
    except FAULTS as error:
        sys.stdout.write(str(error) or type(error).__name__)
