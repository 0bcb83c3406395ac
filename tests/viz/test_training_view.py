"""A run in training and its groups of rollouts, as data."""

import json
import time
from types import SimpleNamespace

import pandas

from stlite.viz.training_view import TrainingView, group_view, read_log, read_rollouts, show_group
from tests.viewed import samples


def test_a_group_without_a_signal_says_so():
    rows = [
        {"reply": "go left now", "accuracy_reward": 0.0},
        {"reply": "go right now", "accuracy_reward": 1.0},
    ]
    view = show_group(rows, "where?").view
    assert [row["text"] for row in view["rows"]] == ["go left now", "go right now"]
    assert (view["prompt"], view["caption"]) == ("where?", "2 rollouts")
    assert "teaches nothing" in group_view([rows[0]] * 2)["caption"]


def test_a_group_is_shown_with_its_question_gold_and_frames(videos, tmp_path):
    s = samples()[1]
    rows = [{"reply": "A", "accuracy_reward": 1.0}, {"reply": "B", "accuracy_reward": 0.0}]
    shown = show_group(rows, sample=s, videos=videos).view["sample"]
    assert (shown["question"], len(shown["frames"])) == ("Back? 1", 16)
    assert shown["options"][0] == ["A", s.options[0], True]
    table = {
        "prompt": ["p"] * 2,
        "id": ["s1"] * 2,
        "completion": ["A", "B"],
        "accuracy_reward": [1.0, 0.0],
    }
    (tmp_path / "completions").mkdir()
    pandas.DataFrame(table).to_parquet(tmp_path / "completions" / "completions_00001.parquet")
    view = TrainingView(tmp_path, samples(), videos).widget.view
    assert view["group"]["sample"]["question"] == "Back? 1"
    assert "sample" not in TrainingView(tmp_path).widget.view["group"]


def completions(folder, step: int, prompt: str = "where?"):
    """A file as rollouts.Completions writes it: two prompts, two rollouts each."""
    table = {"step": [step] * 4, "prompt": ["other", "other", prompt, prompt]}
    table |= {"completion": [f"reply {step}.{i}" for i in range(4)]}
    table |= {"accuracy_reward": [0.0, 1.0, 1.0, 0.0], "advantage": [-0.7, 0.7, 0.7, -0.7]}
    (folder / "completions").mkdir(parents=True, exist_ok=True)
    pandas.DataFrame(table).to_parquet(folder / "completions" / f"completions_{step:05d}.parquet")


def test_a_training_view_follows_a_real_trainer_and_shows_the_same_from_disk(tmp_path):
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_callback import CallbackHandler

    view = TrainingView(tmp_path / "run")
    assert view.widget.view["caption"] == "training, 0 entries"
    handler = CallbackHandler([view], None, None, None, None)
    args, state, control = TrainingArguments(tmp_path), TrainerState(), TrainerControl()
    handler.on_train_begin(args, state, control)
    for step in (1, 2):
        completions(tmp_path / "run", step)
        state.log_history.append({"step": step, "reward": 0.5, "kl": 0.1})
        handler.on_step_end(args, state, control)
        view.next_draw = 0
        handler.on_log(args, state, control, {"reward": 0.5})
        assert view.widget.view["caption"] == f"training, {step} entries"
    handler.on_train_end(args, state, control)
    assert [row["text"] for row in view.widget.view["group"]["rows"]] == ["reply 2.2", "reply 2.3"]
    assert view.widget.view["group"]["rows"][0]["rewards"] == {"accuracy_reward": 1.0}
    assert view.widget.view["group"]["prompt"] == "where?"
    (tmp_path / "run" / "log.json").write_text(json.dumps(state.log_history))
    assert TrainingView(tmp_path / "run").widget.view == view.widget.view
    assert [row["completion"] for row in read_rollouts(tmp_path / "run", 1)] == [
        "reply 1.2",
        "reply 1.3",
    ]


def test_two_videos_asked_in_the_same_words_are_two_groups(tmp_path):
    (tmp_path / "completions").mkdir()
    table = {
        "prompt": list("aabbbb"),
        "completion": list("uvwxyz"),
        "accuracy_reward": [0.0, 1.0] * 3,
    }
    pandas.DataFrame(table).to_parquet(tmp_path / "completions" / "completions_00001.parquet")
    assert [row["completion"] for row in read_rollouts(tmp_path)] == ["y", "z"]


def test_a_training_view_never_takes_more_than_a_twentieth_of_the_time(tmp_path):
    view = TrainingView(tmp_path)
    assert view.next_draw > time.monotonic()
    view.next_draw = time.monotonic() + 60
    drawn = view.widget.view
    view.on_log(None, SimpleNamespace(log_history=[{"step": 1, "loss": 1.0}]), None)
    assert view.widget.view is drawn
    view.on_train_end(None, None, None)
    assert view.widget.view["caption"] == "training, 1 entries"


def test_a_log_of_a_run_still_in_training_is_its_newest_checkpoints(tmp_path):
    for step in (5, 10):
        (tmp_path / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
        state = {"global_step": step, "log_history": [{"step": step}]}
        (tmp_path / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json").write_text(
            json.dumps(state)
        )
    assert read_log(tmp_path) == [{"step": 10}]
