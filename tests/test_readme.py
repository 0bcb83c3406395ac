"""What the README shows is there: its tree, its links, its make targets, its code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_tree_names_every_module_once():
    tree = README.split("stlite/\n", 1)[1].split("notebooks/", 1)[0]
    assert sorted(line.split()[0] for line in tree.splitlines() if line.strip()) == sorted(
        p.stem for p in (ROOT / "stlite").glob("*.py") if p.stem != "__init__"
    )


def test_every_notebook_is_in_the_table():
    assert set(re.findall(r"notebooks/(\w+\.ipynb)", README)) == {p.name for p in (ROOT / "notebooks").glob("*.ipynb")}


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.M))))
def test_make_knows_its_targets(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


def test_the_number_of_walks_is_true():
    (number,) = re.findall(r"(\d+) rendered walks", README)
    assert len([*(ROOT / "sample_data" / "videos").rglob("*.mp4")]) == int(number)


def test_the_example_in_five_lines_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    code = re.findall(r"## In five lines\n\n```python\n(.*?)```", README, re.S)[0]
    exec(code, {})
    assert "<answer>" in capsys.readouterr().out
