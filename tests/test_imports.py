"""Imports point left only, most modules need no torch, and all but a few import in half a second."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "stlite"
ORDER = [
    "sample",
    "steps",
    "parse",
    "prompts",
    "video",
    "egost",
    "splits",
    "intervals",
    "doctor",
    "walks",
    "scoring",
    "rewards",
    "payouts",
    "judge",
    "memory",
    "tower",
    "model",
    "adapters",
    "rollouts",
    "checkpoints",
    "gates",
    "train",
    "evaluate",
    "report",
    "audits",
    "chains",
    "plots",
    "widgets",
]
TORCH = ("tower", "model", "adapters", "rollouts", "checkpoints", "gates", "train")
HEAVY = (*TORCH, "plots", "widgets")


def imported(path: Path) -> set[str]:
    """List the stlite modules that a module imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "stlite":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stlite."):
            found.add(node.module.split(".")[1])
    return found


def test_every_module_is_in_the_order():
    assert {p.stem for p in PACKAGE.glob("*.py")} - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_imports_point_left(name):
    allowed = set(ORDER[: ORDER.index(name)])
    if name == "evaluate":  # its command line loads a model, inside one function
        allowed.add("model")
    assert imported(PACKAGE / f"{name}.py") <= allowed


def fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torch_is_imported_where_models_are_alone():
    light = [f"stlite.{name}" for name in ORDER if name not in TORCH]
    found = fresh(
        f"import sys, {', '.join(light)}; print([m for m in ('torch', 'transformers', 'trl') if m in sys.modules])"
    )
    assert found == "[]"


def test_light_modules_import_nothing_that_takes_long():
    light = [f"stlite.{name}" for name in ORDER if name not in HEAVY]
    slow = "('av', 'decord', 'scipy', 'statsmodels', 'sklearn', 'pandas', 'pyarrow', 'matplotlib', 'IPython', 'rouge_score')"
    assert fresh(f"import sys, {', '.join(light)}; print([m for m in {slow} if m in sys.modules])") == "[]"
