"""The front end of every widget, shared files before its own, and pages without a kernel."""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from stlite.eval import render

HERE = Path(__file__).parent
INSPECTOR = ("tracks", "frames", "sample", "finder", "controls", "inspector", "page")
BODY = "body { margin: 8px auto; max-width: 1500px; padding: 0 8px; }"
EXPORT = "export default { render };"  # the last line of a widget's script; a notebook imports it


def script(*names: str) -> str:
    """Join the scripts of a widget: shared.js, then `name`.js for each name."""
    return _join(".js", names)


def style(*names: str) -> str:
    """Join the styles of a widget: shared.css, then `name`.css for each name."""
    return _join(".css", names)


def _join(ending: str, names: Sequence[str]) -> str:
    texts = [(HERE / f"{name}{ending}").read_text("utf-8") for name in ("shared", *names)]
    return "".join(texts)


def page(content: Mapping, title: str) -> str:
    """Write views as one HTML file that needs nothing else.

    `content` holds the views, their marks, and the table that finds them. Its policy allows one
    script, the inspector's, known by its hash. Frames are bytes in a view, and base64 in the page.
    """
    data = json.dumps(_finite(content), default=_base64).replace("<", "\\u003c")
    code = script(*INSPECTOR).replace(EXPORT, "openPage();")
    digest = _base64(hashlib.sha256(code.encode()).digest())
    policy = f"{render.POLICY}; script-src 'sha256-{digest}'"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{render.escape(title)}</title><style>{style("inspector")}{BODY}</style>
<main></main><noscript>Scripts are off, so nothing is drawn.</noscript>
<script type="application/json" id="views">{data}</script><script type="module">{code}</script>
</html>
"""


def _finite(value: object) -> object:
    """Replace numbers that JSON does not have, such as NaN, by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
