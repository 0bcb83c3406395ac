"""Execute notebooks in order, each in its own process, with progress on screen; the finished ones land in the runs folder.

python notebooks/run.py 00 03 04 05 06          # make demo
python notebooks/run.py --keep 00               # write the outputs back into the notebook
STLITE_SMOKE=1 python notebooks/run.py 05       # few rows, few steps
"""

import argparse
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent


class Progress(NotebookClient):
    """A notebook client that says which cell runs, by its first line, and how long it took."""

    async def async_execute_cell(self, cell, index, *args, **kwargs):
        """Execute one cell, with a line on screen for a code cell."""
        started = time.perf_counter()
        if cell.cell_type == "code":
            first = next((line for line in cell.source.splitlines() if line and not line.startswith("#")), "")
            print(f"  {index:2d}  {first[:88]:88s}", end="", flush=True)
        done = await super().async_execute_cell(cell, index, *args, **kwargs)
        if cell.cell_type == "code":
            print(f" {time.perf_counter() - started:6.1f} s", flush=True)
        return done


def execute(path: Path, out: Path) -> None:
    """Execute one notebook from its own folder and write it, without widget state, to `out`."""
    book = nbformat.read(path, 4)
    quiet = ["--IPKernelApp.log_level=40"]
    Progress(
        book, timeout=3600, kernel_name="python3", extra_arguments=quiet, resources={"metadata": {"path": str(HERE)}}
    ).execute()
    clean(book)
    out.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, out.with_suffix(".part"))
    out.with_suffix(".part").replace(out)


def clean(book) -> None:
    """Drop what a committed notebook must not hold: widgets (a picture beside one stays), timings, progress, stderr."""
    book.metadata = {k: book.metadata[k] for k in ("kernelspec", "language_info") if k in book.metadata}
    for cell in book.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and not _only_widget(o)]


def _only_widget(output) -> bool:
    """Take the widget out of an output; say whether nothing but its name is left."""
    data = output.get("data", {})
    return data.pop("application/vnd.jupyter.widget-view+json", None) is not None and set(data) <= {"text/plain"}


def main() -> None:
    """Run what is asked; on a finished demo, start anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="+", help="the first digits of notebooks, in order")
    parser.add_argument("--keep", action="store_true", help="write outputs back into the notebooks")
    args = parser.parse_args()
    runs = Path(os.environ.setdefault("STLITE_RUNS", str(HERE.parent / "runs" / "demo")))
    if "03" in args.numbers and (runs / "report.html").exists():
        shutil.rmtree(runs)
    started = time.perf_counter()
    for number in args.numbers:
        (path,) = HERE.glob(f"{number}_*.ipynb")
        print(path.name, flush=True)
        execute(path, path if args.keep else runs / "notebooks" / path.name)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes, {peak:.1f} GB at the most")
    if (runs / "report.txt").exists():
        print((runs / "report.txt").read_text(), f"report: {os.path.relpath(runs / 'report.html')}", sep="\n")


if __name__ == "__main__":
    main()
