"""Checks before the first step: unreadable videos, a time axis that collapses, prompts that are not what is taught, disks."""

import shutil
from dataclasses import replace
from pathlib import Path

import clips
import pytest
import torch
import trl
from random_models import architecture
from transformers import TrainerCallback

from stlite.rewards.rewards import PRESETS
from stlite.train import preflight, runs
from stlite.train.grpo import GRPO, grpo, make_trainer
from stlite.train.models import load
from stlite.train.sft import sft

SMALL = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "max_steps": 2, "save_steps": 1,
         "disable_tqdm": True}  # fmt: skip
GROUP = {"num_generations": 2, "max_completion_length": 6}
TEMPLATES = Path(trl.__file__).parent / "chat_templates"


class NoStep(TrainerCallback):
    """Fail where a step is taken."""

    def on_step_begin(self, args, state, control, **kwargs):
        """Raise AssertionError."""
        raise AssertionError("a step was taken")


class Stop(TrainerCallback):
    """Press the stop button before the second step."""

    def on_step_begin(self, args, state, control, **kwargs):
        """Raise KeyboardInterrupt once a step is done."""
        if state.global_step == 1:
            raise KeyboardInterrupt


# ---- videos --------------------------------------------------------------------------------------


@pytest.fixture
def some_bad(training, videos, tmp_path):
    """Return a root of videos and six samples, of which three stand on videos that cannot be read."""
    root = tmp_path / "videos"
    good = training[:3]
    for sample in good:
        (root / sample.video).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(videos / sample.video, root / sample.video)
    whole = (videos / training[3].video).read_bytes()
    (root / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "text.mp4").write_text("no video")
    bad = []
    for number, name in enumerate(("cut.mp4", "text.mp4", "missing.mp4")):
        bad.append(replace(training[4 + number], video=name))
    return root, [bad[0], *good[:2], bad[1], good[2], bad[2]]


def test_unreadable_videos_are_named_before_the_first_step(some_bad, tmp_path):
    root, samples = some_bad
    how = {"videos": root, "callbacks": [NoStep()], **SMALL}
    for stage, more in ((sft, {}), (grpo, {"parity": False, **GROUP})):
        with pytest.raises(
            ValueError, match=r"3 videos of 3 samples that cannot be read: .*cut.mp4.*leave out"
        ):
            stage(*load("tiny", four_bit=False), samples, tmp_path / stage.__name__, **how, **more)
        assert not (tmp_path / stage.__name__).exists()


def test_rows_of_unreadable_videos_may_be_left_out_and_the_run_resumed(some_bad, tmp_path, capsys):
    root, samples = some_bad
    out = tmp_path / "run"
    how = {"videos": root, "on_bad_video": "leave out", **SMALL}
    with pytest.raises(KeyboardInterrupt):
        sft(*load("tiny", four_bit=False), samples, out, callbacks=[Stop()], **how)
    assert "left out: 3 videos of 3 samples" in capsys.readouterr().out
    bad = [samples[0].id, samples[3].id, samples[5].id]
    assert runs.read_training(out)["left_out"] == sorted(bad)
    sft(*load("tiny", four_bit=False), samples, out, **how)
    record = runs.read_training(out)
    assert record["left_out"] == sorted(bad) and record["result"] and len(record["sessions"]) == 2
    sft(*load("tiny", four_bit=False), samples, out, callbacks=[NoStep()], **how)  # finished


def test_a_run_without_some_rows_is_not_gone_on_with_once_they_are_back(
    some_bad, videos, training, tmp_path
):
    root, samples = some_bad
    out = tmp_path / "run"
    how = {"videos": root, "on_bad_video": "leave out", **SMALL}
    with pytest.raises(KeyboardInterrupt):
        sft(*load("tiny", four_bit=False), samples, out, callbacks=[Stop()], **how)
    shutil.copy(videos / training[4].video, root / "missing.mp4")
    with pytest.raises(ValueError, match="begun with other .*videos_hash"):
        sft(*load("tiny", four_bit=False), samples, out, callbacks=[NoStep()], **how)


def test_which_rows_are_left_out_is_part_of_a_run(some_bad, tmp_path):
    """The same files, but another reader finds another of them bad."""
    root, samples = some_bad
    out = tmp_path / "run"
    how = {"videos": root, "on_bad_video": "leave out", **SMALL}
    with pytest.raises(KeyboardInterrupt):
        sft(*load("tiny", four_bit=False), samples, out, callbacks=[Stop()], **how)
    record = runs.read_training(out)
    runs._write_training(out, {**record, "left_out": record["left_out"][:1]})
    with pytest.raises(ValueError, match="begun with other left_out"):
        sft(*load("tiny", four_bit=False), samples, out, callbacks=[NoStep()], **how)


def test_no_row_at_all_and_an_unknown_choice_are_refused(tiny, some_bad):
    root, samples = some_bad
    _, processor = tiny
    only_bad = [samples[0], samples[3]]
    with pytest.raises(
        ValueError, match="expected one that can be read, found 2 videos of 2 samples"
    ):
        preflight.check_videos(processor, only_bad, root, "leave out")
    with pytest.raises(
        ValueError, match="on_bad_video: expected one of raise, leave out, found 'skip'"
    ):
        preflight.check_videos(processor, samples, root, "skip")
    with pytest.raises(ValueError, match="samples: expected at least one, found none"):
        preflight.check_videos(processor, [], root)


# ---- the time axis -------------------------------------------------------------------------------


def test_a_time_axis_that_collapses_stops_both_stages_before_their_first_step(
    training, videos, tmp_path
):
    """Qwen2.5-VL gives every pair of frames position 0 when they are less than half a second apart."""
    clips.encode(tmp_path / "fast.mp4", range(30), size=(56, 56))  # one second
    clips.encode(tmp_path / "slow.mp4", range(30), size=(56, 56), pts=[600 * i for i in range(30)])
    fast = replace(training[0], video="fast.mp4")
    slow = replace(training[1], video="slow.mp4")
    model, processor = load(
        str(architecture("qwen2.5", tmp_path)), four_bit=False, max_pixels=56 * 56
    )
    preflight.check_times(model, processor, [slow], tmp_path)
    how = {"videos": tmp_path, "callbacks": [NoStep()], **SMALL}
    for stage, more in ((sft, {}), (grpo, {"parity": False, **GROUP})):
        with pytest.raises(ValueError, match="time axis: expected 4 distinct temporal positions"):
            stage(model, processor, [slow, fast, slow], tmp_path / stage.__name__, **how, **more)


def test_the_tiny_model_tells_frames_apart(tiny, training, videos):
    assert preflight.check_time(*tiny, training[0], videos) == 8


def test_collapsed_time_is_an_error_with_its_fix(training, videos, tmp_path):
    """Qwen2.5-VL gives every pair of frames position 0 when they are less than half a second apart."""
    model, processor = load(
        str(architecture("qwen2.5", tmp_path)), four_bit=False, frames=64, max_pixels=56 * 56
    )
    with pytest.raises(ValueError, match="distinct temporal positions.*at most 2 frames a second"):
        preflight.check_time(model, processor, training[0], videos)


# ---- prompts -------------------------------------------------------------------------------------


@pytest.fixture
def templated(tiny):
    """Give the tiny model's processor another chat template, for one test."""
    _, processor = tiny
    plain = processor.chat_template

    def change(template: str):
        processor.chat_template = template
        return processor

    yield change
    processor.chat_template = plain


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("recipe", ["st-cot", "forward-cot", "label"])
def test_genuine_templates_that_teach_what_they_ask_pass(templated, training, name, recipe):
    processor = templated((TEMPLATES / f"{name}.jinja").read_text())
    preflight.check_prompts(processor, training, recipe)


def opening(asked: str) -> str:
    """Return a plain template that writes this where a reply is to come, and nothing where one is given."""
    return (
        "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' }}"
        "{%- for part in message.content %}{%- if part.type == 'video' %}"
        "{{- '<|vision_start|><|video_pad|><|vision_end|>' }}{%- else %}{{- part.text }}{%- endif %}{%- endfor %}"
        "{{- '<|im_end|>\n' }}{%- endfor %}"
        f"{{%- if add_generation_prompt %}}{{{{- '<|im_start|>assistant\n' + {asked} }}}}{{%- endif %}}"
    )


@pytest.mark.parametrize(
    "asked",
    [
        "'<think>\n\n</think>\n\n'",  # thinking closed for what is to come
        "'<think>\n'",  # opened
        "'Be brief.\n'",
    ],
)
def test_what_a_template_writes_before_a_reply_to_come_is_taught(templated, training, asked):
    """Such templates write nothing before a reply that is given: the reply is put behind the question here."""
    processor = templated(opening(asked))
    preflight.check_prompts(processor, training[:5], "st-cot")
    question, taught = preflight.render(processor, training[0], "st-cot")
    assert taught[: len(question)] == question
    written = processor.tokenizer.decode(taught[len(question) :])
    assert written.startswith("<think>") == (not asked.endswith("<think>\n'"))


SPACE = "{%- if add_generation_prompt %}{{- ' ' }}{%- endif %}"  # one token with the answer that follows


def test_a_prompt_whose_last_token_runs_into_the_reply_is_refused(templated, training):
    processor = templated(opening("' '"))
    message = f"in 5 of 5 rows the taught conversation does not begin with the prompt. {training[0].id}: from token"
    with pytest.raises(ValueError, match=message):
        preflight.check_prompts(processor, training[:5], "label")


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_template_that_never_ends_a_reply_is_refused(templated, training, end):
    processor = templated(opening("''").replace("<|im_end|>\n", end))
    with pytest.raises(ValueError, match="writes nothing after the assistant's reply"):
        preflight.check_prompts(processor, training[:2], "st-cot")


@pytest.mark.parametrize("change", ["part.text | upper", "part.text.split('</think>')[-1][3:]"])
def test_a_template_that_changes_what_is_taught_is_refused(templated, training, change):
    processor = templated(opening("''").replace("part.text }}", change + " }}"))
    with pytest.raises(ValueError, match="does not write the assistant's reply as it is given"):
        preflight.check_prompts(processor, training[:2], "st-cot")


def test_the_first_tokens_that_differ_are_shown(templated, training):
    """Only some rows may differ: all of them are looked at."""
    template = (TEMPLATES / "qwen2_5_vl.jinja").read_text()
    bend = "{%- if add_generation_prompt and 'landmark' in messages[-1].content[1].text %}{{- ' ' }}{%- endif %}"
    processor = templated(template + bend)
    landmarks = [sample for sample in training if "landmark" in sample.question]
    with pytest.raises(
        ValueError, match=rf"in {len(landmarks)} of {len(training)} rows.*asked ' '"
    ):
        preflight.check_prompts(processor, training, "label")


def test_sft_refuses_such_a_template_before_its_first_step(
    templated, tiny, training, videos, tmp_path
):
    processor = templated((TEMPLATES / "qwen2_5_vl.jinja").read_text() + SPACE)
    with pytest.raises(ValueError, match="chat template: in 3 of 3 rows"):
        sft(
            tiny[0],
            processor,
            training[:3],
            tmp_path,
            videos=videos,
            recipe="label",
            callbacks=[NoStep()],
            **SMALL,
        )


# ---- disks ---------------------------------------------------------------------------------------


def test_a_disk_without_room_is_refused_with_numbers(tmp_path):
    preflight.check_disk(tmp_path / "not" / "there" / "yet", 1)
    with pytest.raises(OSError, match=r"disk: .*yet: expected 1000000000.0 GB free, found \d+\.\d"):
        preflight.check_disk(tmp_path / "not" / "there" / "yet", 1e18)


def test_training_asks_for_the_room_of_its_checkpoints(training, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(
        preflight.shutil, "disk_usage", lambda path: type("usage", (), {"free": 10_000_000})
    )
    how = {"videos": videos, "callbacks": [NoStep()], **SMALL}
    with pytest.raises(OSError, match="disk: .*expected 0.1 GB free, found 0.0"):
        sft(*load("tiny", four_bit=False), training[:3], tmp_path / "run", **how)


# ---- parity --------------------------------------------------------------------------------------


@pytest.fixture
def trainer(training, videos, tmp_path):
    """Build a GRPO trainer of the tiny model in float32."""
    model, processor = load("tiny", four_bit=False)
    settings = GRPO | SMALL | {"num_generations": 2, "max_completion_length": 150}
    return make_trainer(
        model, processor, training[:3], tmp_path, PRESETS["st-r1"], settings=settings, videos=videos
    )


def test_parity_closes_on_numbers_that_are_none(trainer):
    """Comparisons with NaN are all false: a check that asks whether the difference is too large would let it pass."""
    plain = type(trainer)._get_per_token_logps_and_entropies

    def nan(self, *args, **kwargs):
        log_probs, *rest = plain(self, *args, **kwargs)
        return log_probs * float("nan"), *rest

    type(trainer)._get_per_token_logps_and_entropies = nan
    try:
        with pytest.raises(RuntimeError, match="parity: training and direct forward differ by nan"):
            preflight.check_parity(trainer)
    finally:
        type(trainer)._get_per_token_logps_and_entropies = plain


def test_parity_never_holds_the_logits_of_many_tokens(trainer):
    trainer.sampling["min_new_tokens"] = 150  # longer than a chunk
    head = trainer.model.get_base_model().lm_head
    shapes = []
    head.register_forward_hook(
        lambda module, args, logits: shapes.append(logits.shape[:-1].numel())
    )
    with torch.no_grad():
        preflight.check_parity(trainer)
    assert max(shapes) <= preflight.CHUNK
