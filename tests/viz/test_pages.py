"""Exported pages in a real headless Chromium: where things stand, what keys do, what a screen reader is told."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from stlite.data.sample import Sample, write_jsonl
from stlite.eval import render
from stlite.viz import frontend
from stlite.viz.inspector import inspect
from stlite.viz.sample_view import show_chain
from stlite.viz.training_view import show_group
from tests import clips
from tests.lab import CHROMIUM, CONTROLS, accessible_names, run
from tests.viewed import OPTIONS, said, samples
from tests.viz.test_browser import PAYLOADS

pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="no chromium here: apt-get install chromium runs the browser tests"
)

TURNS = tuple(f"turn {'left' if i % 2 else 'right'} at door {i}" for i in range(12))


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """A clip of 9 s with twelve steps, each at a known moment."""
    folder = tmp_path_factory.mktemp("walk")
    clips.encode(folder / "a.mp4", range(270), size=(160, 120))
    moments = tuple(0.4 + 0.73 * i for i in range(12))
    sample = Sample(
        "walk", "a.mp4", "direction", "reverse", "Back?", "A", OPTIONS, TURNS, TURNS[::-1],
        moments=moments,
    )  # fmt: skip
    return folder, sample


@pytest.fixture(scope="module")
def page_of(tmp_path_factory):
    """Export an inspector's samples; return the page's address."""

    def export(*args, **more):
        folder = tmp_path_factory.mktemp("page")
        widget = inspect(*args, annotations=folder / "marks.jsonl", **more)
        return f"file://{widget.save(folder / 'page.html')}"

    return export


@pytest.fixture(scope="module")
def many(tmp_path_factory, videos, page_of):
    """Six samples, two runs, marks and findings: the inspector, and its page."""
    rows = samples()
    runs = {
        "base": [said(s, a) for s, a in zip(rows, "ABAAB")] + [said(rows[5], "")],
        "tuned": [said(s, "A") for s in rows[:4]],
    }
    folder = tmp_path_factory.mktemp("many")
    marks = [{"id": "s2", "mark": "too dark", "note": "by the door"}]
    (folder / "marks.jsonl").write_text(json.dumps(marks[0]) + "\n")
    widget = inspect(
        rows, runs, videos, [{"code": "dull", "ids": ["s1", "s3"]}], folder / "marks.jsonl"
    )
    return widget, f"file://{widget.save(folder / 'page.html')}"


def opened(browser, address, width=1400, **more):
    page = browser.new_page(viewport={"width": width, "height": 900}, **more)
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto(address)
    page.wait_for_function("() => [...document.images].every((i) => i.complete && i.naturalWidth)")
    return page


def settle(page):
    """Wait until the page has been laid out and drawn again."""
    page.evaluate("() => new Promise((f) => requestAnimationFrame(() => requestAnimationFrame(f)))")


LINKS = """() => [...document.querySelectorAll('.st-links line')].map((line) => {
    const at = (x, y) => new DOMPoint(line[x].baseVal.value, line[y].baseVal.value).matrixTransform(line.getScreenCTM());
    const from = at('x1', 'y1'), to = at('x2', 'y2');
    return [from.x, from.y, to.x, to.y]; })"""
BOXES = """(what) => [...document.querySelectorAll(what)].map((node) => {
    const box = node.getBoundingClientRect(); return [box.left, box.top, box.right, box.bottom]; })"""
PATHS = ".st-track:not(.st-thought) .st-chip"


def distances(page, sample, seconds) -> list[float]:
    """Measure how far each link ends from where it should: its step's edge, and its frame's."""
    thumbs, steps = page.evaluate(BOXES, ".st-thumb"), page.evaluate(BOXES, PATHS)
    times = [*sample.moments, *sample.moments[::-1]]
    links = page.evaluate(LINKS)
    assert len(links) == len(steps) == len(times)
    far = []
    for (x1, y1, x2, y2), step, time in zip(links, steps, times):
        frame = min(range(len(seconds)), key=lambda i: abs(seconds[i] - time))
        left, top, right, bottom = thumbs[frame]
        above = step[1] < top
        far += [abs(x1 - (step[0] + step[2]) / 2), abs(y1 - (step[3] if above else step[1]))]
        far += [abs(x2 - (left + right) / 2), abs(y2 - (top if above else bottom))]
    return far


@pytest.mark.parametrize(
    ("frames", "width", "scale", "zoom"),
    [
        *((frames, width, 1, 1) for frames in (16, 64) for width in (600, 1400)),
        *((frames, 1400, 1, 2) for frames in (16, 64)),  # a page enlarged to 200 %
        (64, 320, 1, 1),
        *((frames, 700, 2, 1) for frames in (16, 64)),  # a window of 1400 pixels at 200 %
    ],
)
def test_every_link_ends_at_its_frame_and_the_current_frame_stays_on_screen(
    browser, walk, page_of, frames, width, scale, zoom
):
    folder, sample = walk
    page = opened(
        browser, page_of([sample], None, folder, frames=frames), width, device_scale_factor=scale
    )
    page.evaluate("(zoom) => { document.body.style.zoom = zoom }", zoom)
    settle(page)
    seconds = [float(t.split()[-2]) for t in page.locator(".st-thumb small").all_inner_texts()]
    assert len(seconds) == frames
    assert max(distances(page, sample, seconds)) <= 2
    page.locator(".st-root").focus()
    for key in ("End", "Home", *["ArrowRight"] * 20):
        page.keyboard.press(key)
        settle(page)
        scroller = page.evaluate(BOXES, ".st-scroller")[0]
        current = page.evaluate(BOXES, ".st-thumb[aria-current]")[0]
        assert scroller[0] - 1 <= current[0] and current[2] <= scroller[2] + 1, key
    assert max(distances(page, sample, seconds)) <= 2  # scrolled, too
    page.set_viewport_size({"width": width + 150, "height": 700})
    settle(page)
    assert max(distances(page, sample, seconds)) <= 2
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth + 1")
    page.close()


IN_NOTEBOOK = """
from stlite import inspect
from stlite.data.sample import read_jsonl
inspect(list(read_jsonl("walk.jsonl")), None, "walk", annotations="walk-marks.jsonl", frames={frames})
"""


@pytest.mark.parametrize("frames", [16, 64])
def test_links_end_at_their_frames_in_a_notebook_too(lab, walk, frames):
    folder, sample = walk
    shutil.copytree(folder, lab.folder / "walk", dirs_exist_ok=True)
    write_jsonl([sample], lab.folder / "walk.jsonl")
    page = lab.open(f"links{frames}", IN_NOTEBOOK.format(frames=frames))
    run(page, 0)
    page.locator(".st-thumb").nth(frames - 1).wait_for()
    seconds = [float(t.split()[-2]) for t in page.locator(".st-thumb small").all_inner_texts()]
    for width, zoom in ((1400, 1), (600, 1), (1400, 2)):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("(zoom) => { document.body.style.zoom = zoom }", zoom)
        page.wait_for_timeout(300)  # JupyterLab lays its panels out anew
        assert max(distances(page, sample, seconds)) <= 2, (width, zoom)
    page.add_style_tag(content=".st-links { transform: translateX(3px) }")
    assert max(distances(page, sample, seconds)) > 2  # the measure sees a link beside its frame
    page.close()


def test_long_chains_wrap_and_no_step_is_cut_or_covered(browser, walk, tmp_path):
    folder, sample = walk
    thought = ", ".join(f"walk past the tall plant number {i}" for i in range(60))
    reply = f"<think>Let's start by thinking forward: {thought}</think> <answer>A</answer>"
    path = show_chain(sample, reply, folder).save(tmp_path / "chain.html")
    page = opened(browser, f"file://{path}", 600)
    boxes = page.evaluate(BOXES, ".st-thought .st-chip")
    assert len(boxes) == 41 and len({top for _, top, _, _ in boxes}) > 3
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert right - left > 60
        for other in boxes[:i]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
    page.close()


def test_below_700_px_there_is_one_column(browser, many):
    for width, columns in ((600, 1), (1400, 2)):
        page = opened(browser, many[1], width)
        eye, words = (page.evaluate(BOXES, what)[0] for what in (".st-eye", ".st-words"))
        assert (words[1] >= eye[3]) == (columns == 1)
        page.close()


def counter(page) -> str:
    return page.locator(".st-count").inner_text()


def shown_ids(page) -> list[str]:
    """The ids of all samples that pass, in their order, read off the table."""
    return page.locator(".st-table tbody th").all_inner_texts()


def test_filters_count_sort_and_clear_and_agree_with_find(browser, many):
    widget, address = many
    page = opened(browser, address)
    page.locator(".st-root").focus()
    page.keyboard.press("t")
    assert shown_ids(page) == ["s0", "s1", "s2", "s3", "s4", "s5"]
    for name in ("task", "part", "outcome", "finding", "mark", "reply of base", "reply of tuned"):
        select = page.locator(f"select[title='{name}']")
        offered = select.locator("option").all_inner_texts()
        assert offered[0] == f"any {name} (6)" and len(offered) > 1
        for text in offered[1:]:
            value, count = re.fullmatch(r"(.*) \((\d+)\)", text).groups()
            select.select_option(label=text)
            found = [s.id for s in widget.find(**{name: value})]
            assert shown_ids(page) == found and len(found) == int(count), (name, value)
            select.select_option("")
    page.locator("select[title=task]").select_option(label="direction (4)")
    assert "wrong (1)" in page.locator("select[title=outcome] option").all_inner_texts()
    assert "action (2)" in page.locator("select[title=task] option").all_inner_texts()
    page.locator("select[title=outcome]").select_option(label="wrong (1)")
    assert (shown_ids(page), counter(page)) == (["s1"], "1 of 1 (6 in all)")
    for text, found in (("back? 1", ["s1"]), ("by the door", []), ("", ["s1"])):
        page.keyboard.press("f") if text == "back? 1" else page.locator("[data-key=text]").focus()
        page.locator("[data-key=text]").fill(text)
        page.keyboard.press("Enter")
        assert shown_ids(page) == found
    page.locator(".st-root").focus()
    page.keyboard.press("x")
    assert (len(shown_ids(page)), counter(page)) == (6, "2 of 6")  # the sample looked at stays
    sort = page.locator("button[title='sort by reply length']")
    sort.click()
    lengths = [
        int(t) for t in page.locator(".st-table tbody tr td:nth-last-child(2)").all_inner_texts()
    ]
    assert lengths == sorted(lengths)
    sort.click()
    assert page.locator("th[aria-sort=descending]").inner_text() == "reply length ▼"
    assert shown_ids(page)[-1] == "s5"
    page.locator("button[title='sort by value of tuned']").click()
    assert set(shown_ids(page)[-2:]) == {"s4", "s5"}  # without a value: last
    assert page.faults == []
    page.close()


def test_a_sample_is_reached_by_number_id_and_link(browser, many):
    address = many[1]
    page = opened(browser, f"{address}#s3")
    assert counter(page) == "4 of 6"
    page.locator(".st-root").focus()
    page.keyboard.press("j")
    assert page.url == f"{address}#s4"
    for wanted, place in (("2", "2 of 6"), ("s5", "6 of 6"), (f"{address}#s0", "1 of 6")):
        page.keyboard.press("g")
        page.keyboard.type(wanted)
        page.keyboard.press("Enter")
        assert counter(page) == place
    page.evaluate("location.hash = '#s2'")
    page.wait_for_function("() => document.querySelector('.st-count').textContent === '3 of 6'")
    status = page.locator(".st-status")
    for wanted, text in (
        ("7", "There is no number 7: expected 1 to 6."),
        ("0", "There is no number 0: expected 1 to 6."),
        ("x", "There is no sample with the id x."),
        ("%", "There is no sample with the id %."),
        ("#%", "There is no sample with the id #%."),
    ):
        page.keyboard.press("g")
        page.keyboard.type(wanted)
        page.keyboard.press("Enter")
        assert status.inner_text() == text
    page.locator("select[title=task]").select_option(label="action (2)")
    page.locator(".st-root").focus()
    page.keyboard.press("g")
    page.keyboard.type("s1")
    page.keyboard.press("Enter")
    assert status.inner_text() == "s1 is hidden by the filters: clear them (x)."
    assert page.faults == []
    page.close()


def test_two_replies_stand_side_by_side_with_their_differences_marked(browser, many):
    page = opened(browser, f"{many[1]}#s1")
    page.locator(".st-root").focus()
    page.keyboard.press("d")
    marks = [side.locator("mark").all_inner_texts() for side in page.locator(".st-pair pre").all()]
    assert marks == [[" <answer>B</answer>"], [" <answer>A</answer>"]]
    page.locator("select[title='left reply'], select[aria-label='left reply']").select_option(
        "tuned"
    )
    assert page.locator(".st-pair mark").count() == 0
    page.close()


def test_words_are_compared_as_a_longest_common_subsequence(browser, many):
    page = opened(browser, many[1])
    page.evaluate(
        "(code) => { window.compareWords = new Function(code + '; return compareWords')() }",
        frontend.script("sample"),
    )
    for left, right in (
        ("", ""),
        ("a b c", "a c"),
        ("x y", "y x"),
        ("a\n b", "a  b"),
        ("漢 字", "字"),
    ):
        a, b = page.evaluate("([a, b]) => compareWords(a, b)", [left, right])
        assert "".join(text for text, _ in a) == left and "".join(text for text, _ in b) == right
        same = ["".join(text for text, changed in side if not changed).split() for side in (a, b)]
        assert same[0] == same[1]
    page.close()


def test_every_key_listed_answers_in_every_view(browser, many, walk, tmp_path):
    """A view may be without frames, without a chain, or alone: no listed key is dead, and none breaks it."""
    folder, sample = walk
    reply = "<think>Let's start by thinking forward: turn left</think> <answer>A</answer>"
    bad = inspect([replace(sample, video="none.mp4")], None, folder, annotations=tmp_path / "m")
    rows = [
        {"reply": "go " * 900, "accuracy_reward": 1.0},
        {"reply": "stay", "accuracy_reward": 0.0},
    ]
    addresses = [
        many[1],
        f"file://{bad.save(tmp_path / 'bad.html')}",
        f"file://{inspect([], annotations=tmp_path / 'm').save(tmp_path / 'empty.html')}",
        f"file://{show_chain(sample, reply, folder).save(tmp_path / 'chain.html')}",
        f"file://{show_group(rows, 'where?').save(tmp_path / 'group.html')}",
        f"file://{show_group(rows, sample=sample, videos=folder).save(tmp_path / 'framed.html')}",
    ]
    presses = {"space": " ", "Esc": "Escape", "← →": "ArrowRight", "Home End": "End", "j k": "j"}
    for address in addresses:
        page = opened(browser, address)
        page.locator(".st-root").focus()
        page.keyboard.press("?")
        keys = page.locator(".st-help b").all_inner_texts()
        page.keyboard.press("?")
        assert page.locator(".st-help").count() == 0
        for key in keys:
            page.locator(".st-root").focus()
            before = page.evaluate(STATE)
            page.keyboard.press(presses.get(key, key))
            if key == " " or key == "space":
                page.wait_for_timeout(700)  # a film's next frame
            after = page.evaluate(STATE)
            assert after != before or key == "Esc", (address, key)
        assert page.locator(".st-root").get_attribute("aria-busy") == "false", address
        assert page.faults == []
        page.close()


STATE = """() => [document.querySelector('.st-root').innerHTML, document.activeElement.dataset.key,
    [...document.querySelectorAll('input')].map((n) => n.value).join()]"""


def test_a_long_reply_of_a_group_is_cut_in_its_middle_and_shown_whole_on_demand(browser, tmp_path):
    text = "begin " + "and walk on " * 400 + "the end"
    rows = [{"reply": text, "accuracy_reward": 1.0}, {"reply": "short", "accuracy_reward": 0.0}]
    path = show_group(rows, "where?").save(tmp_path / "group.html")
    page = opened(browser, f"file://{path}")
    cell = page.locator("td.st-diff").first
    shown = cell.inner_text()
    assert shown.startswith("begin") and shown.endswith("the end") and len(shown) < 1100
    page.locator(".st-root").focus()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    assert cell.text_content() == text
    page.close()


@pytest.mark.parametrize("view", ["group", "chain"])
def test_no_payload_runs_in_a_group_or_a_chain(browser, videos, tmp_path, view):
    """The policy is taken out of the page: its text must be harmless without."""
    for i, payload in enumerate(PAYLOADS):
        sample = replace(samples(1)[0], question=payload, steps_forward=(payload, "turn left"))
        reply = (
            f"<think>Let's start by thinking forward: {payload}</think> <answer>{payload}</answer>"
        )
        path = tmp_path / f"{i}.html"
        if view == "group":
            rows = [{"reply": reply, payload: 1.0}, {"reply": payload, payload: 0.0}]
            show_group(rows, payload, sample=sample, videos=videos).save(path)
        else:
            show_chain(sample, reply, videos).save(path)
        text = path.read_text("utf-8")
        path.write_text(text.replace('http-equiv="Content-Security-Policy"', ""), "utf-8")
        page = browser.new_page()
        page.add_init_script("window.pwn = () => { window.pwned = true }")
        page.goto(f"file://{path}")
        page.locator(".st-root").focus()
        page.keyboard.press("j")
        assert payload.strip() in page.locator(".st-root").text_content()
        assert page.evaluate("window.pwned === undefined"), payload
        page.close()


def test_joiners_stay_and_characters_that_hide_or_turn_text_are_shown(browser, videos, page_of):
    family, ligature, arabic = "👩‍👩‍👧 👍🏽 ❤️", "क्‍ष نمی‌خواهم", "اذهب يمينا"
    hidden = "".join(
        map(chr, (0x202E, 0x2066, 0x200E, 0x200F, 0x061C, 0x200B, 0x2060, 0xFEFF, 0x85))
    )
    question = f"{family} {ligature} {arabic} a{hidden}b"
    rows = [replace(s, question=question) for s in samples(1)]
    page = opened(browser, page_of(rows, None, videos))
    shown = page.locator(".st-question").text_content()
    escapes = "".join(f"\\u{ord(c):04x}" for c in hidden)
    assert shown == f"{family} {ligature} {arabic} a{escapes}b"
    page.close()


def test_python_and_the_browser_show_the_same_characters(browser, many):
    page = opened(browser, many[1])
    code = frontend.script().split("const missing")[0]
    shown = page.evaluate(
        """(code) => { const visible = new Function(code + '; return visible')();
        return [...Array(0x10000).keys()].filter((c) => visible(String.fromCharCode(c)).length > 1); }""",
        code,
    )
    hidden = [c for c in range(0x10000) if render.escape(chr(c)).startswith("\\u")]
    assert shown == hidden
    page.close()


def test_a_value_with_hidden_characters_can_be_chosen(browser, videos, page_of):
    rows = [replace(s, part="a\u202eb" if s.id == "s2" else "c") for s in samples()]
    runs = {"x\u200ey": [said(rows[2], "A")], "z": [said(rows[2], "B")]}
    page = opened(browser, page_of(rows, runs, videos))
    page.locator("select[title=part]").select_option(label="a\\u202eb (1)")
    assert counter(page) == "1 of 1 (6 in all)"
    page.locator(".st-root").focus()
    page.keyboard.press("d")
    page.locator("select[aria-label='right reply']").select_option(label="x\\u200ey")
    assert page.locator(".st-pair mark").count() == 0  # both sides show the same run
    page.close()


def test_a_screen_reader_is_told_the_name_of_every_control_and_picture(browser, many):
    page = opened(browser, many[1])
    page.locator(".st-root").focus()
    for key in ("t", "d", "ArrowRight"):
        page.keyboard.press(key)
    names = accessible_names(page)
    assert {"button", "combobox", "slider", "image", "searchbox", "status"} <= set(names)
    assert {role for role in CONTROLS if not all(names.get(role, ["-"]))} == set()
    assert any(name.startswith("frame 2 of 16") for name in names["image"])
    page.close()


CONTRAST = """() => {
    const number = (text) => { const c = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
        c.fillStyle = text; c.fillRect(0, 0, 1, 1); return [...c.getImageData(0, 0, 1, 1).data]; };
    const light = ([r, g, b]) => { const f = (x) => { x /= 255; return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; };
        return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
    const poor = [];
    for (const node of document.querySelectorAll('.st-root *')) {
        const text = [...node.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data).join('').trim();
        if (!text || node.closest(':disabled, .st-hidden, svg, option')) continue;
        let behind = node;
        while (behind && number(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
        const back = behind ? number(getComputedStyle(behind).backgroundColor) : number('Canvas');
        const [a, b] = [light(number(getComputedStyle(node).color)), light(back)].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) poor.push([text, node.className, (a + 0.05) / (b + 0.05)]);
    }
    return poor; }"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_the_light_and_in_the_dark(browser, many, scheme):
    page = opened(browser, f"{many[1]}#s1", color_scheme=scheme)
    page.locator(".st-root").focus()
    for key in ("t", "d", "?"):
        page.keyboard.press(key)
    assert page.evaluate(CONTRAST) == []
    back = page.evaluate("getComputedStyle(document.querySelector('.st-root')).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    page.close()
