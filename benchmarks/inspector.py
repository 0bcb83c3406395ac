"""Time the inspector in a real JupyterLab in headless Chromium: `python benchmarks/inspector.py`, about a minute.

Prints how long 1,000 samples take to open after the cell is run, and each of 20 next samples, key to decoded picture.
Each of these has a video of its own (8 s of 320 x 240) that was never read before; the reader looks for half a second.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests import clips
from tests.lab import CHROMIUM, Lab, run
from tests.viz.test_browser import SETUP, count

MANY = "from dataclasses import replace\nmany = [replace(samples[i % 8], id=f's{i}', video=f'{i % 24}.mp4') for i in range(1000)]\n"
MANY += "rows = {'base': [said(i, 'AB'[i % 2]) for i in range(1000)], 'tuned': [said(i, 'A') for i in range(1000)]}"
DRAWN = "() => [...document.querySelectorAll('.st-root img')].every((image) => image.complete && image.naturalWidth)"


def timed(act) -> float:
    start = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - start)


def shown(page, text: str):
    """Wait until a sample stands there with every picture decoded."""
    count(page, text)
    page.wait_for_function(DRAWN)


def measure(lab: Lab) -> dict[str, float]:
    page = lab.open("many", SETUP, MANY, "inspect(many, rows, 'videos')")
    run(page, 0)
    run(page, 1)
    first = timed(lambda: (run(page, 2), shown(page, "1 of 1000")))
    again = timed(lambda: (run(page, 2), shown(page, "1 of 1000")))
    page.locator(".st-root").focus()
    steps = []
    for i in range(2, 22):
        page.wait_for_timeout(500)
        steps.append(timed(lambda i=i: (page.keyboard.press("j"), shown(page, f"{i} of 1000"))))
    text = page.locator("input[placeholder=text]")
    find = timed(
        lambda: (text.fill("back? 3"), text.press("Enter"), shown(page, "1 of 125 (1000 in all)"))
    )
    return {
        "open": first,
        "open again": again,
        "next, median": median(steps),
        "next, worst": max(steps),
        "text filter": find,
    }


def main():
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        (Path(folder) / "videos").mkdir()
        os.environ["STLITE_CACHE"] = str(Path(folder) / "cache")
        for i in range(24):
            clips.encode(Path(folder) / "videos" / f"{i}.mp4", range(i, i + 240), size=(320, 240))
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        lab = Lab(Path(folder), browser)
        for name, value in measure(lab).items():
            print(f"{name:14} {value:6.0f} ms")
        lab.stop()
        browser.close()


if __name__ == "__main__":
    main()
