"""Rendered walks: true to their annotation, made the same again, apart by use, and answerable only by looking."""

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from sample_data import walks
from stlite.data.egost import read_benchmark, read_rows
from stlite.data.steps import reverse_path

DATA = Path(__file__).parent.parent / "sample_data"


def many(count: int, use: str = "test") -> list:
    return [walks.draw(5_000_000 + i, 1 + i % 4, use) for i in range(count)]


def test_a_walk_gives_its_questions_in_both_ways():
    for walk in many(4):
        made = walks.samples(walk, "part1/a.mp4")
        assert {(s.task, s.way) for s in made} == {
            (t, w) for t in walks.annotation(walk)[0] for w in ("forward", "reverse")}  # fmt: skip
        assert all(len(s.options) == 4 for s in made if s.kind == "choice")
        assert all(
            s.steps_reverse == reverse_path(s.steps_forward, s.task)
            for s in made
            if s.kind == "choice"
        )
        assert all(len(s.moments) == len(s.steps_forward) for s in made)


def test_frames_are_the_same_again_and_differ_between_parts():
    walk = walks.draw(3, 2)
    seconds = np.linspace(0, 8, 4)
    assert (walks.render(walk, seconds, 56) == walks.render(walk, seconds, 56)).all()
    assert (walks.render(walk, seconds, 56) != walks.render({**walk, "part": 3}, seconds, 56)).any()


def test_a_turn_moves_the_view_the_other_way():
    """The column of a red landmark moves right while the walker turns left, and left while turning right."""
    for turn, sign in (("turn left", 1), ("turn right", -1)):
        moved = []
        for walk in (walks.draw(i, 1) for i in range(200)):
            if (
                walk["turns"][0] == turn
                and not walk["ends"][0]
                and walk["landmarks"][0] == "red ball"
            ):
                start = walks.timeline(walk)["moments"]["direction"][0] - walks.TURN / 2
                seen = [
                    red_column(f)
                    for f in walks.render(walk, start + np.array([0.1, 0.3]), 84).astype(int)
                ]
                moved += [seen[1] - seen[0]]
        assert np.isfinite(moved).any()
        assert (np.sign([m for m in moved if np.isfinite(m)]) == sign).all()


def red_column(frame) -> float:
    """Return the middle of what is red in a frame, in columns; nan where nothing is."""
    red = (frame[..., 0] > 120) & (frame[..., 1] < 70) & (frame[..., 2] < 70)
    return np.nonzero(red.any(0))[0].mean() if red.any() else np.nan


def test_an_action_is_seen():
    """The view just before and just after the moment of an action differs in part 4, where the walker stands still."""
    walk = walks.draw(11, 4)
    for moment in walks.timeline(walk)["moments"]["action"]:
        before, after = walks.render(walk, np.array([moment - 0.05, moment + 0.05]), 84).astype(int)
        assert (abs(before - after).max(-1) > 40).sum() > 20


def test_no_walk_can_be_drawn_for_two_uses():
    keys = {use: {json.dumps([w[k] for k in ("directions", "landmarks", "actions")]) for w in many(300, use)}
            for use in walks.USES}  # fmt: skip
    assert all(not keys[a] & keys[b] for a, b in combinations(keys, 2))


def test_shipped_training_and_test_walks_are_apart():
    train = {s.group for s in read_rows(DATA / "train" / "total_test_mcq_630.jsonl")}
    test = {s.group for s in read_benchmark(DATA / "benchmark")}
    assert len(train) >= 130
    assert len(test) >= 60
    assert not train & test


@pytest.fixture(scope="module")
def questions():
    walks_ = many(450)
    return [
        s
        for i, w in enumerate(walks_)
        for s in walks.samples(w, "a.mp4", seed=i)
        if s.kind == "choice"
    ][:2000]


def rate(questions, pick) -> float:
    return np.mean([pick(s) == s.answer for s in questions])


def test_letters_are_balanced(questions):
    counts = Counter(s.answer for s in questions)
    assert len(questions) == 2000
    assert max(counts.values()) / 2000 < 0.28


def features(s) -> dict:
    """Score each option by rules that look at the texts alone; the option with the most (or the least) is picked."""
    lists = [tuple(o.split()) for o in s.options]
    own = [Counter(x) for x in lists]
    shared = [sum((a & b).total() for b in own) for a in own]
    near = [sum(sum(x == y for x, y in zip(a, b)) for b in lists) for a in lists]
    twins = [sum(a == b for b in own) for a in own]
    return {
        "length": list(map(len, s.options)), "shared words": shared, "shared places": near, "twins": twins,
        "lefts": [o.count("left") for o in s.options], "rights": [o.count("right") for o in s.options],
        "arounds": [o.count("around") for o in s.options], "straights": [o.count("straight") for o in s.options],
        "different words": [len(set(x)) for x in lists], "alphabet": [sorted(s.options).index(o) for o in s.options],
        "doubled": [sum(x == y for x, y in zip(a, a[3:])) for a in lists],
    }  # fmt: skip


def test_no_rule_over_the_texts_alone_passes_chance_by_more_than_three_points(questions):
    """Ties are shared out: a rule that holds for two options of four earns a half where one of them is right."""
    names, gains = list(features(questions[0])), {}
    for name in names:
        for sign in (1, -1):
            total = 0.0
            for s in questions:
                values = [sign * v for v in features(s)[name]]
                best = [x for x, v in zip(s.letters, values) if v == max(values)]
                total += (s.answer in best) / len(best)
            gains[name, sign] = total / len(questions) - 0.25
    assert max(gains.values()) < 0.03, max(gains, key=gains.get)


AGAIN = """
import sys, av, numpy as np
from pathlib import Path
from sample_data import walks

def decoded(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])

for path in map(Path, sys.argv[2:]):
    seed = int(path.stem[1:])
    walk = walks.draw(seed, int(path.parent.name[4]), "test" if seed >= walks.SEEDS["test"] else "train")
    made, shipped = (decoded(p).astype(float) for p in (walks.write_video(walk, Path(sys.argv[1]) / path.name), path))
    print(np.abs(made - shipped).mean())
"""


def test_shipped_videos_are_made_again(tmp_path):
    """Decoded frames are equal, whatever the machine: the encoder is told to choose the same on every processor."""
    names = ("part1/w0000003.mp4", "part3_clip/w0200035.mp4")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        AGAIN,
        tmp_path,
        *[DATA / "videos" / name for name in names],
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=DATA.parent)
    assert len(done.stdout.split()) == 2, done.stderr
    assert done.stdout.split() == ["0.0", "0.0"]  # mean difference in grey levels


def test_another_processor_renders_the_same(tmp_path):
    """Without its vector instructions numpy rounds the last bit otherwise; no pixel may show it."""
    code = ("import hashlib, numpy as np; from sample_data import walks;"
            "print([hashlib.md5(walks.render(walks.draw(s, p), np.arange(0, 8, 0.25))).hexdigest() for s, p in ((0, 1), (7, 4))])")  # fmt: skip
    found = set()
    for without in ("", "AVX512_SPR AVX512_ICL AVX512_SKX AVX512F AVX2 FMA3 X86_V4 X86_V3"):
        env = {**os.environ, "NPY_DISABLE_CPU_FEATURES": without}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            capture_output=True,
            text=True,
            env=env,
            cwd=DATA.parent,
        )
        found.add(done.stdout)
        assert "[" in done.stdout, done.stderr
    assert len(found) == 1
