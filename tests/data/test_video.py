"""Reading clips: every frame is checked by the number drawn into it, every broken file must say so."""

import json
import math
import os
import random
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import av
import clips
import numpy as np
import pytest

from stlite.data import cache as cache_module
from stlite.data import video
from stlite.data.cache import cache_stats, clear_cache
from stlite.data.decoders import fitted_size
from stlite.data.sample import Sample
from stlite.data.video import ORDERS, ClipError, ClipWarning, preflight, read_clip

av.logging.set_level(
    av.logging.PANIC
)  # and loaded before decord, whose libvpx would take the place of its own
KILLS, READS = int(os.environ.get("STLITE_KILLS", 5)), int(os.environ.get("STLITE_READS", 200))
SMALL = {"frames": 16, "max_pixels": 84 * 84}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Every kind, made once, when first asked for."""
    made, folder = {}, tmp_path_factory.mktemp("corpus")
    return lambda kind: made.get(kind) or made.setdefault(kind, clips.make(folder, kind))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STLITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("STLITE_BACKEND", raising=False)
    return tmp_path / "cache"


def check(clip, made, count=16):
    """Check the numbers drawn into the frames and the times against what was generated."""
    numbers, times = [clips.number(frame) for frame in clip.frames], made.times
    assert None not in numbers, numbers
    first, last = min(times), max(times)
    assert (numbers[0], numbers[-1]) == (first, last)
    true = np.array([times[n] - times[first] for n in numbers])
    np.testing.assert_allclose(clip.seconds, true, atol=0.002)
    assert [first + i for i in clip.indices] == numbers
    if len(times) < count:
        return
    assert len(set(numbers)) == len(numbers) == count
    every = np.array(list(times.values())) - times[first]
    wanted = np.linspace(0, every[-1], count)
    nearest = np.abs(every[:, None] - wanted).min(0)
    clash = (
        len({np.abs(every - at).argmin() for at in wanted}) < count
    )  # a gap shared by two of the times wanted
    assert clash or np.abs(true - wanted).max() <= nearest.max() + 0.002


# ---- the right frames


@pytest.mark.parametrize("kind", clips.GOOD)
def test_every_kind_gives_the_right_frames_at_the_right_times(corpus, kind):
    made = corpus(kind)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        clip = read_clip(made.path, **SMALL)
    check(clip, made)
    assert re.fullmatch(
        NOTED.get(kind, ""), " ".join(str(w.message).removeprefix(f"{made.path}: ") for w in said)
    )


NOTED = {
    "three_frames": "only 3 of the 16 frames asked for are there",
    "late_key_frame": r"\d+ of the \d+ frames of the file cannot be decoded and are left out",
}


UNTIMED = {"transport_stream", "late_key_frame", "avi"}
REFUSED = {
    "decord": {"open_gop", "hevc_open_gop", "copy_cut", "vp9", "av1", "late_start"} | UNTIMED,
}


@pytest.mark.filterwarnings("ignore::stlite.data.video.ClipWarning")
@pytest.mark.parametrize("backend", REFUSED)
@pytest.mark.parametrize("kind", clips.GOOD)
def test_other_backends_are_right_or_refused(corpus, kind, backend):
    pytest.importorskip(backend)
    made = corpus(kind)
    if kind in REFUSED[backend]:
        with pytest.raises(ClipError, match=f"{backend} may give wrong frames here"):
            read_clip(made.path, **SMALL, backend=backend)
    else:
        check(read_clip(made.path, **SMALL, backend=backend), made)


def test_an_avi_is_decoded_once(corpus, monkeypatch):
    monkeypatch.setattr(video, "index_decoded", None)  # what would decode it a second time
    check(read_clip(corpus("avi").path, **SMALL), corpus("avi"))


def test_number_sees_turned_torn_and_wrong_frames():
    frame = clips.draw(1234, 84, 84)
    assert clips.number(frame) == 1234
    assert clips.number(frame[::-1]) is None
    assert clips.number(np.concatenate([frame[:40], clips.draw(2861, 84, 84)[40:]])) != 1234
    assert clips.number(np.rot90(frame)) is None


def test_a_time_range_is_kept_to(corpus):
    made = corpus("open_gop")
    clip = read_clip(f"{made.path}#t=1,2", **SMALL)
    assert clip.seconds[0] == pytest.approx(1) and clip.seconds[-1] == pytest.approx(2)
    assert [clips.number(frame) for frame in clip.frames] == [round(30 * s) for s in clip.seconds]
    assert read_clip(f"{made.path}#t=2.5", 2).indices.tolist() == [75, 89]
    assert read_clip(f"{made.path}#t=,0.5", 2).indices.tolist() == [0, 15]
    with pytest.raises(ClipError, match=r"no frame from 7.0 to 9.0 s: the video has 0 to 2.97 s"):
        read_clip(f"{made.path}#t=7,9")


@pytest.mark.parametrize(
    "size, fitted", [((320, 240), (84, 56)), ((240, 320), (56, 84)), ((600, 28), (252, 28))]
)
def test_frames_fit_the_budget_and_the_multiple(tmp_path, size, fitted):
    path = clips.encode(tmp_path / "a.mp4", range(3), size=size)
    assert read_clip(path, 2, max_pixels=84 * 84).frames.shape[2:0:-1] == fitted


def test_a_fit_never_passes_the_budget_and_keeps_the_aspect():
    rng = random.Random(0)
    for _ in range(2000):
        height, width, multiple = (
            rng.randint(16, 4000),
            rng.randint(16, 4000),
            rng.choice([14, 28, 32]),
        )
        budget = rng.randint(multiple**2, 500_000)
        rows, columns = fitted_size(height, width, budget, multiple)
        assert rows % multiple == columns % multiple == 0 < rows * columns <= budget
        if min(rows, columns) >= 4 * multiple:
            assert abs(math.log(rows / columns * width / height)) < math.log(1.6)


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    path = clips.encode(tmp_path / "a.mp4", range(3), size=(160, 160), options={"aspect": "2:1"})
    assert read_clip(path, 2, max_pixels=112 * 56).frames.shape == (2, 56, 112, 3)


def test_orders_for_the_audits(corpus):
    made = corpus("short_gop")
    clip, *others = (read_clip(made.path, 8, order=order) for order in ORDERS)
    back, mixed, single, blank = (
        [clips.number(frame) for frame in other.frames] for other in others
    )
    numbers = [clips.number(frame) for frame in clip.frames]
    assert back == numbers[::-1]
    assert sorted(mixed) == numbers != mixed
    assert single == [numbers[4]] * 8
    assert blank == [None] * 8 and (others[3].frames == 128).all()
    assert len({clip.key, *(other.key for other in others)}) == len(ORDERS)
    for other in others:  # times do not give the order away
        assert (other.seconds == clip.seconds).all() and (other.indices == clip.indices).all()
    assert (read_clip(made.path, 8, order="shuffled").frames == others[1].frames).all()


@pytest.mark.parametrize(
    "wrong", [{"frames": 7}, {"frames": 0}, {"order": "odd"}, {"max_pixels": 99}, {"backend": "?"}]
)
def test_a_wrong_request_says_what_was_expected(corpus, wrong):
    with pytest.raises(ValueError, match="expected even frames"):
        read_clip(corpus("three_frames").path, **wrong)


# ---- hostile files and paths

SAID = {
    "truncated": r"truncated: 1.\d\d of 3.00 s are there",
    "truncated_fragmented": r"truncated: 1.\d\d of \d.\d\d s are there",
    "truncated_mkv": r"truncated: 1.\d\d of 3.00 s are there",
    "no_moov": r"truncated: [\d,]+ bytes of its part mdat are missing",
    "playlist": "not accepted: a playlist, which names other files",
    "empty": "expected 1 to 8,589,934,592 bytes, found 0",
    "audio_only": "no video in the file",
    "too_large": "expected at most 35,389,440 pixels",
    "too_long": "and 14400 s",
    "too_many_bytes": "found 8,589,934,593",
}


@pytest.mark.parametrize("time_limit", [None, 600])
@pytest.mark.parametrize("kind", clips.BROKEN)
def test_a_broken_file_is_one_clip_error(corpus, kind, time_limit):
    path = corpus(kind).path
    with pytest.raises(ClipError, match=SAID.get(kind, "damaged, or not a video")) as caught:
        read_clip(path, time_limit=time_limit)
    assert (caught.value.path, caught.value.backend) == (str(path), "pyav")
    assert not any(file.suffix == ".clip" for file in path.parent.iterdir())


@pytest.mark.parametrize(
    "path",
    ["http://a.b/c.mp4", "file:///a.mp4", "concat:a.mp4|b.mp4", "../a.mp4", "/a.mp4", "a\0.mp4"],
)
def test_urls_and_paths_outside_the_root_are_refused(tmp_path, path):
    with pytest.raises(ClipError, match="expected"):
        read_clip(path, root=tmp_path)


def test_a_link_out_of_the_root_is_refused(corpus, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link.mp4").symlink_to(corpus("three_frames").path)
    with pytest.raises(ClipError, match="stays under its root"):
        read_clip("link.mp4", root=tmp_path / "root")


def test_a_pipe_is_no_video(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ClipError, match="no such file"):
        read_clip(tmp_path / "pipe.mp4")


def test_an_untrusted_file_is_read_by_a_child_that_can_be_stopped(corpus):
    made = corpus("open_gop")
    with pytest.raises(ClipError, match=r"not read within 0.02 s: stopped"):
        read_clip(made.path, time_limit=0.02, **SMALL)
    check(read_clip(made.path, time_limit=600, **SMALL), made)


def test_flipped_bytes_give_a_clip_or_a_clip_error(corpus, tmp_path):
    rng = random.Random(0)
    for kind in ("open_gop", "copy_cut", "fragmented", "vp9", "avi", "transport_stream"):
        path = corpus(kind).path
        for _ in range(10):
            data = bytearray(path.read_bytes())
            for _ in range(20):
                data[rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(2000)] = (
                    rng.randrange(256)
                )
            (tmp_path / path.name).write_bytes(data)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ClipWarning)
                    clip = read_clip(tmp_path / path.name, **SMALL)
                assert len(clip.frames) == len(clip.seconds) and (np.diff(clip.indices) >= 0).all()
            except ClipError as error:
                assert error.reason


def test_one_flipped_byte_of_h264_is_mostly_noticed(corpus, tmp_path):
    """H.264 carries no checksum: what decodes in spite of the byte cannot be told from what was filmed."""
    rng, refused = random.Random(0), 0
    for kind in ("short_gop", "copy_cut") * 20:
        data = bytearray(corpus(kind).path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / "a.mp4").write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ClipWarning)
                read_clip(tmp_path / "a.mp4", **SMALL)
        except ClipError:
            refused += 1
    assert refused >= 20


def test_preflight_lists_good_and_bad(corpus, tmp_path, capsys):
    names = ("open_gop", "truncated", "empty", "short_gop")
    for name in names:
        (tmp_path / f"{name}.mp4").write_bytes(corpus(name).path.read_bytes())
    ask = {
        "task": "direction",
        "way": "forward",
        "question": "?",
        "answer": "A",
        "options": ("a", "b"),
    }
    samples = [
        Sample(id=f"{name}{i}", video=f"{name}.mp4", **ask)
        for name in (*names, "absent")
        for i in range(2)
    ]
    good, bad = preflight(samples, root=tmp_path, time_limit=600, **SMALL)
    assert good == ["open_gop.mp4", "short_gop.mp4"]
    assert {name: error.reason.split(":")[0] for name, error in bad.items()} == {
        "truncated.mp4": "truncated",
        "empty.mp4": "expected 1 to 8,589,934,592 bytes, found 0",
        "absent.mp4": "no such file",
    }
    assert "5/5" in capsys.readouterr().err


# ---- the cache


def stamp(cache):
    return {file.name: file.stat().st_ino for file in cache.glob("*.clip")}


def test_a_clip_is_decoded_once_whatever_its_name(corpus, cache, tmp_path):
    made = corpus("open_gop")
    first, kept = read_clip(made.path, **SMALL), stamp(cache)
    (tmp_path / "copy.mp4").write_bytes(made.path.read_bytes())
    for path in (made.path, tmp_path / "copy.mp4"):
        again = read_clip(path, **SMALL)
        assert (again.frames == first.frames).all() and (again.seconds == first.seconds).all()
        assert (again.key, again.fps, again.duration) == (first.key, first.fps, first.duration)
    assert isinstance(again.frames.base, np.memmap) and stamp(cache) == kept and len(kept) == 1
    again.frames[:] = 0  # a reader may draw into its copy
    check(read_clip(made.path, **SMALL), made)


def test_whatever_changes_the_pixels_changes_the_key(corpus, cache, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(corpus("short_gop").path.read_bytes())
    asks = ({}, {"frames": 4}, {"max_pixels": 56 * 56}, {"multiple": 14}, {"backend": "decord"})
    keys = [read_clip(path, **SMALL | ask).key for ask in asks] + [
        read_clip(f"{path}#t=1", **SMALL).key
    ]
    path.write_bytes(corpus("variable_rate").path.read_bytes())
    clip = read_clip(path, **SMALL)
    check(clip, corpus("variable_rate"))
    assert len({*keys, clip.key}) == len(asks) + 2 == cache_stats()["clips"]


@pytest.mark.parametrize(
    "damage", [b"", b"{}\n", b'{"shape": [16, 56, 84, 3]}\n', b"\xff\xfe not JSON", None]
)
def test_a_damaged_kept_clip_is_read_anew(corpus, cache, damage):
    made = corpus("short_gop")
    read_clip(made.path, **SMALL)
    kept = next(cache.glob("*.clip"))
    kept.write_bytes(kept.read_bytes()[:-1000] if damage is None else damage)
    check(read_clip(made.path, **SMALL), made)
    check(read_clip(made.path, **SMALL), made)


def test_the_cache_is_bounded_counted_and_cleared(corpus, cache, monkeypatch):
    limit = 20 * 84 * 56 * 3 * 16
    monkeypatch.setenv("STLITE_CACHE_GB", str(limit / 2**30))
    monkeypatch.setattr(cache_module, "_grown", math.inf)
    for i in range(40):
        last = read_clip(f"{corpus('short_gop').path}#t=0,{2 + i / 40}", **SMALL)
        read_clip(
            f"{corpus('short_gop').path}#t=0,2.0", **SMALL
        )  # always used again: never removed
    stats = cache_stats()
    assert (
        10 <= stats["clips"] < 22
        and stats["bytes"] <= 1.02 * limit
        and stats["folder"] == str(cache)
    )
    assert {last.key, read_clip(f"{corpus('short_gop').path}#t=0,2.0", **SMALL).key} <= {
        f.stem for f in cache.iterdir()
    }
    assert clear_cache() == stats and cache_stats()["clips"] == 0 and list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_only_a_warning(corpus, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("STLITE_CACHE", str(tmp_path / "file"))
    with pytest.warns(ClipWarning, match="not kept"):
        clip = read_clip(corpus("short_gop").path, **SMALL)
    check(clip, corpus("short_gop"))
    monkeypatch.setenv("STLITE_CACHE", "off")
    check(read_clip(corpus("short_gop").path, **SMALL), corpus("short_gop"))


READER = """
import itertools, os, sys, random, clips
from stlite.data.video import read_clip
path, seed = sys.argv[1], int(sys.argv[2])
rng = random.Random(seed)
parent = os.getppid()
for turn in itertools.takewhile(lambda _: os.getppid() == parent, itertools.count()):  # none outlives the test
    start = rng.randrange(12) / 10
    clip = read_clip(f"{path}#t={start},{start + 1.5}", 16, 84 * 84)
    assert [clips.number(f) for f in clip.frames] == [round(30 * s) for s in clip.seconds], "torn"
    print(turn, flush=True)
"""


def test_four_processes_share_a_cache_through_random_kills(corpus, cache, tmp_path):
    rng, seeds = random.Random(0), iter(range(10_000))
    room = {
        "STLITE_CACHE_GB": str(6 * 84 * 56 * 48 / 2**30),
        "PYTHONPATH": os.pathsep.join(map(str, HOMES)),
    }

    def start():
        command = [sys.executable, "-c", READER, str(corpus("open_gop").path), str(next(seeds))]
        with (
            open(tmp_path / f"out{command[-1]}", "w") as out,
            open(tmp_path / f"err{command[-1]}", "w") as err,
        ):
            return subprocess.Popen(command, stdout=out, stderr=err, env=os.environ | room)

    readers = [start() for _ in range(4)]
    try:
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.8, 1.6))
            place = rng.randrange(4)
            readers[place].kill()
            assert readers[place].wait() == -9
            readers[place] = start()
        outs = [tmp_path / f"out{reader.args[-1]}" for reader in readers]
        deadline = time.time() + 600
        while time.time() < deadline and not all(
            out.stat().st_size for out in outs
        ):  # none waits for a dead one
            time.sleep(0.1)
        alive = [reader.poll() for reader in readers]
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
    assert alive == [None] * 4, [file.read_text()[-500:] for file in tmp_path.glob("err*")]
    assert all(out.stat().st_size for out in outs)
    assert {file.suffix for file in cache.iterdir()} <= {".clip", ".sum", ".tmp"}
    check(read_clip(corpus("open_gop").path, **SMALL), corpus("open_gop"))


HOMES = Path(__file__).parents[1], Path(__file__).parents[2]
MEMORY = """
import json, os, sys
from stlite.data.video import read_clip
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
found = {}
for i in range(int(sys.argv[2])):
    clip = read_clip(f"{sys.argv[1]}#t=0,{1 + i / 1000}", 8, 84 * 84)
    found[i + 1] = resident() if i == 9 or i == int(sys.argv[2]) - 1 else 0
print(json.dumps([found[10], resident()]))
"""


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc"
)
def test_memory_does_not_grow_with_clips_read(corpus, tmp_path):
    command = [sys.executable, "-c", MEMORY, str(corpus("short_gop").path), str(READS)]
    env = os.environ | {"PYTHONPATH": str(HOMES[1])}
    before, after = json.loads(
        subprocess.run(command, capture_output=True, check=True, env=env).stdout
    )
    assert after - before <= 100, f"{before:.0f} MB after 10 clips, {after:.0f} MB after {READS}"
