"""Time the inspector in a real JupyterLab in headless Chromium: `python benchmarks/inspector.py`, about a minute.

Prints how long 10,000 samples take to open after the cell is run, then each of 20 next samples, from
the key to the decoded pictures: each has a clip (8 s of 320 x 240) that was never read before. The
reader looks for half a second, or does not look at all. Then seeks in the frames, filters and sorts.
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

SAMPLES, CLIPS = 10_000, 48
MANY = f"""
from dataclasses import replace
many = [replace(samples[i % 8], id=f's{{i}}', video=f'{{i % {CLIPS}}}.mp4') for i in range({SAMPLES})]
rows = {{'base': [said(i, 'AB'[i % 2]) for i in range({SAMPLES})], 'tuned': [said(i, 'A') for i in range({SAMPLES})]}}
"""
DRAWN = "() => [...document.querySelectorAll('.st-root img')].every((image) => image.complete && image.naturalWidth)"


def timed(act) -> float:
    start = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - start)


def shown(page, text: str):
    """Wait until a sample stands there with every picture decoded."""
    count(page, text)
    page.wait_for_function(DRAWN)


def press(page, key: str, text: str) -> float:
    return timed(lambda: (page.keyboard.press(key), shown(page, text)))


def seek(page, frame: int) -> float:
    caption = f"frame {frame + 1} of 16"
    there = "(t) => document.querySelector('.st-caption').textContent.startsWith(t) && document.querySelector('.st-big').complete"
    thumb = page.locator(".st-thumb").nth(frame)
    return timed(lambda: (thumb.click(), page.wait_for_function(there, arg=caption)))


def measure(lab: Lab) -> dict[str, float]:
    page = lab.open("many", SETUP, MANY, "inspect(many, rows, 'videos')")
    run(page, 0)
    run(page, 1)
    first = timed(lambda: (run(page, 2), shown(page, f"1 of {SAMPLES}")))
    again = timed(lambda: (run(page, 2), shown(page, f"1 of {SAMPLES}")))
    page.locator(".st-root").focus()
    looked, hurried = [], []
    for place in range(2, 22):
        page.wait_for_timeout(500)
        looked.append(press(page, "j", f"{place} of {SAMPLES}"))
    for place in range(22, 42):
        hurried.append(press(page, "j", f"{place} of {SAMPLES}"))
    seeks = [seek(page, frame) for frame in (15, 3, 9, 0, 12, 6, 1, 14)]
    page.locator("select[title=task]").focus()
    task = page.locator("select[title=task]")
    direction, text = f"direction ({SAMPLES * 5 // 8})", page.locator("[data-key=text]")
    chosen = timed(
        lambda: (task.select_option(label=direction), shown(page, "26 of 6250 (10000 in all)"))
    )
    page.keyboard.press("Escape")
    found = timed(
        lambda: (text.fill("back? 3"), text.press("Enter"), shown(page, "1 of 1250 (10000 in all)"))
    )
    page.locator(".st-root").focus()
    page.keyboard.press("x")
    table = timed(lambda: (page.keyboard.press("t"), page.locator(".st-table").wait_for()))
    sort = page.locator("button[title='sort by reply length']")
    sorted_ = timed(lambda: (sort.click(), page.locator("th[aria-sort=ascending]").wait_for()))
    return {
        "open": first,
        "open again": again,
        "next, looked at, median": median(looked),
        "next, looked at, worst": max(looked),
        "next, hurried, median": median(hurried),
        "next, hurried, worst": max(hurried),
        "seek, median": median(seeks),
        "seek, worst": max(seeks),
        "filter": chosen,
        "text": found,
        "table": table,
        "sort": sorted_,
    }


def main():
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        (Path(folder) / "videos").mkdir()
        os.environ["STLITE_CACHE"] = str(Path(folder) / "cache")
        for i in range(CLIPS):
            clips.encode(Path(folder) / "videos" / f"{i}.mp4", range(i, i + 240), size=(320, 240))
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        lab = Lab(Path(folder), browser)
        try:
            for name, value in measure(lab).items():
                print(f"{name:24} {value:6.0f} ms")
        finally:
            lab.stop()
            browser.close()


if __name__ == "__main__":
    main()
