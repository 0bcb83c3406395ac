"""How things read, for `make check`: comments and sentences in notebooks, the README's tree, docstrings.

python tests/style.py        prints what does not keep to it, and ends with 1 if anything does not
"""

import ast
import re
import statistics
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXPLAINED = {  # by a notebook's number: the words that it explains, in italics
    "00": ("reverse thinking", "4-bit"),
    "01": ("interval",),
    "02": ("GRPO", "advantage"),
    "04": ("LoRA",),
}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README_LINES = 160
MEDIAN_WORDS = 18  # of the sentences of a page
NO_PROSE = re.compile(  # code, pictures, headings, rows of tables
    r"^```.*?^```$|^!\[.*?$|^#.*?$|^\|.*?$", re.M | re.S
)
SENTENCES_IN_CELL = re.compile(r"\| ([^|\n]+\.)(?= \|)")  # "| Free some space. |"
LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")  # "[Ten terms](docs/words.md)"
SENTENCE_END = re.compile(r"(?<=[.!?])[*_]*\s+|\n\s*\n|\n(?=- |\d\. )")


def choices_without_reason(path: Path) -> Iterator[str]:
    """Find constants that a notebook sets without a comment in the same statement."""
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type != "code" or cell.source.startswith("import sys\n"):
            continue
        lines = cell.source.splitlines()
        for node in _constants(cell.source):
            statement = lines[node.lineno - 1 : node.end_lineno]
            if not any("  # " in line for line in statement):
                yield f"{path.name}: expected a comment that says why, found {statement[0]!r}"


def _constants(source: str) -> Iterator[ast.Assign]:
    """List the assignments of plain values to names in capitals."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # IPython's own syntax, in the cell that installs
        return
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        if node.targets[0].id.isupper() and not isinstance(node.value, (ast.Dict, ast.DictComp)):
            yield node


def cells_without_sentence(path: Path) -> Iterator[str]:
    """Find code cells that follow another without a word between them."""
    cells = nbformat.read(path, 4).cells
    for before, cell in pairwise(cells):
        housekeeping = cell.source == "here.minutes()"
        if "code" == before.cell_type == cell.cell_type and not housekeeping:
            yield f"{path.name}: expected a sentence before the cell {cell.source[:60]!r}"


def words_without_explanation(path: Path) -> Iterator[str]:
    """Find words of the field that the notebook which meets them first does not explain."""
    cells = nbformat.read(path, 4).cells
    text = "".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for word in EXPLAINED.get(path.name[:2], ()):
        if f"*{word}*" not in text:
            yield f"{path.name}: expected *{word}*, explained, found no such word"


def modules_out_of_place() -> Iterator[str]:
    """Compare the README's tree with the modules that there are."""
    readme = (ROOT / "README.md").read_text("utf-8")
    tree = readme.split("stlite/\n", 1)[1].split("notebooks/", 1)[0]
    named = {}
    for line in tree.splitlines():
        room, *modules = line.split()
        named[room.strip("/")] = set(modules)
    for room in sorted((ROOT / "stlite").glob("*/__init__.py")):
        there = {path.stem for path in room.parent.glob("*.py") if "__" not in path.stem}
        listed = named.get(room.parent.name, set())
        if there != listed:
            yield f"README.md: stlite/{room.parent.name}: {sorted(there ^ listed)} in one place only"


def pages_hard_to_read() -> Iterator[str]:
    """Find a README that is too long, and pages whose sentences are."""
    lines = len(PAGES[0].read_text("utf-8").splitlines())
    if lines > README_LINES:
        yield f"README.md: expected at most {README_LINES} lines, found {lines}"
    for path in PAGES:
        words = median_words(path.read_text("utf-8"))
        if words > MEDIAN_WORDS:
            yield f"{path.name}: expected a median of {MEDIAN_WORDS} words a sentence, found {words}"


def median_words(text: str) -> float:
    """Return the median length of the sentences of a page of Markdown, in words.

    >>> median_words("# Title\\n\\nOne two three. Four [five](six.md).\\n\\n| a | Five words in a cell. |")
    3
    """
    cells = "\n\n".join(SENTENCES_IN_CELL.findall(text))
    prose = LINK.sub(r"\1", NO_PROSE.sub("", text) + "\n\n" + cells)
    sentences = [sentence.split() for sentence in SENTENCE_END.split(prose)]
    lengths = [len(words) for words in sentences if words]
    return statistics.median(lengths or [0])


def docstrings_without_sentence(path: Path) -> Iterator[str]:
    """Find public functions and modules whose docstring does not open with a sentence."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
            continue
        name = getattr(node, "name", path.stem)
        text = ast.get_docstring(node)
        if text is None:
            if not name.startswith("_") and _is_outer(tree, node):
                yield f"{path}:{getattr(node, 'lineno', 1)}: {name}: expected a docstring, found none"
        elif not re.match(r"""["'`(A-Z0-9≥]|stlite: """, text):
            yield f"{path}: {name}: expected a sentence, found {text[:60]!r}"


def _is_outer(tree: ast.Module, node: ast.AST) -> bool:
    return node is tree or node in tree.body


def main() -> None:
    """Print every complaint."""
    complaints = [*modules_out_of_place(), *pages_hard_to_read()]
    for path in NOTEBOOKS:
        complaints += choices_without_reason(path)
        complaints += cells_without_sentence(path)
        complaints += words_without_explanation(path)
    for path in sorted((ROOT / "stlite").rglob("*.py")):
        complaints += docstrings_without_sentence(path)
    print(*complaints, sep="\n")
    sys.exit(bool(complaints))


if __name__ == "__main__":
    main()
