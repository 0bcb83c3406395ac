"""What the README and the pages in docs show is there and runs: links, commands, code, tables, pictures."""

import ast
import inspect
import io
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stlite
from stlite import __main__ as command
from stlite.data import prompts
from stlite.data.egost import read_benchmark
from stlite.data.video import read_clip
from stlite.rewards.parse import parse
from stlite.train import models, sft
from stlite.train.durations import minutes, table
from stlite.train.memory import LEFT_TO_CUDA, largest_batches, plan
from stlite.train.presets import READING, settings
from stlite.train.shapes import CONFIGS, count_weights, shape
from stlite.viz import figures, plots

ROOT = Path(__file__).parent.parent
DOCS = {path.stem: path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {"README.md": README} | {f"docs/{name}.md": text for name, text in DOCS.items()}
for name in ("RESULTS.md", "CHANGELOG.md", "CONTRIBUTING.md"):
    PAGES[name] = (ROOT / name).read_text("utf-8")
LINKS = [
    (page, link)
    for page, text in PAGES.items()
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
]
PROGRAMS = ("make", "stlite", "python", "pip", "accelerate", "git", "vllm", "convert_hf_to_gguf.py")
FROM_PYPI = ("trackio",)  # optional, named where the page says what it is for
NOT_OURS = ("vllm", "convert_hf_to_gguf.py")  # named where the page says that they were not tried


def commands(text: str) -> list[str]:
    """List the commands of a page, in blocks and in lines; a comment behind one is cut off."""
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", text, re.M | re.S))
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    lines = [line.split("#")[0].strip() for line in blocks.splitlines() + inline]
    return [line for line in lines if line.split(" ")[0] in PROGRAMS and " " in line]


def code(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.S)


def rows(text: str, columns: int) -> list[list[str]]:
    """List the cells of the rows of tables with so many columns, marks of code taken off."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if len(row) == columns]


# ---- links, names, commands


def test_every_notebook_and_page_is_linked():
    linked = {link for page, link in LINKS if page == "README.md"}
    assert {f"notebooks/{p.name}" for p in (ROOT / "notebooks").glob("*.ipynb")} <= linked
    assert {f"docs/{name}.md" for name in DOCS} <= linked


@pytest.mark.parametrize("page, link", LINKS)
def test_links_lead_somewhere(page, link):
    assert ((ROOT / page).parent / link).exists()


def test_no_repository_is_linked():
    for page, text in PAGES.items():
        assert "github.com" not in text, page


def test_the_first_table_names_what_stlite_exports():
    first = README.split("## Install")[0]
    names = []
    for row in rows(first, 3):
        names += re.findall(r"\w+", row[1].replace("you call", ""))
    assert len(names) > 8
    assert set(names) <= set(stlite.PLACES)


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_ones_that_exist(page):
    for line in commands(PAGES[page]):
        check_command(page, shlex.split(line))


def check_command(page: str, words: list[str]):
    """Fail where a command names what is not there; an unknown kind of command fails too."""
    if words[:3] == ["python", "-m", "stlite"]:
        words = words[2:]
    program, first, *rest = words
    if program == "make":
        assert re.search(
            rf"^{first}:|^(\w+ )*{first}( \w+)*:", (ROOT / "Makefile").read_text(), re.M
        ), words
    elif program == "stlite":
        assert first in command.COMMANDS, words
    elif program == "python":
        assert (ROOT / first).is_file(), words
    elif program == "pip":
        assert first == "install", words
        named = [word for word in rest if not word.startswith("-")]
        assert named, words
        assert all(word in FROM_PYPI or (ROOT / word).exists() for word in named), words
    elif program == "accelerate":
        assert page == "docs/several_gpus.md", words  # tested below
    elif program in NOT_OURS:
        assert "**not tried**" in PAGES[page].lower(), words
    else:
        assert words[:2] == ["git", "clone"], words


@pytest.mark.parametrize(
    "line", [x for text in PAGES.values() for x in commands(text) if x.startswith("stlite plan")]
)
def test_the_plans_are_printed(line, capsys):
    command.main(shlex.split(line)[1:])
    assert ("backward" if "--model" in line else "qwen3-vl-4b") in capsys.readouterr().out


def test_the_command_for_several_gpus_is_one_that_training_reads(monkeypatch):
    (line,) = [x for x in commands(DOCS["several_gpus"]) if x.startswith("accelerate launch --")]
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


# ---- code


def test_the_example_in_five_lines_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(code(README.split("## A few lines")[1])[0], {})
    assert "<answer>" in capsys.readouterr().out


SMALLER = (  # what makes the roads short: the tiny model, one step, short replies
    ("qwen3-vl-4b", "tiny"),
    ('/st-cot", videos="my_videos"', '/st-cot", videos="my_videos", max_steps=1'),
    ('/st-cot", videos=VIDEOS', '/st-cot", videos=VIDEOS, max_steps=1'),
    ("max_steps=100", "max_steps=1, max_completion_length=8"),
    ("max_new_tokens=512", "max_new_tokens=16"),
    ('red door?")', 'red door?", max_new_tokens=8)'),
    ("options=", "max_new_tokens=8, options="),
)


def shortened(source: str) -> str:
    for written, tried in SMALLER:
        source = source.replace(written, tried)
    return source


def test_the_road_from_your_own_videos_to_a_merged_model_is_one(tmp_path, monkeypatch, capsys):
    """The README's code, then the longer one of docs, which goes on with what the first has trained."""
    training, asking = code(README.split("## Your own videos")[1])
    longer, _, asking_more = code(DOCS["own_videos"])
    monkeypatch.chdir(tmp_path)
    videos = ROOT / "sample_data" / "videos"
    (tmp_path / "my_videos").symlink_to(videos)
    shutil.copy(videos / "part1" / "w0000001.mp4", tmp_path / "new_film.mp4")
    lines = ["video,direction,landmark"]
    for i, way in enumerate(("left", "right") * 3):
        lines.append(f"part1/w000000{i}.mp4,turn left; go straight; turn {way},gate; bridge; park")
    (tmp_path / "walks.csv").write_text("\n".join(lines))
    for source in (training, asking, longer, asking_more):
        exec(shortened(source), {})
    assert "st-r1 minus base" in capsys.readouterr().out
    merging = code(DOCS["sharing"])[0]
    exec(shortened(merging), {})
    assert (tmp_path / "runs" / "mine" / "merged" / "stlite.json").exists()


def test_pushing_is_called_as_it_is_defined():
    (source,) = [text for text in code(DOCS["sharing"]) if "push(" in text]
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    assert {call.func.id for call in calls} == {"push", "load"}
    for call in calls:
        function = getattr(stlite, call.func.id)
        named = {word.arg: word.value for word in call.keywords}
        inspect.signature(function).bind(*call.args, **named)


def test_the_benchmark_is_exported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    exec(code(DOCS["sharing"])[-1], {})
    (written,) = re.findall(r"`--include_path (\w+) --tasks (\w+)`", DOCS["sharing"])
    assert (tmp_path.joinpath(*written) / f"{written[1]}.yaml").exists()


def test_pushing_a_folder_that_is_not_there_is_refused_as_the_page_writes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"runs/mine/st-r1: expected a run folder"):
        exec(code(DOCS["sharing"])[1], {})


def test_the_merge_of_the_readme_is_that_of_the_page():
    (inline,) = re.findall(r"`stlite\.train\.adapters\.(merge\([^`]+\))`", README)
    assert inline in code(DOCS["sharing"])[0]


def test_two_tables_are_merged_as_the_page_writes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ana.csv").write_text("video,landmark\na.mp4,gate\nb.mp4,lamp\n")
    (tmp_path / "ben.csv").write_text("video,landmark\nb.mp4,door\nc.mp4,bench\n")
    exec(code(DOCS["own_videos"])[1], {})
    assert len((tmp_path / "walks.csv").read_text().splitlines()) == 4
    assert "ana.csv has 'lamp' (kept), ben.csv has 'door'" in capsys.readouterr().out


def test_the_table_written_by_hand_is_read(tmp_path):
    (text,) = re.findall(r"^```\n(video,.*?)^```", README, re.M | re.S)
    (tmp_path / "walks.csv").write_text(text)
    samples = stlite.annotations(tmp_path / "walks.csv")
    assert {sample.group for sample in samples} == {"flat 1"}
    first = next(s for s in samples if s.task == "direction" and s.way == "forward")
    assert first.steps_forward == ("turn left", "go straight", "turn right")


# ---- pictures and tables


def test_the_picture_shows_reverse_thinking():
    """A question about the way back, and a chain of the way there: the picture is drawn anew from them."""
    data = ROOT / "sample_data"
    samples = read_benchmark(data / "benchmark", videos=data / "videos")
    sample = next(s for s in samples if s.id == "w0200054/direction/reverse")
    reply = prompts.target(sample)
    assert parse(reply).steps == sample.steps_forward
    reading = {key: settings("tiny")[key] for key in READING}
    clip = read_clip(sample.video, root=data / "videos", **reading)
    path = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)[0]
    shipped = grey((ROOT / path).read_bytes())
    drawn = grey(figures.png(plots.chain(clip, sample, reply)))
    assert shipped.shape == drawn.shape
    assert np.abs(shipped - drawn).mean() < 3  # of 255 grey levels: other decoders and fonts


def grey(png: bytes) -> np.ndarray:
    """Return the pixels of a picture (H,W), 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"), float)


def test_the_number_of_walks_is_true():
    (number,) = re.findall(r"(\d+) rendered walks and", README)
    assert len([*(ROOT / "sample_data" / "videos").rglob("*.mp4")]) == int(number)


def test_the_cards_of_the_readme_are_what_is_predicted():
    shown = [row for row in rows(README, 5) if row[1] in CONFIGS]
    assert len(shown) == 5
    for card, preset, memory, gpu, stages in shown:
        sft_peak = plan(preset, generations=0, batch=1, completion=150)["total"]
        grpo_peak = plan(preset)["total"]
        assert memory == f"{sft_peak:.1f}, {grpo_peak:.1f}"
        assert stages == " + ".join(f"{stage:.0f}" for stage in minutes(preset, gpu).values())
        assert grpo_peak + LEFT_TO_CUDA <= int(re.match(r"\d+", card)[0])


def test_the_tables_of_cards_are_what_is_predicted():
    parts = DOCS["cards"].split("\n## ")
    by_title = {part.split("\n")[0]: part for part in parts}
    memory = [row for row in rows(by_title["Memory"], 5) if row[0] in CONFIGS]
    expected = []
    for name in CONFIGS:
        weights = 2 * sum(count_weights(shape(name)).values()) / 1e9
        peaks = [
            plan(name, generations=0, batch=1, completion=150)["total"],
            plan(name, prompts=1)["total"],
            plan(name)["total"],
        ]
        expected.append([name, *(f"{amount:.1f}" for amount in (weights, *peaks))])
    assert memory == expected
    batches = [row for row in rows(by_title["The largest batch"], 5) if row[0] in CONFIGS]
    assert batches == [[str(cell or "–") for cell in row.values()] for row in largest_batches()]
    times = [row for row in rows(by_title["Minutes"], 5) if row[0] in CONFIGS]
    assert times == [list(row.values()) for row in table()]


def test_what_to_load_fits():
    """A preset recommended for a card fits it, with as many questions a step as the page says."""
    advice = [row for row in rows(DOCS["cards"].split("## Memory")[0], 3) if row[0].endswith(" GB")]
    assert len(advice) == 4
    for card, ours, papers in advice:
        for part in (*ours.split("; "), papers.split("; ")[-1]):
            prompts_a_step = 1 if "one question" in part else 2 if "two questions" in part else 4
            frames = 16 if "more frames" in part else 8
            for name in re.findall(r"[\w.]*qwen[\w.-]+", part):
                peak = plan(name, prompts=prompts_a_step, frames=frames)["total"]
                assert peak + LEFT_TO_CUDA <= int(card.split()[0]), (card, name, peak)


def test_every_symptom_is_one_the_code_can_show():
    source = "".join(path.read_text("utf-8") for path in (ROOT / "stlite").rglob("*.py"))
    quoted = re.findall(r"^\| `([^`]+)`", DOCS["symptoms"], re.M)
    assert len(quoted) > 8
    for message in quoted:
        for words in message.split("…"):
            assert words.strip() in source or words == "reward_std", message


def test_the_results_are_those_of_the_experiment():
    made = json.loads((ROOT / "benchmarks" / "reinforcement.json").read_text())["tables"]
    arms = {row["run"]: row for row in made["Arms"]}
    paper = {row["arm"]: row["the paper"] for row in made["Beside the paper"]}
    shown = re.findall(r"^\| .+? \| ([\d.]+) \[([\d.]+), ([\d.]+)\] \| ([\d.]+) \|$", README, re.M)
    names = ("base", "label-sft", "st-cot", "label-sft-grpo", "st-r1")
    expected = []
    for name in names:
        cells = [arms[name][key] for key in ("accuracy", "low", "high")] + [paper[name]]
        expected.append(tuple(f"{100 * cell:.1f}" for cell in cells))
    assert shown == expected
    gain = next(r for r in made["Planned comparisons"] if r["comparison"] == "st-r1 minus st-cot")
    numbers = tuple(f"{100 * gain[key]:.1f}" for key in ("difference", "low", "high"))
    assert re.findall(r"adds \+([\d.]+) points \[([\d.]+), ([\d.]+)\]", README) == [numbers]
    assert f"on {arms['base']['n']} choice questions" in README


def test_the_ratios_of_a_step_are_those_that_were_measured():
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    measured = {}
    peaks_of = []
    for name in ("grpo_step", "grpo_step_checkpointing"):
        for row in map(json.loads, results[name]["printed"]):
            if "ours against" in row:
                key = (row["model"], row["checkpointing"])
                measured.setdefault(key, {})[row["ours against"]] = row["step"]
                peaks_of.append(row["peak_gb"])
    shown = {}
    for model, checkpointing, images, native in rows(DOCS["cards"], 4):
        if native.startswith("0."):
            key = (model.split(" ")[0].replace("100", "100M"), checkpointing.split(",")[0])
            shown[key] = {"images": float(images), "native": float(native)}
    assert shown.keys() == measured.keys() and len(shown) == 4
    for key, ratios in shown.items():
        assert ratios == pytest.approx(measured[key]), key
    low, high = re.search(r"peak memory is ([\d.]+) to ([\d.]+)", DOCS["cards"]).groups()
    assert [float(low), float(high)] == pytest.approx([min(peaks_of), max(peaks_of)])
