"""A notebook of one cell that annotates the films of a folder: what `stlite annotate` writes."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from stlite.data.annotation_file import annotation_path
from stlite.data.sample import write_text

CELL = """\
# Press Shift+Enter here. The annotator opens below: click on its film. The key ? lists the keys.
from stlite import annotate

annotate({videos!r}, {table!r})"""


def write_notebook(videos, table) -> Path:
    """Write a notebook beside the table that annotates these films; leave one that does already.

    `walks.csv` gets `walks.annotate.ipynb`. The paths in it start from its own folder. Raises
    ValueError for a table of another kind, and where such a notebook annotates something else.
    """
    table = annotation_path(table)
    path = table.with_name(f"{table.stem}.annotate.ipynb")
    source = CELL.format(videos=_path_from(path.parent, videos), table=table.name)
    if not path.exists():
        write_text(path, json.dumps(_notebook(source), indent=1) + "\n")
    elif source not in _sources(path):
        raise ValueError(
            f"{path}: expected a notebook that annotates {videos} into {table.name}, found another;"
            " rename it, or choose another name for the table"
        )
    return path


def _path_from(folder: Path, videos) -> str:
    """Return the path of the films as seen from a folder, or the whole path from another drive."""
    try:
        return Path(os.path.relpath(Path(videos).resolve(), folder.resolve())).as_posix()
    except ValueError:
        return Path(videos).resolve().as_posix()


def _notebook(source: str) -> dict:
    cell = {"cell_type": "code", "id": "annotate", "metadata": {}, "source": source}
    cell |= {"execution_count": None, "outputs": []}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {
        "cells": [cell],
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _sources(path: Path) -> list[str]:
    """List the texts of a notebook's cells; none of a file that is no notebook."""
    try:
        cells = json.loads(path.read_text("utf-8"))["cells"]
        return ["".join(cell["source"]) for cell in cells]
    except (ValueError, KeyError, TypeError):
        return []


def open_notebook(path: Path) -> int:
    """Open a notebook in JupyterLab, and wait until that is closed; return its exit status."""
    if find_spec("jupyterlab") is None:
        raise ValueError(f"JupyterLab is not installed: pip install jupyterlab, or open {path}")
    return subprocess.call([sys.executable, "-m", "jupyterlab", str(path.resolve())])
