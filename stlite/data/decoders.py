"""The pixels of chosen frames: decoded exactly, turned upright and fitted."""

import math
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from stlite.data.container import Index, decode_frames, open_video

UPRIGHT = (1, 0, 0, 1)
SEEK = 12  # frames that are decoded rather than passed over: a seek costs about as much


def _by_pyav(file: Path, index: Index, wanted: dict[int, int]) -> Iterator[tuple]:
    """Yield place and upright pixels of each frame wanted, {pts: place}.

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
                at = getattr(frame, index.clock)
                decoded.append(at)
                if at in run and not frame.is_corrupt:
                    read += 1
                    pixels = frame.to_ndarray(format="rgb24")
                    yield wanted[at], upright(pixels, _matrix(frame))
                if index.sure and (at or 0) >= run[-1]:
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


def _matrix(frame) -> tuple[int, ...]:
    """Return a frame's display matrix: (a, b, c, d) of x' = ax + cy, y' = bx + dy."""
    import av

    data = frame.side_data.get(av.sidedata.sidedata.Type.DISPLAYMATRIX)
    if data is None:
        return UPRIGHT
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
    return a, b, c, d


def upright(image: np.ndarray, matrix: tuple[int, ...]) -> np.ndarray:
    """Turn and mirror a picture as its display matrix says: the nearest of eight orientations.

    >>> upright(np.array([[1, 2], [3, 4]]), (0, 1, -1, 0)).tolist()  # a quarter clockwise
    [[3, 1], [4, 2]]
    >>> upright(np.array([[1, 2], [3, 4]]), (-1, 0, 0, 1)).tolist()  # mirrored
    [[2, 1], [4, 3]]
    """
    a, b, c, d = matrix
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    if turned:
        image = image.swapaxes(0, 1)
    if (c if turned else a) < 0:
        image = image[:, ::-1]
    return image[::-1] if (b if turned else d) < 0 else image


def is_mirrored(file: Path) -> bool:
    """Tell whether the first frame's display matrix mirrors it."""
    with open_video(file) as (container, stream):
        for frame in decode_frames(container, stream):
            a, b, c, d = _matrix(frame)
            return a * d - b * c < 0
    return False


def _by_decord(file: Path, index: Index, wanted: dict[int, int]) -> Iterator[tuple]:
    doubt = index.doubt or ("a mirrored picture" if is_mirrored(file) else "")
    if doubt:
        raise ValueError(
            f"decord may give wrong frames here ({doubt}): read it with backend='pyav'"
        )
    import decord

    try:
        reader = decord.VideoReader(str(file))
        if len(reader) != len(index.pts):
            raise ValueError(f"decord finds {len(reader)} frames where there are {len(index.pts)}")
        for place in wanted.values():
            yield place, reader.get_batch([place]).asnumpy()[0]  # decord turns it itself
    except decord.DECORDError as error:
        raise ValueError(f"decord: {str(error).splitlines()[0]}") from error


BACKENDS = {"pyav": _by_pyav, "decord": _by_decord}


def fit(image: np.ndarray, aspect: float, max_pixels: int, multiple: int) -> np.ndarray:
    """Make an upright frame's pixels square and fit it; antialiased, as processors do."""
    from PIL import Image

    height = image.shape[0]
    width = round(image.shape[1] * aspect)
    rows, columns = fitted_size(height, width, max_pixels, multiple)
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((columns, rows), Image.Resampling.BICUBIC))


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
