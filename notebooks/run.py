"""Execute notebooks in order, each in its own process, with progress on screen; the finished ones land in the runs folder.

python notebooks/run.py 00 03 04 05 06          # make demo
python notebooks/run.py --keep 00               # write the outputs back into the notebook
python notebooks/run.py --address               # write pyproject's address of the repository into all notebooks
STLITE_SMOKE=1 python notebooks/run.py 05       # few rows, few steps
"""

import argparse
import os
import resource
import shutil
import sys
import time
import tomllib
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
COLAB = "https://colab.research.google.com"
CLONE = "    !test -d /content/stlite || git clone -q --depth 1 {address} /content/stlite\n"
INSTALL = """import sys

if "google.colab" in sys.modules:  # on Colab only
{clone}    %cd -q /content/stlite/notebooks
    !pip install -q -r ../requirements.txt
sys.path.insert(0, "..")"""
AFTER_INSTALL = "\n\nfrom stlite.viz.notebook import setup"
MADE = (
    "example.json",
    "base",
    "st-cot",
    "st-r1",
    "report.html",
    "report.txt",
    "inspected.html",
)  # by running alone


def repository() -> str:
    """Return the repository's address as pyproject.toml has it, or "" where it names none."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "")


def badge(name: str) -> str:
    """Return the line that opens a notebook on Colab; empty without an address."""
    address = repository()
    if not address:
        return ""
    place = address.replace("https://github.com/", f"{COLAB}/github/")
    picture = f"![Open in Colab]({COLAB}/assets/colab-badge.svg)"
    return f"[{picture}]({place}/blob/main/notebooks/{name})"


def install() -> str:
    """Return the first lines of every notebook's first cell of code."""
    address = repository()
    return INSTALL.format(clone=CLONE.format(address=address) if address else "")


def stamp(path: Path) -> None:
    """Write badge and install lines into a notebook; all else stays."""
    book = nbformat.read(path, 4)
    title, *rest = book.cells[0].source.split("\n\n")
    if rest[0].startswith("[![Open in Colab]"):
        rest = rest[1:]
    line = badge(path.name)
    book.cells[0].source = "\n\n".join([title, *([line] if line else []), *rest])
    _, _, own = book.cells[1].source.partition(AFTER_INSTALL)
    book.cells[1].source = install() + AFTER_INSTALL + own
    nbformat.write(book, path)


def restart(runs: Path) -> None:
    """Remove what a finished demo made; the rows of 01, the rewards of 02, the marks of 07 and the films of 08 are somebody's choice, and stay."""
    for name in MADE:
        shutil.rmtree(runs / name, ignore_errors=True)
        (runs / name).unlink(missing_ok=True)


class Progress(NotebookClient):
    """A notebook client that says which cell runs, by its first line, and how long it took."""

    async def async_execute_cell(self, cell, index, *args, **kwargs):
        """Execute one cell, with a line on screen for a code cell."""
        started = time.perf_counter()
        if cell.cell_type == "code":
            first = next(
                (line for line in cell.source.splitlines() if line and not line.startswith("#")), ""
            )
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
        book,
        timeout=3600,
        kernel_name="python3",
        coalesce_streams=True,
        extra_arguments=quiet,
        resources={"metadata": {"path": str(HERE)}},
    ).execute()
    clean(book)
    out.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, out.with_suffix(".part"))
    out.with_suffix(".part").replace(out)


def clean(book) -> None:
    """Drop what a committed notebook must not hold: widgets (a picture beside one stays), timings, progress, stderr."""
    book.metadata = {
        k: book.metadata[k] for k in ("kernelspec", "language_info") if k in book.metadata
    }
    for cell in book.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [
                o for o in cell.outputs if o.get("name") != "stderr" and not _only_widget(o)
            ]


def _only_widget(output) -> bool:
    """Take the widget out of an output; say whether nothing but its name is left."""
    data = output.get("data", {})
    return data.pop("application/vnd.jupyter.widget-view+json", None) is not None and set(data) <= {
        "text/plain"
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("numbers", nargs="*", help="the first digits of notebooks, in order")
    parser.add_argument("--keep", action="store_true", help="write outputs back into the notebooks")
    parser.add_argument(
        "--address", action="store_true", help="write the repository's address into all notebooks"
    )
    args = parser.parse_args()
    if not (args.numbers or args.address):
        parser.error("expected numbers or --address")
    for path in HERE.glob("*.ipynb") if args.keep or args.address else ():
        stamp(path)
    if args.numbers:
        run(args.numbers, args.keep)


def run(numbers: list[str], keep: bool) -> None:
    """Execute notebooks in order; say what it took and, after a report, what it says."""
    runs = Path(os.environ.setdefault("STLITE_RUNS", str(HERE.parent / "runs" / "demo")))
    if "03" in numbers and (runs / "report.html").exists():
        restart(runs)
    started = time.perf_counter()
    for number in numbers:
        (path,) = HERE.glob(f"{number}_*.ipynb")
        print(path.name, flush=True)
        execute(path, path if keep else runs / "notebooks" / path.name)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (
        2**30 if sys.platform == "darwin" else 2**20
    )
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes, {peak:.1f} GB at the most")
    if (runs / "report.txt").exists():
        print(summary(runs), f"report: {os.path.relpath(runs / 'report.html')}", sep="\n\n")


def summary(runs: Path) -> str:
    """Return the sentences about accuracy, what GRPO added to SFT, and the table of runs, which stands last."""
    sys.path.insert(0, str(HERE.parent))
    from stlite import report
    from stlite.eval.render import text

    blocks = (runs / "report.txt").read_text().strip().split("\n\n")
    sentences = [
        line for line in blocks[0].splitlines() if " answers " in line and "Columns:" not in line
    ]
    stages = {name: runs / name for name in ("st-cot", "st-r1")}
    if all((folder / "adapter").is_dir() for folder in stages.values()):
        sentences += [line for line in text(report(stages)).splitlines() if " than st-cot" in line]
    return "\n".join(sentences) + "\n\n" + blocks[-1]


if __name__ == "__main__":
    main()
