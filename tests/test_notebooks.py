"""Notebooks import and never define, are clean on disk, and run from the top; the later ones share their runs."""

import ast
import importlib
import re
import runpy
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
ALONE = [name for name in NAMES if name[:2] in ("00", "01", "02", "07")]
TOGETHER = [name for name in NAMES if name[:2] in ("03", "04", "05", "06", "07")]
WIDGET = "application/vnd.jupyter.widget"
MACHINE = re.compile(r"(?<![\w.])/(?:home|root|work|tmp|Users)/(?!me/walk\.mp4)")  # 01_data shows that one refused
LINK = re.compile(r"\]\(([^)#\s]+)")


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


def read(name: str):
    return nbformat.read(FOLDER / f"{name}.ipynb", 4)


def trees(book) -> list[ast.Module]:
    """Parse the code cells, IPython's own syntax made Python."""
    from IPython.core.inputtransformer2 import TransformerManager

    transform = TransformerManager().transform_cell
    return [ast.parse(transform(cell.source)) for cell in book.cells if cell.cell_type == "code"]


def outputs(book) -> list:
    return [output for cell in book.cells for output in cell.get("outputs", ())]


def test_all_eight_are_here():
    assert [name[:2] for name in NAMES] == [f"{n:02d}" for n in range(8)]


def test_it_is_a_valid_notebook_for_python_3_of_at_most_300_kb(name):
    book = read(name)
    nbformat.validate(book)
    assert book.metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert (FOLDER / f"{name}.ipynb").stat().st_size <= 300_000


def test_it_opens_with_a_question_and_a_way_to_colab_and_installs_only_there(name):
    book = read(name)
    assert book.cells[0].source.startswith("# ") and "?**" in book.cells[0].source
    assert f"/blob/main/notebooks/{name}.ipynb)" in "".join(c.source for c in book.cells[:3])
    install = next(cell.source for cell in book.cells if cell.cell_type == "code")
    assert re.search(r'^if "google\.colab" in sys\.modules:.*\n    !', install, re.M)
    assert not any(line.startswith(("!", "%")) for cell in book.cells for line in cell.source.splitlines())


def test_it_defines_nothing_over_five_lines_and_no_cell_is_a_program(name):
    book = read(name)
    for node in (node for tree in trees(book) for node in ast.walk(tree)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            assert node.end_lineno - node.lineno < 5, ast.unparse(node)
    cells = [cell.source.splitlines() for cell in book.cells if cell.cell_type == "code"]
    assert max(sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in cell) for cell in cells) <= 12


def test_it_holds_no_widget_no_warning_no_error_and_no_path_of_a_machine(name):
    book = read(name)
    assert set(book.metadata) <= {"kernelspec", "language_info"}
    assert not any(cell.metadata for cell in book.cells)
    assert not any(WIDGET in kind for output in outputs(book) for kind in output.get("data", ()))
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs(book))
    shown = [
        text for o in outputs(book) for kind, text in o.get("data", {}).items() if not kind.startswith("image/png")
    ]
    printed = [output.get("text", "") for output in outputs(book)]
    for text in [*map(str, shown), *printed, *(cell.source for cell in book.cells)]:
        assert not MACHINE.search(text), text


def test_it_was_run_from_top_to_bottom_or_not_at_all(name):
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1)) or not any(counts + [c.outputs for c in cells]), counts


def test_every_local_link_leads_somewhere(name):
    found = [link for c in read(name).cells if c.cell_type == "markdown" for link in LINK.findall(c.source)]
    dead = [link for link in found if "://" not in link and not (FOLDER / link).exists()]
    assert found and not dead


def test_every_name_it_imports_from_stlite_exists(name):
    for tree in trees(read(name)):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "stlite":
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")
    assert any("stlite" in cell.source for cell in read(name).cells)


@pytest.fixture
def execute(monkeypatch, tmp_path):
    """Execute a notebook as notebooks/run.py does, with few rows and steps and a runs folder of the test's own."""
    monkeypatch.setenv("STLITE_SMOKE", "1")
    monkeypatch.setenv("STLITE_RUNS", str(tmp_path / "runs"))
    one = runpy.run_path(str(FOLDER / "run.py"))["execute"]

    def run(name: str) -> list:
        one(FOLDER / f"{name}.ipynb", tmp_path / f"{name}.ipynb")
        book = nbformat.read(tmp_path / f"{name}.ipynb", 4)
        nbformat.validate(book)
        assert not any(WIDGET in kind for output in outputs(book) for kind in output.get("data", ()))
        return outputs(book)

    return run


@pytest.mark.parametrize("name", ALONE)
def test_it_runs_alone_from_the_top(execute, name):
    assert execute(name)


def test_base_sft_grpo_evaluation_and_inspection_run_one_after_the_other(execute, tmp_path):
    pictures = {name: sum("image/png" in o.get("data", {}) for o in execute(name)) for name in TOGETHER}
    runs = tmp_path / "runs"
    assert all((runs / name / "records.jsonl").exists() for name in ("base", "st-cot", "st-r1"))
    assert all((runs / name).stat().st_size > 1000 for name in ("report.html", "report.txt", "inspected.html"))
    assert pictures[TOGETHER[-1]] == 4  # a sample, a chain, a group, a training: what a reader without a kernel sees
