"""SFT and GRPO on the tiny model: labels, parity, resume, completions, and the fix that stock TRL lacks."""

import json
from dataclasses import replace

import pandas
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from unsloth_contract import architecture

from stlite.data import prompts
from stlite.data.video import ClipError
from stlite.rewards.parse import parse
from stlite.rewards.rewards import PRESETS
from stlite.train import checkpoints
from stlite.train import grpo as rollouts
from stlite.train import preflight as gates
from stlite.train import sft as train
from stlite.train.models import load, looking

SMALL = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "disable_tqdm": True}
GROUP = {"num_generations": 4, "max_completion_length": 48, **SMALL}


def adapter(out) -> dict:
    """Read the adapter that a run saved."""
    return load_file(out / "adapter" / "adapter_model.safetensors")


def test_labels_are_the_reply_alone(tiny, training, videos):
    _, processor = tiny
    rows = [
        training[0],
        next(s for s in training if len(s.steps_forward) != len(training[0].steps_forward)),
    ]
    for recipe in ("st-cot", "forward-cot", "label"):
        with looking(processor, videos):
            batch = train.Collator(processor, recipe)(rows)
        for sample, ids, labels in zip(rows, batch["input_ids"], batch["labels"]):
            told = processor.decode(labels[labels != -100], skip_special_tokens=False)
            assert told.strip() == prompts.target(sample, recipe) + "<|im_end|>"
            assert parse(told.removesuffix("\n").removesuffix("<|im_end|>")).answer == sample.answer
            assert (ids[labels != -100] == labels[labels != -100]).all()
    assert batch["pixel_values_videos"].shape[0] == 2 * 8 * 6 * 6


def test_labels_can_be_taught_under_the_direct_question(tiny, training, videos):
    _, processor = tiny
    for direct, asked, not_asked in (
        (True, prompts.DIRECT_INSTRUCTION, prompts.INSTRUCTION),
        (False, prompts.INSTRUCTION, prompts.DIRECT_INSTRUCTION),
    ):
        with looking(processor, videos):
            batch = train.Collator(processor, "label", direct=direct)(training[:1])
        labels = batch["labels"][0]
        text = processor.decode(batch["input_ids"][0])
        reply = processor.decode(labels[labels != -100])
        assert asked in text and not_asked not in text
        assert reply.strip() == prompts.target(training[0], "label") + "<|im_end|>"


def test_an_unreadable_video_stops_training_by_name(tiny, training, videos):
    _, processor = tiny
    lost = replace(training[0], video="part1/lost.mp4")
    with looking(processor, videos), pytest.raises(ClipError, match="part1/lost.mp4"):
        train.Collator(processor, "label")([lost])


def test_sft_learns_and_resumes_where_it_stopped(training, videos, tmp_path):
    """Six steps in one go, and four then two after an interruption and a half-written newer checkpoint, end the same."""
    how = {
        "videos": videos,
        "learning_rate": 2e-3,
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 3,
        **SMALL,
    }
    rows = training[:8]
    train.sft(*load("tiny"), rows, tmp_path / "whole", **how)
    log = [
        row["loss"]
        for row in json.loads((tmp_path / "whole" / "log.json").read_text())
        if "loss" in row
    ]
    assert log[-1] < log[0]
    stopped = tmp_path / "parted"
    with pytest.raises(KeyboardInterrupt):
        train.sft(*load("tiny"), rows, stopped, callbacks=[StopAt(4)], **how)
    assert not (stopped / "adapter").exists()
    assert checkpoints.last_checkpoint(stopped).endswith(
        "checkpoint-4"
    )  # saved by the interruption
    (stopped / "checkpoints" / "checkpoint-5").mkdir()
    (stopped / "checkpoints" / "checkpoint-5" / "trainer_state.json").write_text(
        '{"global_step": 5, "log_his'
    )
    train.sft(*load("tiny"), rows, stopped, **how)
    for name, value in adapter(tmp_path / "whole").items():
        assert torch.allclose(value, adapter(stopped)[name], atol=1e-6), name


class StopAt(TrainerCallback):
    """Interrupt training in the middle of a step."""

    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        """Raise KeyboardInterrupt once enough steps are done."""
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def trainer(tiny, training, videos, tmp_path_factory):
    """Build the GRPO trainer over nf4 weights, as `grpo` does, looking at the shipped videos."""
    model, processor = tiny
    with looking(processor, videos):
        yield rollouts.make_trainer(
            model,
            processor,
            training[:4],
            tmp_path_factory.mktemp("grpo"),
            PRESETS["st-r1"],
            settings=rollouts.GRPO | GROUP,
        )


def test_parity_holds_and_the_pixels_matter(trainer):
    found = gates.check_parity(trainer)
    assert found["max"] <= 1e-4
    assert found["no_pixels_delta"] > 1000 * found["max"]


@pytest.fixture(scope="module", params=["qwen2", "qwen2.5", "qwen3"])
def other(request, training, videos, tmp_path_factory):
    """Build a GRPO trainer for a model of random weights; Qwen2.5-VL needs its clock, Qwen3-VL its timestamps."""
    folder = tmp_path_factory.mktemp(request.param)
    model, processor = load(str(architecture(request.param, folder)), four_bit=False)
    settings = rollouts.GRPO | GROUP | {"max_completion_length": 8}
    with looking(processor, videos):
        yield rollouts.make_trainer(
            model, processor, training[:4], folder, PRESETS["st-r1"], settings=settings
        )


def test_parity_holds_on_the_other_architectures(other):
    found = gates.check_parity(other)
    assert found["max"] <= 1e-4
    assert found["no_pixels_delta"] > 100 * found["max"]


def test_a_prompt_read_once_for_its_copies_gives_the_same_replies_log_probs_and_gradients(other):
    asked = [other.train_dataset[i]["prompt"] for i in (0, 1, 0, 0)]
    batch, found, tokens = gates._rollouts(other, asked), [], []
    core = other.model.get_base_model()
    counter = core.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: tokens.append(kwargs["inputs_embeds"].shape[:2].numel()),
        with_kwargs=True,
    )
    for alike in (True, False):
        tokens.clear()
        torch.manual_seed(0)
        ids, _, fields = other._tokenize_prompts(asked)
        if not alike:
            other.copies = [0, 1, 2, 3]
        replies, _ = other._generate_single_turn(ids, None, fields, 1)
        with other.showing(torch.arange(4)):
            logps = other._get_per_token_logps_and_entropies(
                other.model, batch["ids"], batch["mask"], batch["keep"]
            )[0]
        other.model.zero_grad()
        (logps * torch.arange(1, 5)[:, None]).sum().backward()
        grads = torch.cat(
            [p.grad.flatten() for p in other.model.parameters() if p.grad is not None]
        )
        found.append((replies, logps.detach(), grads.clone(), sum(tokens)))
    counter.remove()
    other.model.zero_grad()
    (replies, logps, grads, few), (replies_2, logps_2, grads_2, many) = found
    assert replies == replies_2
    assert torch.allclose(logps, logps_2, atol=1e-5) and grads.abs().max() > 0
    assert (grads - grads_2).abs().max() <= 1e-5 * grads_2.abs().max()
    assert few < 0.7 * many  # two prompts of four are read


def test_parity_stops_a_trainer_that_forgets_the_video(trainer, monkeypatch):
    """Stock TRL shows no video to its log-prob passes: with our forward pass taken out, the gate must close."""
    core = trainer.model.get_base_model()
    monkeypatch.setattr(core, "forward", core.forward.__wrapped__)
    with pytest.raises(RuntimeError, match=r"parity.*pixels do not reach"):
        gates.check_parity(trainer)


def test_log_probs_do_not_depend_on_how_they_are_batched(trainer):
    batch = gates._rollouts(trainer, [trainer.train_dataset[i]["prompt"] for i in range(4)])
    with torch.no_grad(), trainer.showing(torch.arange(4)):
        at_once, by_one = (
            trainer._get_per_token_logps_and_entropies(
                trainer.model, batch["ids"], batch["mask"], batch["keep"], batch_size=size
            )[0]
            for size in (4, 1)
        )
    assert torch.allclose(at_once, by_one, atol=1e-4)


def test_clips_of_different_length_are_parted_and_joined():
    grids = torch.tensor([[2, 2, 2], [3, 2, 4]])
    fields = {"pixel_values_videos": torch.arange(32.0)[:, None], "video_grid_thw": grids}
    clips = rollouts.split_clips(fields, 2)
    assert [len(c["pixel_values_videos"]) for c in clips] == [8, 24]
    joined = rollouts.join_clips([clips[1], clips[0]])
    assert joined["video_grid_thw"].tolist() == grids.tolist()[::-1]
    assert joined["pixel_values_videos"][0] == 8
    with pytest.raises(ValueError, match="one video in each of 3 prompts"):
        rollouts.split_clips(fields, 3)


def test_a_dry_run_takes_the_largest_sample_and_leaves_no_trace(trainer):
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    before, state = [p.detach().clone() for p in trained], torch.get_rng_state()
    lengths = []
    handle = trainer.model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    found = gates.dry_run(trainer)
    handle.remove()
    assert lengths[-1] == (4, found["tokens"] + 48)  # the group, with completions of full length
    texts = {
        row["id"]: len(str(row["prompt"])) for row in (trainer.train_dataset[i] for i in range(4))
    }
    assert found["tokens"] == max(
        len(trainer._tokenize_prompts([trainer.train_dataset[i]["prompt"]])[0][0]) for i in range(4)
    ), texts
    assert found["gb"] > 0.1
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, trained))
    assert torch.equal(state, torch.get_rng_state())
    assert not trainer._logs["completion"]
    trainer.shown = None


@pytest.mark.parametrize(
    ("size", "setting"), [(4, "per_device_train_batch_size"), (1, "frames or max_pixels")]
)
def test_a_dry_run_out_of_memory_names_the_setting_to_lower(trainer, monkeypatch, size, setting):
    """A true out-of-memory error: the loss asks for more than any machine has."""
    monkeypatch.setattr(trainer.args, "per_device_train_batch_size", size)
    monkeypatch.setattr(trainer.args, "steps_per_generation", 4 // size)
    monkeypatch.setattr(type(trainer), "_compute_loss", lambda *args: torch.empty(2**50))
    with pytest.raises(RuntimeError, match=f"memory: .* does not fit. Lower {setting}"):
        gates.dry_run(trainer)


def test_rows_a_backward_are_halved_until_they_fit_and_the_adapter_stays_the_same(
    training, videos, tmp_path, monkeypatch, capsys
):
    """A true out-of-memory error wherever more than two rows go through one backward."""
    plain, made = rollouts.VideoGRPOTrainer._compute_loss, {}

    def small(self, model, inputs):
        return (
            plain(self, model, inputs) if len(inputs["completion_ids"]) <= 2 else torch.empty(2**50)
        )

    for name, loss in (("whole", plain), ("parted", small)):
        monkeypatch.setattr(rollouts.VideoGRPOTrainer, "_compute_loss", loss)
        model, processor = load("tiny")
        how = {
            "videos": videos,
            "max_steps": 2,
            "learning_rate": 1e-3,
            "temperature": 1.2,
            "dry": True,
            **GROUP,
        }
        rollouts.grpo(model, processor, training[:4], tmp_path / name, **how)
        made[name] = adapter(tmp_path / name)
    assert "out of memory with 4 rows a backward: 2, 2 times a step" in capsys.readouterr().out
    settings = json.loads((tmp_path / "parted" / "train.json").read_text())
    assert (settings["per_device_train_batch_size"], settings["gradient_accumulation_steps"]) == (
        2,
        2,
    )
    for key, value in made["whole"].items():
        assert torch.allclose(value, made["parted"][key], atol=1e-5), key


def test_grpo_takes_steps_on_video_and_keeps_what_it_saw(training, videos, tmp_path):
    model, processor = load("tiny")
    rollouts.grpo(model, processor, training[:4], tmp_path, videos=videos, rewards="st-r1-reverse", max_steps=2,
               learning_rate=1e-3, temperature=1.2, **GROUP)  # fmt: skip
    kept = pandas.concat(
        [pandas.read_parquet(p) for p in sorted((tmp_path / "completions").glob("*.parquet"))]
    )
    assert {"step", "id", "prompt", "completion", "advantage"} | {
        f.__name__ for f in PRESETS["st-r1-reverse"]
    } <= set(kept)
    assert len(kept) == 2 * 4
    assert set(kept["id"]) <= {s.id for s in training[:4]}
    assert all(
        prompts.problem(s)[:40] in p
        for s in training[:4]
        for p in kept["prompt"][kept["id"] == s.id]
    )
    assert "<|video_pad|>" not in "".join(kept["completion"])
    moved = [v.abs().max() for n, v in adapter(tmp_path).items() if "lora_B" in n]
    assert max(moved) > 0
    settings = json.loads((tmp_path / "train.json").read_text())
    assert settings["parity"]["max"] <= 1e-4
    assert settings["seed"] == 0
    again, _ = load("tiny", adapter=tmp_path / "adapter")
    assert {n for n, p in again.named_parameters() if p.requires_grad}


def test_two_samples_of_one_id_are_refused(training):
    with pytest.raises(ValueError, match="different ids"):
        rollouts.rows([training[0], training[0]])
