"""The dry run: the largest sample as it will be processed, checkpointing as in training, and what was predicted."""

from dataclasses import replace

import clips
import pytest
import torch
from transformers import Trainer, TrainingArguments

from stlite.rewards.rewards import PRESETS
from stlite.train import dry_run, runs
from stlite.train.generation import encode
from stlite.train.grpo import GRPO, make_trainer
from stlite.train.models import add_lora, load
from stlite.train.sft import SFT, ChainTrainer, Collator

SMALL = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "disable_tqdm": True}


def sft_trainer(samples, root, out, recipe="st-cot", trainer=ChainTrainer, **settings):
    """Build the trainer that `sft` runs, over float32 weights."""
    model, processor = load("tiny", four_bit=False)
    model = add_lora(model)
    arguments = runs.arguments(out, SFT | SMALL | settings, seed=0)
    return trainer(
        model=model,
        args=TrainingArguments(**arguments, remove_unused_columns=False),
        train_dataset=list(samples),
        data_collator=Collator(processor, recipe, root),
        processing_class=processor,
    )


def grpo_trainer(samples, root, out, **settings):
    """Build the trainer that `grpo` runs, over float32 weights."""
    model, processor = load("tiny", four_bit=False)
    group = {"num_generations": 2, "max_completion_length": 6}
    settings = GRPO | SMALL | group | settings
    return make_trainer(
        model, processor, samples, out, PRESETS["st-r1"], settings=settings, videos=root
    )


@pytest.fixture(scope="module")
def sizes(training, tmp_path_factory):
    """Make samples whose longest text, longest reply and largest clip are different ones, on videos of three sizes."""
    root = tmp_path_factory.mktemp("videos")
    clips.encode(root / "small.mp4", range(4), size=(28, 28))
    clips.encode(root / "middle.mp4", range(16), size=(56, 56))
    clips.encode(root / "large.mp4", range(16), size=(84, 84))
    plain = training[0]
    return root, [
        replace(plain, id="text", video="small.mp4", question=plain.question + " Think well." * 3),
        replace(plain, id="reply", video="middle.mp4", trace="turn left, " * 60),
        replace(plain, id="clip", video="large.mp4"),
        replace(plain, id="none", video="small.mp4"),
    ]


def test_in_sft_the_largest_sample_is_the_one_of_most_tokens_with_its_reply(sizes, tmp_path):
    """Formerly the longest question was taken, whatever its video and its reply."""
    root, samples = sizes
    trainer = sft_trainer(samples, root, tmp_path)
    lengths = {}
    for sample in samples:
        lengths[sample.id] = trainer.data_collator([sample])["input_ids"].shape[1]
    assert max(lengths, key=lengths.get) == "reply"
    largest, tokens = dry_run.find_largest(trainer)
    assert (largest.id, tokens) == ("reply", lengths["reply"])


def test_in_grpo_the_size_of_the_clip_counts(sizes, tmp_path):
    root, samples = sizes
    trainer = grpo_trainer(samples, root, tmp_path)
    lengths = {}
    for row in trainer.train_dataset:
        inputs = encode(trainer.processing_class, [row["prompt"]], root)
        lengths[row["id"]] = inputs["input_ids"].shape[1]
    assert lengths["text"] < lengths["clip"] == max(lengths.values())
    row, tokens = dry_run.find_largest(trainer)
    assert (row["id"], tokens) == ("clip", lengths["clip"])


@pytest.mark.parametrize("build", [sft_trainer, grpo_trainer])
def test_checkpointing_is_on_in_the_dry_run_as_in_training(build, training, videos, tmp_path):
    """Formerly it was not, and rows were halved for nothing."""
    seen = []
    for wanted in (True, False):
        trainer = build(training[:2], videos, tmp_path, gradient_checkpointing=wanted)
        core = trainer.model.get_base_model()
        layers = core.model.language_model

        def note(module, *args, core=core):
            if torch.is_grad_enabled():
                seen.append(core.is_gradient_checkpointing)

        layers.register_forward_pre_hook(note)
        before = core.is_gradient_checkpointing
        dry_run.dry_run(trainer)
        assert core.is_gradient_checkpointing == before
    assert seen[0] and not seen[-1]


def test_a_dry_run_leaves_nothing_behind(training, videos, tmp_path):
    trainer = sft_trainer(training[:3], videos, tmp_path)
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    state = torch.get_rng_state()
    found = dry_run.dry_run(trainer)
    assert all(torch.equal(p, b) and p.grad is None for p, b in zip(trained, before))
    assert torch.equal(state, torch.get_rng_state())
    assert found["gb"] > 0.1 and found["seconds"] > 0 and found["predicted_seconds"] > 0


def test_steps_are_predicted_as_the_trainer_counts_them(training, videos, tmp_path, capsys):
    """One epoch of 7 rows, 4 a step: 2 steps; in GRPO 7 prompts, 2 a step: 4 of them."""
    trainer = sft_trainer(training[:7], videos, tmp_path)
    assert dry_run.predict(trainer)["steps"] == 2
    assert dry_run.predict(sft_trainer(training[:7], videos, tmp_path, max_steps=5))["steps"] == 5
    group = grpo_trainer(training[:7], videos, tmp_path)
    assert dry_run.predict(group)["steps"] == 4
    dry_run.announce(trainer)
    assert "predicted for 2 steps on CPU: 0." in capsys.readouterr().out


def test_a_larger_step_is_predicted_to_take_longer_and_more_memory(training, videos, tmp_path):
    small = dry_run.predict(grpo_trainer(training[:4], videos, tmp_path, max_steps=50))
    large = dry_run.predict(
        grpo_trainer(training[:4], videos, tmp_path, max_steps=50, max_completion_length=200)
    )
    assert large["minutes"] > small["minutes"]
    assert large["dry_run_seconds"] > small["dry_run_seconds"]


def test_a_loss_in_chunks_is_the_loss_of_the_model_itself(training, videos, tmp_path):
    """Beside transformers' own trainer: the loss of a step over two unequal micro-batches, and its gradient."""
    results = []
    for kind in (Trainer, ChainTrainer):
        trainer = sft_trainer(training[:4], videos, tmp_path, trainer=kind)
        torch.manual_seed(0)
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(0, 0.02)
        trainer.model.train()
        batches = [trainer.data_collator(training[:1]), trainer.data_collator(training[1:4])]
        trainer.current_gradient_accumulation_steps = 2
        count = trainer._get_num_items_in_batch(batches, trainer.args.device)
        losses = []
        for batch in batches:
            losses.append(trainer.training_step(trainer.model, dict(batch), count).item())
        grads = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
        results.append((losses, torch.cat(grads)))
    (plain, plain_grads), (chunked, chunked_grads) = results
    assert chunked == pytest.approx(plain, rel=1e-5)
    assert (chunked_grads - plain_grads).abs().max() <= 1e-5 * plain_grads.abs().max()


def test_the_loss_never_holds_the_logits_of_many_tokens(training, videos, tmp_path):
    trainer = sft_trainer([replace(training[0], trace="turn left, " * 60)], videos, tmp_path)
    shapes = []
    head = trainer.model.get_base_model().lm_head
    head.register_forward_hook(
        lambda module, args, logits: shapes.append(logits.shape[:-1].numel())
    )
    batch = trainer.data_collator(list(trainer.train_dataset) * 2)
    trainer.current_gradient_accumulation_steps = 1
    trainer.training_step(trainer.model, batch)
    assert sum(shapes) >= (batch["labels"] != -100).sum()
    assert max(shapes) <= 64
