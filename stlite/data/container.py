"""A video file's container: opened safely, and indexed by its packets without decoding.

Each packet tells the presentation time of a frame, and whether decoding can start there.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stlite.data.structure import CONVERT, cut_short, foreign_container

MAX_SECONDS = 4 * 3600
MAX_PIXELS = 8192 * 4320
MAX_FRAMES = 1_000_000
SMALL = 500_000  # pixels: below, one thread decodes faster
PREVIEW = 8  # a track of an eighth of another's area is its preview
FORMATS = "mov,matroska,avi,mpegts"  # no playlists: they name other files and URLs


class Packet(NamedTuple):
    """What one packet tells of its frame."""

    pts: int | None
    key: bool
    discard: bool  # an edit list leaves the frame out
    dts: int | None


class Index(NamedTuple):
    """The frames of a file, as its packets or a decoding tell them."""

    pts: np.ndarray  # ascending times of the frames, in units of base
    sure: bool  # whether decoding is known to give these frames
    keys: np.ndarray  # times of the frames where decoding can start
    base: float  # seconds
    skips: bool  # whether frames that no other refers to may be passed over (H.264)
    aspect: float  # width over height of a pixel
    clock: str  # the time of a decoded frame: "pts", or in an AVI without B-frames "dts"
    doubt: str  # why decord may give other frames; "" where it is exact
    note: str = ""  # what is less than the file promises


@contextmanager
def open_video(file: Path):
    """Open the video track players show: (container, stream); only local files, no playlists."""
    import av

    only = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    fault = av.FFmpegError  # named before: when Python ends, av is gone before this generator
    try:
        with av.open(str(file), options=only, metadata_errors="replace") as container:
            stream = _shown_stream(container)
            codec = stream.codec_context
            stream.thread_type = "AUTO"
            small = codec.width * codec.height < SMALL
            codec.thread_count = 1 if small else min(4, os.cpu_count() or 1)
            codec.options = {"max_pixels": str(MAX_PIXELS), "err_detect": "explode"}
            yield container, stream
    except fault as error:
        damaged = f"damaged, or not a video: {error.strerror}"
        reason = foreign_container(file) or cut_short(file) or damaged
        raise ValueError(reason) from error


def _shown_stream(container):
    """Choose the track players show: no cover, no preview, of several the default one."""
    import av

    kinds = av.stream.Disposition
    hidden = kinds.attached_pic | kinds.timed_thumbnails | kinds.still_image
    tracks = []
    for stream in container.streams.video:
        if stream.codec_context and not stream.disposition & hidden:
            tracks.append(stream)
    moving = [stream for stream in tracks if stream.frames != 1] or tracks
    if not moving:
        raise ValueError("no video in the file that FFmpeg can decode")
    largest = max(map(_area, moving))
    full = [stream for stream in moving if _area(stream) * PREVIEW >= largest]
    default = [stream for stream in full if stream.disposition & kinds.default]
    return max(default or full, key=_area)  # of equals the first


def _area(stream) -> int:
    return stream.codec_context.width * stream.codec_context.height


def decode_frames(container, stream, needed=None) -> Iterator:
    """Decode frame by frame; given times, other frames may be left out that no other refers to."""
    for packet in container.demux(stream):
        if needed:
            wanted = packet.pts in needed
            stream.codec_context.skip_frame = "DEFAULT" if wanted else "NONREF"
        yield from packet.decode()


# ---- the index


def index_packets(file: Path) -> Index:
    """Index a file by its packets; ValueError where it is too large, not whole or two films."""
    cut = cut_short(file)
    with open_video(file) as (container, stream):
        _check_size(container, stream)
        packets, end, whole = _read_packets(container, stream)
        hidden = all(packet.discard for packet in packets)
        if cut or not whole or hidden or _ends_early(file, container, stream, end):
            raise ValueError(_truncated(container, stream, packets))
        _check_clock(stream, packets)
        index = _make_index(container.format.name, stream, packets)
        return index._replace(note=_notes(container, stream, packets, index, end))


def _check_size(container, stream):
    size = stream.codec_context.width * stream.codec_context.height
    seconds = (container.duration or 0) / 1e6
    if size > MAX_PIXELS or seconds > MAX_SECONDS:
        raise ValueError(f"expected at most {MAX_PIXELS:,} pixels and {MAX_SECONDS} s, found more")


def _read_packets(container, stream) -> tuple[list[Packet], int, bool]:
    """Return all packets, the end of the last to be shown, and whether none is corrupt."""
    packets = []
    end = 0
    for packet in container.demux(stream):
        if packet.is_corrupt or len(packets) >= MAX_FRAMES:
            return packets, end, False
        if packet.size:
            packets.append(Packet(packet.pts, packet.is_keyframe, packet.is_discard, packet.dts))
            end = max(end, (packet.pts or 0) + (packet.duration or 0))
    return packets, end, True


def _truncated(container, stream, packets) -> str:
    shown = [p.pts for p in packets if p.pts is not None and not p.discard] or [0]
    there = float((max(shown) - min(shown)) * stream.time_base)
    of = f" of {container.duration / 1e6:.2f}" if container.duration else ""
    return f"truncated: {there:.2f}{of} s are there"


def _check_clock(stream, packets: list[Packet]):
    """Refuse times that run back, as in joined files: their frames cannot be told apart."""
    latest = -math.inf
    latest_key = -math.inf
    for packet in packets:
        back = packet.dts is not None and packet.dts < latest
        key_back = packet.key and packet.pts is not None and packet.pts < latest_key
        if back or key_back:
            first = min(p.pts for p in packets if p.pts is not None)
            seconds = float((max(latest, latest_key) - first) * stream.time_base)
            raise ValueError(
                f"the times start again after {seconds:.2f} s, as in recordings joined by bytes: "
                "split it, or join the recordings with FFmpeg's concat demuxer"
            )
        latest = latest if packet.dts is None else packet.dts
        if packet.key and packet.pts is not None:
            latest_key = packet.pts


def _notes(container, stream, packets: list[Packet], index: Index, end: int) -> str:
    """Say what is less than the file promises, where it still can be read."""
    notes = []
    shown = sum(not packet.discard for packet in packets)
    if index.sure and len(index.pts) < shown:
        same = shown - len(index.pts)
        notes.append(f"{same} of the {shown} frames have the time of another and are left out")
    missing = _undeclared_end(container, stream, end)
    if missing:
        notes.append(missing)
    return "; ".join(notes)


def _undeclared_end(container, stream, end: int) -> str:
    """Say how far the picture reaches where no other track explains the film's declared length."""
    declared = (container.duration or 0) / 1e6
    there = float(end * stream.time_base)
    if container.format.name != "matroska,webm" or declared - there <= 1:
        return ""
    for other in container.streams:
        length = _clock_seconds(other.metadata.get("DURATION", "0"))
        if other is not stream and declared - length <= 1:
            return ""
    return f"the picture ends at {there:.2f} of the {declared:.2f} s that the file declares"


def _ends_early(file: Path, container, stream, end: int) -> bool:
    """Tell whether the file declares more of this track than is there."""
    if "mp4" in container.format.name:
        ends = (entry.pos + entry.size for entry in stream.index_entries)
        return max(ends, default=0) > file.stat().st_size
    if container.format.name == "avi":
        declared = stream.frames / (stream.average_rate or math.inf)
    elif "DURATION" in stream.metadata:
        declared = _clock_seconds(stream.metadata["DURATION"])
    elif "matroska" in container.format.name and len(container.streams) == 1:
        declared = (container.duration or 0) / 1e6
    else:
        return False
    return declared - end * stream.time_base > 1


def _clock_seconds(text: str) -> float:
    """Read the tag that Matroska has for each of its tracks.

    >>> _clock_seconds("00:01:02.5")
    62.5
    """
    seconds = 0.0
    for part in text.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def _make_index(name: str, stream, packets: list[Packet]) -> Index:
    """Index the frames.

    AVI has no presentation times (FFmpeg's are a guess): those of decoding stand in, and are not
    sure before every frame was decoded.
    """
    codec = stream.codec_context.name
    aspect = float(stream.sample_aspect_ratio or 1)
    times = [packet.dts if name == "avi" else packet.pts for packet in packets]
    timed = None not in times
    shown = [at for at, packet in zip(times, packets) if timed and not packet.discard]
    keys = []
    if timed and name not in ("avi", "mpegts"):
        keys = [packet.pts for packet in packets if packet.key]
    return Index(
        pts=np.unique(shown),
        sure=timed and name != "avi",
        keys=np.unique(keys),
        base=float(stream.time_base),
        skips=codec == "h264",
        aspect=aspect,
        clock="dts" if name == "avi" and not stream.codec_context.has_b_frames else "pts",
        doubt="pixels that are not square" if aspect != 1 else _doubt(name, codec, packets),
    )


def _doubt(name: str, codec: str, packets: list[Packet]) -> str:
    """Say why decord, which counts packets from a key frame on, may give other frames, or ""."""
    if "mp4" not in name or codec not in ("h264", "hevc", "mpeg4"):
        return f"{codec} in {name}"
    if any(packet.discard for packet in packets):
        return "an edit list leaves out frames"
    pts = np.array([math.nan if packet.pts is None else packet.pts for packet in packets])
    latest_before = np.maximum.accumulate(pts)
    earliest_after = np.minimum.accumulate(pts[::-1])[::-1]
    for i, packet in enumerate(packets):
        if packet.key and not latest_before[i] == pts[i] == earliest_after[i]:
            return "open groups of pictures"
    return ""


def index_decoded(file: Path, index: Index) -> Index:
    """Index the frames that decoding gives, for files whose packets promise others."""
    with open_video(file) as (container, stream):
        frames = decode_frames(container, stream)
        pts = [getattr(frame, index.clock) for frame in frames if not frame.is_corrupt]
    if not pts or None in pts or (np.diff(pts) <= 0).any():
        raise ValueError(
            "the times of the frames are missing or go backwards, as in an AVI with B-frames: "
            f"{CONVERT}"
        )
    promised = len(index.pts)
    note = index.note
    if promised > len(pts):
        lost = promised - len(pts)
        left_out = f"{lost} of the {promised} frames of the file cannot be decoded and are left out"
        note = "; ".join(filter(None, (note, left_out)))
    return index._replace(pts=np.array(pts), sure=True, keys=np.array([]), skips=False, note=note)
