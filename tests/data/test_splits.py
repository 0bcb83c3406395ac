"""Splits: no recording on both sides, whatever the data looks like; the same seed gives the same split."""

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stlite.data import egost, splits
from stlite.data.sample import Sample
from stlite.data.splits import (
    SIZES,
    OverlapError,
    by_group,
    check_overlap,
    group_of,
    kfold,
    ladder,
    leave_part_out,
)

DATA = Path(__file__).parents[2] / "sample_data"


def some(counts, group=True) -> list[Sample]:
    """Samples of as many recordings as there are counts."""
    return [
        Sample(
            f"{r}/{i}",
            f"r{r}.mp4",
            "route",
            "forward",
            "How?",
            "So.",
            part=f"part{r % 4 + 1}",
            group=f"g{r}" * group,
        )
        for r, count in enumerate(counts)
        for i in range(count)
    ]


counts_ = st.lists(st.integers(1, 12), min_size=2, max_size=25)


@settings(max_examples=200, deadline=None)
@given(counts_, st.floats(0.01, 0.99), st.integers(0, 9), st.booleans())
def test_by_recording_is_a_partition_that_does_not_leak(counts, share, seed, group):
    samples = some(counts, group)
    train, test = by_group(samples, share, seed)
    assert Counter(train + test) == Counter(samples) and train and test
    check_overlap(train, test)
    assert len(test) >= share * len(samples) or len({group_of(s) for s in train}) == 1
    assert len(test) < share * len(samples) + max(counts)
    random.Random(seed).shuffle(samples)
    again = by_group(samples, share, seed)
    assert [set(side) for side in again] == [
        set(train),
        set(test),
    ]  # the order of the rows does not matter


@settings(max_examples=200, deadline=None)
@given(counts_, st.integers(2, 6), st.integers(0, 9))
def test_each_sample_is_tested_once_and_folds_are_of_like_size(counts, k, seed):
    samples, k = some(counts), min(k, len(counts))
    folds = kfold(samples, k, seed)
    assert len(folds) == k and Counter(s for _, test in folds for s in test) == Counter(samples)
    for train, test in folds:
        assert Counter(train + test) == Counter(samples) and test
        check_overlap(train, test)
    sizes = [len(test) for _, test in folds]
    assert max(sizes) - min(sizes) <= max(counts)


def test_the_ladder_is_nested_and_of_the_sizes_of_the_paper():
    samples = egost.read_rows(DATA / "train" / "total_test_mcq_630.jsonl")
    rungs = ladder(samples)
    assert SIZES == (63, 126, 252, 378, 504, 630)  # paper section 2
    assert tuple(rungs) == SIZES and [len(r) for r in rungs.values()] == list(SIZES)
    for small, large in pairwise(SIZES):
        assert {s.id for s in rungs[small]} < {s.id for s in rungs[large]}
    assert rungs != ladder(samples, seed=1) and rungs == ladder(samples[::-1])
    with pytest.raises(ValueError, match="at most the 630 samples there are, found 631"):
        ladder(samples, [1, 631])


def test_leave_part_out():
    samples = some([3] * 8)
    train, test = leave_part_out(samples, "part1", "part2")
    assert {s.part for s in train} == {"part3", "part4"} and {s.part for s in test} == {
        "part1",
        "part2",
    }
    for parts in (("part5",), ()):
        with pytest.raises(ValueError, match=r"expected some of \['part1'.*found "):
            leave_part_out(samples, *parts)


def test_clips_of_one_take_are_one_recording():
    name = "AriaEverydayActivities_1.0.0_loc2_script3_seq4_rec{}_preview_rgb.mp4"
    a, b = (Sample(str(i), name.format(i), "route", "forward", "How?", "So.") for i in (1, 2))
    assert group_of(a) == group_of(b)
    with pytest.raises(
        OverlapError, match=r"found 1: AriaEverydayActivities_1\.0\.0_loc2_script3_seq4"
    ):
        check_overlap([a], [b])


def test_one_file_on_both_sides_is_an_overlap_even_under_other_groups():
    a = Sample("a", "x/w.mp4#t=0,5", "route", "forward", "How?", "So.", group="one")
    b = Sample("b", "x/w.mp4#t=9,12", "route", "forward", "How?", "So.", group="two")
    with pytest.raises(OverlapError, match=r"no video on both sides, found 1: x/w\.mp4"):
        check_overlap([a], [b])


def test_the_shipped_training_rows_and_benchmark_share_no_recording():
    train = egost.read_rows(DATA / "train" / "total_test_mcq_630.jsonl")
    assert check_overlap(train, egost.read_benchmark(DATA / "benchmark")) is None


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_a_split_that_cannot_be_made_is_refused(share):
    with pytest.raises(ValueError, match="expected a share between 0 and 1 and two groups"):
        by_group(some([2, 2]), share)
    with pytest.raises(ValueError, match=r"two groups, found 0\.2 and 1"):
        by_group(some([5]))
    with pytest.raises(ValueError, match="expected 2 to 2, the number of groups, found 3"):
        kfold(some([2, 2]), 3)
    assert splits.by_group(some([1, 1]))


# ---- exact values, worked by hand or kept: one changed line must show


def groups(samples) -> list[str]:
    """The groups of samples, each once, in order."""
    return list(dict.fromkeys(s.group for s in samples))


def test_the_groups_drawn_for_a_seed_stay_those_of_version_0_1_0():
    train, test = by_group(some([1] * 8), share=0.25, seed=0)
    assert groups(train) == ["g0", "g7", "g5", "g2", "g3", "g4"]
    assert groups(test) == ["g6", "g1"]
    assert [s.id for s in ladder(some([1] * 5), [3], seed=2)[3]] == ["1/0", "4/0", "3/0"]


@pytest.mark.parametrize(
    "share, count", [(0.2, 2), (0.25, 3), (0.5, 5), (0.9, 9), (0.99, 9), (0.01, 1)]
)
def test_the_test_side_holds_just_the_share_asked(share, count):
    train, test = by_group(some([1] * 10), share)
    assert (len(train), len(test)) == (10 - count, count)


def test_a_fifth_goes_to_test_unless_said_and_both_defaults_are_seed_0():
    samples = some([2] * 10)
    assert by_group(samples) == by_group(samples, share=0.2, seed=0) != by_group(samples, seed=1)
    assert kfold(samples) == kfold(samples, k=5, seed=0) != kfold(samples, seed=1)
    assert len(by_group(samples)[1]) == 4 and len(kfold(samples)) == 5
    assert ladder(samples, [3]) == ladder(samples, [3], seed=0) != ladder(samples, [3], seed=1)


def test_groups_stay_whole_and_in_the_order_of_their_rows():
    samples = some([3, 2, 4])
    for side in by_group(samples, 0.4):
        for name in groups(side):
            assert [s.id for s in side if s.group == name] == [
                s.id for s in samples if s.group == name
            ]


def test_large_groups_are_dealt_first_so_that_folds_are_of_like_size():
    folds = kfold(some([6, 1, 1, 1, 1, 2]), k=2)
    assert sorted(len(test) for _, test in folds) == [6, 6]
    assert sorted(len(test) for _, test in kfold(some([5, 4, 3, 3, 3]), k=2)) == [8, 10]
    assert [len(test) for _, test in kfold(some([3, 1]), k=2)] == [3, 1]


def test_parts_keep_the_order_of_the_samples():
    samples = some([1] * 8)
    train, test = leave_part_out(iter(samples), "part2")
    assert [s.id for s in test] == ["1/0", "5/0"]
    assert [s.id for s in train] == ["0/0", "2/0", "3/0", "4/0", "6/0", "7/0"]
    with pytest.raises(
        ValueError,
        match=r"^parts: expected some of \['part1', 'part2', 'part3', 'part4'\], found \['a', 'b'\]$",
    ):
        leave_part_out(samples, "b", "part1", "a")
    with pytest.raises(ValueError, match=r"found none$"):
        leave_part_out(samples)


def test_the_whole_text_of_each_refusal():
    with pytest.raises(ValueError) as error:
        by_group(some([1]), 0.3)
    assert str(error.value) == "expected a share between 0 and 1 and two groups, found 0.3 and 1"
    with pytest.raises(ValueError) as error:
        ladder(some([2]), [1, 3])
    assert str(error.value) == "sizes: expected at most the 2 samples there are, found 3"
    for k in (1, 4):
        with pytest.raises(ValueError) as error:
            kfold(some([1, 1, 1]), k)
        assert str(error.value) == f"k: expected 2 to 3, the number of groups, found {k}"
    assert len(kfold(some([1, 1, 1]), 3)) == 3 and len(kfold(some([1, 1]), 2)) == 2
    names = some([1] * 7)
    with pytest.raises(OverlapError) as error:
        check_overlap(iter(names), iter(names))
    assert str(error.value) == "expected no group on both sides, found 7: g0, g1, g2, g3, g4"


def test_a_ladder_of_all_samples_is_all_samples():
    assert len(ladder(some([3]), [3])[3]) == 3
    assert ladder(some([3]), [0, 1])[0] == []


def test_a_group_is_its_own_name_before_that_of_the_file():
    a = Sample("a", "x_seq1_rec1.mp4", "route", "forward", "How?", "So.", group="mine")
    assert group_of(a) == "mine"
    assert group_of(Sample("a", "x_seq1_rec1.mp4", "route", "forward", "How?", "So.")) == "x_seq1"


def test_no_overlap_of_groups_or_files_is_none():
    a = Sample("a", "a.mp4", "route", "forward", "How?", "So.", group="one")
    b = Sample("b", "b.mp4", "route", "forward", "How?", "So.", group="two")
    assert check_overlap([a], [b]) is None
    assert check_overlap([], [b]) is None
