"""Notebooks follow one question, import and never define, are clean on disk, and run from the top."""

import ast
import importlib
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from stlite.data.egost import read_benchmark, read_rows
from stlite.eval.run_folder import records_path
from stlite.viz.notebook import EXAMPLE, SMOKE, setup

FOLDER = Path(__file__).parents[1] / "notebooks"
DATA = FOLDER.parent / "sample_data"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
ALONE = [name for name in NAMES if name[:2] in ("00", "01", "02", "06", "07", "08")]
TOGETHER = [name for name in NAMES if name[:2] in ("03", "04", "05", "06", "07")]
WIDGET = "application/vnd.jupyter.widget"
MACHINE = re.compile(r"(?<![\w.])/(?:home|root|work|tmp|Users)/")
RUN = runpy.run_path(str(FOLDER / "run.py"))
SAVED = {  # by a notebook's number: what it leaves in the runs folder, what others read of it first
    "00": ["example.json"],
    "01": ["train.jsonl"],
    "02": ["rewards.json"],
    "03": ["base"],
    "04": ["st-cot"],
    "05": ["st-r1"],
    "06": ["report.html", "report.txt", "audit"],
    "07": ["inspected.html", "marks.jsonl"],
    "08": ["own"],
}
IN_RUNS = re.compile(r'here\.runs / "([^"]+)"')  # here.runs / "own" / "videos"
IN_RECORDS = re.compile(r"here\.(?:records|folders)\(([^)]*)\)")  # here.records("base", "st-cot")
FIGURE = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?= ?%)|(?<![\w.])\d+\.\d+")  # 54.4, 95 %
LINK = re.compile(r"\]\(([^)#\s]+)")


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


def read(name: str):
    return nbformat.read(FOLDER / f"{name}.ipynb", 4)


def cells(name: str, kind: str = "code") -> list[str]:
    return [cell.source for cell in read(name).cells if cell.cell_type == kind]


def tree(source: str) -> ast.Module:
    """Parse a code cell, IPython's own syntax made Python."""
    from IPython.core.inputtransformer2 import TransformerManager

    return ast.parse(TransformerManager().transform_cell(source))


def outputs(book) -> list:
    return [output for cell in book.cells for output in cell.get("outputs", ())]


def texts(book) -> list[str]:
    """List what a book's outputs show, pictures aside."""
    shown = []
    for output in outputs(book):
        shown.append(output.get("text", ""))
        for kind, content in output.get("data", {}).items():
            if not kind.startswith(("image/", "video/")):
                shown.append(str(content))
    return shown


def pictures(book) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(book))


# ---- what each notebook holds


def test_all_nine_are_here():
    assert [name[:2] for name in NAMES] == [f"{n:02d}" for n in range(9)]


def test_it_is_a_valid_notebook_for_python_3_of_at_most_300_kb(name):
    book = read(name)
    nbformat.validate(book)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert book.metadata.kernelspec == kernel
    assert (FOLDER / f"{name}.ipynb").stat().st_size <= 300_000


def test_it_opens_with_a_question_and_promises_minutes_that_it_keeps(name):
    title = read(name).cells[0]
    assert title.cell_type == "markdown"
    assert re.match(r"# .+\n\n(?:\[!.*\n\n)?\*\*[^*]+\?\*\* ", title.source)
    (promised,) = re.findall(r"^Under (\d+) minutes? on two CPU cores\.$", title.source, re.M)
    last = [cell for cell in read(name).cells if cell.cell_type == "code"][-1]
    assert last.source == "here.minutes()"
    took = float(last.outputs[0].text.split()[0])
    assert took < int(promised) <= 2 * took + 1


def test_one_call_opens_it_and_shows_its_settings(name):
    cell = read(name).cells[1]
    assert cell.source.startswith(RUN["install"]() + "\n\nfrom stlite.viz.notebook import setup\n")
    opening = tree(cell.source).body[-1]
    assert ast.unparse(opening).startswith("here = setup(")
    assert sum("setup(" in source for source in cells(name)) == 1
    machine, settings = cell.outputs[0].text.splitlines()
    assert "torch " in machine
    choices = {word.arg: ast.literal_eval(word.value) for word in opening.value.keywords}
    assert settings.startswith(f"{choices.pop('model', 'tiny')}: ")
    for choice, value in choices.items():
        assert f"| {choice}={value!r} |" in settings


def test_it_installs_on_colab_only_and_in_its_first_cell(name):
    first, *others = cells(name)
    assert re.search(r'^if "google\.colab" in sys\.modules:.*\n    [%!]', first, re.M)
    for line in "\n".join(others).splitlines():
        assert not line.lstrip().startswith(("!", "%"))


def test_it_ends_with_what_to_take_away_and_an_exercise(name):
    last = read(name).cells[-1]
    assert last.cell_type == "markdown"
    assert "**What to take away.** " in last.source
    assert "\n\n**Exercise.** " in last.source


def test_no_repository_is_linked_that_is_not_ours(name):
    ours = RUN["repository"]() or "https://no.address"
    text = "\n".join(cell.source for cell in read(name).cells).replace(ours, "")
    if RUN["repository"]():
        text = text.replace(RUN["badge"](f"{name}.ipynb").replace(ours, ""), "")
    assert "github" not in text and "colab.research" not in text


def test_all_follow_one_test_question():
    samples = read_benchmark(DATA / "benchmark", videos=DATA / "videos")
    (sample,) = (sample for sample in samples if sample.id == EXAMPLE)
    rows = read_rows(DATA / "train" / "total_test_mcq_630.jsonl", videos=DATA / "videos")
    assert sample.way == "reverse"
    assert sample.group not in {row.group for row in rows}
    for name in NAMES[:-1]:  # the last is about other films
        assert "here.example" in "".join(cells(name)), name


def used(name: str) -> set[str]:
    """Return the names in the runs folder that a notebook's cells name, or `here` reads for them."""
    code = "\n".join(cells(name))
    names = set(IN_RUNS.findall(code))
    for words in IN_RECORDS.findall(code):
        names |= {word.split("/")[0] for word in re.findall(r'"([^"]+)"', words)}
    names |= {"train.jsonl"} if "here.rows" in code.replace("here.rows_used", "") else set()
    return names | ({"rewards.json"} if "here.rewards" in code else set())


def test_what_it_reads_is_saved_by_itself_or_an_earlier_one(name):
    there = set()
    for number in SAVED:
        if number <= name[:2]:
            there.update(SAVED[number])
    assert used(name) <= there
    assert set(SAVED[name[:2]]) <= used(name)


def test_what_is_saved_for_a_later_notebook_is_read_there():
    for number in ("00", "01", "02", "03", "04", "05"):
        later = [name for name in NAMES if name[:2] > number]
        assert any(SAVED[number][0] in used(name) for name in later), number


def test_numbers_in_the_text_are_those_of_the_outputs_or_the_papers(name):
    shown = "".join(texts(read(name)))
    for paragraph in "\n\n".join(cells(name, "markdown")).split("\n\n"):
        if "paper" in paragraph:
            continue
        for number in FIGURE.findall(re.sub(r"`[^`]*`", "", paragraph)):
            assert number in shown or number == "95", paragraph


def test_every_name_it_uses_is_bound_in_it():
    books = [str(FOLDER / f"{name}.ipynb") for name in NAMES]
    command = [sys.executable, "-m", "ruff", "check", "--select", "F", *books]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_it_defines_nothing_over_five_lines_and_no_cell_is_a_program(name):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    for cell in cells(name):
        for node in ast.walk(tree(cell)):
            if isinstance(node, functions):
                assert node.end_lineno - node.lineno < 5, ast.unparse(node)
        lines = [line.strip() for line in cell.splitlines()]
        assert sum(bool(line) and not line.startswith("#") for line in lines) <= 12, cell


def test_it_holds_no_widget_no_warning_no_error_and_no_path_of_a_machine(name):
    book = read(name)
    assert set(book.metadata) <= {"kernelspec", "language_info"}
    assert not any(cell.metadata for cell in book.cells)
    for output in outputs(book):
        assert output.output_type != "error" and output.get("name") != "stderr"
        assert not any(WIDGET in kind for kind in output.get("data", ()))
    for text in [*texts(book), *(cell.source for cell in book.cells)]:
        assert not MACHINE.search(text), text


def test_it_was_run_from_top_to_bottom(name):
    code = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


def test_every_local_link_leads_somewhere(name):
    for link in LINK.findall("\n".join(cells(name, "markdown"))):
        assert "://" in link or (FOLDER / link).exists(), link


def test_every_name_it_imports_from_stlite_exists(name):
    for node in ast.walk(tree("\n".join(cells(name)))):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "stlite":
            module = importlib.import_module(node.module)
            for alias in node.names:
                place = f"{node.module}.{alias.name}"
                assert hasattr(module, alias.name) or importlib.import_module(place)


# ---- how they open


def test_the_settings_of_a_smoke_run_are_smaller_and_shown(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("STLITE_RUNS", str(tmp_path))
    monkeypatch.setenv("STLITE_DATA", str(DATA))
    monkeypatch.delenv("STLITE_SMOKE", raising=False)
    whole = setup(steps=50, tokens=7)
    monkeypatch.setenv("STLITE_SMOKE", "1")
    smoke = setup(steps=50, tokens=7)
    assert (whole.steps, whole.tokens) == (50, 7)
    assert (smoke.steps, smoke.tokens) == (SMOKE["steps"], 7)
    assert f"| steps={SMOKE['steps']} | tokens=7 |" in capsys.readouterr().out.splitlines()[-1]
    asked = [sample.id for sample in smoke.test_samples()]
    assert len(asked) < len(whole.test_samples()) / 8
    assert EXAMPLE in asked


def test_what_earlier_notebooks_saved_is_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("STLITE_RUNS", str(tmp_path))
    monkeypatch.setenv("STLITE_DATA", str(DATA))
    before = setup()
    assert (before.rewards, before.rows.exists()) == ("st-r1", True)
    (tmp_path / "train.jsonl").write_text("")
    (tmp_path / "rewards.json").write_text(json.dumps({"rewards": "st-r1-reverse"}))
    after = setup()
    assert (after.rewards, after.rows) == ("st-r1-reverse", tmp_path / "train.jsonl")


def test_the_address_is_written_and_nothing_else_is_changed(monkeypatch, tmp_path, name):
    path = tmp_path / f"{name}.ipynb"
    nbformat.write(read(name), path)
    address = "https://github.com/somebody/stlite"
    with monkeypatch.context() as patch:
        patch.setitem(RUN["stamp"].__globals__, "repository", lambda: address)
        RUN["stamp"](path)
    stamped = nbformat.read(path, 4)
    assert f"/github/somebody/stlite/blob/main/notebooks/{name}.ipynb)" in stamped.cells[0].source
    assert f"git clone -q --depth 1 {address} /content/stlite" in stamped.cells[1].source
    assert stamped.cells[2:] == read(name).cells[2:]
    RUN["stamp"](path)
    assert nbformat.read(path, 4) == read(name)


# ---- how they run


@pytest.fixture
def execute(monkeypatch, tmp_path):
    """Execute a notebook as notebooks/run.py does, with few rows and steps and runs of its own."""
    monkeypatch.setenv("STLITE_SMOKE", "1")
    monkeypatch.setenv("STLITE_RUNS", str(tmp_path / "runs"))

    def run(name: str):
        RUN["execute"](FOLDER / f"{name}.ipynb", tmp_path / f"{name}.ipynb")
        book = nbformat.read(tmp_path / f"{name}.ipynb", 4)
        nbformat.validate(book)
        for output in outputs(book):
            assert not any(WIDGET in kind for kind in output.get("data", ()))
        return book

    return run


@pytest.mark.parametrize("name", ALONE)
def test_it_runs_alone_from_the_top(execute, tmp_path, name):
    assert outputs(execute(name))
    assert (tmp_path / "runs" / SAVED[name[:2]][0]).exists()


def test_a_demo_started_anew_keeps_what_somebody_chose(tmp_path):
    kept = ("train.jsonl", "rewards.json", "marks.jsonl")
    for file in (*kept, "example.json", "report.html", "base/records.jsonl", "st-r1/log.json"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
    RUN["restart"](tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_base_sft_grpo_evaluation_and_inspection_run_one_after_the_other(execute, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "rewards.json").write_text('{"rewards": "st-r1-reverse"}')
    drawn = {name: pictures(execute(name)) for name in TOGETHER}
    for run in ("base", "st-cot", "st-r1"):
        assert records_path(runs / run).exists()
    for file in ("report.html", "report.txt", "inspected.html"):
        assert (runs / file).stat().st_size > 1000
    assert "consistency" in (runs / "st-r1" / "log.json").read_text()  # of the rewards saved above
    report = (runs / "report.html").read_text()
    assert "base: " in report and "st-r1: " in report
    assert drawn[TOGETHER[-1]] == 5  # what a reader without a kernel sees of 07
