"""What `import stlite` and `python -m stlite` offer, and what they do not load."""

import subprocess
import sys
from pathlib import Path

import pytest

import stlite
from stlite.__main__ import main

ROOT = Path(__file__).parents[1]


def in_a_fresh_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", stlite.PLACES)
def test_every_name_is_offered_and_lies_where_it_says(name):
    assert name in dir(stlite)
    assert getattr(stlite, name).__module__ == stlite.PLACES[name]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'loads'"):
        stlite.loads  # noqa: B018


def test_importing_stlite_loads_no_torch_until_a_name_needs_it():
    code = "import sys, stlite, stlite.__main__; from stlite import Sample, evaluate, report"
    assert in_a_fresh_process(f"{code}; print('torch' in sys.modules)") == "False"
    assert (
        in_a_fresh_process("import sys; from stlite import load; print('torch' in sys.modules)")
        == "True"
    )


def test_plan_prints_memory_for_a_model_and_batches_for_all(capsys):
    main(["plan", "--model", "tiny", "batch=1", "frames=4"])
    assert "total" in capsys.readouterr().out
    main(["plan"])
    assert "qwen2-vl-7b" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["sft", "grpo", "evaluate", "report", "plan"])
def test_every_command_has_its_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0 and f"usage: stlite {command}" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["train"], ["sft", "--out", "x"], ["plan", "frames"]])
def test_a_wrong_command_line_ends_with_its_usage(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2 and "usage: stlite" in capsys.readouterr().err
