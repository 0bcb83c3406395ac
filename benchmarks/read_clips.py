"""How exact and how fast readers of video are, side by side: 16 frames of every kind of file, 8 of 40 s of 1408².

python benchmarks/read_clips.py [kind ...] > clips.md        # every kind and "large" without arguments
READERS=ours,decord python benchmarks/read_clips.py large    # only these readers

A frame is wrong if the number drawn into it is not that of the frame asked for; a time, if it is off by more than half
a frame. Times are the least of REPEAT (5) runs, with the resizing; with CPU=1 they are the processor's, all threads
together, which a busy machine does not disturb.
"""

import math
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import clips

from stlite.data.cache import clear_cache
from stlite.data.video import ClipWarning, read_clip

REPEAT = int(os.environ.get("REPEAT", 5))
CLOCK = time.process_time if os.environ.get("CPU") else time.perf_counter


def shrink(image, pixels):
    from PIL import Image

    scale = math.sqrt(pixels / (image.shape[0] * image.shape[1]))
    return np.asarray(
        Image.fromarray(image).resize(
            [round(side * scale) for side in image.shape[1::-1]], Image.BICUBIC
        )
    )


# ---- the readers: (path, count, pixels) -> frames, seconds


def ours(path, count, pixels):
    clip = read_clip(path, count, pixels)
    return clip.frames, clip.seconds


def ours_kept(path, count, pixels):
    """Read into an empty cache."""
    clear_cache()
    return ours(path, count, pixels)


def _decord(path, indices, pixels):
    import decord

    reader = decord.VideoReader(str(path))
    where = indices(len(reader), reader.get_avg_fps())
    frames = [shrink(frame, pixels) for frame in reader.get_batch(where).asnumpy()]
    return frames, where / reader.get_avg_fps()


def decord(path, count, pixels):
    return _decord(
        path, lambda length, fps: np.linspace(0, length - 1, count).round().astype(int), pixels
    )


def release(path, count, pixels):
    """Decode two frames a second as qwen-vl-utils does, keep as many as asked."""

    def at(length, fps):
        places = np.linspace(0, length - 1, max(4, round(length / fps * 2)))
        return places.round().astype(int)

    frames, seconds = _decord(path, at, pixels)
    keep = np.linspace(0, len(frames) - 1, count).round().astype(int)
    return [frames[i] for i in keep], seconds[keep]


def pyav(path, count, pixels, seek=False):
    """Decode everything, or seek before each time wanted; take the nearest by presentation time."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        base, first = float(stream.time_base), stream.start_time or 0
        times = np.linspace(0, container.duration / 1e6 - 1 / float(stream.average_rate), count)
        found = (
            _sought(container, stream, times, base, first)
            if seek
            else _all(container, stream, times, base, first)
        )
        return [
            shrink(np.rot90(f.to_ndarray(format="rgb24"), f.rotation // 90), pixels)
            for _, f in found
        ], [at for at, _ in found]


def pyav_seek(path, count, pixels):
    return pyav(path, count, pixels, seek=True)


def _all(container, stream, times, base, first):
    frames, best = container.decode(stream), [(math.inf, None)] * len(times)
    for frame in frames:
        at = frame.pts * base - first * base
        for i in np.flatnonzero(
            np.abs(times - at) < [abs(t - b) for t, (b, _) in zip(times, best)]
        ):
            best[i] = at, frame
    return best


def _sought(container, stream, times, base, first):
    found = []
    for wanted in times:
        container.seek(int(wanted / base) + first, stream=stream)
        best = math.inf, None
        for frame in container.decode(stream):
            at = (frame.pts - first) * base
            if abs(at - wanted) >= abs(best[0] - wanted):
                break
            best = at, frame
        found.append(best)
    return found


READERS = (ours, decord, pyav, pyav_seek, release)


# ---- judged


def judge(made, frames, seconds, count):
    """Count frames that are not the nearest to an even time or come twice, and times off by half a frame."""
    numbers, known = [clips.number(np.asarray(frame)) for frame in frames], made.times
    every = np.array(list(known.values())) - min(known.values())
    half = np.diff(every).min() / 2
    wanted = np.linspace(0, every[-1], count)
    near = np.abs(every[:, None] - wanted).min(0)
    true = [known[n] - min(known.values()) if n in known else math.nan for n in numbers]
    steps = np.maximum(
        near, np.gradient(wanted) / 2
    )  # another frame of the same stretch of time is right too
    wrong = (
        sum(not abs(t - w) <= s + 1e-3 for t, w, s in zip(true, wanted, steps))
        if len(every) >= count
        else 0
    )
    repeats = 0 if len(every) < count else len(numbers) - len(set(numbers))
    return wrong, repeats, sum(abs(t - s) > half + 1e-3 for t, s in zip(true, seconds))


def measure(readers, made, count, pixels):
    """{reader: (least seconds, what judge says)} of runs that take turns, so that a busy machine is busy for all."""
    best, found = {}, {}
    for reader in [*readers] * REPEAT:
        start = CLOCK()
        try:
            found[reader] = reader(made.path, count, pixels)
        except Exception as error:  # the others raise what they like
            best[reader], found[reader] = None, type(error).__name__
        else:
            best[reader] = min(best.get(reader, math.inf), CLOCK() - start)
    return {
        r: (best[r], judge(made, *found[r], count) if made.times and best[r] else found[r])
        for r in readers
    }


def cell(seconds, said):
    if seconds is None:
        return said
    wrong = any(said) and isinstance(said[0], int)
    return f"{seconds * 1000:.3g} ms" + (
        f", **{said[0]} wrong, {said[1]} twice, {said[2]} late**" if wrong else ""
    )


def row(kind, made, count, pixels, readers):
    """Measure every reader without a cache, then ours with one; our time over the faster correct of decord and PyAV."""
    os.environ["STLITE_CACHE"] = "off"
    found = measure(readers, made, count, pixels)
    os.environ["STLITE_CACHE"] = str(made.path.parent / "cache")
    found |= measure([ours_kept], made, count, pixels) | {
        "warm": measure([ours], made, count, pixels)[ours]
    }
    rivals = [found[reader] for reader in (decord, pyav, pyav_seek) if reader in found]
    right = [seconds for seconds, said in rivals if seconds and not any(said)]
    ratio = f"{found[ours][0] / min(right):.2f}" if right and found[ours][0] else "–"
    cells = [*(cell(*said) for said in found.values()), ratio]
    print(f"| {kind} | " + " | ".join(cells) + " |", flush=True)


def large(folder):
    """40 s of 1408×1408 at 20 frames a second; kept in the folder LARGE names, if any, since it takes two minutes."""
    path = Path(os.environ.get("LARGE", folder), "large.mp4")
    if not path.exists():
        clips.encode(path, range(800), size=(1408, 1408), pts=[30 * n for n in range(800)])
    return clips.Made(path, {n: n / 20 for n in range(800)})


def main(kinds):
    warnings.simplefilter("ignore", ClipWarning)
    readers = [
        reader
        for reader in READERS
        if reader.__name__ in os.environ.get("READERS", reader.__name__)
    ]
    names = [
        *(reader.__name__ for reader in readers),
        "ours, kept",
        "ours, warm",
        "ours / best right",
    ]
    print("| kind | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds or [*clips.GOOD, *clips.BROKEN, "large"]:
            made = large(folder) if kind == "large" else clips.make(folder, kind)
            row(kind, made, *((8, 360 * 420) if kind == "large" else (16, 84 * 84)), readers)


if __name__ == "__main__":
    main(sys.argv[1:])
