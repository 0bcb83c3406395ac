"""A report, {"title", "notes": [text], "tables": {name: rows}}, as text, Markdown, HTML, CSV, JSON.

It may open with a "headline" in plain words, and explain columns in a "glossary".
Records hold what a model wrote: nothing in a cell may act as markup or formula, or turn text round.
"""

import base64
import html as html_library
import json as json_library
import os
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, starmap
from pathlib import Path

from stlite.data.checks import format_table
from stlite.data.sample import write_text

NOT_SHARES = ("p", "holm", "mcnemar", "tau")  # numbers that are not shown in per cent
CONTROL = r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # NUL, escape, DEL; tab and newline are no danger
# "\u202egpj.exe" reads "exe.jpg"; the joiners \u200c and \u200d stay, emoji and scripts need them
DIRECTION = r"\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
LONE_SURROGATE = r"\ud800-\udfff"  # half a character, which no file can hold
HIDDEN = re.compile(f"[{CONTROL}{DIRECTION}{LONE_SURROGATE}]")
MARKDOWN = re.compile(r"([|\\`*_\[\]])")  # "[x](javascript:alert(1))", "a|b"
FORMULA = tuple("=+-@\t\r")  # what makes a spreadsheet run a cell: "=HYPERLINK(1)"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def escape(value: object) -> str:
    """Make anything safe to stand in HTML; control and direction characters become visible.

    >>> escape('<b>"x"</b>\\x00')
    '&lt;b&gt;&quot;x&quot;&lt;/b&gt;\\\\u0000'
    """
    visible = HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", str(value))
    return html_library.escape(visible, quote=True)


def _one_line(value: str) -> str:
    """Make a text safe for a terminal."""
    return HIDDEN.sub("?", value.replace("\n", " "))


def _markdown(value: str) -> str:
    """Make a text safe for Markdown."""
    return MARKDOWN.sub(r"\\\1", escape(value)).replace("\n", " ")


def cell(name: str, value: object) -> str:
    """Write a value as its column wants it: shares in per cent, nothing for None.

    >>> cell("accuracy", 0.7284), cell("p", 0.00012), cell("n", 60), cell("low", None)
    ('72.8', '0.00012', '60', '')
    """
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if name in NOT_SHARES:
        return f"{value:.3g}"
    return f"{100 * value:z.1f}"


def columns_of(rows: Sequence[Mapping]) -> list[str]:
    """List the columns of rows, in the order in which they first come."""
    return list(dict.fromkeys(chain.from_iterable(rows)))


def _cells(rows: Sequence[Mapping], mark: Callable[[str], str]) -> list[dict[str, str]]:
    """Write rows as texts that `mark` has made safe, every row with all columns."""
    names = columns_of(rows)
    lines = []
    for row in rows:
        lines.append({mark(name): mark(cell(name, row.get(name))) for name in names})
    return lines


def paragraphs(report: dict) -> list[str]:
    """List what stands above the tables: the headline or title, the notes, the glossary."""
    lines = [report.get("headline") or report["title"], *report["notes"]]
    meanings = list(map(": ".join, report.get("glossary", {}).items()))
    if meanings:
        lines.append(f"Columns: {'. '.join(meanings)}.")
    return lines


def text(report: dict) -> str:
    """Render a report as plain text with aligned columns."""
    parts = list(map(_one_line, paragraphs(report)))
    for name, rows in report["tables"].items():
        parts += ["", _one_line(name), format_table(_cells(rows, _one_line), hide=())]
    return "\n".join(parts) + "\n"


def markdown(report: dict) -> str:
    """Render a report as Markdown."""
    import pandas

    first, *others = paragraphs(report)
    parts = [f"# {_markdown(first)}"]
    parts += map(_markdown, others)
    for name, rows in report["tables"].items():
        table = pandas.DataFrame(_cells(rows, _markdown), dtype=str)
        parts.append(f"## {_markdown(name)}")
        parts.append(table.to_markdown(index=False, disable_numparse=True))
    return "\n\n".join(parts) + "\n"


def html(report: dict, pictures: Sequence[tuple[str, bytes | str]] = ()) -> str:
    """Render a report as one page that needs nothing else; a picture is a title and PNG or SVG."""
    first, *others = paragraphs(report)
    parts = [f"<h1>{escape(first)}</h1>"]
    parts += [f"<p>{escape(line)}</p>" for line in others]
    parts += starmap(_figure, pictures)
    for name, rows in report["tables"].items():
        parts.append(f"<h2>{escape(name)}</h2>")
        parts.append(_html_table(rows))
    return page(report["title"], Path(__file__).with_name("report.css"), "\n".join(parts))


def _html_table(rows: Sequence[Mapping]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns_of(rows))
    lines = ["<table>", f"<tr>{head}</tr>"]
    for row in _cells(rows, escape):
        lines.append("<tr><td>" + "</td><td>".join(row.values()) + "</td></tr>")
    return "\n".join([*lines, "</table>"])


def _figure(title: str, picture: bytes | str) -> str:
    """Embed a picture as an img, in which the scripts of an SVG are dead."""
    if isinstance(picture, str):
        kind = "svg+xml"
        picture = picture.encode()
    else:
        kind = "png"
    source = f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
    caption = escape(title)
    return (
        f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
    )


def page(title: str, style: Path, body: str, policy: str = POLICY) -> str:
    """Write a page, `style` a file of rules; scripts run only as `policy` allows."""
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        '<meta name="color-scheme" content="light dark">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        f"<title>{escape(title)}</title>",
        f"<style>{style.read_text('utf-8')}</style>",
    ]
    return "\n".join(["<!doctype html>", *head, body]) + "\n"


def csv(report: dict) -> str:
    """Render a report as CSV, all tables in one, shares from 0 to 1."""
    lines = []
    for name, rows in report["tables"].items():
        for row in rows:
            lines.append({"table": name, **row})
    return sheet(lines)


def sheet(rows: Sequence[Mapping]) -> str:
    """Write rows as CSV; text that a spreadsheet would run gets an apostrophe before it."""
    import pandas

    names = columns_of(rows)
    lines = []
    for row in rows:
        lines.append([_spreadsheet(row.get(name)) for name in names])
    table = pandas.DataFrame(lines, columns=map(_spreadsheet, names), dtype=object)
    return table.to_csv(index=False, lineterminator="\n")


def _spreadsheet(value: object) -> object:
    """Write lists as JSON and disarm formulas.

    >>> _spreadsheet("=SUM(A1)"), _spreadsheet(["a"]), _spreadsheet(-0.5)
    ("'=SUM(A1)", '["a"]', -0.5)
    """
    if isinstance(value, (list, tuple)):
        value = json_library.dumps(value)
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value


def json(report: dict) -> str:
    """Render a report as JSON."""
    return json_library.dumps(report, indent=1) + "\n"


RENDER = {".html": html, ".md": markdown, ".csv": csv, ".json": json, ".txt": text}


def save(
    report: dict, path: str | os.PathLike, pictures: Sequence[tuple[str, bytes | str]] = ()
) -> Path:
    """Write a report as the ending of `path` says; only .html holds pictures."""
    ending = Path(path).suffix
    if ending not in RENDER:
        endings = ", ".join(RENDER)
        raise ValueError(f"{path}: expected a name ending in {endings}, found {ending!r}")
    if ending == ".html":
        return write_text(path, html(report, pictures))
    return write_text(path, RENDER[ending](report))
