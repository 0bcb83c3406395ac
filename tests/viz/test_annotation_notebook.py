"""`stlite annotate`: the notebook it writes annotates the films it was given, and what stands there stays."""

import json
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from stlite.__main__ import main
from stlite.viz.annotation_notebook import write_notebook
from tests import clips


@pytest.fixture
def films(tmp_path, monkeypatch):
    """Two films in a folder whose name needs quoting, and a table that names one of them."""
    folder = tmp_path / 'my "own" films'
    (folder / "may").mkdir(parents=True)
    for name in ("a.mp4", "may/b.mkv"):
        clips.encode(folder / name, range(20), size=(64, 48))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "walks.csv").write_text("video,landmark\na.mp4,gate\n")
    return folder


def executed(path):
    """Execute a notebook as JupyterLab does, in its own folder; return the annotator's state."""
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    [output] = notebook.cells[0].outputs
    model = output.data["application/vnd.jupyter.widget-view+json"]["model_id"]
    widgets = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    return widgets[model]["state"]


def test_the_notebook_shows_the_films_of_the_folder_and_the_rows_of_the_table(films, capsys):
    main(["annotate", films.name, "tables/walks.csv", "--no-open"])
    written = films.parent / "tables" / "walks.annotate.ipynb"
    named, opening = capsys.readouterr().out.splitlines()
    assert named == "notebook: tables/walks.annotate.ipynb"
    assert opening == 'open it: jupyter lab "tables/walks.annotate.ipynb"'
    shown = executed(written)
    assert shown["film"]["name"] == "may/b.mkv" and not shown["film"]["error"]
    assert (shown["state"]["of"], shown["state"]["annotated"]) == (2, 1)
    assert shown["state"]["words"]["landmark"] == ["gate"]


def test_a_notebook_that_is_there_is_opened_as_it_is(films):
    path = write_notebook(films, "walks.csv")
    content = json.loads(path.read_text())
    content["cells"].append(content["cells"][0] | {"id": "own", "source": ["1 +\n", " 1"]})
    path.write_text(json.dumps(content))
    before = path.read_bytes()
    assert write_notebook(films, "walks.csv") == path
    assert path.read_bytes() == before


@pytest.mark.parametrize("other", ["elsewhere", "no notebook", "a cell without a text"])
def test_a_notebook_of_something_else_is_not_touched(films, other, capsys):
    path = write_notebook(films.parent, "walks.csv")
    if other != "elsewhere":
        path.write_text('{"cells": [{}]}' if "cell" in other else other)
    before = path.read_bytes()
    with pytest.raises(SystemExit, match="2"):
        main(["annotate", str(films), "walks.csv", "--no-open"])
    assert "expected a notebook that annotates" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("folder", "table", "said"),
    [
        ("tables", "walks.csv", "expected a folder with films, found none under tables"),
        ("nowhere", "walks.csv", "expected a folder with films, found none under nowhere"),
        ('my "own" films/a.mp4', "walks.csv", "expected a folder with films, found none"),
        ('my "own" films', "walks.xlsx", "expected a table named .csv or .jsonl, found walks.xlsx"),
        ('my "own" films', "tables", "expected a table named .csv or .jsonl, found tables"),
        ('my "own" films', "tables/walks.csv/x.csv", "File exists"),
    ],
)
def test_what_makes_no_sense_is_told_and_writes_nothing(films, folder, table, said, capsys):
    before = sorted(films.parent.rglob("*"))
    with pytest.raises(SystemExit, match="2"):
        main(["annotate", folder, table, "--no-open"])
    assert said in capsys.readouterr().err
    assert sorted(films.parent.rglob("*")) == before


def test_without_jupyterlab_it_says_how_to_get_it(films, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jupyterlab", None)
    with pytest.raises(SystemExit, match="2"):
        main(["annotate", str(films)])
    assert "pip install jupyterlab" in capsys.readouterr().err
