"""The two audits: which replies rewards pay for, and what a run's completions show."""

from pathlib import Path

import pytest

from stlite.data import egost
from stlite.data.sample import Sample
from stlite.eval import render
from stlite.rewards import reward_audit
from stlite.rewards.rewards import (
    accuracy_reward,
    consistency_reward,
    format_reward,
    reverse_steps_reward,
    route_reward,
)

DATA = Path(__file__).parent.parent.parent / "sample_data"
BENCHMARK = egost.read_benchmark(DATA / "benchmark")
REWARDS = [accuracy_reward, format_reward, reverse_steps_reward, consistency_reward, route_reward]
BACK = Sample(
    "1", "a.mp4", "direction", "reverse", "Back?", "B",
    ("turn around turn left go straight", "turn around go straight turn right", "turn around go straight turn left"),
    ("turn left", "go straight"), ("turn around", "go straight", "turn right"),
)  # fmt: skip


def thought(text: str, answer: str = "B") -> str:
    return f"<think>{text}</think> <answer>{answer}</answer>"


def test_the_audit_of_rewards_shows_who_pays_for_what():
    found = reward_audit.audit_rewards(REWARDS, BENCHMARK[::4])
    rows = {row.pop("reply"): row for row in found["tables"]["Mean reward"]}
    assert set(rows["gold"].values()) == {1.0}
    share = sum(s.answer == "A" for s in BENCHMARK[::4]) / sum(
        s.kind == "choice" for s in BENCHMARK[::4]
    )
    assert rows["constant"]["accuracy"] == pytest.approx(share)
    for trick in (
        "hedging",
        "copy of the question",
        "tag stuffing",
        "empty",
        "very long",
        "wrong letter, gold trace",
    ):
        assert rows[trick]["accuracy"] == rows[trick]["consistency"] == 0.0
        assert rows[trick]["route"] < 0.3
    assert [trick for trick, row in rows.items() if row["reverse_steps"]] == [
        "gold",
        "wrong letter, gold trace",
    ]
    assert not any(
        rows[trick]["format"] for trick in ("copy of the question", "tag stuffing", "empty")
    )
    assert any(
        note.startswith("format also rewards: constant 1.00, hedging 1.00")
        for note in found["notes"]
    )
    assert "wrong letter, gold trace" in render.text(found)


def lenient_reward(completions, **kwargs):
    return [0.5 for _ in completions]


def test_the_audit_names_a_reward_that_pays_everything_and_gold_too_little():
    notes = reward_audit.audit_rewards([lenient_reward], [BACK])["notes"]
    assert notes[0] == "lenient gives 0.50 for the gold reply"
    assert notes[1].startswith("lenient also rewards: constant 0.50") and "empty 0.50" in notes[1]


def write(folder: Path, groups: list[list[tuple[str, float, float]]]) -> Path:
    """Write groups of (completion, accuracy, format) as a run does."""
    import pyarrow
    from pyarrow import parquet

    rows = []
    for step, group in enumerate(groups, 1):
        mean = sum(a + f for _, a, f in group) / len(group)
        rows += [
            {
                "step": step,
                "prompt": "?",
                "completion": c,
                "accuracy_reward": a,
                "format_reward": f,
                "advantage": a + f - mean,
            }
            for c, a, f in group
        ]
    for step in range(1, len(groups) + 1):
        part = [row for row in rows if row["step"] == step]
        parquet.write_table(
            pyarrow.Table.from_pylist(part), folder / f"completions_{step:05d}.parquet"
        )
    return folder


def test_a_healthy_run_fails_no_check(tmp_path):
    good = [(thought(f"I pass {x}. The answer is {x}", x), float(x == "B"), 1.0) for x in "ABCD"]
    found = reward_audit.audit_completions(
        write(tmp_path, [good[:2], good[1:3], good[1:2] + good[3:]])
    )
    rows = {row["check"]: row["share"] for row in found["tables"]["Checks"]}
    assert rows == pytest.approx(
        dict.fromkeys(rows, 0.0) | {"most chosen letter": 0.5, "rewarded for format alone": 0.5}
    )
    assert found["notes"] == ["6 completions in 3 groups; 0 of 6 checks fail"]


def test_a_sick_run_fails_every_check(tmp_path):
    same = [(thought("The answer is B", "A"), 0.0, 1.0)] * 4
    cut = [("<think>on and on", 0.0, 0.0), (thought("The answer is A", "A"), 1.0, 1.0)]
    found = reward_audit.audit_completions(write(tmp_path, [same, same, cut]))
    assert {row["check"]: row["share"] for row in found["tables"]["Checks"]} == pytest.approx({
        "most chosen letter": 1.0,
        "groups without signal": 2 / 3,
        "truncated": 0.1,
        "duplicates within a group": 0.5,
        "thinks one letter, answers another": 8 / 9,
        "rewarded for format alone": 0.8,
    })  # fmt: skip
    assert [row["letter"] for row in found["tables"]["Letters chosen"]] == ["none", "A"]
    assert found["notes"] == ["10 completions in 3 groups; 4 of 6 checks fail"]
    assert "shuffle the options" in render.text(found)


def test_a_run_without_completions_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="found 0 files"):
        reward_audit.audit_completions(tmp_path)


def test_an_id_or_any_other_column_is_no_reward(tmp_path):
    """What a run writes beside rewards does not hide that the format alone was rewarded."""
    import pyarrow
    from pyarrow import parquet

    row = {
        "step": 1,
        "prompt": "?",
        "completion": thought("x"),
        "advantage": 0.0,
        "id": "w7",
        "tokens": 9,
        "task": "route",
    }
    rewards = [(1.0, 0.0), (1.0, float("nan")), (1.0, None), (1.0, 1.0), (0.0, 0.0), (1.0, -0.5)]
    rows = [row | {"format_reward": a, "accuracy_reward": b} for a, b in rewards]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "completions_00001.parquet")
    found = reward_audit.audit_completions(tmp_path)
    shares = {check["check"]: check["share"] for check in found["tables"]["Checks"]}
    assert shares["rewarded for format alone"] == pytest.approx(4 / 6)


def test_a_run_whose_prompts_opened_the_thinking_shows_what_was_cut(tmp_path):
    import pyarrow
    from pyarrow import parquet

    row = {
        "step": 1,
        "prompt": "?",
        "advantage": 0.0,
        "accuracy_reward": 0.0,
        "thinking_opened": True,
    }
    rows = [
        row | {"completion": text}
        for text in ("so the answer is D. But", "x</think> <answer>D</answer>")
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "completions_00001.parquet")
    shares = {
        c["check"]: c["share"] for c in reward_audit.audit_completions(tmp_path)["tables"]["Checks"]
    }
    assert shares["truncated"] == pytest.approx(0.5)
    assert shares["rewarded for format alone"] is None
