"""The pixels of chosen frames: decoded exactly, turned upright and fitted."""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from stlite.data.container import Index, decode_frames, open_video

SEEK = 12  # frames that are decoded rather than passed over: a seek costs about as much


def _by_pyav(file: Path, index: Index, wanted: dict[int, int]) -> Iterator[tuple]:
    """Yield place, pixels and rotation of each frame wanted, {pts: place}.

    LookupError where decoding gives others.
    """
    read = 0
    decoded = []
    needed = wanted if index.skips and index.sure else None
    with suppress(ValueError), open_video(file) as (container, stream):  # damage: index_decoded
        for key, run in _runs(index, wanted):
            if key is not None:
                container.seek(key, stream=stream)
            for frame in decode_frames(container, stream, needed):
                decoded.append(frame.pts)
                if frame.pts in run and not frame.is_corrupt:
                    read += 1
                    yield wanted[frame.pts], frame.to_ndarray(format="rgb24"), frame.rotation
                if index.sure and (frame.pts or 0) >= run[-1]:
                    break
    if read < len(wanted) or (not index.sure and decoded != index.pts.tolist()):
        missing = len(wanted) - read
        raise LookupError(
            f"damaged: {missing} of the {len(wanted)} frames wanted cannot be decoded"
        )


def _runs(index: Index, wanted: dict[int, int]) -> list[tuple[int | None, list[int]]]:
    """Split the times wanted into runs decoded in one go, each with the key frame to seek first."""
    runs = [(None, [])]
    last_place = 0
    for pts, place in wanted.items():
        key = _key_before(index, pts)
        if key is not None and np.searchsorted(index.pts, key) - last_place > SEEK:
            runs.append((key, []))
        runs[-1][1].append(pts)
        last_place = place
    return [run for run in runs if run[1]]


def _key_before(index: Index, pts: int) -> int | None:
    if not len(index.keys):
        return None
    after = np.searchsorted(index.keys, pts, "right")
    return int(index.keys[max(0, after - 1)])


def _by_decord(file: Path, index: Index, wanted: dict[int, int]) -> Iterator[tuple]:
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


BACKENDS = {"pyav": _by_pyav, "decord": _by_decord}


def fit(
    image: np.ndarray, turn: float, aspect: float, max_pixels: int, multiple: int
) -> np.ndarray:
    """Turn a frame upright, make its pixels square and fit it; antialiased, as processors do."""
    from PIL import Image

    quarters = round(turn / 90) % 4
    height = image.shape[0]
    width = round(image.shape[1] * aspect)
    if quarters % 2:
        columns, rows = fitted_size(width, height, max_pixels, multiple)
    else:
        rows, columns = fitted_size(height, width, max_pixels, multiple)
    small = Image.fromarray(image).resize((columns, rows), Image.Resampling.BICUBIC)
    return np.rot90(np.asarray(small), quarters)


def fitted_size(height: int, width: int, max_pixels: int, multiple: int) -> tuple[int, int]:
    """Fit height and width to the multiple and within max_pixels, keeping the aspect if both allow.

    >>> fitted_size(1408, 1408, 84 * 84, 28), fitted_size(480, 640, 360 * 420, 28)
    ((84, 84), (336, 448))
    """
    rows = max(1, round(height / multiple))
    columns = max(1, round(width / multiple))
    if rows * columns * multiple**2 > max_pixels:
        most = max_pixels // multiple**2
        ideal_height = math.isqrt(max_pixels * height // width)  # a float root can lose a row
        ideal_width = math.isqrt(max_pixels * width // height)
        rows = min(max(1, ideal_height // multiple), most)
        columns = min(max(1, ideal_width // multiple), most)
        fewer_rows = min(rows, most // columns)
        columns = min(columns, most // rows)
        rows = fewer_rows
    return rows * multiple, columns * multiple
