"""Films in pieces: the right frames at the right times, small, and of any kind of file."""

import io
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stlite.data.sample import Sample
from stlite.viz.film import PIECE, Film, available
from stlite.viz.player import play
from tests import clips


def frames_of(data: bytes):
    import av

    with av.open(io.BytesIO(data)) as container:
        return [
            (float(frame.pts * frame.time_base), frame.to_ndarray(format="rgb24"))
            for frame in container.decode(video=0)
        ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("films")


def shown_numbers(made, times):
    """Return the number of the frame that is on screen at each time, counted from the file's first frame."""
    first = min(made.times.values())
    known = sorted((time - first, n) for n, time in made.times.items())
    return [max(row for row in known if row[0] <= time + 2e-3)[1] for time in times]


@pytest.mark.parametrize("kind", clips.GOOD)
def test_pieces_hold_the_frames_of_the_file_at_their_times(folder, kind):
    made = clips.make(folder, kind)
    film = Film(made.path)
    last = math.ceil(film.duration / PIECE) - 1
    seen = set()
    for number in (last, 0, *range(last + 1)):
        piece = film.piece(number, "mp4")
        decoded = frames_of(piece["data"])
        starts = [max(0.0, time - number * PIECE) for time in piece["times"]]
        assert [second for second, _ in decoded] == pytest.approx(starts, abs=1e-3)
        numbers = [clips.number(image) for _, image in decoded]
        assert numbers == shown_numbers(made, piece["times"])
        seen |= set(numbers)
    assert seen == set(made.times)
    film.close()


@pytest.mark.parametrize("kind", ("copy_cut", "variable_rate", "rotated_90", "transport_stream"))
def test_a_still_is_the_frame_on_screen(folder, kind):
    from PIL import Image

    made = clips.make(folder / "stills", kind)
    film = Film(made.path)
    for second in (1.31, 0.2, film.duration, 0.0):
        time, data = film.still(second)
        assert time <= second + 1e-6
        number = clips.number(np.asarray(Image.open(io.BytesIO(data))))
        assert [number] == shown_numbers(made, [min(second, film.duration)])
    film.close()


@pytest.mark.parametrize(
    "kind",
    ("audio_only", "not_a_video", "random_bytes", "empty", "no_moov", "too_large", "playlist"),
)
def test_a_file_without_a_film_says_why(folder, kind):
    path = clips.make(folder, kind).path
    view = play(path.name, path.parent)
    assert view.film["error"].startswith(f"{path.name}: ") and len(view.film["error"]) > 25
    view.close()


def test_a_damaged_film_is_shown_as_far_as_it_goes(folder):
    path = clips.make(folder, "truncated").path
    film = Film(path)
    first = film.piece(0, "mp4")
    last = film.piece(math.ceil(film.duration) - 1, "mp4")
    assert clips.number(frames_of(first["data"])[0][1]) == 0
    assert 30 < clips.number(frames_of(last["data"])[-1][1]) < 90
    film.close()


def test_every_writer_fills_its_piece(folder):
    import av

    film = Film(clips.make(folder / "kinds", "long_gop").path)
    assert available() == ["mp4", "webm"]
    for kind in available():
        with av.open(io.BytesIO(film.piece(2, kind)["data"])) as container:
            packets = [p for p in container.demux(video=0) if p.size]
            assert float(packets[-1].pts * packets[-1].time_base) == pytest.approx(
                14 / 30, abs=2e-3
            )
            assert packets[0].is_keyframe and packets[0].pts == 0
    with pytest.raises(ValueError, match="expected a piece of 0 to 3.00 s, found 6"):
        film.piece(6, "mp4")
    film.close()


def test_nothing_outside_the_root_is_opened(folder, tmp_path):
    clips.encode(tmp_path / "secret.mp4", range(3), size=(64, 48))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    for name in ("../secret.mp4", str(tmp_path / "secret.mp4"), "link.mp4", "file:secret.mp4"):
        view = play(name, tmp_path / "root")
        assert (
            "a relative path under its root" in view.film["error"]
            or "stays under its root" in view.film["error"]
        )
        assert view.opened is None and not view.view["frames"]
        view.close()


class Messages(list):
    """What a view sends to its front end."""

    def __call__(self, content, buffers=None):
        self.append((content, buffers))


def answers(view, *messages):
    sent = Messages()
    view.send = sent
    for message in messages:
        view._on_message(view, message)
    view.pool.shutdown(wait=True)
    return sent


def test_pieces_and_stills_are_answered_and_what_makes_no_sense_is_a_fault(folder):
    path = clips.make(folder / "answers", "short_gop").path
    view = play(path.name, path.parent)
    key = view.film["key"]
    asked = [
        {"do": "piece", "film": key, "number": 2, "kind": "mp4"},
        {"do": "still", "film": key, "second": 0.5},
        {"do": "piece", "film": key, "number": 99, "kind": "mp4"},
        {"do": "piece", "film": key, "number": 0, "kind": "exe"},
        {"do": "piece", "film": key - 1, "number": 0, "kind": "mp4"},
    ]
    sent = answers(view, *asked)
    assert [content["do"] for content, _ in sent] == ["piece", "still", "fault", "fault"]
    assert clips.number(frames_of(sent[0][1][0])[0][1]) == 30
    view.close()


def test_steps_and_frames_stand_beside_the_film(folder):
    path = clips.make(folder / "steps", "long_gop").path
    sample = Sample(
        "s", path.name, "direction", "reverse", "Which way back?", "A", ("x", "y"),
        ("turn left", "go straight"), ("turn around", "go straight", "turn right"), moments=(0.5, 2.0),
    )  # fmt: skip
    view = play(sample, path.parent)
    there, back = view.view["paths"]
    assert [step["second"] for step in there["steps"]] == [0.5, 2.0]
    assert [step["second"] for step in back["steps"]] == [pytest.approx(3.0), 2.0, 0.5]
    assert len(view.view["frames"]) == len(view.view["seconds"]) == 16
    view.close()


MEMORY = """
import psutil, sys
from stlite.viz.film import Film
process = psutil.Process()
Film(sys.argv[2]).piece(0, "mp4")
before = process.memory_info().rss
film = Film(sys.argv[1])
for place in (0, 1, 2, 1800, 3599, 17, 900, 901, 2222):
    film.piece(place, "mp4")
print(film.duration, (process.memory_info().rss - before) / 2**20)
"""


def test_an_hour_of_film_does_not_grow_the_kernel(folder, tmp_path):
    """An hour with a frame every second and one of ten seconds, decoded alike."""
    hour, short = tmp_path / "hour.mp4", tmp_path / "short.mp4"
    for path, count in ((hour, 3600), (short, 10)):
        clips.encode(path, range(count), size=(160, 120), pts=[600 * n for n in range(count)])
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, hour, short], capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0, done.stderr
    duration, grown = map(float, done.stdout.split())
    assert duration == pytest.approx(3600, abs=1.5)
    assert grown <= 100
