"""Files kept between runs: clips, content hashes and vision features, in one bounded folder.

STLITE_CACHE names the folder ("off": none), STLITE_CACHE_GB its bound (20).
"""

import json
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b, file_digest
from pathlib import Path

import numpy as np

from stlite.data.sample import write_bytes

SUFFIXES = (".clip", ".sum", ".features", ".tmp")  # of what is ours in the folder
HASH_LENGTH = 64


def cache_folder() -> Path | None:
    """Return the folder of what is kept; None where it is switched off."""
    name = os.environ.get("STLITE_CACHE") or str(Path.home() / ".cache" / "stlite")
    return None if name == "off" else Path(name)


def short_hash(text: str) -> str:
    """Return 32 hex digits that stand for a text."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def content_hash(file: Path) -> str:
    """Return the SHA-256 of a file, kept as <name>.sum until its size or times change."""
    folder = cache_folder()
    stat = file.stat()
    name = repr((str(file), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    kept = folder / f"{short_hash(name)}.sum" if folder else None
    if kept and kept.is_file():
        known = kept.read_text()
        if len(known) == HASH_LENGTH:
            return known
    with open(file, "rb") as stream:
        digest = file_digest(stream, "sha256").hexdigest()
    if kept:
        with suppress(OSError):  # the clip that follows warns, once
            keep(kept, [digest.encode()])
    return digest


def pack(head: dict, frames: np.ndarray) -> list[bytes]:
    """Return the parts of a .clip file: a line of JSON, then the pixels."""
    line = json.dumps({**head, "frames": frames.shape}, default=np.ndarray.tolist)
    return [line.encode() + b"\n", frames.tobytes()]


def unpack(path: Path) -> tuple[dict, np.ndarray] | None:
    """Return head and frames of a .clip file, the frames mapped into memory.

    None where it is not there; a file that is no whole clip is removed.
    """
    try:
        with open(path, "rb") as stream:
            head = json.loads(stream.readline())
            shape = tuple(head.pop("frames"))
            frames = np.memmap(stream, np.uint8, "c", stream.tell(), shape)
        os.utime(path)  # what is used last is removed last
    except OSError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        path.unlink(missing_ok=True)
        return None
    return head, np.asarray(frames)


_grown = math.inf  # bytes written by this process since it last looked how big the cache is


def keep(path: Path, parts: list[bytes]) -> None:
    """Write a file into the cache.

    Each time a fiftieth of the bound was written, what was used longest ago goes, down to nine
    tenths of it.
    """
    global _grown
    write_bytes(path, parts)
    limit = float(os.environ.get("STLITE_CACHE_GB", 20)) * 2**30
    _grown += sum(map(len, parts))
    if _grown >= limit / 50:
        _grown = 0
        _shrink(path.parent, 0.9 * limit)


def _shrink(folder: Path, limit: float) -> None:
    total = 0
    for _, size, file in sorted(_kept_files(folder), reverse=True):
        total += size
        if total > limit:
            file.unlink(missing_ok=True)


def _kept_files(folder: Path | None) -> Iterator[tuple[int, int, Path]]:
    """List what is ours in the folder: when it was used (ns), bytes, path."""
    for file in folder.glob("*.*") if folder else ():
        if file.suffix in SUFFIXES:
            with suppress(FileNotFoundError):
                stat = file.stat()
                yield stat.st_mtime_ns, stat.st_size, file


def cache_stats() -> dict:
    """Return folder, number of clips and bytes of the cache."""
    clips = 0
    total = 0
    for _, size, file in _kept_files(cache_folder()):
        clips += file.suffix == ".clip"
        total += size
    return {"folder": str(cache_folder()), "clips": clips, "bytes": total}


def clear_cache() -> dict:
    """Remove everything that is kept, and return what was there."""
    stats = cache_stats()
    for _, _, file in _kept_files(cache_folder()):
        file.unlink(missing_ok=True)
    return stats
