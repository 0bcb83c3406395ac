"""Genuine vocabularies, special tokens and templates of each family: prompts, both stages, merge and evaluation."""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import clips
import pandas
import pytest
from genuine import genuine_tokenizer
from random_models import KINDS, genuine_architecture

from stlite.data import prompts
from stlite.data.egost import read_rows
from stlite.data.sample import Sample
from stlite.eval.evaluate import evaluate
from stlite.train import adapters
from stlite.train.generation import encode, generate
from stlite.train.grpo import grpo
from stlite.train.models import load
from stlite.train.sft import sft

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "sample_data"
PUBLISHED = ROOT.parent / "shared" / "genuine"  # beside a checkout, where somebody put them
FILES = {
    "qwen2": "qwen2-vl-2b-instruct",
    "qwen3": "qwen3-vl-4b-instruct",
    "qwen3.5": "qwen3.5-0.8b",
}
SIZES = {"wide": (1280, 720), "tall": (720, 1280), "old": (640, 480)}
QUICK = {("qwen2", False), ("qwen3", True), ("qwen3.5", False)}
WHOLE = bool(os.environ.get("STLITE_SEARCH"))  # `make soak`: the presets' own frames and pixels
READING = {} if WHOLE else {"frames": 4, "max_pixels": 128 * 128}
FEW = {"max_steps": 2, "gradient_accumulation_steps": 1, "disable_tqdm": True}


@pytest.mark.parametrize("kind", FILES)
def test_tokens_are_those_of_the_published_files(kind):
    folder = PUBLISHED / FILES[kind]
    if not folder.is_dir():
        pytest.skip(f"the published files are not at {folder}")
    from transformers import AutoTokenizer

    ours = genuine_tokenizer(kind)
    theirs = AutoTokenizer.from_pretrained(folder)
    assert ours.get_vocab() == theirs.get_vocab()
    texts = [prompts.problem(sample) + prompts.target(sample) for sample in shipped_rows()]
    texts += [
        "<think>\nI turn left.\n</think>\n\n<answer>A</answer><|im_end|>\n",
        "向左转，然后直走",
        "ein Café – naïve",
    ]
    assert ours(texts)["input_ids"] == theirs(texts)["input_ids"]


def shipped_rows() -> list[Sample]:
    return read_rows(DATA / "train" / "total_test_mcq_630.jsonl", videos=DATA / "videos")


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """Write three short films, in the sizes of phones and of old cameras."""
    folder = tmp_path_factory.mktemp("films")
    for name, size in SIZES.items():
        slow = [400 * i for i in range(24)]  # 16 s: Qwen2.5-VL tells frames apart by their seconds
        clips.encode(folder / f"{name}.mp4", range(24), size=size, pts=slow)
    return folder


@pytest.fixture(scope="module")
def rows() -> list[Sample]:
    """Two training samples of each film, their questions as they are shipped."""
    names = [*SIZES, *SIZES]
    return [replace(row, video=f"{name}.mp4") for row, name in zip(shipped_rows()[:6], names)]


@pytest.fixture(scope="module", params=KINDS)
def source(request, tmp_path_factory) -> Path:
    return genuine_architecture(request.param, tmp_path_factory.mktemp(request.param))


def test_prompts_are_whole_and_their_clips_counted(source, rows, films):
    """One pad for each two by two patches of each two frames; every question stands there word for word."""
    _, processor = load(str(source), four_bit=False)
    tokenizer = processor.tokenizer
    for sample in rows[:3]:
        inputs = encode(processor, [prompts.messages(sample)], films)
        frames, height, width = inputs["video_grid_thw"][0].tolist()
        assert frames == processor.reading["frames"] / 2
        ids = inputs["input_ids"][0].tolist()
        pads = ids.count(tokenizer.convert_tokens_to_ids("<|video_pad|>"))
        assert pads == frames * height * width / 4
        assert (height > width) == (sample.video == "tall.mp4")
        side = 14 if processor.reading["multiple"] == 28 else 16
        assert height * width * side**2 <= processor.reading["max_pixels"]
        text = tokenizer.decode(ids)
        assert prompts.problem(sample) in text
        assert text.count("<|im_start|>user") == 1
        assert text.endswith(("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n"))


@pytest.mark.parametrize("four_bit", [False, True])
def test_both_stages_merge_and_evaluation_run(source, rows, films, four_bit, tmp_path, request):
    """Two steps of SFT and of GRPO (its parity gate included), records of sampling, and a merge that verifies.

    With small clips, but in `make soak`: what a preset's clips become is what the test before looks at.
    """
    kind = request.node.callspec.params["source"]
    if (kind, four_bit) not in QUICK and not WHOLE:
        pytest.skip("half a minute each: `make soak` runs all of them, at full size")
    model, processor = load(str(source), four_bit=four_bit, **READING)
    out = tmp_path / "sft"
    sft(model, processor, rows, out, videos=films, per_device_train_batch_size=2, **FEW)
    model, processor = load(str(source), four_bit=four_bit, adapter=out / "adapter")
    model = grpo(
        model, processor, rows, tmp_path / "grpo", videos=films, num_generations=2,
        per_device_train_batch_size=2, max_completion_length=6, **FEW,
    )  # fmt: skip
    training = json.loads((tmp_path / "grpo" / "run.json").read_text())["training"]
    assert training["result"]["parity"]["max"] <= 1e-4
    kept = pandas.concat(map(pandas.read_parquet, (tmp_path / "grpo" / "completions").iterdir()))
    assert set(kept["thinking_opened"]) == {kind == "qwen3.5"}
    ask = partial(generate, model, processor, videos=films, max_new_tokens=6)
    replies = evaluate(rows[:3], ask, tmp_path / "eval", progress=False)
    assert all(row["tokens"] <= 6 and row["reason"] != "failed" for row in replies)
    assert not any(
        pad in row["reply"] for row in replies for pad in ("<|video_pad|>", "<|image_pad|>")
    )
    if four_bit:
        return
    merged = adapters.merge(str(source), tmp_path / "grpo" / "adapter", tmp_path / "merged")
    found = adapters.verify(
        merged, str(source), tmp_path / "grpo" / "adapter", rows[:2], films, max_new_tokens=6
    )
    assert found["mean"] <= 2 * found["rounding"] + 1e-6
