"""Watch an hour of film in the annotator, the player and the inspector: how much does the kernel grow?

    python benchmarks/long_film.py [--minutes 60]

A real JupyterLab, a real Chromium, one kernel. A film of ten seconds is opened in all three first,
so that what the libraries need is there. Then the long film: 21 places are sought in each view.
Prints the kernel's memory after each, its growth from the short film to the long one, and the
milliseconds from a seek to its frame at the median.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from playwright.sync_api import sync_playwright

from tests.lab import CHROMIUM, Lab, run

SETUP = """
import os
from stlite import annotate, inspect
from stlite.data.sample import Sample
from stlite.viz.player import play
open("pid", "w").write(str(os.getpid()))
def sample(video):
    return Sample("s", video, "direction", "forward", "Which way?", "A", ("x", "y"), ("turn left",), ("turn right",))
"""
VIEWS = {
    "annotator": "annotate('{folder}', '{folder}.csv')",
    "player": "play(sample('film.mp4'), '{folder}')",
    "inspector": "inspect([sample('film.mp4')], None, '{folder}')",
}
SEEK = """(second) => new Promise((done, fail) => {
    const video = document.querySelector('video'), range = document.querySelector('.sf-range');
    const began = performance.now();
    const look = (now, frame) => {
        if (Math.abs(frame.mediaTime - second) < 0.2) done(performance.now() - began);
        else video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);
    setTimeout(() => fail(`no frame of ${second} s came, ${video.currentTime} s is shown`), 20000);
    range.value = second;
    range.dispatchEvent(new Event('input'));
})"""


def make_film(path: Path, seconds: float):
    """Encode a test pattern of 320 x 240, ten frames a second, a key frame every ten seconds."""
    path.parent.mkdir()
    pattern = f"testsrc=size=320x240:rate=10:duration={seconds}"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", pattern, "-c:v", "libx264"]
    subprocess.run([*command, "-preset", "ultrafast", "-g", "100", str(path)], check=True)


def memory(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 2**20


def look(page, view: str, seconds: float) -> list[float]:
    """Go to 21 places of a film, or through the frames of the inspector; return milliseconds."""
    if view == "inspector":
        page.locator(".st-thumb").nth(15).wait_for(timeout=120_000)
        for frame in range(16):
            page.locator(".st-thumb").nth(frame).click()
        return []
    page.locator(".sf-root").wait_for()
    page.wait_for_function("() => document.querySelector('video').readyState >= 2", timeout=60_000)
    times = []
    for place in range(1, 22):
        times.append(page.evaluate(SEEK, round(place * 0.377 % 1 * seconds * 0.99, 1)))
    page.locator(".sf-root").focus()
    page.keyboard.press("Space")  # and play for a while
    page.wait_for_timeout(3000)
    page.keyboard.press("Space")
    return times


def measure(lab: Lab, lengths: dict[str, float]):
    cells = [view.format(folder=folder) for folder in lengths for view in VIEWS.values()]
    page = lab.open("long", SETUP, *cells)
    run(page, 0)
    cell = 0
    before = {}
    for folder, seconds in lengths.items():
        for view in VIEWS:
            cell += 1
            run(page, cell)
            times = look(page, view, seconds)
            pid = int((lab.folder / "pid").read_text())
            held = memory(pid)
            grown = held - before.setdefault(view, held)
            seek = f"; a seek {median(times):.0f} ms, {max(times):.0f} at most" if times else ""
            print(f"{folder:5} {view:9} {held:4.0f} MB, {grown:+4.0f} MB{seek}", flush=True)
            page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-cell-output')")
            page.locator(".st-root").wait_for(state="detached")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    args = parser.parse_args()
    lengths = {"short": 10.0, "long": 60 * args.minutes}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        os.environ["STLITE_CACHE"] = str(Path(folder) / "cache")
        for name, seconds in lengths.items():
            make_film(Path(folder) / name / "film.mp4", seconds)
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        lab = Lab(Path(folder), browser)
        try:
            measure(lab, lengths)
        finally:
            lab.stop()
            browser.close()


if __name__ == "__main__":
    main()
