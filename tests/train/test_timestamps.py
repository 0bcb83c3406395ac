"""The times of frames in prompts of Qwen3-VL and Qwen3.5: bare or wrapped, one choice for every stage, and remembered."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from random_models import architecture, genuine_architecture
from transformers import AutoProcessor

from stlite.data import prompts
from stlite.data.video import read_clip
from stlite.rewards.rewards import PRESETS
from stlite.train import adapters, runs
from stlite.train.generation import encode, generate
from stlite.train.grpo import GRPO, make_trainer
from stlite.train.models import load
from stlite.train.patched_processor import patch_video_processor
from stlite.train.sft import Collator, sft

ROOT = Path(__file__).resolve().parents[2]
FORMS = ("bare", "wrapped")
KINDS = ("qwen3", "qwen3.5")
ENDS = {"qwen3": "", "qwen3.5": "<think>\n"}  # what a template opens after the assistant's name
SMALL = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "max_steps": 1, "disable_tqdm": True}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def genuine(request, tmp_path_factory):
    """Save a model of random weights with a family's genuine tokenizer and template."""
    return request.param, genuine_architecture(request.param, tmp_path_factory.mktemp("genuine"))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> str:
    """Save a model of random weights with a small vocabulary."""
    return str(architecture("qwen3", tmp_path_factory.mktemp("small")))


def prompt_by_hand(kind: str, form: str, processor, sample, videos) -> tuple[list, list]:
    """Return ids and positions (time, height, width) of a prompt, built piece by piece, as vLLM encodes the times."""
    tokenizer = processor.tokenizer
    start, pad, end = tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|video_pad|>", "<|vision_end|>"])  # fmt: skip
    clip = read_clip(sample.video, root=videos, **processor.reading)
    height, width = (side // 32 for side in clip.frames.shape[1:3])
    ids, positions = [], []
    now = 0

    def text(tokens):
        nonlocal now
        for token in tokens:
            ids.append(token)
            positions.append((now, now, now))
            now += 1

    text(tokenizer("<|im_start|>user\n")["input_ids"])
    if form == "wrapped":
        text([start])
    for first, second in clip.seconds.reshape(-1, 2):
        text(tokenizer(f"<{(first + second) / 2:.1f} seconds>")["input_ids"])
        text([start])
        for row in range(height):
            for column in range(width):
                ids.append(pad)
                positions.append((now, now + row, now + column))
        now += max(height, width)
        text([end])
    if form == "wrapped":
        text([end])
    rest = f"{prompts.problem(sample)}<|im_end|>\n<|im_start|>assistant\n{ENDS[kind]}"
    text(tokenizer(rest)["input_ids"])
    return ids, positions


@pytest.mark.parametrize("form", FORMS)
def test_tokens_positions_and_pixels_stand_where_they_belong(genuine, form, training, videos):
    kind, folder = genuine
    model, processor = load(str(folder), four_bit=False, timestamps=form)
    sample = training[0]
    inputs = encode(processor, [prompts.messages(sample)], videos)
    ids, positions = prompt_by_hand(kind, form, processor, sample, videos)
    assert inputs["input_ids"][0].tolist() == ids
    seen = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    with torch.no_grad():
        model(**inputs)
        features = model.model.visual(
            inputs["pixel_values_videos"], grid_thw=inputs["video_grid_thw"]
        ).pooler_output
    hook.remove()
    found = seen[0]["position_ids"][-3:, 0].T.tolist()  # some models put another row before
    assert [tuple(place) for place in found] == positions
    is_pad = inputs["input_ids"][0] == processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    torch.testing.assert_close(seen[0]["inputs_embeds"][0, is_pad], features)


def test_the_default_is_the_form_that_the_models_came_out_with(genuine, training, videos):
    """Two tokens fewer than transformers would write."""
    _, folder = genuine
    _, processor = load(str(folder), four_bit=False)
    assert processor.timestamps == "bare"
    chats = [prompts.messages(training[0])]
    lengths = []
    for form in FORMS:
        processor.timestamps = form
        lengths.append(encode(processor, chats, videos)["input_ids"].shape[1])
    assert lengths[1] - lengths[0] == 2


@pytest.mark.parametrize("form", FORMS)
def test_sft_grpo_evaluation_and_a_patched_processor_ask_the_same(
    small, form, training, videos, tmp_path
):
    model, processor = load(small, four_bit=False, timestamps=form)
    sample = training[0]
    (asked,) = encode(processor, [prompts.messages(sample)], videos)["input_ids"].tolist()
    taught = Collator(processor, "st-cot", videos)([sample])["input_ids"][0].tolist()
    assert taught[: len(asked)] == asked
    how = {"num_generations": 2, "per_device_train_batch_size": 2}
    trainer = make_trainer(
        model, processor, [sample], tmp_path, PRESETS["st-r1"], settings=GRPO | how, videos=videos
    )
    row = trainer.train_dataset[0]
    assert trainer._tokenize_prompts([row["prompt"]])[0] == [asked]
    assert generate.sampling(model, processor)["timestamps"] == form
    patch_video_processor(processor, videos)
    again = processor.apply_chat_template(
        [row["prompt"]], tokenize=True, add_generation_prompt=True, return_dict=True
    )
    assert again["input_ids"] == [asked]
    processor.save_pretrained(tmp_path / "saved")
    assert type(AutoProcessor.from_pretrained(tmp_path / "saved")).__name__ == "Qwen3VLProcessor"


def test_runs_adapters_and_merged_folders_remember_it(small, training, videos, tmp_path):
    run = tmp_path / "run"
    model, processor = load(small, four_bit=False, timestamps="wrapped", frames=4)
    sft(model, processor, training[:2], run, videos=videos, **SMALL)
    reading = runs.read_training(run)["made_by"]["reading"]
    assert (reading["timestamps"], reading["frames"]) == ("wrapped", 4)
    assert json.loads((run / "adapter" / "stlite.json").read_text()) == reading
    for how in ({"preset": str(run)}, {"preset": small, "adapter": run / "adapter"}):
        _, again = load(**how, four_bit=False)
        assert {**again.reading, "timestamps": again.timestamps} == reading
    merged = adapters.merge(small, run / "adapter", tmp_path / "merged")
    _, again = load(str(merged), four_bit=False)
    assert {**again.reading, "timestamps": again.timestamps} == reading
    model, processor = load(small, four_bit=False, frames=4)
    with pytest.raises(ValueError, match=r"timestamps \(wrapped then, bare now\)"):
        sft(model, processor, training[:2], run, videos=videos, **SMALL)


def test_a_run_from_before_the_choice_was_wrapped(small, training, videos, tmp_path):
    sft(*load(small, four_bit=False), training[:2], tmp_path, videos=videos, **SMALL)
    record = json.loads((tmp_path / "run.json").read_text())
    del record["training"]["made_by"]["reading"]["timestamps"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert load(str(tmp_path), four_bit=False)[1].timestamps == "wrapped"


def test_another_choice_is_refused(small):
    with pytest.raises(ValueError, match="timestamps: expected one of bare, wrapped, found 'none'"):
        load(small, four_bit=False, timestamps="none")
    with pytest.raises(ValueError, match="expected none for tiny"):
        load("tiny", four_bit=False, timestamps="bare")


def test_gpu_check_asks_the_base_both_ways(small):
    check = runpy.run_path(str(ROOT / "benchmarks" / "gpu_check.py"))["check_timestamps"]
    found = check(small, 4, 2)
    assert found["found"].startswith("bare: ") and found["beside"].startswith("wrapped: ")
    assert "hold no times" in check("tiny", 4, 2)["found"]
