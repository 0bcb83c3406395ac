"""Notebooks follow one question, import and never define, say why, are clean on disk, and run from the top."""

import ast
import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from stlite.eval.run_folder import records_path

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
ALONE = [name for name in NAMES if name[:2] in ("00", "01", "02", "06", "07")]
TOGETHER = [name for name in NAMES if name[:2] in ("03", "04", "05", "06", "07")]
WIDGET = "application/vnd.jupyter.widget"
MACHINE = re.compile(
    r"(?<![\w.])/(?:home|root|work|tmp|Users)/(?!me/walk\.mp4)"
)  # 01_data shows that one refused
RUNS = ("base", "st-cot", "st-r1")
RUN = runpy.run_path(str(FOLDER / "run.py"))
SAVED = {  # by a notebook's number: what it leaves in the runs folder, and the notebooks that read it
    "00": ("example.json", ("01",)),
    "01": ("train.jsonl", ("02", "04", "05")),
    "02": ("rewards.json", ("03", "05")),
    "03": ("base", ("04", "06", "07")),
    "04": ("st-cot", ("05", "06", "07")),
    "05": ("st-r1", ("06", "07")),
    "06": ("report.html", ("07",)),
    "07": ("inspected.html", ()),
}
FIGURE = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?= ?%)|(?<![\w.])\d+\.\d+")
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
    assert book.metadata.kernelspec == {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    assert (FOLDER / f"{name}.ipynb").stat().st_size <= 300_000


def cells(name: str, kind: str = "code") -> list[str]:
    return [cell.source for cell in read(name).cells if cell.cell_type == kind]


def test_it_opens_with_a_question_and_a_way_to_colab_and_installs_only_there(name):
    book = read(name)
    assert book.cells[0].source.startswith("# ") and "?**" in book.cells[0].source
    assert (book.cells[1].source, book.cells[2].source) == RUN["opening"](f"{name}.ipynb")
    assert re.search(r'^if "google\.colab" in sys\.modules:.*\n    !', book.cells[2].source, re.M)
    assert not any(
        line.startswith(("!", "%")) for cell in book.cells for line in cell.source.splitlines()
    )
    assert not any("github.com" in cell.source for cell in book.cells[3:])


def test_the_address_is_the_one_of_pyproject():
    badge, install = RUN["opening"]("00_quickstart.ipynb")
    address = re.search(
        r'^Repository = "https://github.com/([^"]+)"',
        (FOLDER.parent / "pyproject.toml").read_text(),
        re.M,
    )
    assert badge.endswith(f"/github/{address[1]}/blob/main/notebooks/00_quickstart.ipynb)")
    assert f"git clone -q --depth 1 https://github.com/{address[1]} /content/stlite" in install


def constants(name: str) -> dict[str, object]:
    """Return the values of the names that a notebook sets to a literal."""
    set_ = [
        node for tree in trees(read(name)) for node in tree.body if isinstance(node, ast.Assign)
    ]
    return {
        ast.unparse(n.targets[0]): n.value.value for n in set_ if isinstance(n.value, ast.Constant)
    }


def test_all_follow_one_test_question():
    from stlite.data.egost import read_benchmark, read_rows

    (example,) = {constants(name)["EXAMPLE"] for name in NAMES}
    data = FOLDER.parent / "sample_data"
    (sample,) = (
        s for s in read_benchmark(data / "benchmark", videos=data / "videos") if s.id == example
    )
    rows = read_rows(data / "train" / "total_test_mcq_630.jsonl", videos=data / "videos")
    assert sample.way == "reverse" and sample.group not in {row.group for row in rows}
    for name in NAMES:
        assert sum("EXAMPLE" in cell for cell in cells(name)) > 1, name


def test_it_says_device_and_versions_first_and_its_minutes_last(name):
    book = read(name)
    assert "versions()" in "".join(cells(name)[:4]) and "began = time.time()" in cells(name)[1]
    last = [cell for cell in book.cells if cell.cell_type == "code"][-1]
    assert last.source == 'print(f"{(time.time() - began) / 60:.1f} minutes")'
    promised = re.search(r"^Under (\d+) minutes? on two CPU cores", book.cells[0].source, re.M)
    for output in last.outputs:
        assert (
            float(output.text.split()[0])
            < int(promised[1])
            <= 2 * float(output.text.split()[0]) + 1
        )


def test_each_leaves_a_file_that_a_later_one_reads():
    for name in NAMES:
        file, readers = SAVED[name[:2]]
        assert f'RUNS / "{file}"' in "".join(cells(name))
        for reader in (n for n in NAMES if n[:2] in readers):
            assert f'"{file}"' in "".join(cells(reader)), (name, reader)


def test_numbers_in_the_text_are_those_of_the_outputs_or_the_papers(name):
    book = read(name)
    shown = "".join(
        str(o.get("text", "")) + str(o.get("data", {}).get("text/plain", "")) for o in outputs(book)
    )
    for paragraph in "\n\n".join(cells(name, "markdown")).split("\n\n") if shown else ():
        found = [] if "paper" in paragraph else FIGURE.findall(re.sub(r"`[^`]*`", "", paragraph))
        assert not [number for number in found if number not in shown and number != "95"], paragraph


def test_every_name_it_uses_is_bound_in_it():
    books = [str(FOLDER / f"{name}.ipynb") for name in NAMES]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select", "F", *books],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_it_defines_nothing_over_five_lines_and_no_cell_is_a_program(name):
    book = read(name)
    for node in (node for tree in trees(book) for node in ast.walk(tree)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            assert node.end_lineno - node.lineno < 5, ast.unparse(node)
    for cell in cells(name):
        assert (
            sum(
                bool(line.strip()) and not line.lstrip().startswith("#")
                for line in cell.splitlines()
            )
            <= 12
        ), cell


def test_it_holds_no_widget_no_warning_no_error_and_no_path_of_a_machine(name):
    book = read(name)
    assert set(book.metadata) <= {"kernelspec", "language_info"}
    assert not any(cell.metadata for cell in book.cells)
    assert not any(WIDGET in kind for output in outputs(book) for kind in output.get("data", ()))
    assert not any(
        output.output_type == "error" or output.get("name") == "stderr" for output in outputs(book)
    )
    shown = [
        text
        for o in outputs(book)
        for kind, text in o.get("data", {}).items()
        if not kind.startswith("image/png")
    ]
    printed = [output.get("text", "") for output in outputs(book)]
    for text in [*map(str, shown), *printed, *(cell.source for cell in book.cells)]:
        assert not MACHINE.search(text), text


def test_it_was_run_from_top_to_bottom_or_not_at_all(name):
    code = [cell for cell in read(name).cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in code]
    assert counts == list(range(1, len(code) + 1)) or not any(counts + [c.outputs for c in code]), (
        counts
    )


def test_every_local_link_leads_somewhere(name):
    found = [
        link
        for c in read(name).cells
        if c.cell_type == "markdown"
        for link in LINK.findall(c.source)
    ]
    dead = [link for link in found if "://" not in link and not (FOLDER / link).exists()]
    assert found and not dead


def test_every_name_it_imports_from_stlite_exists(name):
    for tree in trees(read(name)):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "stlite":
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name) or importlib.import_module(
                        f"{node.module}.{alias.name}"
                    )
    assert any("stlite" in cell.source for cell in read(name).cells)


@pytest.fixture
def execute(monkeypatch, tmp_path):
    """Execute a notebook as notebooks/run.py does, with few rows and steps and a runs folder of the test's own."""
    monkeypatch.setenv("STLITE_SMOKE", "1")
    monkeypatch.setenv("STLITE_RUNS", str(tmp_path / "runs"))

    def run(name: str) -> list:
        RUN["execute"](FOLDER / f"{name}.ipynb", tmp_path / f"{name}.ipynb")
        book = nbformat.read(tmp_path / f"{name}.ipynb", 4)
        nbformat.validate(book)
        assert not any(
            WIDGET in kind for output in outputs(book) for kind in output.get("data", ())
        )
        return outputs(book)

    return run


@pytest.mark.parametrize("name", ALONE)
def test_it_runs_alone_from_the_top(execute, tmp_path, name):
    assert execute(name)
    assert (tmp_path / "runs" / SAVED[name[:2]][0]).exists()


def test_a_demo_started_anew_keeps_what_somebody_chose(tmp_path):
    kept = ("train.jsonl", "rewards.json", "annotations.jsonl")
    for file in (*kept, "example.json", "report.html", "base/records.jsonl", "st-r1/log.json"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
    RUN["restart"](tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_the_address_is_written_and_nothing_else_is_changed(tmp_path):
    path = tmp_path / "00_quickstart.ipynb"
    book = read(path.stem)
    book.cells[1].source = book.cells[2].source = "elsewhere"
    nbformat.write(book, path)
    RUN["stamp"](path)
    assert nbformat.read(path, 4) == read(path.stem)


def test_base_sft_grpo_evaluation_and_inspection_run_one_after_the_other(execute, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "rewards.json").write_text('{"rewards": "st-r1-reverse"}')
    pictures = {
        name: sum("image/png" in o.get("data", {}) for o in execute(name)) for name in TOGETHER
    }
    runs = tmp_path / "runs"
    assert all(records_path(runs / name).exists() for name in RUNS)
    assert all(
        (runs / name).stat().st_size > 1000
        for name in ("report.html", "report.txt", "inspected.html")
    )
    assert "consistency" in (runs / "st-r1" / "log.json").read_text()  # the rewards that were saved
    assert all(
        f"{constants(NAMES[0])['EXAMPLE']}, {name}: " in (runs / "report.html").read_text()
        for name in RUNS
    )
    assert (
        pictures[TOGETHER[-1]] == 4
    )  # a sample, a chain, a group, a training: what a reader without a kernel sees
