"""What every picture shares: paper, colours, safe text, and files that are the same each time."""

import io
import textwrap
import warnings
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from stlite.data.sample import write_bytes

# Okabe and Ito, 2008: told apart by readers who are colour-blind
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^vPX"
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")
WHITE = 252  # a palette entry this light is meant to be white


def new_figure(width: float, height: float) -> Figure:
    """Make a white figure, in inches, that a notebook shows without pyplot."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure._repr_png_ = lambda: png(figure)
    return figure


def line_style(i: int, name: str) -> dict:
    """Return the look of line number `i`; the first seven differ in colour and marker."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "ls": DASHES[i % len(DASHES)],
        "marker": MARKERS[i % len(MARKERS)],
        "ms": 4,
        "label": plain(name, 30, 1),
    }


def plain(text: str, width: int = 100, lines: int = 3) -> str:
    """Wrap hostile text to a few lines, without control characters; the rest is cut off."""
    start = text[: 4 * width * lines]
    printable = "".join(c if c.isprintable() else " " for c in start)
    return "\n".join(textwrap.wrap(printable, width, max_lines=lines, placeholder=" …"))


def png(figure: Figure, dpi: int = 120) -> bytes:
    """Draw a figure as PNG of 256 colours, which halves its size: notebooks hold many."""
    from PIL import Image

    image = Image.open(io.BytesIO(draw(figure, "png", dpi))).convert("RGB")
    image = image.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    image.putpalette([255 if level > WHITE else level for level in image.getpalette()])
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def draw(figure: Figure, kind: str, dpi: int) -> bytes:
    """Draw a figure as the bytes of a .png or .svg file."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # dollars are what someone wrote, not mathematics
    metadata = {"Date": None} if kind == "svg" else None
    file = io.BytesIO()
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": "stlite"}):
        # a reply may hold any script
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        _fix_layout(figure)
        figure.savefig(file, format=kind, dpi=dpi, metadata=metadata)
    return file.getvalue()


def _fix_layout(figure: Figure) -> None:
    """Arrange a figure once, before it is drawn the first time.

    Matplotlib goes on arranging with every drawing, so that a second one would differ a little.
    """
    if not isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        return
    for _ in range(3):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")


def save(figure: Figure, path) -> Path:
    """Write a figure as .png or .svg, atomically."""
    kind = Path(path).suffix[1:]
    if kind == "png":
        return write_bytes(path, [png(figure)])
    if kind == "svg":
        return write_bytes(path, [draw(figure, "svg", 120)])
    raise ValueError(f"path: expected .png or .svg, found {Path(path).name!r}")
