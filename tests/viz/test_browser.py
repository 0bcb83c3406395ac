"""The widgets as people meet them: a real JupyterLab, a real kernel, a real headless Chromium."""

import json
import os
import shutil
import signal
import time

import pytest

from stlite.data.sample import Sample, SampleError, write_jsonl
from tests.lab import CHROMIUM, accessible_names, ready, run

pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="no chromium here: apt-get install chromium runs the browser tests"
)

PAYLOADS = """
<script>pwn()</script>
"><script>pwn()</script>
</script><script>pwn()</script>
</ScRiPt ><sCrIpT>pwn()</sCrIpT>
<img src=x onerror=pwn()>
"><img src=x onerror="pwn()">
' onerror='pwn()' src='x
" autofocus onfocus="pwn()" x="
<svg onload=pwn()>
<svg><script>pwn()</script></svg>
<svg><animate onbegin=pwn() attributeName=x dur=1s>
<svg><use href="data:image/svg+xml,<svg id=x xmlns='http://www.w3.org/2000/svg' onload='pwn()'/>#x">
<math><mtext><table><mglyph><style><img src=x onerror=pwn()>
<iframe srcdoc="<script>parent.pwn()</script>"></iframe>
<iframe src="javascript:parent.pwn()"></iframe>
<object data="javascript:pwn()"></object>
<embed src="javascript:pwn()">
<details open ontoggle=pwn()>x</details>
<body onload=pwn()>
<input autofocus onfocus=pwn()>
<select autofocus onfocus=pwn()>
<video><source onerror="pwn()"></video>
<audio src=x onerror=pwn()>
<marquee onstart=pwn()>x</marquee>
<a href="javascript:pwn()" id=bait>click</a>
[click](javascript:pwn())
![x](x"onerror="pwn())
javascript:pwn()
data:text/html,<script>opener.pwn()</script>
<base href="javascript:pwn()//">
<meta http-equiv="refresh" content="0;url=javascript:pwn()">
<link rel=stylesheet href="data:text/css,*{background:url(javascript:pwn())}">
<style>@import'javascript:pwn()';</style>
<form action="javascript:pwn()"><button autofocus>x</button></form>
<template><script>pwn()</script></template>
<noscript><p title="</noscript><img src=x onerror=pwn()>">
<!--><img src=x onerror=pwn()>-->
]]><script>pwn()</script>
${pwn()}{{constructor.constructor('pwn()')()}}<%= pwn() %>
$\\href{javascript:pwn()}{x}$ \\u003cscript>pwn()\\u003c/script>
""".strip().splitlines()


SETUP = """
from stlite.data.sample import Sample
from stlite.viz.inspector import inspect
from stlite.viz.sample_view import show_chain
from stlite.viz.training_view import show_group
OPTIONS = ("turn around turn left", "turn around turn right")
samples = [
    Sample(f"s{i}", "ab"[i % 2] + ".mp4", "direction" if i < 5 else "action", "reverse", f"Which way back? {i}", "A", OPTIONS,
           ("turn right",), ("turn around", "turn left"), part=f"part{i % 3}", moments=(0.7,))
    for i in range(8)
]
def said(i, letter):
    return {"id": f"s{i}", "reply": f"<think>Let's start by thinking forward: turn right, turn left And then think about it</think> "
            f"<answer>{letter}</answer>", "answer": letter, "reason": "right" if letter == "A" else "wrong", "value": 0.0 + (letter == "A"), "explanation": ""}
runs = {"base": [said(i, "AB"[i % 2]) for i in range(8)], "tuned": [said(i, "A") for i in range(7)]}
"""


def status(page, text):
    page.wait_for_function("t => document.querySelector('.st-status').textContent === t", arg=text)


def count(page, text):
    page.wait_for_function("t => document.querySelector('.st-count')?.textContent === t", arg=text)


def test_keys_filters_and_marks_work_and_a_mark_outlives_the_kernel(lab):
    show = "import os; open('pid', 'w').write(str(os.getpid()))\ninspect(samples, runs, 'videos')"
    page = lab.open("inspect", SETUP, show)
    run(page, 0)
    run(page, 1)
    root = page.locator(".st-root")
    root.wait_for()
    count(page, "1 of 8")
    assert page.locator(".st-thumb").count() == 16
    root.focus()
    assert root.evaluate("n => getComputedStyle(n).outlineStyle") == "solid"
    page.keyboard.press("j")
    count(page, "2 of 8")
    assert page.locator(".st-badge.st-wrong").all_inner_texts() == ["✗ base", "✗ wrong"]
    page.keyboard.press("ArrowRight")
    assert page.locator(".st-caption").inner_text().startswith("frame 2 of 16")
    page.keyboard.press("End")
    assert page.locator(".st-caption").inner_text().startswith("frame 16 of 16")
    page.keyboard.press("n")
    count(page, "4 of 8")
    page.keyboard.press("k")
    count(page, "3 of 8")
    page.keyboard.press("?")
    assert page.locator(".st-help").is_visible()
    assert page.locator(".st-help").bounding_box()["width"] < 500 < root.bounding_box()["width"]
    page.keyboard.press("Escape")
    assert not page.locator(".st-help").is_visible()
    page.locator("select[title=outcome]").select_option(label="runs disagree (3)")
    count(page, "1 of 3 (8 in all)")
    page.locator("select[title=task]").select_option(label="action (1)")
    count(page, "1 of 1 (8 in all)")
    root.focus()
    page.keyboard.press("2")
    status(page, "saved in annotations.jsonl")
    os.kill(int((lab.folder / "pid").read_text()), signal.SIGKILL)
    row = json.loads((lab.folder / "annotations.jsonl").read_text())
    assert (row["id"], row["mark"]) == ("s5", "wrong gold")
    page.close()


def test_marks_of_ones_own_in_bulk_with_undo_by_keys_alone_and_exports_of_what_is_shown(lab):
    show = "inspect(samples, runs, 'videos', annotations='bulk.jsonl', marks=['good', 'blurred'])"
    page = lab.open("bulk", SETUP, show)
    run(page, 0)
    run(page, 1)
    count(page, "1 of 8")

    def marks():
        lines = (lab.folder / "bulk.jsonl").read_text().splitlines()
        return {row["id"]: (row["mark"], row["note"]) for row in map(json.loads, lines)}

    press = page.keyboard.press
    page.locator(".st-root").focus()
    press("2")
    status(page, "saved in bulk.jsonl")
    press("m")
    page.keyboard.type("too dark")
    press("Enter")
    page.locator(".st-marked", has_text="too dark").wait_for()
    press("e")
    page.keyboard.type("a note")
    press("Enter")
    page.locator(".st-root[aria-busy=false]").wait_for()
    assert marks() == {"s0": ("too dark", "a note")}
    page.locator("select[title=task]").select_option(label="action (3)")
    count(page, "1 of 3 (8 in all)")
    page.locator(".st-root").focus()
    press("t")
    page.locator("input[aria-label='select s6']").focus()
    press("Space")
    page.get_by_text("1 selected:").wait_for()
    for name in ("select all shown", "mark selected too dark"):
        page.locator(f"button[title='{name}']").focus()
        press("Enter")
    status(page, "3 samples saved in bulk.jsonl")
    assert marks() == {"s0": ("too dark", "a note")} | dict.fromkeys(
        ("s5", "s6", "s7"), ("too dark", "")
    )
    for ending in ("jsonl", "csv"):  # at once: each is what was shown when it was asked for
        page.locator("select[title='file format']").select_option(ending)
        page.locator("button[title=Export]").click()
        page.locator(".st-root").focus()
        press("x")
    wait_for(lab.folder / "inspected.csv")
    status(page, "8 samples written to inspected.csv")
    page.get_by_text("3 selected:").wait_for()
    page.locator("select[title=task]").select_option(label="direction (5)")
    page.get_by_text("0 selected:").wait_for()  # what is not shown is not marked
    names = accessible_names(page)
    assert {"note", "own mark", "go to a number or an id"} <= set(names["textbox"])
    assert {"undo the last mark or note", "mark good", "select none"} <= set(names["button"])
    lines = (lab.folder / "inspected.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["s5", "s6", "s7"]
    page.locator(".st-root").focus()
    for said in ("undone: 3 samples", "undone: s0", "undone: s0", "undone: s0"):
        page.evaluate("() => { document.querySelector('.st-status').textContent = '' }")
        press("u")
        status(page, said)
    status_after = marks()
    press("u")
    status(page, "There is nothing to undo.")
    assert status_after == {}
    page.close()


def hostile(payload: str, i: int) -> Sample:
    """A sample that carries a payload wherever the data model lets it."""
    steps = (payload, "turn right"), ("turn left", payload)
    parts = f"{payload} {i}", "direction", "reverse", payload, "A", (payload, "turn left"), *steps
    try:
        return Sample(parts[0], f"{payload}.mp4", *parts[1:], part=payload)
    except SampleError:  # not every payload can be a path
        return Sample(parts[0], "a.mp4", *parts[1:], part=payload)


HOSTILE = """
from stlite.data.sample import read_jsonl
from stlite.viz.inspector import inspect
samples = list(read_jsonl("hostile.jsonl"))
say = lambda s: f"<think>Let's start by thinking forward: {s.question}, turn right</think> {s.question} <answer>{s.question}</answer>"
rows = [{"id": s.id, "reply": say(s), "answer": s.question, "reason": "wrong", "value": 0.0, "explanation": s.question} for s in samples]
findings = [{"code": s.question, "ids": [s.id]} for s in samples]
view = inspect(samples, {samples[0].question: rows}, "videos", findings, "hostile-marks.jsonl")
view
"""


def press_everything(page):
    """Do with a sample what a reader may do: every button, key and link of it."""
    page.evaluate("""() => { for (const n of document.querySelectorAll('.st-root *')) {
        n.dispatchEvent(new MouseEvent('mouseover', { bubbles: true })); if (n.matches('a, .st-chip, .st-thumb')) n.click(); } }""")
    page.locator(".st-root").focus()
    page.keyboard.press("c")


def test_no_payload_runs_in_the_widget_or_in_the_exported_page(lab, tmp_path):
    assert len(PAYLOADS) == 40
    samples = [hostile(payload, i) for i, payload in enumerate(PAYLOADS)]
    assert sum(s.video != "a.mp4" for s in samples) >= 25
    shutil.copy(lab.folder / "videos" / "a.mp4", lab.folder / "videos" / samples[4].video)
    write_jsonl(samples, lab.folder / "hostile.jsonl")
    marks = [{"id": s.id, "mark": s.question, "note": s.question} for s in samples]
    (lab.folder / "hostile-marks.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in marks)
    )
    page = lab.open("hostile", HOSTILE, "view.save('hostile.html')")
    run(page, 0)
    walk_through(page, lambda: page.keyboard.press("j"))
    run(page, 1)
    wait_for(lab.folder / "hostile.html")
    page.close()
    text = (lab.folder / "hostile.html").read_text("utf-8")
    bare = text.replace(
        'http-equiv="Content-Security-Policy"', ""
    )  # the text must be harmless without the policy too
    assert bare != text
    (lab.folder / "bare.html").write_text(bare)
    for name in ("hostile.html", "bare.html"):
        page = lab.browser.new_page()
        page.add_init_script("window.pwn = () => { window.pwned = true }")
        page.goto(f"file://{lab.folder / name}")
        walk_through(page, lambda page=page: page.keyboard.press("j"))
        page.close()


def walk_through(page, following):
    """Look at each of the 40 samples: its payload stands there as text, and did nothing."""
    for i, payload in enumerate(PAYLOADS, 1):
        count(page, f"{i} of 40")
        assert page.locator("p.st-question").text_content() == payload
        assert page.locator(".st-note, .st-marked").first.is_visible()
        press_everything(page)
        assert page.evaluate("window.pwned === undefined"), payload
        following()


def wait_for(path):
    for _ in range(400):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path.name} was not written")


def test_running_a_cell_again_and_again_leaves_one_widget_and_no_memory(lab):
    show = "inspect(samples, runs, 'videos')"
    look = """
import gc, json, resource
from pathlib import Path
from ipywidgets.widgets.widget import _instances
gc.collect()
pages = int(Path("/proc/self/statm").read_text().split()[1])
with open("memory.jsonl", "a") as file:
    print(json.dumps({"open": len(_instances), "MB": pages * resource.getpagesize() / 2**20}), file=file)
"""
    page = lab.open("again", SETUP, show, look)
    run(page, 0)
    for _ in range(4):
        run(page, 1)
    run(page, 2)
    for _ in range(20):
        run(page, 1)
    run(page, 2)
    page.wait_for_function("() => document.querySelectorAll('.st-root').length === 1")
    before, after = map(json.loads, (lab.folder / "memory.jsonl").read_text().splitlines())
    assert after["open"] == before["open"]
    assert after["MB"] - before["MB"] <= 20
    page.close()


VIEWS = """
from pathlib import Path
import pandas
from stlite.viz.training_view import TrainingView
view = TrainingView("run")
view
"""
TRAIN = """
Path("run/completions").mkdir(parents=True)
rows = {"prompt": ["p"] * 2, "completion": ["turn left", "turn right"], "accuracy_reward": [0.0, 1.0], "advantage": [-0.7, 0.7]}
pandas.DataFrame({"step": [1, 1]} | rows).to_parquet("run/completions/completions_00001.parquet")
class state: log_history = [{"step": 1, "reward": 0.5, "kl": 0.1}]
view.next_draw = 0; view.on_log(None, state, None)
"""


def test_chains_groups_and_training_are_drawn_and_empty_and_broken_states_say_so(lab):
    chain = "show_chain(samples[0], runs['base'][0]['reply'], 'videos')"
    group = "show_group([{'reply': 'go left', 'accuracy_reward': 1.0}, {'reply': 'go right', 'accuracy_reward': 0.0}])"
    broken = "from dataclasses import replace\ninspect([replace(samples[0], video='none.mp4')], None, 'videos')"
    page = lab.open(
        "views", SETUP, chain, group, VIEWS, TRAIN, broken, "inspect([])", scheme="dark"
    )
    roots = page.locator(".st-root")
    for cell in range(3):
        run(page, cell)
    roots.nth(1).wait_for()
    thought = roots.nth(0).locator(".st-track.st-thought .st-chip")
    assert [c.split(" ")[0] for c in thought.all_inner_texts()] == ["✓", "+"]
    tops = [n.bounding_box()["y"] for n in roots.nth(0).locator(".st-track").all()]
    assert tops[0] < tops[1] < roots.nth(0).locator(".st-frames").bounding_box()["y"] < tops[2]
    thought.first.click()
    assert "0.7" in roots.nth(0).locator(".st-caption").inner_text()
    assert roots.nth(1).locator("td.st-diff mark").all_inner_texts() == [" right"]
    run(page, 3)
    roots.nth(2).wait_for()
    assert roots.nth(2).locator(".st-empty").inner_text() == "no steps logged yet"
    run(page, 4)
    roots.nth(2).locator("td.st-diff").nth(1).wait_for()
    assert "training, 1 entries" in roots.nth(2).locator("img").get_attribute("alt")
    for cell in (5, 6):
        run(page, cell)
    roots.nth(4).wait_for()
    assert "none.mp4" in roots.nth(3).locator("[role=alert]").inner_text()
    links = [roots.nth(i).locator(".st-links line").count() for i in (0, 3)]
    assert links == [3, 0]
    assert roots.nth(4).locator(".st-empty").inner_text() == "There is no sample."
    page.close()


def test_a_sample_costs_less_than_300_kb_and_never_a_file(lab):
    page = lab.open("bytes", SETUP, "inspect(samples, runs, 'videos')")
    sizes = []
    page.on(
        "websocket", lambda socket: socket.on("framereceived", lambda data: sizes.append(len(data)))
    )
    page.reload()
    ready(page)
    run(page, 0)
    run(page, 1)
    count(page, "1 of 8")
    page.locator(".st-root").focus()
    for place in range(2, 7):
        page.keyboard.press("j")
        count(page, f"{place} of 8")
    assert max(sizes) <= 300_000 and sum(sizes) > 6 * 10_000  # each sample in a message of its own
    page.close()
