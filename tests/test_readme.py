"""What the README shows is there: its tree, its links, its make targets, its code."""

import base64
import json
import re
from pathlib import Path

import nbformat
import pytest

from stlite import __main__ as command
from stlite.train import models, sft
from stlite.train.durations import minutes
from stlite.train.memory import plan
from stlite.train.shapes import CONFIGS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_every_notebook_is_in_the_table():
    assert set(re.findall(r"notebooks/(\w+\.ipynb)", README)) == {
        p.name for p in (ROOT / "notebooks").glob("*.ipynb")
    }


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


def test_the_demo_table_is_what_notebook_06_shows():
    book = nbformat.read(ROOT / "notebooks" / "06_evaluate.ipynb", 4)
    printed = "".join(
        output.get("text", "") for cell in book.cells for output in cell.get("outputs", ())
    )
    table = re.findall(r"```\n(run .*?)```", README, re.S)[0]
    assert len(table.splitlines()) == 4
    assert all(
        line.split() in [x.split() for x in printed.splitlines()] for line in table.splitlines()
    )


def test_the_table_of_memory_and_minutes_is_what_is_predicted():
    shown = re.findall(r"^\| (qwen\S+) \| (.+) \|$", README, re.M)
    assert [name for name, _ in shown] == list(CONFIGS)
    for name, cells in shown:
        sft = plan(name, generations=0, batch=1, completion=150)["total"]
        amounts = [sft, plan(name, prompts=1)["total"], plan(name)["total"]]
        stages = " + ".join(f"{stage:.0f}" for stage in minutes(name, "RTX 4070").values())
        assert cells == " | ".join([*(f"{amount:.1f}" for amount in amounts), stages])


def test_every_symptom_is_one_the_code_can_show():
    code = "".join(path.read_text() for path in (ROOT / "stlite").rglob("*.py"))
    quoted = re.findall(
        r"^\| `([^`…]+?)(?: …[^`]*)?`", README.split("## When something is wrong")[1], re.M
    )
    assert len(quoted) == 9
    for words in quoted:
        assert words.replace("memory:", "") in code or words in code or words == "reward_std", words


def test_the_command_for_several_gpus_is_one_that_training_reads(monkeypatch):
    (line,) = re.findall(r"^accelerate launch .*", README, re.M)
    words = line.split()
    assert (ROOT / words[words.index("--config_file") + 1]).exists()
    asked = {}
    monkeypatch.setattr(models, "load", lambda model, **how: (asked.update(model=model), None))
    monkeypatch.setattr(command, "read_rows", lambda data, videos: [])
    monkeypatch.setattr(
        sft, "sft", lambda model, processor, samples, out, **how: asked.update(out=out)
    )
    command.main(words[words.index("stlite") + 1 :])
    assert asked == {"model": "qwen2-vl-7b", "out": "runs/st-cot"}


def test_the_road_from_your_own_videos_to_a_merged_model_is_one(tmp_path, monkeypatch, capsys):
    """The README's code as it stands, with the tiny model, two steps and shorter replies."""
    road, merging = re.findall(r"```python\n(.*?)```", README.split("## Your own videos")[1], re.S)
    (tmp_path / "my_videos").symlink_to(ROOT / "sample_data" / "videos")
    rows = [f"part1/w000000{i}.mp4,turn left; go straight; turn {way},gate; bridge; car park" for i, way in enumerate(("left", "right") * 3)]  # fmt: skip
    (tmp_path / "walks.csv").write_text("\n".join(["video,direction,landmark", *rows]))
    monkeypatch.chdir(tmp_path)
    for written, tried in (("qwen3-vl-4b", "tiny"), ("max_steps=100", "max_steps=1"), ("max_new_tokens=512", "max_new_tokens=16"),
                           ("videos=VIDEOS)\nchoices", "videos=VIDEOS, max_steps=1)\nchoices"),
                           ("max_steps=1)\ntrained", "max_steps=1, max_completion_length=8)\ntrained")):  # fmt: skip
        assert written in road
        road = road.replace(written, tried)
    exec(road, {})
    exec(merging.replace("qwen3-vl-4b", "tiny"), {})
    assert "st-r1 minus base" in capsys.readouterr().out
    assert (tmp_path / "runs" / "mine" / "merged" / "stlite.json").exists()


def test_the_picture_is_the_one_that_notebook_00_draws():
    book = nbformat.read(ROOT / "notebooks" / "00_quickstart.ipynb", 4)
    drawn = [
        o.data["image/png"]
        for cell in book.cells
        for o in cell.get("outputs", ())
        if "image/png" in o.get("data", {})
    ]
    assert (
        base64.b64decode(drawn[-1]) == (ROOT / "notebooks" / "pictures" / "chain.png").read_bytes()
    )


def test_the_results_are_those_of_the_experiment():
    made = json.loads((ROOT / "benchmarks" / "ablation.json").read_text())["tables"]
    rows = re.findall(r"^\| (.+?) \| ([\d.]+) \[([\d.]+), ([\d.]+)\] \| ([\d.]+) \|$", README, re.M)
    recipes = {row["run"]: row for row in made["Recipes"]}
    paper = [row for row in made["Beside the paper"] if row["of"] == "the paper"]
    assert len(rows) == 5
    for (_, *shown, theirs), name, row in zip(
        rows, ("base", "sft", "st-cot", "sft-grpo", "st-r1"), paper
    ):
        assert shown == [
            f"{100 * recipes[name][key]:.1f}" for key in ("accuracy", "low", "high")
        ], name
        assert theirs == f"{100 * row['mean']:.1f}"
    last = made["Follow-up: st-r1-long minus forward-cot-long"][-1]
    said = re.findall(r"worth ([\d.]+) points \[([\d.]+), ([\d.]+)\]", README)
    assert said == [tuple(f"{100 * last[key]:.1f}" for key in ("difference", "low", "high"))]


def test_the_ratios_of_a_step_are_those_that_were_measured():
    printed = json.loads((ROOT / "benchmarks" / "results.json").read_text())["grpo_step"]["printed"]
    ratios = {
        (r["model"], r["ours against"]): r for r in map(json.loads, printed) if "ours against" in r
    }
    said = re.search(
        r"takes ([\d.]+) \(tiny\) and ([\d.]+) \(100 M.*?images, ([\d.]+) and ([\d.]+) of",
        README,
        re.S,
    ).groups()
    assert [*map(float, said)] == [
        ratios[m, w]["step"] for w in ("images", "native") for m in ("tiny", "100M")
    ]
    peaks = [r["peak_gb"] for r in ratios.values()]
    assert re.search(r"([\d.]+) to ([\d.]+) of their peak", README).groups() == (
        str(min(peaks)),
        str(max(peaks)),
    )
