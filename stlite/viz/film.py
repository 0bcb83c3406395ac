"""A film in small pieces: half a second encoded again for the browser, when it is asked for.

    >>> film = Film("sample_data/videos/part1/w0000003.mp4")
    >>> film.duration, film.piece(6, "mp4")["times"][:3]
    (11.5, [3.0, 3.125, 3.25])

A file is never sent whole and never read whole: the decoder stays where the last piece ended.
"""

import io
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction

import numpy as np

from stlite.data.container import open_video

PIECE = 0.5  # seconds: a seek waits for one
SIDE = 640  # pixels of the longer side
CLOCK = Fraction(1, 90_000)
ENCODERS = {  # container: encoder, its settings, the muxer's
    "mp4": (
        "libx264",
        {"preset": "ultrafast", "tune": "zerolatency", "crf": "26"},
        {"movflags": "frag_keyframe+empty_moov+default_base_moof"},
    ),
    "webm": ("libvpx", {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "1500000"}, {}),
}
REACH = 4.0  # seconds that are decoded rather than sought
BACK = (0.0, 2.0, 10.0, 60.0)  # seconds before a moment that a key frame is looked for, in turn


class Film:
    """One open video file; seconds count from its first frame, as those of `read_clip` do.

    Raises ValueError for a file that is no video, is damaged, or holds no frame.
    """

    first = 0  # when the first frame is shown, in units of the file's clock

    def __init__(self, path):
        import av

        self.path = path
        self.fault = av.FFmpegError
        self.closing = ExitStack()
        self._begin()
        if self.upcoming is None:
            self.close()
            raise ValueError("there is no frame in this film that can be decoded")
        self.first = _stamp(self.upcoming[1])
        self.upcoming = (0.0, self.upcoming[1])
        self.width, self.height = self._size(self.upcoming[1])
        self.fps = float(self.stream.average_rate or 25)
        self.duration = self._duration()

    def _begin(self):
        """Open the file, and decode its first frame."""
        self.close()
        self.container, self.stream = self.closing.enter_context(open_video(self.path))
        self.decoded = self.container.decode(self.stream)
        self.current = None
        self.upcoming = self._next()

    def close(self):
        """Close the file."""
        self.decoded = self.current = self.upcoming = None
        self.closing.close()

    def facts(self) -> dict:
        """Describe the film for the front end."""
        names = ("duration", "fps", "width", "height")
        return {name: getattr(self, name) for name in names} | {
            "piece": PIECE,
            "kinds": available(),
        }

    def piece(self, number: int, kind: str) -> dict:
        """Encode what is shown from number · PIECE on: {"times": of the frames, "data": a small file}.

        The first frame is the one on screen at the piece's start: a piece can be shown by itself.
        """
        start = number * PIECE
        end = min(start + PIECE, self.duration)
        if not 0 <= start < self.duration:
            raise ValueError(f"expected a piece of 0 to {self.duration:.2f} s, found {number}")
        times = []
        file = io.BytesIO()
        shown = self.frames(start, end)
        _encode(file, self._small(shown, times), start, end, (self.width, self.height), kind)
        return {"times": times, "data": file.getvalue()}

    def still(self, second: float) -> tuple[float, bytes]:
        """Return the frame on screen at a moment: its own time, and a JPEG."""
        second = min(max(0.0, second), self.duration)
        time, frame = next(self.frames(second, second))
        file = io.BytesIO()
        self._shrunk(frame).to_image().save(file, "JPEG", quality=80)
        return time, file.getvalue()

    def frames(self, start: float, end: float) -> Iterator[tuple[float, object]]:
        """Yield (second, frame): the one on screen at `start`, then those that follow before `end`."""
        if self.current is None or not self.current[0] <= start <= self.current[0] + REACH:
            self._seek(start)
        while self.current is None or self._follows(start):
            self._advance()
        yield self.current
        while self.upcoming is not None and self.upcoming[0] < end:
            self._advance()
            yield self.current

    def _follows(self, second: float) -> bool:
        return self.upcoming is not None and self.upcoming[0] <= second + 1e-6

    def _advance(self):
        self.current = self.upcoming
        self.upcoming = self._next()

    def _seek(self, second: float):
        """Go to a key frame at or before a moment.

        A file without an index is sought further back.
        """
        for back in BACK:
            place = self.first + round(max(0.0, second - back) / self.stream.time_base)
            with suppress(self.fault):
                self.container.seek(place, stream=self.stream)
                self.decoded = self.container.decode(self.stream)
                self.current = None
                self.upcoming = self._next()
                if self._follows(second):
                    return
        self._begin()

    def _next(self) -> tuple[float, object] | None:
        try:
            for frame in self.decoded:
                stamp = _stamp(frame)
                if stamp is not None and not frame.is_corrupt:
                    return round(float((stamp - self.first) * self.stream.time_base), 6), frame
        except self.fault:  # what follows is damaged; what came before is shown
            pass
        return None

    def _duration(self) -> float:
        """Return when the last frame leaves the screen.

        A file that does not say is walked through.
        """
        if self.stream.duration:
            return float(self.stream.duration * self.stream.time_base)
        if self.container.duration:
            return self.container.duration / 1e6
        last = self.first
        for packet in self.container.demux(self.stream):
            last = max(last, packet.pts or 0)
        self._seek(0.0)
        return float((last - self.first) * self.stream.time_base) + 1 / self.fps

    def _size(self, frame) -> tuple[int, int]:
        """Return width and height as shown: upright, pixels square, no side longer than SIDE."""
        width = frame.width * float(self.stream.sample_aspect_ratio or 1)
        height = frame.height
        if round(frame.rotation / 90) % 2:
            width, height = height, width
        scale = min(1.0, SIDE / max(width, height))
        return tuple(max(2, 2 * round(side * scale / 2)) for side in (width, height))

    def _shrunk(self, frame):
        """Return a frame at the film's size, upright."""
        import av

        quarters = round(frame.rotation / 90) % 4
        if not quarters:
            return frame.reformat(self.width, self.height, "yuv420p")
        sides = (self.height, self.width) if quarters % 2 else (self.width, self.height)
        pixels = frame.reformat(*sides, "rgb24").to_ndarray()
        turned = np.ascontiguousarray(np.rot90(pixels, quarters))
        return av.VideoFrame.from_ndarray(turned, format="rgb24").reformat(format="yuv420p")

    def _small(self, shown, times: list) -> Iterator[tuple[float, object]]:
        for second, frame in shown:
            times.append(second)
            yield second, self._shrunk(frame)


def _stamp(frame) -> int | None:
    return frame.dts if frame.pts is None else frame.pts  # AVI has no presentation times


def available() -> list[str]:
    """List the containers this machine can write."""
    import av

    return [kind for kind, (name, *_) in ENCODERS.items() if name in av.codec.codecs_available]


def _encode(file, frames, start: float, end: float, size: tuple[int, int], kind: str):
    """Write frames as a small file that fills the time from start to end; its clock begins at 0."""
    import av

    name, settings, muxing = ENCODERS[kind]
    with av.open(file, "w", format=kind, options=muxing) as container:
        stream = container.add_stream(name, rate=30)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = settings
        stream.time_base = CLOCK
        stream.codec_context.time_base = CLOCK
        stamps = []
        packets = []
        for second, frame in frames:
            frame.pts = round(max(0.0, second - start) / CLOCK)
            frame.time_base = CLOCK
            frame.pict_type = 0  # the encoder chooses, whatever the frame was in its file
            stamps.append(frame.pts)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for packet in packets:
            follows = [stamp for stamp in stamps if stamp > packet.pts]
            until = min(follows, default=round((end - start) / CLOCK))
            packet.duration = max(1, until - packet.pts)
            container.mux(packet)
