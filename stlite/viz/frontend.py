"""The front end of every widget: its own script and style after the shared ones, and pages that need no kernel."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from stlite.eval import render

HERE = Path(__file__).parent
EXPORT = "export default { render };"  # the last line of a widget's script; a notebook imports it


def script(name: str) -> str:
    """Return the script of a widget: shared.js, then its own file."""
    return _read("shared.js") + _read(f"{name}.js")


def style(name: str) -> str:
    """Return the style of a widget: shared.css, then its own file."""
    return _read("shared.css") + _read(f"{name}.css")


def _read(name: str) -> str:
    return (HERE / name).read_text("utf-8")


def page(name: str, views: Sequence[Mapping], title: str) -> str:
    """Write views as one HTML file that needs nothing else.

    Its policy allows one script, the widget's, known by its hash. Frames are bytes in a view, and base64 in the page.
    """
    data = json.dumps(views, default=_base64).replace("<", "\\u003c")
    code = script(name).replace(EXPORT, "openPage();")
    digest = _base64(hashlib.sha256(code.encode()).digest())
    policy = f"{render.POLICY}; script-src 'sha256-{digest}'"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{render.escape(title)}</title><style>{style(name)}</style>
<main></main><noscript>Scripts are off, so nothing is drawn.</noscript>
<script type="application/json" id="views">{data}</script><script type="module">{code}</script>
</html>
"""


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
