"""Splits that do not leak: questions about one group of videos never stand on both sides."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from stlite.data.paths import group_name
from stlite.data.sample import Sample

SIZES = (63, 126, 252, 378, 504, 630)

Split = tuple[list[Sample], list[Sample]]  # train, test


class OverlapError(ValueError):
    """A group stands on both sides of a split."""


def group_of(sample: Sample) -> str:
    """Name the group of a sample: its own or, without one, what its video's file name tells."""
    return sample.group or group_name(sample.video)


def _shuffled_groups(samples: Iterable[Sample], seed: int) -> list[list[Sample]]:
    """Gather the samples of each group, in an order drawn from the seed and the names alone."""
    groups = defaultdict(list)
    for sample in samples:
        groups[group_of(sample)].append(sample)
    names = sorted(groups, key=lambda name: _draw(seed, name))
    return [groups[name] for name in names]


def _draw(seed: int, name: str) -> float:
    return random.Random(f"{seed}/{name}").random()


def by_group(samples: Iterable[Sample], share: float = 0.2, seed: int = 0) -> Split:
    """Split into (train, test) by group: at least `share` of the samples in test, never all."""
    groups = _shuffled_groups(samples, seed)
    if not 0 < share < 1 or len(groups) < 2:
        raise ValueError(
            f"expected a share between 0 and 1 and two groups, found {share} and {len(groups)}"
        )
    wanted = share * sum(map(len, groups))
    test = []
    while len(groups) > 1 and len(test) < wanted:
        test += groups.pop()
    train = [sample for group in groups for sample in group]
    return train, test


def leave_part_out(samples: Iterable[Sample], *parts: str) -> Split:
    """Split into (other parts, these parts), as the paper tests out of distribution (section 6)."""
    samples = list(samples)
    there = {s.part for s in samples}
    missing = sorted(set(parts) - there)
    if missing or not parts:
        found = missing or "none"
        raise ValueError(f"parts: expected some of {sorted(there)}, found {found}")
    train = [s for s in samples if s.part not in parts]
    test = [s for s in samples if s.part in parts]
    return train, test


def ladder(
    samples: Iterable[Sample], sizes: Sequence[int] = SIZES, seed: int = 0
) -> dict[int, list[Sample]]:
    """Draw subsets of the sizes asked, each holding the smaller ones (paper section 2)."""
    drawn = sorted(samples, key=lambda s: _draw(seed, s.id))
    if max(sizes) > len(drawn):
        raise ValueError(
            f"sizes: expected at most the {len(drawn)} samples there are, found {max(sizes)}"
        )
    return {size: drawn[:size] for size in sizes}


def kfold(samples: Iterable[Sample], k: int = 5, seed: int = 0) -> list[Split]:
    """Return k pairs (train, test): each sample is tested once, groups whole, folds alike."""
    groups = _shuffled_groups(samples, seed)
    if not 2 <= k <= len(groups):
        raise ValueError(f"k: expected 2 to {len(groups)}, the number of groups, found {k}")
    folds = [[] for _ in range(k)]
    for group in sorted(groups, key=len, reverse=True):
        min(folds, key=len).extend(group)
    return [(_all_but(folds, i), folds[i]) for i in range(k)]


def _all_but(folds: Sequence[list[Sample]], left_out: int) -> list[Sample]:
    train = []
    for i, fold in enumerate(folds):
        if i != left_out:
            train += fold
    return train


def check_overlap(train: Iterable[Sample], test: Iterable[Sample]):
    """Raise OverlapError if a group or, whatever groups are called, a video is on both sides."""
    train = list(train)
    test = list(test)
    for what, name_of in (("group", group_of), ("video", _video_file)):
        both = {name_of(s) for s in train} & {name_of(s) for s in test}
        if both:
            first = ", ".join(sorted(both)[:5])
            raise OverlapError(f"expected no {what} on both sides, found {len(both)}: {first}")


def _video_file(sample: Sample) -> str:
    return sample.video.partition("#t=")[0]
