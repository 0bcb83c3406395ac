"""A corpus of awkward videos whose every frame carries its own number, drawn into the pixels.

make(folder, "open_gop") → Made(path, times={0: 0.0, 1: 0.033, …}); number(frame) → 17
"""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

RATE = 30
CORNERS = {(0, 0): (230, 40, 40), (0, 3): (20, 20, 20), (3, 0): (20, 20, 20), (3, 3): (40, 40, 230)}
CELLS = [(row, column) for row in range(4) for column in range(4) if (row, column) not in CORNERS]


@dataclass
class Made:
    """A generated file, and the presentation time of each frame that it shows, by the number drawn into it."""

    path: Path
    times: dict = field(default_factory=dict)


def draw(n, width, height):
    """Draw frame number `n`: four coloured corners that tell the orientation, twelve cells of one bit each."""
    image = np.empty((height, width, 3), np.float32)
    rows, columns = np.arange(5) * height // 4, np.arange(5) * width // 4
    colours = CORNERS | {
        cell: (220,) * 3 if n >> bit & 1 else (35,) * 3 for bit, cell in enumerate(CELLS)
    }
    for (row, column), colour in colours.items():
        image[rows[row] : rows[row + 1], columns[column] : columns[column + 1]] = colour
    y, x = np.ogrid[:height, :width]
    wave = 15 * np.sin((x + 3 * n) / 9) * np.cos((y - 2 * n) / 7)
    return np.clip(image + wave[..., None], 0, 255).astype(np.uint8)


def number(frame):
    """Read the number drawn into a frame of any size; None where the frame is turned, torn or off colour."""
    height, width = frame.shape[:2]
    parts = {cell: _middle(frame, cell, height, width) for cell in [*CORNERS, *CELLS]}
    if any(np.abs(parts[cell] - colour).max() > 45 for cell, colour in CORNERS.items()):
        return None
    light = [parts[cell].mean() for cell in CELLS]
    if any(90 < value < 165 for value in light):
        return None
    return sum((value > 128) << bit for bit, value in enumerate(light))


def _middle(frame, cell, height, width):
    top, left = cell[0] * height // 4, cell[1] * width // 4
    return frame[
        top + height // 12 : top + height // 6, left + width // 12 : left + width // 6
    ].mean((0, 1))


def encode(
    path,
    numbers,
    codec="libx264",
    size=(320, 240),
    pts=None,
    turn=0,
    fmt="yuv420p",
    options=None,
    **mux,
):
    """Encode the frames `numbers` with presentation times `pts` in 1/600 s; `turn` is stored as display rotation."""
    import av

    with av.open(str(path), "w", options=mux) as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height = size[::-1] if turn % 180 else size
        stream.pix_fmt, stream.options = fmt, {"g": "250", "preset": "veryfast"} | (options or {})
        stream.codec_context.time_base = stream.time_base = Fraction(1, 600)
        if turn:
            stream.set_display_rotation(turn)
        for i, n in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(np.rot90(draw(n, *size), -turn // 90).copy())
            frame.pts, frame.time_base = pts[i] if pts else i * 600 // RATE, Fraction(1, 600)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# ---- the kinds: each a function of a folder


def _plain(folder, name="plain.mp4", count=90, **settings):
    path = encode(folder / name, range(count), **settings)
    return Made(path, {n: n / RATE for n in range(count)})


def _x264(params):
    return {"x264-params": params}


def _copy_cut(folder, start=1.4):
    """Cut without decoding, as `ffmpeg -ss 1.4 -i in.mp4 -c copy` does: from the key frame on, an edit list hides some."""
    import av

    whole = encode(
        folder / "whole.mp4", range(120), options=_x264("keyint=30:min-keyint=30:scenecut=0")
    )
    path = folder / "copy_cut.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        offset = round(start / stream.time_base)
        source.seek(offset, stream=stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.pts, packet.dts, packet.stream = (
                    packet.pts - offset,
                    packet.dts - offset,
                    copy,
                )
                target.mux(packet)
    first = round(start * RATE)
    return Made(path, {n: (n - first) / RATE for n in range(first, 120)})


def _variable(folder):
    steps = np.random.default_rng(0).choice([10, 20, 40, 200], 89, p=[0.3, 0.4, 0.25, 0.05])
    pts = [0, *np.cumsum(steps).tolist()]
    path = encode(folder / "variable.mp4", range(90), pts=pts)
    return Made(path, {n: at / 600 for n, at in enumerate(pts)})


def _late(folder):
    """A file whose first frame is shown 5 s after the start."""
    path = encode(folder / "late.mkv", range(90), pts=[3000 + n * 20 for n in range(90)])
    return Made(path, {n: 5 + n / RATE for n in range(90)})


def _late_key_frame(folder):
    """Cut by bytes, as a recording is joined: the first key frame is number 24, what comes before cannot be decoded."""
    path = _plain(folder, "plain.ts", options=_x264(OPEN)).path
    data = path.read_bytes()
    path.write_bytes(data[len(data) // 188 // 5 * 188 :])
    return Made(path, {n: (n - 24) / RATE for n in range(24, 90)})


def _with_sound(folder):
    """Sound first and longer than the picture, as phones and cameras write it."""
    import av

    plain, path = _plain(folder, "silent.mp4").path, folder / "with_sound.mp4"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        sound = target.add_stream("aac", rate=16000)
        copy = target.add_stream_from_template(source.streams.video[0])
        _beep(target, sound, seconds=4)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copy
                target.mux(packet)
    return Made(path, {n: n / RATE for n in range(90)})


def _beep(target, stream, seconds):
    import av

    for i in range(round(seconds * 16000 / 1024)):
        wave = np.sin(np.arange(i * 1024, i * 1024 + 1024) / 8).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, i * 1024
        target.mux(stream.encode(frame))
    target.mux(stream.encode())


OPEN = "open-gop=1:keyint=24:min-keyint=24:scenecut=0:bframes=3"
GOOD = {
    "long_gop": _plain,
    "short_gop": lambda folder: _plain(folder, options={"g": "10"}),
    "no_b_frames": lambda folder: _plain(folder, options={"bf": "0"}),
    "open_gop": lambda folder: _plain(folder, options=_x264(OPEN)),
    "copy_cut": _copy_cut,
    "variable_rate": _variable,
    "fragmented": lambda folder: _plain(
        folder, options={"g": "15"}, movflags="frag_keyframe+empty_moov"
    ),
    "hevc": lambda folder: _plain(
        folder, codec="libx265", options={"x265-params": "open-gop=0:log-level=none"}
    ),
    "hevc_open_gop": lambda folder: _plain(
        folder, codec="libx265", options={"x265-params": f"{OPEN}:log-level=none"}
    ),
    "vp9": lambda folder: _plain(
        folder, "plain.webm", codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}
    ),
    "av1": lambda folder: _plain(
        folder, codec="libsvtav1", options={"preset": "8", "crf": "20", "svtav1-params": "lp=1"}
    ),
    "rotated_90": lambda folder: _plain(folder, turn=90),
    "rotated_180": lambda folder: _plain(folder, turn=180),
    "rotated_270": lambda folder: _plain(folder, turn=270),
    "odd_size": lambda folder: _plain(folder, size=(321, 243), fmt="yuv444p"),
    "three_frames": lambda folder: _plain(folder, count=3),
    "late_start": _late,
    "with_sound": _with_sound,
    "transport_stream": lambda folder: _plain(folder, "plain.ts", options=_x264(OPEN)),
    "late_key_frame": _late_key_frame,
    "avi": lambda folder: _plain(
        folder, "plain.avi", codec="mpeg4", options={"g": "12", "b": "2000000"}
    ),
}


# ---- broken ones: nothing to be read from them


def _cut_short(name, **settings):
    def make(folder):
        path = _plain(folder, name, options={"g": "15"}, **settings).path
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
        return path

    return make


def _written(name, content):
    def make(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _audio_only(folder):
    import av

    with av.open(str(folder / "sound.m4a"), "w") as target:
        _beep(target, target.add_stream("aac", rate=16000), seconds=2)
    return folder / "sound.m4a"


def _too_large(folder):
    """One frame of 9000×4000 in a small file."""
    import av

    with av.open(str(folder / "large.avi"), "w") as target:
        stream = target.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 9000, 4000, "yuvj420p"
        target.mux(stream.encode(av.VideoFrame(9000, 4000, "yuvj420p")))
        target.mux(stream.encode())
    return folder / "large.avi"


def _playlist(folder):
    """A text that names another file, which FFmpeg would open."""
    other = _plain(folder, "other.mp4", count=3).path
    (folder / "list.mp4").write_text(f"ffconcat version 1.0\nfile {other.name}\n")
    return folder / "list.mp4"


def _sparse(folder):
    with open(folder / "vast.mp4", "wb") as stream:
        stream.truncate(8 * 2**30 + 1)
    return folder / "vast.mp4"


BROKEN = {
    "truncated": _cut_short("short.mp4", movflags="faststart"),
    "truncated_fragmented": _cut_short("short.mp4", movflags="frag_keyframe+empty_moov"),
    "truncated_mkv": _cut_short("short.mkv"),
    "no_moov": _cut_short("short.mp4"),
    "not_a_video": _written("text.mp4", b"This is no video. " * 500),
    "random_bytes": _written("noise.mp4", np.random.default_rng(0).bytes(50_000)),
    "empty": _written("empty.mp4", b""),
    "audio_only": _audio_only,
    "too_large": _too_large,
    "too_long": lambda folder: encode(folder / "long.mp4", range(3), pts=[0, 600, 600 * 5 * 3600]),
    "too_many_bytes": _sparse,
    "playlist": _playlist,
}


def make(folder, kind):
    """Generate one kind into a folder of its own: a Made, with no times where it is broken."""
    place = Path(folder, kind)
    place.mkdir(parents=True)
    return GOOD[kind](place) if kind in GOOD else Made(BROKEN[kind](place))
