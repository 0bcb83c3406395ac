"""What a model wrote stays in its cell: HTML, Markdown, CSV and text hold hostile records."""

import csv as csv_library
import io
import json
import re
from html.parser import HTMLParser

import pytest
from answers import drawn, record

from stlite.eval import comparisons, render, report

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</td></table><h1>",
    "=HYPERLINK(1)",
]
HOSTILE += ["a|b\n# c", "[x](javascript:alert(1))", "\u202egpj.exe", "\ud83d", "\0", "<!--", "]]>"]
HOSTILE += ["&lt;script&gt;", "{{7*7}}", "@SUM"]


def hostile() -> dict:
    a = [record(i, "action", "forward", 0, answer=h, reason=h) for i, h in enumerate(HOSTILE)]
    b = [r | {"value": 1.0, "id": r["id"]} for r in a]
    made = report.merge_reports(
        report.summary(a, HOSTILE[0]), comparisons.compare_runs(a, b, HOSTILE[:2])
    )
    assert len(next(rows for name, rows in made["tables"].items() if "Flips" in name)) == len(
        HOSTILE
    )
    return made


def test_nothing_hostile_stands_in_a_page(tmp_path):
    svg = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    page = render.save(
        hostile(), tmp_path / "r.html", [(HOSTILE[1], svg), ("png", b"\x89PNG")]
    ).read_text()
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(page)
    ours = {
        "meta",
        "title",
        "style",
        "h1",
        "h2",
        "p",
        "table",
        "tr",
        "th",
        "td",
        "figure",
        "img",
        "figcaption",
    }
    assert {t for t, _ in tags} <= ours
    assert all(
        set(a) <= {"src", "alt"} and a["src"].startswith("data:image/")
        for t, a in tags
        if t == "img"
    )
    assert "default-src 'none'" in page and "\u202e" not in page and "alert(1)</script>" not in page


def test_markdown_and_csv_and_text_hold_hostile_cells_in_their_cells(tmp_path):
    made = hostile()
    markdown = render.save(made, tmp_path / "r.md").read_text()
    assert "<" not in markdown and not re.search(r"(?<!\\)\]\(", markdown)
    assert len([line for line in markdown.splitlines() if line.startswith("| 4/action")]) == 1
    rows = list(csv_library.reader(io.StringIO(render.csv(made))))
    assert len({len(r) for r in rows}) == 1 and not any(
        cell[:1] in ("=", "@") for r in rows for cell in r
    )
    assert "\0" not in render.text(made) and "\u202e" not in render.text(made)


def test_every_rendering_holds_the_same_numbers(tmp_path):
    made = report.summary(drawn(30), "st-r1")
    value = made["tables"]["Accuracy"][-1]["accuracy"]
    for ending in (".html", ".md", ".txt"):
        assert f"{100 * value:.1f}" in render.save(made, tmp_path / f"r{ending}").read_text()
    assert str(value) in render.save(made, tmp_path / "r.csv").read_text()
    assert json.loads(render.save(made, tmp_path / "r.json").read_text()) == made
    with pytest.raises(ValueError, match=r"expected a name ending in \.html"):
        render.save(made, tmp_path / "r.pdf")
