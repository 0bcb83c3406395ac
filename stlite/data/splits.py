"""Splits that do not leak: questions about one recording never stand on both sides."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from stlite.data.egost import recording
from stlite.data.sample import Sample

SIZES = (63, 126, 252, 378, 504, 630)


class OverlapError(ValueError):
    """A recording stands on both sides of a split."""


def group_of(sample: Sample) -> str:
    """Name the recording of a sample: its group or, without one, what its video's file name tells."""
    return sample.group or recording(sample.video)


def _takes(samples: Iterable[Sample], seed: int) -> list[list[Sample]]:
    """Gather the samples of each recording, in an order drawn from the seed and the names alone."""
    recordings = defaultdict(list)
    for sample in samples:
        recordings[group_of(sample)].append(sample)
    return [
        recordings[name]
        for name in sorted(recordings, key=lambda name: random.Random(f"{seed}/{name}").random())
    ]


def by_group(
    samples: Iterable[Sample], share: float = 0.2, seed: int = 0
) -> tuple[list[Sample], list[Sample]]:
    """Split into (train, test) by recording, with at least `share` of the samples, but not all recordings, in test."""
    recordings = _takes(samples, seed)
    if not 0 < share < 1 or len(recordings) < 2:
        raise ValueError(
            f"expected a share between 0 and 1 and two recordings, found {share} and {len(recordings)}"
        )
    wanted, test = share * sum(map(len, recordings)), []
    while len(recordings) > 1 and len(test) < wanted:
        test += recordings.pop()
    return [sample for some in recordings for sample in some], test


def leave_part_out(samples: Iterable[Sample], *parts: str) -> tuple[list[Sample], list[Sample]]:
    """Split into (other parts, these parts), as the paper tests out of distribution (section 6)."""
    samples = list(samples)
    if missing := sorted(set(parts) - {s.part for s in samples}) or not parts:
        raise ValueError(
            f"parts: expected some of {sorted({s.part for s in samples})}, found {missing or 'none'}"
        )
    return [s for s in samples if s.part not in parts], [s for s in samples if s.part in parts]


def ladder(
    samples: Iterable[Sample], sizes: Sequence[int] = SIZES, seed: int = 0
) -> dict[int, list[Sample]]:
    """Draw nested subsets of the sizes asked, each holding all smaller ones, for scaling curves (section 2)."""
    drawn = sorted(samples, key=lambda s: random.Random(f"{seed}/{s.id}").random())
    if max(sizes) > len(drawn):
        raise ValueError(
            f"sizes: expected at most the {len(drawn)} samples there are, found {max(sizes)}"
        )
    return {size: drawn[:size] for size in sizes}


def kfold(
    samples: Iterable[Sample], k: int = 5, seed: int = 0
) -> list[tuple[list[Sample], list[Sample]]]:
    """Return k pairs (train, test): every sample is tested once, recordings stay whole, folds are of like size."""
    recordings = _takes(samples, seed)
    if not 2 <= k <= len(recordings):
        raise ValueError(f"k: expected 2 to {len(recordings)}, the number of recordings, found {k}")
    folds = [[] for _ in range(k)]
    for some in sorted(recordings, key=len, reverse=True):
        min(folds, key=len).extend(some)
    return [([s for other in folds if other is not fold for s in other], fold) for fold in folds]


def check_overlap(train: Iterable[Sample], test: Iterable[Sample]):
    """Raise OverlapError if a recording or, whatever the recordings are called, a video file is on both sides."""
    train, test = list(train), list(test)
    for what, name in (
        ("recording", group_of),
        ("video", lambda s: s.video.partition("#t=")[0]),
    ):
        if both := sorted({name(s) for s in train} & {name(s) for s in test}):
            raise OverlapError(
                f"expected no {what} on both sides, found {len(both)}: {', '.join(both[:5])}"
            )
