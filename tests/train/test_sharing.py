"""Sharing: what leaves the machine, what the card says, and what is read back."""

import json
import shutil
from importlib import util
from pathlib import Path

import pytest
import torch
from answers import questions, seeing
from huggingface_hub import constants
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from stlite.eval.evaluate import evaluate
from stlite.eval.run_folder import fingerprint, write_run
from stlite.train import downloads
from stlite.train.models import load
from stlite.train.presets import PRESETS
from stlite.train.sft import sft
from stlite.train.sharing import (
    DOWNLOADED,
    UPLOADED,
    adapter_folder,
    model_card,
    model_folder,
    prepare,
    push,
)

SMALL = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "max_steps": 1, "disable_tqdm": True}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory, training, videos) -> Path:
    """Train the tiny model for one step at 8 frames, and evaluate replies under the adapter's name."""
    out = tmp_path_factory.mktemp("runs") / "small"
    model, processor = load("tiny", four_bit=False, frames=8)
    sft(model, processor, training[:2], out, videos=videos, **SMALL)
    settings = {"model": "tiny", "adapter": fingerprint(out / "adapter")}
    evaluate(questions(12), seeing(), out, settings=settings, progress=False)
    return out


def sent(folder: Path) -> set[str]:
    """Name the files that huggingface_hub would send of a folder under our patterns."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return set(filter_repo_objects(names, allow_patterns=list(UPLOADED)))


def ready(run: Path, out: Path) -> Path:
    """Prepare a run for the hub as `push` does, card included."""
    (run / "README.md").write_text(model_card(run), "utf-8")
    return prepare(run, out)


def test_the_card_of_a_run_holds_its_facts(run):
    card = model_card(run, name="you/small")
    assert "training rows: `2`" in card and "recipe or rewards: `st-cot`" in card
    assert '"frames": 8' in card and "torch " in card
    assert "accuracy [95 % interval]" in card and "| mean of choices |" in card
    assert "load('tiny', adapter='you/small')" in card
    assert "license:" not in card.split("---")[1]


def test_the_card_names_no_path_of_this_machine(run, tmp_path):
    ready(run, tmp_path)
    for path in tmp_path.iterdir():
        if path.suffix in (".md", ".json", ".txt", ".jinja"):
            text = path.read_text("utf-8")
            assert str(run) not in text and str(Path.cwd()) not in text, path.name


def test_what_was_not_recorded_is_said(tmp_path):
    card = model_card(tmp_path)
    assert card.count("not recorded") >= 8
    assert "%" not in card


def test_scores_of_other_weights_are_not_shown(run, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    save_file({"a": torch.ones(2)}, adapter / "adapter_model.safetensors")
    evaluation = {"records": "records.jsonl", "settings": {"adapter": "0123"}}
    write_run(tmp_path, {"name": "x", "evaluation": evaluation})
    (tmp_path / "records.jsonl").write_text("{}\n")
    assert "of other weights" in model_card(tmp_path)


def test_hostile_facts_stay_text(tmp_path):
    made_by = {"stage": "`</code>\n# Heading <script>", "rows": 1}
    write_run(tmp_path, {"name": "x", "training": {"made_by": made_by}})
    card = model_card(tmp_path)
    assert "\n# Heading" not in card and "`'</code> # Heading <script>`" in card


def test_an_adapter_is_sent_without_run_files_and_pickles(run, tmp_path):
    (run / "adapter" / "optimizer.bin").write_bytes(b"pickle")
    folder = ready(run, tmp_path)
    (run / "adapter" / "optimizer.bin").unlink()
    names = sent(folder)
    assert {"README.md", "adapter_model.safetensors", "adapter_config.json", "stlite.json"} <= names
    assert not names & {"run.json", "log.json", "optimizer.bin"}
    assert json.loads((folder / "stlite.json").read_text())["frames"] == 8


def test_what_was_sent_loads_with_the_frames_it_was_trained_with(run, tmp_path):
    folder = ready(run, tmp_path)
    model, processor = load("tiny", four_bit=False, adapter=folder)
    assert processor.reading["frames"] == 8
    weights = load_file(run / "adapter" / "adapter_model.safetensors")
    name, expected = next((n, w) for n, w in weights.items() if "lora_A" in n)
    loaded = model.get_parameter(name.replace(".weight", ".default.weight"))
    torch.testing.assert_close(loaded.float().cpu(), expected.float())


def test_a_card_that_was_edited_is_kept(run, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (run / "README.md").write_text("my own card", "utf-8")
    with pytest.raises(ConnectionError):
        push(run, "you/small")
    assert (run / "README.md").read_text("utf-8") == "my own card"


def test_offline_nothing_is_sent_and_it_is_said(run, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ConnectionError, match="HF_HUB_OFFLINE is set, so nothing was sent to you/small"
    ):
        push(run, "you/small")


@pytest.mark.parametrize("name", ["small", "a/b/c", ""])
def test_a_name_without_a_user_is_refused(run, name):
    with pytest.raises(ValueError, match="user/my-adapter"):
        push(run, name)


def test_a_folder_without_safetensors_is_refused_both_ways(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(ValueError, match="safetensors"):
        push(tmp_path, "you/small")
    with pytest.raises(ValueError, match="can run code"):
        adapter_folder(tmp_path)
    assert not (tmp_path / "README.md").exists()


def test_a_name_is_looked_up_in_the_hubs_cache(run, tmp_path, monkeypatch):
    """A download that is there is used without the network; pickles are not asked for."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError, match="you/small: not on this machine"):
        adapter_folder("you/small")
    repository = tmp_path / "models--you--small"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    ready(run, snapshot)
    assert adapter_folder("you/small") == snapshot
    names = ["adapter_model.safetensors", "adapter_model.bin", "code.py", "training_args.pt"]
    assert list(filter_repo_objects(names, allow_patterns=list(DOWNLOADED))) == names[:1]


def test_a_merged_model_by_name_is_read_as_it_was_trained(tmp_path, monkeypatch):
    """A name on the hub does not say the frames; the stlite.json beside the weights does."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert model_folder("you/walks", online=False) == "you/walks"
    repository = tmp_path / "models--you--walks"
    snapshot = repository / "snapshots" / ("0" * 40)
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(PRESETS["tiny"]["source"], snapshot)
    reading = {"frames": 4, "max_pixels": 3136, "multiple": 28}
    (snapshot / "stlite.json").write_text(json.dumps(reading))
    _, processor = load("you/walks", four_bit=False)
    assert processor.reading == reading


def test_a_hub_that_does_not_answer_is_not_asked_for_files(monkeypatch):
    """Each such request is tried again and again: half a minute, where one sign of life is asked for."""
    requests = []
    monkeypatch.setattr(downloads, "_hub_answers", lambda: False)
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *names, **how: requests.append(names)
    )
    with pytest.raises(ConnectionError, match="nobody/walks: not on this machine"):
        load("nobody/walks")
    assert requests == []


@pytest.mark.parametrize("name", ["missing", "/no/folder", "../folder", "a/b/c"])
def test_what_is_neither_folder_nor_name_is_refused(name):
    with pytest.raises(ValueError, match="folder or a name"):
        adapter_folder(name)


@pytest.mark.skipif(util.find_spec("trackio") is not None, reason="trackio is installed")
def test_trackio_that_is_missing_is_named(training, videos, tmp_path):
    model, processor = load("tiny", four_bit=False)
    with pytest.raises(RuntimeError, match="pip install trackio"):
        sft(model, processor, training[:2], tmp_path, videos=videos, report_to="trackio", **SMALL)
