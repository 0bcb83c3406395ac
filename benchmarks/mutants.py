"""Do the tests notice when a line is wrong? Changes one thing at a time and counts the changes that some test notices.

    python benchmarks/mutants.py                         # `make mutants`: every module below
    python benchmarks/mutants.py statistics comparisons  # some of them; a second or two a mutant

Works on a copy. A mutant that survives is printed with its line: a test is missing, or the change changes nothing.
"""

import argparse
import ast
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WANTED = 0.85
PATIENCE = 60  # seconds after which a mutant that hangs counts as noticed
TARGETS = {  # module: its file, and the tests that should notice
    "statistics": ("eval/statistics.py", ["eval/test_statistics.py"]),
    "metrics": ("eval/metrics.py", ["eval/test_metrics.py"]),
    "comparisons": ("eval/comparisons.py", ["eval/test_comparisons.py"]),
    "sentences": ("eval/sentences.py", ["eval/test_report.py"]),
    "report": ("eval/report.py", ["eval/test_report.py"]),
    "records": ("eval/records.py", ["eval/test_records.py", "eval/test_evaluate.py"]),
    "run_folder": ("eval/run_folder.py", ["eval/test_run_folder.py"]),
    "query": ("eval/query.py", ["eval/test_query.py"]),
    "evaluate": ("eval/evaluate.py", ["eval/test_query.py", "eval/test_evaluate.py"]),
    "rewards": ("rewards/rewards.py", ["rewards/test_rewards.py"]),
    "choice": ("rewards/choice.py", ["rewards/test_choice.py"]),
    "route": ("rewards/route.py", ["rewards/test_route.py"]),
    "parse": ("rewards/parse.py", ["rewards/test_parse.py"]),
    "splits": ("data/splits.py", ["data/test_splits.py"]),
    "checkpoints": ("train/checkpoints.py", ["train/test_checkpoints.py"]),
}
HEAVY = ("numpy", "scipy.stats", "statsmodels.api", "sklearn.linear_model", "pandas", "hypothesis", "pytest")  # fmt: skip
TRAINING = ("torch", "peft", "transformers", "trl.trainer.utils")  # what tests of `train` import
SLOW = "not kill_9 and not the_command"  # tests that start a process or load a model
OTHER = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}

Mutation = tuple[ast.AST, Callable[[], None]]


def mutations(tree: ast.Module) -> Iterator[Mutation]:
    """Yield each place where one thing can be changed, with the function that changes it there."""
    ignored = untested(tree)
    for node in ast.walk(tree):
        if id(node) not in ignored:
            for change in changes(node):
                yield node, change
            yield from removals(node)


def untested(tree: ast.Module) -> set[int]:
    """Name the nodes that say something to people or to a type checker: messages, annotations, doctests."""
    roots = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            roots += ast.iter_child_nodes(node)
        if isinstance(node, ast.JoinedStr):
            roots.append(node)
        for name in ("annotation", "returns"):
            if getattr(node, name, None) is not None:
                roots.append(getattr(node, name))
    return {id(node) for root in roots for node in ast.walk(root)}


def changes(node: ast.AST) -> Iterator[Callable[[], None]]:
    """Yield the changes of one node."""
    if isinstance(node, ast.Compare):
        yield lambda: node.ops.__setitem__(0, OTHER[type(node.ops[0])]())
    if isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in OTHER:
        yield lambda: setattr(node, "op", OTHER[type(node.op)]())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield lambda: setattr(node, "op", ast.UAdd())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield lambda: setattr(node, "operand", ast.UnaryOp(ast.Not(), node.operand))
    if isinstance(node, ast.Constant):
        yield from constant_changes(node)
    if isinstance(node, (ast.If, ast.IfExp, ast.While)):
        yield lambda: setattr(node, "test", ast.Constant(True))
        yield lambda: setattr(node, "test", ast.Constant(False))
    if isinstance(node, ast.Return) and node.value is not None:
        yield lambda: setattr(node, "value", ast.Constant(None))
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in NAMES:
            yield lambda: setattr(node.func, "id", NAMES[node.func.id])
        for keyword in node.keywords:
            yield lambda keyword=keyword: node.keywords.remove(keyword)


def constant_changes(node: ast.Constant) -> Iterator[Callable[[], None]]:
    """Yield other values for a number or a truth value; texts are left alone."""
    if isinstance(node.value, bool):
        yield lambda: setattr(node, "value", not node.value)
    elif isinstance(node.value, (int, float)):
        yield lambda: setattr(node, "value", node.value + 1)


def removals(node: ast.AST) -> Iterator[Mutation]:
    """Yield the removal of each statement that only acts: a call, an addition, a deletion, a raise, a continue."""
    acting = (ast.Expr, ast.AugAssign, ast.Delete, ast.Raise, ast.Continue, ast.Break)
    for name in ("body", "orelse", "finalbody"):
        statements = getattr(node, name, [])
        if not isinstance(statements, list):
            continue
        for i, statement in enumerate(statements):
            text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if isinstance(statement, acting) and not text:
                yield statement, lambda at=statements, i=i: at.__setitem__(i, ast.Pass())


def mutant(source: str, number: int) -> tuple[str, int]:
    """Return the source with one change made, and its line."""
    tree = ast.parse(source)
    node, change = list(mutations(tree))[number]
    line = getattr(node, "lineno", 0)
    change()
    text = ast.unparse(ast.fix_missing_locations(tree))
    return text, line


def copy_of_the_package() -> Path:
    """Copy what the tests need into a temporary folder."""
    place = Path(tempfile.mkdtemp(prefix="mutants-"))
    for name in ("stlite", "tests"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", place)
    for name in ("sample_data", "notebooks", "benchmarks", "README.md"):
        (place / name).symlink_to(ROOT / name)
    return place


def tests_pass(place: Path, tests: list[str]) -> bool:
    """Run tests in a process of its own; False where one fails or hangs."""
    child = os.fork()
    if child == 0:
        run_tests(place, tests)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def run_tests(place: Path, tests: list[str]) -> None:
    """Run pytest in this process and end it."""
    import pytest

    os.chdir(place)
    sys.path.insert(0, str(place))
    os.environ["PYTHONPATH"] = str(place)
    log = os.open(place / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    files = [f"tests/{name}" for name in tests if (place / "tests" / name).exists()]
    quiet = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-k", SLOW]
    os._exit(int(pytest.main([*quiet, *files])))


def try_module(name: str, place: Path) -> float:
    """Try every mutant of a module, print the survivors, return the share that was noticed."""
    file, tests = TARGETS[name]
    path = place / "stlite" / file
    source = path.read_text("utf-8")
    lines = source.splitlines()
    if not tests_pass(place, tests):
        sys.exit(
            f"{name}: the tests fail without any change:\n{(place / 'log.txt').read_text()[-3000:]}"
        )
    plain = ast.unparse(ast.parse(source))
    total = 0
    survived = 0
    for number in range(len(list(mutations(ast.parse(source))))):
        text, line = mutant(source, number)
        if text == plain:
            continue
        total += 1
        path.write_text(text)
        if tests_pass(place, tests):
            survived += 1
            print(
                f"{name}:{line}: {lines[line - 1].strip()}\n    -> {difference(plain, text)}",
                flush=True,
            )
    path.write_text(source)
    share = 1 - survived / total
    print(f"{name}: {total - survived} of {total} mutants noticed, {100 * share:.0f} %", flush=True)
    return share


def difference(before: str, after: str) -> str:
    """Return the first line that is not the same."""
    for old, new in zip(before.splitlines(), after.splitlines()):
        if old != new:
            return new.strip()
    return "a line less"


def main() -> None:
    """Try the modules asked for, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", choices=[*TARGETS, []], metavar="MODULE")
    args = parser.parse_args()
    sys.dont_write_bytecode = True
    training = any("train/" in TARGETS[name][0] for name in args.modules or TARGETS)
    for name in HEAVY + (TRAINING if training else ()):
        importlib.import_module(name)  # once, here, rather than in each child
    place = copy_of_the_package()
    try:
        shares = [try_module(name, place) for name in args.modules or TARGETS]
    finally:
        shutil.rmtree(place)
    sys.exit(min(shares) < WANTED)


if __name__ == "__main__":
    main()
