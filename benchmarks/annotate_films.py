"""Annotate ten films in a real JupyterLab by keys alone, from an empty table to samples: about six minutes.

    python benchmarks/annotate_films.py [--films 2] [--pictures FOLDER]

The films are rendered walks whose steps and moments are known, seven as they are and three as phones,
cameras and browsers write them; one lasts a minute and has six steps. They play as they would for a
person, who watches, types at a quarter of a second a key, and thinks for a second about each name.
Prints the keys a step needed, the time, and what the saved rows say against the truth.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
from playwright.sync_api import sync_playwright

from sample_data import walks
from stlite import annotations, ask, check, load
from stlite.__main__ import main as stlite
from stlite.data.annotation_file import read_walks
from stlite.data.checks import format_table
from tests.lab import CHROMIUM, Lab, ready, run

SEED = 700_000  # no walk of another use begins here
KINDS = (  # the file, the parts of its walks, how FFmpeg writes it
    ("walk1.mp4", (1,), ""),
    ("walk2.mp4", (2,), ""),
    ("walk3.mp4", (3,), ""),
    ("walk4.mp4", (4,), ""),
    ("upstairs/walk5.mp4", (4,), ""),
    ("upstairs/walk6.mp4", (3,), ""),
    ("phone.mov", (4,), "-vf crop=ih*9/16:ih,scale=720:1280,transpose=1 -r 30000/1001"
     " -c:v libx265 -tag:v hvc1 -preset ultrafast -x265-params log-level=none"),
    ("camera.avi", (2,), "-r 7.3 -c:v mpeg4 -q:v 4"),
    ("browser.webm", (1,), "-r 12.5 -c:v libvpx-vp9 -deadline realtime -cpu-used 8"),
    ("minute.mkv", (1, 3), "-r 24000/1001 -c:v libx264 -bf 3"),
)  # fmt: skip
MINUTE = 60.0  # seconds of the last film
KEY = 0.25  # seconds a key takes
THOUGHT = 1.0  # seconds to think of a name
ARROWS = {
    "turn left": "ArrowLeft",
    "go straight": "ArrowUp",
    "turn right": "ArrowRight",
    "turn around": "ArrowDown",
}
OPENING = {"landmark": "l", "action": "a"}


# ---- films


def draw_plain(seed: int, part: int) -> dict:
    """Draw a walk without a turn at its ends, so that walks can be joined."""
    while True:
        walk = walks.draw(seed, part)
        if not any(walk["ends"]):
            return walk
        seed += 1000


def make_film(folder: Path, number: int) -> dict:
    """Render one film; return its name and its steps as (second, task, text) in their order."""
    name, parts, writing = KINDS[number]
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    steps = []
    pieces = []
    began = 0.0
    for i, part in enumerate(parts):
        draw = draw_plain if len(parts) > 1 else walks.draw
        walk = draw(SEED + 10 * number + i, part)
        pieces.append(walks.write_video(walk, folder.parent / f"{number}-{i}.mp4", size=240))
        timeline = walks.timeline(walk)
        for task in ("direction", "landmark", "action"):
            moments = timeline["moments"][task]
            steps += [(began + t, task, text) for t, text in zip(moments, walk[f"{task}s"])]
        began += timeline["seconds"]
    stretch = MINUTE / began if len(parts) > 1 else 1.0
    write_film(pieces, target, writing, stretch)
    steps.sort()
    return {"name": name, "steps": [(t * stretch, task, text) for t, task, text in steps]}


def write_film(pieces: list[Path], target: Path, writing: str, stretch: float):
    """Join rendered pieces, slowed down, in the container that the target's name asks for."""
    if not writing:
        pieces[0].rename(target)
        return
    listed = target.with_suffix(".txt")
    listed.write_text("".join(f"file '{piece}'\n" for piece in pieces))
    command = ["ffmpeg", "-v", "error", "-itsscale", str(stretch), "-f", "concat", "-safe", "0"]
    command += ["-i", str(listed), "-f", "lavfi", "-i", "sine", "-shortest"]
    subprocess.run([*command, *shlex.split(writing), str(target)], check=True)
    listed.unlink()
    if target.suffix == ".mov":
        lie_on_its_side(target)


def lie_on_its_side(path: Path):
    """Say in a film's header that it is to be turned upright, as a phone that is held upright does."""
    plain = path.rename(path.with_name("plain.mov"))
    command = ["ffmpeg", "-v", "error", "-i", str(plain), "-c", "copy"]
    subprocess.run([*command, "-metadata:s:v", "rotate=90", str(path)], check=True)
    plain.unlink()


# ---- a person at the keys


class Person:
    """Presses keys at a person's pace, and counts them."""

    def __init__(self, page, pictures: Path | None):
        self.page = page
        self.pictures = pictures
        self.count = 0
        self.known = set()  # names typed before

    def press(self, key: str):
        self.page.wait_for_timeout(1000 * KEY)
        self.page.keyboard.press(key)
        self.count += 1

    def picture(self, name: str):
        if self.pictures:
            self.page.screenshot(path=self.pictures / f"{name}.png")

    def wait_until(self, second: float):
        """Watch the film until it has played this far, or has ended."""
        self.page.wait_for_function(
            """(t) => { const film = document.querySelector('.sf-film'), button = film.querySelector('.sf-bar button');
            return Number(film.dataset.at) >= t || button.textContent === '▶'; }""",
            arg=second,
            timeout=120_000,
        )

    def name_it(self, task: str, text: str):
        """Open the field, and type as many letters as its completion needs."""
        self.press(OPENING[task])
        field = self.page.locator(".sa-typed")
        field.wait_for()
        self.page.wait_for_timeout(1000 * THOUGHT)
        for letter in text:
            if field.input_value() == text:
                break
            if self.second_offered() == text:
                self.press("ArrowDown")
                break
            self.press("Space" if letter == " " else letter)
        self.press("Enter")

    def second_offered(self) -> str:
        """Return the word one below the completion, or the first where nothing is completed."""
        words = self.page.locator(".sa-words li").all_inner_texts()
        place = self.page.locator(".sa-words li[aria-selected=true]").count()
        return words[place] if place < len(words) else ""


def settle(page):
    """Wait until the kernel has answered every key."""
    page.wait_for_timeout(300)
    page.wait_for_function(
        "() => document.querySelector('.sa-told').textContent.startsWith('Saved')"
    )


def annotate_film(person: Person, film: dict) -> dict:
    """Watch a film and write its steps; return the keys that each kind of step took."""
    page = person.page
    page.wait_for_function(
        "(name) => document.querySelector('.sa-name').textContent === name", arg=film["name"]
    )
    page.wait_for_function("() => document.querySelector('video').readyState >= 2", timeout=30_000)
    keys = {"move": [], "name typed before": [], "new name": []}
    first = person.count
    began = time.perf_counter()
    person.press("Space")
    for second, task, text in film["steps"]:
        person.wait_until(second - KEY)
        before = person.count
        if task == "direction":
            person.press(ARROWS[text])
        else:
            person.name_it(task, text)
        kind = "move" if task == "direction" else "new name"
        if text in person.known:
            kind = "name typed before"
        elif task != "direction":
            person.known.add(text)
        keys[kind].append(person.count - before)
    settle(page)
    seconds = time.perf_counter() - began
    person.picture(Path(film["name"]).stem)
    return {"keys": keys, "count": person.count - first, "seconds": seconds}


# ---- the file against the truth


def compare(table: Path, films: list[dict]) -> list[dict]:
    """Compare the saved rows with what was rendered: steps, and seconds between moments."""
    saved = {walk["video"]: walk["steps"] for walk in read_walks(table)[0]}
    rows = []
    for film in films:
        walk = saved.get(film["name"], {})
        right = 0
        far = [0.0]
        for task in OPENING.keys() | {"direction"}:
            truth = [(second, text) for second, at, text in film["steps"] if at == task]
            steps = walk.get(task, [])
            right += [step["text"] for step in steps] == [text for _, text in truth]
            far += [abs(step["second"] - second) for step, (second, _) in zip(steps, truth)]
        row = {"film": film["name"], "steps": len(film["steps"]), "lists right": f"{right} of 3"}
        rows.append(row | {"moments off by, s": round(max(far), 2)})
    return rows


def go_on(folder: Path, table: Path):
    """Make samples of the table, let the doctor look at them, and ask about one film."""
    videos = folder / "films"
    samples = annotations(table, videos=videos)
    print(f"{len(samples)} samples; check says:")
    print(format_table(check(samples, videos=videos, frames=16)))
    model, processor = load("tiny")
    sample = samples[0]
    film = videos / sample.video
    reply = ask(model, processor, film, sample.question, sample.options, max_new_tokens=64)
    print(f"asked about {sample.video}: {reply!r}")


PLAY = """
from stlite import annotations
from stlite.viz.player import play
samples = annotations("walks.csv", videos="films")
play(next(s for s in samples if s.video == "phone.mov"), videos="films")
"""


def work(folder: Path, count: int, pictures: Path | None, browser):
    films = [make_film(folder / "films", number) for number in range(count)]
    films.sort(key=lambda film: film["name"])
    lab = Lab(folder, browser)
    table = folder / "walks.csv"
    try:
        stlite(["annotate", str(folder / "films"), str(table), "--no-open"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"http://127.0.0.1:{lab.port}/doc/tree/walks.annotate.ipynb")
        ready(page)
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Shift+Enter")
        page.locator(".sf-film video").click()
        person = Person(page, pictures)
        person.picture("empty")
        results = {}
        for film in films:
            results[film["name"]] = annotate_film(person, film)
            person.press("n")
        print_keys(results)
        print(format_table(compare(table, films)))
        go_on(folder, table)
        if pictures and count > 6:
            page = lab.open("player", PLAY)
            run(page, 0)
            page.locator(".sf-thumb").nth(15).wait_for()
            page.locator(".sf-step").nth(1).click()
            page.wait_for_timeout(1500)
            page.screenshot(path=pictures / "player.png")
    finally:
        lab.stop()


def print_keys(results: dict):
    rows = []
    for name, result in results.items():
        row = {"film": name, "keys": result["count"], "s": round(result["seconds"])}
        for kind, keys in result["keys"].items():
            row[kind] = " ".join(map(str, keys))
        rows.append(row)
    print(format_table(rows))
    for kind in ("move", "name typed before", "new name"):
        keys = [n for result in results.values() for n in result["keys"][kind]]
        if keys:
            print(f"{kind}: {median(keys):.0f} keys at the median, {max(keys)} at most")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--films", type=int, default=len(KINDS), help="the first so many")
    parser.add_argument("--pictures", type=Path, help="a folder for a screenshot of each film")
    args = parser.parse_args()
    if args.pictures:
        args.pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            work(Path(folder), args.films, args.pictures, browser)
        finally:
            browser.close()


if __name__ == "__main__":
    main()
