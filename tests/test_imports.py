"""Imports point down the rooms and left inside one, torch stays in `train`, and all else imports fast."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "stlite"
ROOMS = {
    "data": [
        "sample",
        "languages",
        "phrases",
        "reversal",
        "moves",
        "steps",
        "prompts",
        "cache",
        "structure",
        "container",
        "decoders",
        "video",
        "paths",
        "drafts",
        "egost",
        "tables",
        "numbering",
        "cells",
        "annotation_cells",
        "annotation_file",
        "annotation_merging",
        "annotations",
        "splits",
        "defects",
        "video_checks",
        "checks",
    ],
    "rewards": [
        "parse",
        "statements",
        "answer",
        "choice",
        "route",
        "judge",
        "rewards",
        "reward_audit",
    ],
    "eval": [
        "statistics",
        "run_folder",
        "records",
        "query",
        "evaluate",
        "shortcuts",
        "metrics",
        "sentences",
        "comparisons",
        "render",
        "report",
        "conditions",
        "lmms_eval",
    ],
    "train": [
        "presets",
        "sharing",
        "shapes",
        "memory",
        "durations",
        "backend",
        "downloads",
        "vision_cache",
        "delta_net",
        "caches",
        "packed_attention",
        "chat",
        "models",
        "generation",
        "patched_processor",
        "temporal",
        "log_probs",
        "shared_prefix",
        "video_trainer",
        "checkpoints",
        "preflight",
        "adapters",
        "dry_run",
        "runs",
        "sft",
        "grpo",
    ],
    "viz": [
        "alignment",
        "figures",
        "plots",
        "frontend",
        "marks",
        "finder",
        "sample_view",
        "training_view",
        "inspector",
        "film",
        "player",
        "annotator",
        "annotation_notebook",
        "ask",
        "notebook",
    ],
}
ORDER = [f"{room}.{module}" for room, modules in ROOMS.items() for module in modules]
COUNTING = (
    "train.presets",
    "train.shapes",
    "train.memory",
    "train.durations",
)  # all of train that needs no torch
LIGHT = [name for name in ORDER if name in COUNTING or name.split(".")[0] not in ("train", "viz")]
SLOW = ("torch", "transformers", "trl", "av", "decord", "scipy", "statsmodels", "sklearn", "pandas", "pyarrow",
        "matplotlib", "IPython", "rouge_score")  # fmt: skip


def imported(path: Path) -> set[str]:
    """List the "room.module" names that a module imports anywhere, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("stlite"):
            continue
        parts = node.module.split(".")[1:]
        if len(parts) == 2:
            names.add(".".join(parts))
        else:
            names |= {".".join([*parts, alias.name]) for alias in node.names}
    return names


def test_every_module_has_its_place_in_the_order():
    modules = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.glob("*/*.py")
    }
    assert {name for name in modules if "__" not in name} == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_imports_point_one_way(name):
    allowed = set(ORDER[: ORDER.index(name)])
    assert imported(PACKAGE / f"{name.replace('.', '/')}.py") <= allowed


def in_a_fresh_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_is_not_training_or_pictures_imports_nothing_that_takes_long():
    modules = ", ".join(f"stlite.{name}" for name in LIGHT)
    assert (
        in_a_fresh_process(f"import sys, {modules}; print([m for m in {SLOW} if m in sys.modules])")
        == "[]"
    )


def test_pictures_need_no_torch():
    modules = ", ".join(f"stlite.{name}" for name in ORDER if name.startswith("viz"))
    assert in_a_fresh_process(f"import sys, {modules}; print('torch' in sys.modules)") == "False"
