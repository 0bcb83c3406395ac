"""The annotator and the player in a real JupyterLab and a real Chromium, driven by their keys."""

import csv
import io
import os
import shutil
import signal
import statistics

import numpy as np
import pytest

from stlite.data.annotation_cells import COLUMNS
from tests import clips
from tests.lab import CHROMIUM, run
from tests.viz.test_browser import PAYLOADS

pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="no chromium here: apt-get install chromium runs the browser tests"
)

RATE = 8
FRAME = 1 / RATE
SHOWN = """() => {
    const screen = [...document.querySelectorAll('.sf-screen')].find((n) => !n.hidden);
    const canvas = document.createElement('canvas');
    canvas.width = 160; canvas.height = 120;
    canvas.getContext('2d').drawImage(screen, 0, 0, 160, 120);
    return [...canvas.getContext('2d').getImageData(0, 0, 160, 120).data];
}"""


@pytest.fixture(scope="module")
def films(lab):
    """A minute of film with eight frames a second, each with its number drawn into it."""
    folder = lab.folder / "films"
    folder.mkdir(exist_ok=True)
    count = 60 * RATE
    pts = [n * 600 // RATE for n in range(count)]
    clips.encode(folder / "minute.mp4", range(count), size=(160, 120), pts=pts)
    return folder


def number_on_screen(page):
    pixels = np.array(page.evaluate(SHOWN), np.uint8).reshape(120, 160, 4)
    return clips.number(pixels[..., :3])


def wait_for_frame(page, number):
    for _ in range(100):
        if number_on_screen(page) == number:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"frame {number} did not come: {number_on_screen(page)} is shown")


def open_annotator(lab, name, videos="films", table="walks.csv", before="", scheme="light"):
    cell = f"from stlite.viz.annotator import annotate\n{before}\nannotate({videos!r}, {table!r})"
    page = lab.open(name, cell, scheme=scheme)
    run(page, 0)
    page.locator(".sf-root").wait_for()
    page.locator(".sf-root").focus()
    return page


def play_to(page, second):
    """Stand in for waiting until the film has played this far."""
    page.evaluate(
        """(t) => { const range = document.querySelector('.sf-range');
        range.value = t; range.dispatchEvent(new Event('input')); }""",
        second,
    )
    wait_for_frame(page, round(second * RATE))


def settled(page, keys=0):
    """Wait until the kernel has answered so many messages."""
    page.wait_for_function(
        "n => Number(document.querySelector('.sf-root').dataset.done) >= n", arg=keys
    )


def table_of(path):
    with open(path, newline="") as file:
        return {row["video"]: row for row in csv.DictReader(file)}


class Keyboard:
    """Presses keys and counts them."""

    def __init__(self, page):
        self.page = page
        self.count = 0

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)
            self.count += 1


def test_a_walk_of_six_steps_by_keys_alone(lab, films):
    table = lab.folder / "six.csv"
    table.write_text("video,landmark\nother.mp4,gate; lamp; red door; glass door\n")
    page = open_annotator(lab, "six", table="six.csv")
    keyboard = Keyboard(page)
    moves = (  # second, key, the first letter of a landmark
        (5.0, "ArrowUp", ""), (14.5, "ArrowLeft", "g"), (22.25, "ArrowUp", ""),
        (31.0, "ArrowRight", "l"), (40.125, "ArrowUp", "r"), (55.5, "ArrowDown", ""),
    )  # fmt: skip
    messages = 0
    for second, arrow, letter in moves:
        play_to(page, second)
        before = keyboard.count
        keyboard.press(arrow)
        if letter:
            keyboard.press("l", letter, "Enter")
        assert keyboard.count - before <= (4 if letter else 1)
        messages += 2 if letter else 1
        settled(page, messages)
    row = table_of(table)["minute.mp4"]
    assert (
        row["direction"]
        == "go straight; turn left; go straight; turn right; go straight; turn around"
    )
    assert row["landmark"] == "gate; lamp; red door"
    assert row["landmark_reverse"] == "red door; lamp; gate"
    moments = [float(second) for second in row["direction_moments"].split(";")]
    assert moments == pytest.approx([second for second, *_ in moves], abs=1e-3)
    assert [float(s) for s in row["landmark_moments"].split(";")] == pytest.approx(
        [14.5, 31.0, 40.125], abs=1e-3
    )
    assert page.locator(".sa-list > li").count() == 10
    keyboard.press("l", "g")  # the gate is written already
    assert page.locator(".sa-typed").input_value() == "glass door"
    page.close()


def test_moments_are_chosen_moved_edited_removed_and_undone_by_keys(lab, films):
    page = open_annotator(lab, "edit", table="edit.csv")
    play_to(page, 10.0)
    page.keyboard.press("ArrowLeft")
    settled(page, 1)
    for _ in range(3):
        page.keyboard.press(".")
    wait_for_frame(page, 83)
    page.keyboard.press(",")
    wait_for_frame(page, 82)
    page.keyboard.press("m")
    settled(page, 2)
    path = lab.folder / "edit.csv"
    assert table_of(path)["minute.mp4"]["direction_moments"] == "10.25"
    page.keyboard.press("Home")
    wait_for_frame(page, 0)
    page.keyboard.press("j")
    wait_for_frame(page, 82)
    page.keyboard.press("e")
    page.keyboard.type("turn slightly left")
    page.keyboard.press("Enter")
    settled(page, 3)
    assert table_of(path)["minute.mp4"]["direction"] == "turn slightly left"
    assert page.evaluate("document.activeElement.classList.contains('sf-root')")
    page.keyboard.press("x")
    settled(page, 4)
    assert "minute.mp4" not in table_of(path)
    page.keyboard.press("z")
    settled(page, 5)
    assert table_of(path)["minute.mp4"]["direction"] == "turn slightly left"
    page.close()


def test_a_key_that_is_held_writes_one_step_and_takes_out_one(lab, films):
    page = open_annotator(lab, "held", table="held.csv")
    for second, key in ((10.0, "ArrowUp"), (20.0, "ArrowLeft")):
        play_to(page, second)
        for _ in range(5):
            page.keyboard.down(key)  # from the second on as the keyboard's own repetition
        page.keyboard.up(key)
    settled(page, 2)
    path = lab.folder / "held.csv"
    assert table_of(path)["minute.mp4"]["direction"] == "go straight; turn left"
    for _ in range(5):
        page.keyboard.down("x")
    page.keyboard.up("x")
    settled(page, 3)
    assert table_of(path)["minute.mp4"]["direction"] == "go straight"
    for _ in range(5):
        page.keyboard.down("z")
    page.keyboard.up("z")
    settled(page, 4)
    assert table_of(path)["minute.mp4"]["direction"] == "go straight; turn left"
    page.close()


def test_what_could_not_be_saved_is_kept_and_saved_with_the_next_key(lab, films):
    path = lab.folder / "refused.csv"
    path.write_text("video,landmark\nminute.mp4,lamp\n")
    path.chmod(0o444)
    page = open_annotator(lab, "refused", table="refused.csv")
    page.keyboard.press("l")
    page.keyboard.type("door")
    page.keyboard.press("Enter")
    alert = page.locator(".sa-told[role=alert]")
    alert.filter(has_text="Not saved: refused.csv is read-only.").wait_for()
    texts = page.locator(".sa-list .sa-text").evaluate_all("ns => ns.map((n) => n.value)")
    assert texts == ["door", "lamp"] or texts == ["lamp", "door"]
    path.chmod(0o644)
    page.keyboard.press("ArrowUp")
    page.locator(".sa-told[role=status]").filter(has_text="Saved in refused.csv.").wait_for()
    assert set(table_of(path)["minute.mp4"]["landmark"].split("; ")) == {"lamp", "door"}
    page.close()


def test_a_kernel_that_is_gone_is_told(lab, films):
    before = "import os; open('annotator.pid', 'w').write(str(os.getpid()))"
    page = open_annotator(lab, "gone", table="gone.csv", before=before)
    page.keyboard.press("ArrowLeft")
    settled(page, 1)
    os.kill(int((lab.folder / "annotator.pid").read_text()), signal.SIGKILL)
    assert table_of(lab.folder / "gone.csv")["minute.mp4"]["direction"] == "turn left"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    alert = page.locator("[role=alert]").filter(has_text="the last 2 keys are not saved")
    alert.wait_for(timeout=15_000)
    page.close()


def test_no_text_of_a_table_runs(lab, films):
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for i, text in enumerate(PAYLOADS):
        cells = dict.fromkeys(COLUMNS, text) | {"video": f"{text} {i}.mp4", "id": f"{text} {i}"}
        cells["direction_reverse"] = (
            f"{text};{text};{text}"  # steps that match none of the way there
        )
        writer.writerow([cells[name] for name in COLUMNS])
    done = {"video": "minute.mp4", "direction": "turn left"}
    writer.writerow([done.get(name, "") for name in COLUMNS])
    (lab.folder / "hostile.csv").write_text(file.getvalue())
    page = open_annotator(lab, "hostile_table", table="hostile.csv")
    shown = 0
    for message in range(len(PAYLOADS) + 1):
        settled(page, message)
        shown += page.locator(".sa-text").first.input_value() in PAYLOADS
        page.evaluate("""() => { for (const n of document.querySelectorAll('.sf-root *')) {
            n.dispatchEvent(new MouseEvent('mouseover', { bubbles: true })); } }""")
        assert page.evaluate("window.pwned === undefined")
        page.keyboard.press("n")
    assert shown == sum(";" not in text for text in PAYLOADS)  # ";" parts steps
    page.keyboard.press("l")
    page.keyboard.press("<")
    assert page.locator(".sa-words li").count() > 0
    assert page.evaluate("window.pwned === undefined")
    page.close()


LAYOUT = """() => {
    const root = document.querySelector('.sf-root');
    const named = (n) => n.getAttribute('aria-label') || n.textContent.trim() || (n.labels && n.labels.length);
    const controls = [...root.querySelectorAll('button, input, select, video, [role]:not([role=status], [role=alert])')];
    return { wide: root.scrollWidth - root.clientWidth, nameless: controls.filter((n) => !named(n)).map((n) => n.outerHTML),
        columns: getComputedStyle(root.querySelector('.sf-main')).gridTemplateColumns.split(' ').length };
}"""
CONTRAST = """() => {
    const part = (v) => { const c = v / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const light = (colour) => { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = canvas.getImageData(0, 0, 1, 1).data; return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b); };
    const behind = (n) => { for (; n; n = n.parentElement) { const c = getComputedStyle(n).backgroundColor; if (!/, 0\\)$/.test(c)) return c; } return 'white'; };
    const ratio = (n) => { const [a, b] = [light(getComputedStyle(n).color), light(behind(n))].sort((x, y) => y - x); return (a + 0.05) / (b + 0.05); };
    const texts = document.querySelectorAll('.sf-root :is(button, input, p, small, b, span, summary)');
    return Math.min(...[...texts].filter((n) => n.offsetParent && (n.value || n.textContent.trim())).map(ratio));
}"""


@pytest.mark.parametrize("theme", ("Light", "Dark"))
def test_it_fits_600_pixels_has_names_and_can_be_read_in_both_themes(lab, films, theme):
    name = f"narrow{theme}"
    page = open_annotator(lab, name, table=f"{name}.csv")
    page.evaluate(
        f"() => window.jupyterapp.commands.execute('apputils:change-theme', {{ theme: 'JupyterLab {theme}' }})"
    )
    page.wait_for_function(f"() => document.body.dataset.jpThemeName === 'JupyterLab {theme}'")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("a")
    page.keyboard.type("open the blue door")
    page.keyboard.press("Enter")
    settled(page, 2)
    assert page.evaluate(LAYOUT)["columns"] == 2
    assert page.evaluate(CONTRAST) >= 4.5
    page.set_viewport_size({"width": 600, "height": 900})
    page.keyboard.press("?")
    page.wait_for_timeout(200)
    layout = page.evaluate(LAYOUT)
    assert layout == {"wide": 0, "nameless": [], "columns": 1}
    page.evaluate(
        "() => window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Light' })"
    )
    page.close()


PRESSES = {"space": " ", "←": "ArrowLeft", "↑": "ArrowUp", "→": "ArrowRight", "↓": "ArrowDown"}
KEYED = """() => [document.querySelector('.sf-root').innerHTML, document.activeElement.dataset.key,
    document.querySelector('video').paused, document.querySelector('.sf-film').dataset.at,
    document.querySelector('.sf-bar select').value]"""


def dead_keys(page, ready=""):
    """Press every key that the list of keys names; return those that change nothing."""
    page.keyboard.press("?")
    listed = page.locator(".st-help b").all_inner_texts()
    page.keyboard.press("?")
    dead = []
    for key in " ".join(listed).split():
        page.locator(".sf-root").focus()
        for before in ready:
            page.keyboard.press(before)
        page.wait_for_timeout(300)
        state = page.evaluate(KEYED)
        page.keyboard.press(PRESSES.get(key, key))
        page.wait_for_timeout(300)
        if page.evaluate(KEYED) == state:
            dead.append(key)
        page.keyboard.press("Escape")
    return dead


def test_every_key_listed_answers_in_the_annotator_and_the_player(lab, films):
    shutil.copy(films / "minute.mp4", films / "second.mp4")
    steps = 'video,action,landmark,landmark_moments\nminute.mp4,juggle,"gate;lamp","20;40"\n'
    (lab.folder / "keys.csv").write_text(steps)
    page = open_annotator(lab, "keys", table="keys.csv")
    for _ in range(2):
        page.keyboard.press("p")
    page.wait_for_function("() => document.querySelector('.sa-name').textContent === 'minute.mp4'")
    play_to(page, 30.0)
    assert dead_keys(page, ready="j") == []
    page.close()
    page = lab.open("player_keys", PLAYER)
    run(page, 0)
    page.locator(".sf-root").focus()
    wait_for_frame(page, 0)
    play_to(page, 30.0)
    assert dead_keys(page) == []
    page.close()
    (films / "second.mp4").unlink()


PLAYER = """
from stlite.data.sample import Sample
from stlite.viz.player import play
sample = Sample("s", "minute.mp4", "direction", "reverse", "Which way back?", "A", ("x", "y"),
    ("turn left", "go straight"), ("turn around", "go straight", "turn right"), moments=(12.55, 40.25))
play(sample, "films")
"""


@pytest.mark.parametrize("plays", (True, False))
def test_the_player_goes_to_a_step_a_frame_and_a_time(lab, films, plays):
    page = lab.open(f"player{plays}", PLAYER)
    if not plays:
        page.evaluate("() => { window.MediaSource = undefined; }")
    run(page, 0)
    root = page.locator(".sf-root")
    root.wait_for()
    wait_for_frame(page, 0)
    told = page.locator(".sf-film .sf-said").inner_text()
    assert ("It is shown as single frames." in told) != plays
    page.locator(".sf-step", has_text="go straight").first.click()
    wait_for_frame(page, 40.25 * RATE)
    page.locator(".sf-thumb").nth(4).click()
    wait_for_frame(page, round(float(page.locator(".sf-film").get_attribute("data-at")) * RATE))
    play_to(page, 59.5)
    root.focus()
    page.keyboard.press(",")
    wait_for_frame(page, 59.5 * RATE - 1)
    page.keyboard.press("k")
    wait_for_frame(page, 40.25 * RATE)
    page.keyboard.press("k")
    wait_for_frame(page, 12.5 * RATE)  # on screen at 12.55 s
    page.keyboard.press("j")
    wait_for_frame(page, 40.25 * RATE)
    page.keyboard.press("Space")
    page.wait_for_function("() => Number(document.querySelector('.sf-film').dataset.at) > 40.9")
    page.keyboard.press("Space")
    current = page.locator(".sf-step[aria-current]").all_inner_texts()
    assert [text.split(" 0:")[0] for text in current] == ["go straight", "go straight"]
    page.close()


def test_a_film_is_sent_in_pieces_and_never_whole(lab, films):
    page = lab.open("pieces", PLAYER)
    sizes = []
    page.on("websocket", lambda ws: ws.on("framereceived", lambda data: sizes.append(len(data))))
    page.reload()
    from tests.lab import ready

    ready(page)
    run(page, 0)
    page.locator(".sf-root").wait_for()
    wait_for_frame(page, 0)
    page.wait_for_timeout(1000)
    del sizes[:]
    play_to(page, 50.0)
    page.wait_for_timeout(500)
    whole = (films / "minute.mp4").stat().st_size
    assert 0 < sum(sizes) < whole and max(sizes) < whole / 4
    page.close()


REPLY = """
from stlite.viz.ask import reply_view
from stlite.viz.player import play
text = open("payload.txt").read()
view = play("minute.mp4", "films")
steps = [{"text": text, "second": 1.0, "task": text}]
view.view = view.view | {"question": text, "trouble": text, "paths": [{"name": text, "steps": steps}]}
view.film = view.film | {"name": text, "note": text}
view.reply = reply_view(f"<think>Thinking forward: {text}, turn left</think> <answer>{text}</answer>") | {"state": text}
view
"""


def test_no_text_of_a_reply_runs(lab, films):
    (lab.folder / "payload.txt").write_text(" ".join(PAYLOADS))
    page = lab.open("reply", REPLY)
    run(page, 0)
    page.locator(".sf-answer").wait_for()
    wait_for_frame(page, 0)
    assert page.locator(".sf-question").inner_text().startswith(PAYLOADS[0])
    assert page.locator(".sf-thought").inner_text().count("pwn()") >= 35
    assert page.locator(".sf-step").inner_text().startswith(PAYLOADS[0])
    assert page.locator(".sf-root .st-head b").inner_text().startswith(PAYLOADS[0])
    assert page.evaluate("window.pwned === undefined")
    page.close()


SEEK = """(second) => new Promise((done, fail) => {
    const video = document.querySelector('video'), range = document.querySelector('.sf-range');
    const began = performance.now();
    const look = (now, frame) => {
        if (Math.abs(frame.mediaTime - second) < 0.07) done(performance.now() - began);
        else video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);
    setTimeout(() => fail(`no frame of ${second} s came, ${video.currentTime} s is shown`), 20000);
    range.value = second;
    range.dispatchEvent(new Event('input'));
})"""


def test_seeks_are_timed(lab, films, capsys):
    """A report, with no bound: milliseconds from the time line's event to the right frame on screen."""
    page = lab.open("seeks", PLAYER)
    run(page, 0)
    page.locator(".sf-root").wait_for()
    wait_for_frame(page, 0)
    times = []
    for place in range(1, 22):
        second = place * 17 % 59 + 0.125
        times.append(page.evaluate(SEEK, second))
        page.wait_for_timeout(100)
    with capsys.disabled():
        print(f"\nseek: {statistics.median(times):.0f} ms at the median, {max(times):.0f} at most")
    page.close()
