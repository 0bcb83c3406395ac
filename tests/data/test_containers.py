"""Files as cameras, recorders and hands make them: read right, or refused with the reason."""

import struct
import warnings
from fractions import Fraction

import av
import clips
import numpy as np
import pytest

from stlite.data.checks import check
from stlite.data.sample import Sample
from stlite.data.video import ClipError, ClipWarning, read_clip

av.logging.set_level(av.logging.PANIC)
SMALL = {"frames": 16, "max_pixels": 84 * 84}
SHORT_GOPS = {"g": "15"}
ORIENTATIONS = {  # (a, b, c, d): a pixel at (x, y) is shown at (ax + cy, bx + dy)
    "upright": (1, 0, 0, 1), "mirrored": (-1, 0, 0, 1), "upside down": (-1, 0, 0, -1), "flipped": (1, 0, 0, -1),
    "clockwise": (0, 1, -1, 0), "counterclockwise": (0, -1, 1, 0), "transposed": (0, 1, 1, 0),
    "transverse": (0, -1, -1, 0),
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    monkeypatch.setenv("STLITE_CACHE", "off")
    monkeypatch.delenv("STLITE_BACKEND", raising=False)


def read(path, **settings):
    """Read a clip: the numbers drawn into its frames, and what the reader warned of."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", ClipWarning)
        clip = read_clip(path, **SMALL | settings)
    return [clips.number(frame) for frame in clip.frames], [str(note.message) for note in notes]


def evenly(count, frames=16):
    """The numbers of frames evenly spread over a film of so many."""
    return np.linspace(0, count - 1, frames).round().astype(int).tolist()


def near(numbers, wanted):
    return None not in numbers and np.abs(np.array(numbers) - wanted).max() <= 1


# ---- orientation


def stored(shown, matrix):
    """The picture to be stored so that it is shown as given: each pixel is fetched from where it goes."""
    a, b, c, d = matrix
    height, width = shown.shape[:2] if a else shown.shape[1::-1]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    to_x = a * x + c * y
    to_y = b * x + d * y
    return shown[to_y - to_y.min(), to_x - to_x.min()]


def with_matrix(path, matrix):
    """Write a film that is upright once its display matrix, put into the track's header, is heeded."""
    first = stored(clips.draw(0, 320, 240), matrix)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        for n in range(30):
            image = np.ascontiguousarray(stored(clips.draw(n, 320, 240), matrix))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    a, b, c, d = (65536 * value for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_all_eight_orientations_come_out_as_they_are_shown(name, tmp_path):
    with_matrix(tmp_path / "a.mp4", ORIENTATIONS[name])
    numbers, notes = read(tmp_path / "a.mp4")
    assert near(numbers, evenly(30)) and notes == []


def test_decord_is_refused_for_a_mirrored_picture(tmp_path):
    pytest.importorskip("decord")
    with_matrix(tmp_path / "a.mp4", ORIENTATIONS["mirrored"])
    with pytest.raises(ClipError, match="a mirrored picture"):
        read_clip(tmp_path / "a.mp4", backend="decord")


# ---- joined and cut


def film(path, count=60, start=0, **settings):
    """Encode frames numbered from `start`, with the clock at 0."""
    return clips.encode(path, range(start, start + count), options=SHORT_GOPS, **settings)


@pytest.mark.parametrize("suffix", ["ts", "mp4", "mkv", "avi"])
@pytest.mark.parametrize("parts", [2, 3])
def test_films_joined_by_bytes_are_refused(suffix, parts, tmp_path):
    codec = "mpeg4" if suffix == "avi" else "libx264"
    files = [film(tmp_path / f"{i}.{suffix}", start=60 * i, codec=codec) for i in range(parts)]
    joined = tmp_path / f"joined.{suffix}"
    joined.write_bytes(b"".join(file.read_bytes() for file in files))
    with pytest.raises(ClipError, match="joined"):
        read(joined)
    assert near(read(files[0])[0], evenly(60))


@pytest.mark.parametrize("percent", [30, 50, 80, 95])
@pytest.mark.parametrize("kind", ["mkv", "webm", "mp4", "faststart.mp4", "fragments.mp4", "avi"])
def test_a_film_cut_anywhere_is_refused_and_says_so(kind, percent, tmp_path):
    mux = {
        "faststart.mp4": {"movflags": "faststart"},
        "fragments.mp4": {"movflags": "frag_keyframe+empty_moov"},
    }
    settings = {"avi": {"codec": "mpeg4"}, "webm": {"codec": "libvpx-vp9", "size": (160, 120)}}.get(
        kind, {}
    )
    whole = film(tmp_path / f"film.{kind}", count=90, **settings, **mux.get(kind, {}))
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) * percent // 100])
    with pytest.raises(ClipError, match="truncated"):
        read(whole)


def test_a_matroska_without_lengths_that_ends_early_is_refused(tmp_path):
    """As written live, or cut and then given back a length: only the declared duration tells."""
    whole = film(tmp_path / "a.mkv", count=90)
    data = bytearray(whole.read_bytes())
    place = data.index(b"\x18S\x80g") + 4
    data[place : place + 8] = b"\x01" + b"\xff" * 7
    tag = data.find(b"DURATION")
    while tag > 0:
        data[tag : tag + 8] = b"DURATIOX"
        tag = data.find(b"DURATION")
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    with pytest.raises(ClipError, match=r"truncated: 1.\d\d of 3.\d\d s"):
        read(tmp_path / "cut.mkv")
    (tmp_path / "live.mkv").write_bytes(data)
    assert near(read(tmp_path / "live.mkv")[0], evenly(90))


def test_subtitles_or_sound_longer_than_the_film_still_read(tmp_path):
    plain = film(tmp_path / "plain.mkv", count=60)
    path = tmp_path / "long_sound.mkv"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        sound = target.add_stream("aac", rate=16000)
        copy = target.add_stream_from_template(source.streams.video[0])
        clips._beep(target, sound, seconds=9)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copy
                target.mux(packet)
    numbers, notes = read(path)
    assert near(numbers, evenly(60)) and notes == []


def remux(source, path, times):
    """Copy packets with other presentation times, in 1/1000 s."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for packet, at in zip((p for p in old.demux(stream) if p.size), times):
            packet.time_base = Fraction(1, 1000)
            packet.pts = packet.dts = at
            packet.stream = copy
            new.mux(packet)


def test_times_that_repeat_are_noted(tmp_path):
    plain = clips.encode(tmp_path / "plain.mkv", range(60), options={"bf": "0", "g": "1"})
    times = [33 * (n - n % 2) for n in range(60)]
    remux(plain, tmp_path / "twice.mkv", times)
    numbers, notes = read(tmp_path / "twice.mkv")
    assert None not in numbers
    assert "30 of the 60 frames have the time of another and are left out" in notes[0]


# ---- tracks and sizes


def two_tracks(path, sizes, default, codec="libx264"):
    """A film of two tracks, frames numbered from 0 and from 100; `default` is flagged so."""
    with av.open(str(path), "w") as container:
        streams = []
        for i, (width, height) in enumerate(sizes):
            stream = container.add_stream(codec, rate=30)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.disposition = (
                av.stream.Disposition.default if i == default else av.stream.Disposition(0)
            )
            streams.append(stream)
        for n in range(30):
            for i, stream in enumerate(streams):
                frame = av.VideoFrame.from_ndarray(clips.draw(n + 100 * i, *sizes[i]))
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(
    "sizes, default, first",
    [
        ([(64, 48), (320, 240)], 0, 100),  # a preview, flagged or not
        ([(64, 48), (320, 240)], 1, 100),
        ([(320, 240), (64, 48)], 1, 0),
        ([(320, 240), (320, 240)], 1, 100),
        ([(320, 240), (320, 240)], 0, 0),
    ],
)
def test_the_track_that_players_show_is_read(suffix, sizes, default, first, tmp_path):
    two_tracks(tmp_path / f"a.{suffix}", sizes, default)
    numbers, _ = read(tmp_path / f"a.{suffix}")
    assert near(numbers, np.array(evenly(30)) + first)


def test_a_cover_is_not_the_film(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 640, 480, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        picture = av.VideoFrame.from_ndarray(clips.draw(999, 640, 480)).reformat(format="yuvj420p")
        container.mux(cover.encode(picture))
        container.mux(cover.encode())
        for n in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(clips.draw(n, 320, 240))))
        container.mux(stream.encode())
    assert near(read(tmp_path / "a.mp4")[0], evenly(30))


def test_a_picture_that_changes_its_size_is_refused_by_name(tmp_path):
    parts = [clips.encode(tmp_path / f"{w}.mkv", range(30), codec="libvpx", size=(w, 240), options={"deadline": "realtime"})
             for w in (320, 160)]  # fmt: skip
    with av.open(str(tmp_path / "a.webm"), "w") as target:
        copy = None
        for i, part in enumerate(parts):
            with av.open(str(part)) as source:
                stream = source.streams.video[0]
                copy = copy or target.add_stream_from_template(stream)
                for packet in source.demux(stream):
                    if packet.size:
                        packet.pts += i * 1000
                        packet.dts = packet.pts
                        packet.stream = copy
                        target.mux(packet)
    with pytest.raises(ClipError, match=r"changes its size, from 320×240 to 160×240 by 1\.\d\d s"):
        read(tmp_path / "a.webm")


# ---- containers that are not read


def foreign(path, codec):
    """Write a film in a container that is not accepted."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for n in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(clips.draw(n, 320, 240))))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    "name, codec, said",
    [
        ("a.mpg", "mpeg2video", r"an MPEG program stream.*ffmpeg -i"),
        ("a.flv", "flv", r"a Flash file.*ffmpeg -i"),
        ("a.wmv", "wmv2", r"a Windows Media file.*ffmpeg -i"),
    ],
)
def test_a_container_that_is_not_accepted_is_named_with_how_to_convert_it(
    name, codec, said, tmp_path
):
    foreign(tmp_path / name, codec)
    with pytest.raises(ClipError, match=f"not accepted: {said}"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    "content, said",
    [
        (b"OggS\0\2", "an Ogg file.*convert it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "download it again"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
        (b"PK\x03\x04", "unpack it"),
        (b"#EXTM3U\nother.ts\n", "a playlist"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "no AVI"),
    ],
)
def test_what_is_no_film_is_named(content, said, tmp_path):
    (tmp_path / "a.mp4").write_bytes(content + b"\0" * 100)
    with pytest.raises(ClipError, match=f"not accepted: .*{said}"):
        read(tmp_path / "a.mp4")


# ---- ranges


@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv"])
@pytest.mark.parametrize(
    "rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25), Fraction(60)]
)
def test_a_range_that_ends_on_a_frame_holds_it_on_every_clock(suffix, rate, tmp_path):
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for n in range(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(clips.draw(n, 320, 240))))
        container.mux(stream.encode())
    for first, last in ((0, 30), (7, 41), (10, 59)):
        for digits in (2, 3, 6):
            span = f"#t={float(first / rate):.{digits}f},{float(last / rate):.{digits}f}"
            numbers, _ = read(f"{path}{span}", frames=2)
            assert numbers == [first, last], span


def test_a_range_between_frames_holds_none_beyond_half_a_frame(tmp_path):
    path = film(tmp_path / "a.mp4")
    assert read(f"{path}#t=0.36,1.34", frames=2)[0] == [11, 40]


# ---- the checks repeat the reader's reason


def samples(*videos, steps=("turn left",)):
    ask = {
        "task": "direction",
        "way": "forward",
        "question": "?",
        "answer": "A",
        "options": ("a", "b"),
    }
    return [Sample(id=v, video=v, steps_forward=steps, trace="t", **ask) for v in videos]


def test_check_repeats_what_the_reader_says(tmp_path):
    film(tmp_path / "good.mp4")
    foreign(tmp_path / "a.mpg", "mpeg2video")
    whole = film(tmp_path / "cut.mkv")
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    findings = check(samples("good.mp4", "a.mpg", "cut.mkv", "gone.mp4"), videos=tmp_path, frames=4)
    said = {tuple(f["ids"]): f["fix"] for f in findings if f["code"].endswith("-video")}
    assert said["a.mpg",].startswith("not accepted: an MPEG program stream")
    assert said["cut.mkv",].startswith("truncated: ")
    assert said["gone.mp4",] == "put the file under the root"
    assert len(said) == 3


def test_check_tells_when_frames_are_too_few(tmp_path):
    slow = clips.encode(tmp_path / "slow.mp4", range(16), pts=[600 * 20 * n for n in range(16)])
    film(tmp_path / "quick.mp4")
    steps = ("turn left",) * 6
    findings = {
        f["code"]: f
        for f in check(samples(slow.name, "quick.mp4", steps=steps), tmp_path, frames=8)
    }
    assert findings["few-frames"]["ids"] == ["slow.mp4"]
    assert findings["few-frames"]["fix"].startswith("one frame every 43 s, 6 steps")
