"""GRPO on video: parity, what stock TRL lacks, groups kept together, completions on disk, and nothing left behind."""

import gc
import weakref

import pandas
import pytest
import torch
import trl
from random_models import KINDS, architecture
from safetensors.torch import load_file

from stlite.data import prompts
from stlite.rewards.reward_audit import audit_completions
from stlite.rewards.rewards import PRESETS
from stlite.train import dry_run, preflight, runs, shared_prefix, video_trainer
from stlite.train import grpo as rollouts
from stlite.train.models import load

SMALL = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "disable_tqdm": True}
GROUP = {"num_generations": 4, "max_completion_length": 48, **SMALL}


def adapter(out) -> dict:
    """Read the adapter that a run saved."""
    return load_file(out / "adapter" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def trainer(tiny, training, videos, tmp_path_factory):
    """Build the GRPO trainer over nf4 weights, as `grpo` does, looking at the shipped videos."""
    model, processor = tiny
    out = tmp_path_factory.mktemp("grpo")
    return rollouts.make_trainer(
        model,
        processor,
        training[:4],
        out,
        PRESETS["st-r1"],
        settings=rollouts.GRPO | GROUP,
        videos=videos,
    )


def test_parity_holds_and_the_pixels_matter(trainer):
    found = preflight.check_parity(trainer)
    assert found["max"] <= 1e-4
    assert found["no_pixels_delta"] > 1000 * found["max"]


@pytest.fixture(scope="module", params=KINDS)
def other(request, training, videos, tmp_path_factory):
    """Build a GRPO trainer for a model of random weights; Qwen2.5-VL needs its clock, Qwen3-VL its timestamps."""
    folder = tmp_path_factory.mktemp(request.param)
    model, processor = load(str(architecture(request.param, folder)), four_bit=False)
    settings = rollouts.GRPO | GROUP | {"max_completion_length": 8}
    return rollouts.make_trainer(
        model, processor, training[:4], folder, PRESETS["st-r1"], settings=settings, videos=videos
    )


def test_parity_holds_on_the_other_architectures(other):
    found = preflight.check_parity(other)
    assert found["max"] <= 1e-4
    assert found["no_pixels_delta"] > 100 * found["max"]


def test_parity_stops_a_trainer_that_forgets_the_video(trainer, monkeypatch):
    """Stock TRL shows no video to its log-prob passes: with its own method put back, the check must close."""

    def stock(self, model, input_ids, *args, **kwargs):
        kinds = torch.zeros_like(input_ids)
        return trl.GRPOTrainer._get_per_token_logps_and_entropies(
            self, model, input_ids, *args, mm_token_type_ids=kinds, **kwargs
        )

    monkeypatch.setattr(type(trainer), "_get_per_token_logps_and_entropies", stock)
    with pytest.raises(RuntimeError, match=r"parity.*pixels do not reach"):
        preflight.check_parity(trainer)


def test_parity_stops_a_pass_in_which_a_reply_sees_another(other, monkeypatch):
    """Plain causal attention over the packed sequence: the second reply sees the first."""
    monkeypatch.setattr(shared_prefix, "_separation", lambda *args: {})
    with pytest.raises(RuntimeError, match="parity: training and direct forward differ"):
        preflight.check_parity(other)


def test_log_probs_do_not_depend_on_how_they_are_batched(trainer):
    chats = [trainer.train_dataset[i % 2]["prompt"] for i in range(4)]
    batch = preflight._rollouts(trainer, chats)
    inputs = (trainer.model, batch["ids"], batch["mask"], batch["keep"])
    found = []
    with torch.no_grad():
        for size in (4, 3, 1):
            found.append(trainer._get_per_token_logps_and_entropies(*inputs, batch_size=size)[0])
    assert torch.allclose(found[0], found[2], atol=1e-4)
    assert torch.allclose(found[0], found[1], atol=1e-4)


def test_a_dry_run_takes_the_largest_sample_and_leaves_no_trace(trainer):
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    before, state = [p.detach().clone() for p in trained], torch.get_rng_state()
    lengths = []
    handle = trainer.model.get_base_model().model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[:2]),
        with_kwargs=True,
    )
    found = dry_run.dry_run(trainer)
    handle.remove()
    assert lengths[-1] == (1, found["tokens"] + 4 * 48)  # the group, completions of full length
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


@pytest.mark.parametrize(
    ("size", "setting"), [(4, "per_device_train_batch_size"), (1, "frames or max_pixels")]
)
def test_a_dry_run_out_of_memory_names_the_setting_to_lower(trainer, monkeypatch, size, setting):
    """A true out-of-memory error: the loss asks for more than any machine has."""
    monkeypatch.setattr(trainer.args, "per_device_train_batch_size", size)
    monkeypatch.setattr(trainer.args, "steps_per_generation", 4 // size)
    monkeypatch.setattr(type(trainer), "_compute_loss", lambda *args: torch.empty(2**50))
    with pytest.raises(RuntimeError, match=f"memory: .* does not fit. Lower {setting}"):
        dry_run.dry_run(trainer)


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
    settings = runs.read_training(tmp_path / "parted")["result"]["settings"]
    assert (settings["per_device_train_batch_size"], settings["gradient_accumulation_steps"]) == (
        2,
        2,
    )
    for key, value in made["whole"].items():
        assert torch.allclose(value, made["parted"][key], atol=1e-5), key


def brevity(completions, **kwargs) -> list[float]:
    """Reward a short reply, under a name that does not end as those of rewards do."""
    return [1 / (1 + len(completion[-1]["content"])) for completion in completions]


def test_grpo_takes_steps_on_video_and_keeps_what_it_saw(training, videos, tmp_path):
    model, processor = load("tiny")
    rewards = [*PRESETS["st-r1-reverse"], brevity]
    rollouts.grpo(model, processor, training[:4], tmp_path, videos=videos, rewards=rewards, max_steps=2,
               learning_rate=1e-3, temperature=1.2, **GROUP)  # fmt: skip
    kept = pandas.concat(
        [pandas.read_parquet(p) for p in sorted((tmp_path / "completions").glob("*.parquet"))]
    )
    assert {"step", "id", "prompt", "completion", "advantage"} | {
        f.__name__ for f in PRESETS["st-r1-reverse"]
    } <= set(kept)
    assert len(kept) == 2 * 4
    assert (kept["brevity_reward"] > 0).all() and "brevity" not in kept
    checks = audit_completions(tmp_path / "completions")["tables"]["Checks"]
    shares = {check["check"]: check["share"] for check in checks}
    assert shares["rewarded for format alone"] == pytest.approx(0.0)  # nothing is: all are brief
    assert not kept["thinking_opened"].any()
    assert set(kept["id"]) <= {s.id for s in training[:4]}
    assert all(
        prompts.problem(s)[:40] in p
        for s in training[:4]
        for p in kept["prompt"][kept["id"] == s.id]
    )
    assert "<|video_pad|>" not in "".join(kept["completion"])
    moved = [v.abs().max() for n, v in adapter(tmp_path).items() if "lora_B" in n]
    assert max(moved) > 0
    record = runs.read_training(tmp_path)
    assert record["result"]["parity"]["max"] <= 1e-4
    assert record["made_by"]["seed"] == 0
    again, _ = load("tiny", adapter=tmp_path / "adapter")
    assert {n for n, p in again.named_parameters() if p.requires_grad}


def test_two_samples_of_one_id_are_refused(training):
    with pytest.raises(ValueError, match="different ids"):
        rollouts.rows([training[0], training[0]])


def test_adapters_train_in_float32(trainer):
    """TRL casts the adapters of quantised models to bfloat16, in which a rate of 1e-5 is lost to rounding."""
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}


# ---- copies of a prompt stay together ------------------------------------------------------------


@pytest.mark.parametrize(("rows", "times"), [(8, 2), (4, 4), (2, 8)])
def test_a_backward_is_about_as_few_prompts_as_can_be(training, videos, tmp_path, rows, times):
    """Four groups of four, whatever goes through one backward; TRL alone would shuffle them apart."""
    settings = {
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": times,
        "num_generations": 4,
    }
    model, processor = load(str(architecture("qwen2", tmp_path)), four_bit=False)
    settings = rollouts.GRPO | GROUP | settings | {"max_completion_length": 4}
    trainer = rollouts.make_trainer(
        model, processor, training[:4], tmp_path, PRESETS["st-r1"], settings=settings, videos=videos
    )
    trainer.model.train()
    row = next(iter(trainer.get_train_dataloader()))
    prompts_seen, rows_seen = [], []
    for step in range(times):
        trainer._step = step
        part = trainer._prepare_inputs(row)
        rows_seen += part["row"].tolist()
        prompts_seen.append(len({trainer.copies[i] for i in part["row"].tolist()}))
        assert len(part["advantages"]) == rows
    assert prompts_seen == [max(1, rows // 4)] * times
    assert sorted(rows_seen) == list(range(16))


def test_groups_are_taken_in_random_order():
    batch = {"row": torch.arange(24), "num_items_in_batch": torch.tensor(5)}
    copies = [i // 4 for i in range(24)]
    orders = set()
    for seed in range(10):
        torch.manual_seed(seed)
        parts = video_trainer.split_by_group(batch, copies, 6)
        orders.add(tuple(copies[part["row"][0]] for part in parts))
        assert all(part["num_items_in_batch"] == 5 for part in parts)
    assert len(orders) > 5


def test_rows_of_one_prompt_need_not_stand_together():
    batch = {"row": torch.arange(6)}
    parts = video_trainer.split_by_group(batch, [0, 1, 0, 1, 0, 1], 2)
    assert sorted(sorted(part["row"].tolist()) for part in parts) == [[0, 2, 4], [1, 3, 5]]


# ---- nothing is left behind ----------------------------------------------------------------------


def test_nothing_of_the_trainer_lives_on_after_grpo(training, videos, tmp_path, monkeypatch):
    """Neither trainer nor optimizer nor the last clips hang on the model that is returned."""
    alive = []
    plain = rollouts.make_trainer

    def noted(*args, **kwargs):
        trainer = plain(*args, **kwargs)
        alive.append(weakref.ref(trainer))
        return trainer

    monkeypatch.setattr(rollouts, "make_trainer", noted)
    model, processor = load("tiny")
    how = {"max_steps": 1, **GROUP, "max_completion_length": 8, "beta": 0.1}
    for run in ("one", "another"):  # nor the reference that TRL would not make twice
        model = rollouts.grpo(model, processor, training[:4], tmp_path / run, videos=videos, **how)
    gc.collect()
    assert len(alive) == 2
    assert alive[0]() is None and alive[1]() is None
    assert "forward" not in vars(model.get_base_model())
    assert set(model.peft_config) == {"default"}
