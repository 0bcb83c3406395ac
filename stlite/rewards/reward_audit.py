"""Try rewards on replies that deserve nothing, and check a run's completions, for `render.text`."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from stlite.data import prompts
from stlite.data.sample import LETTERS, Sample
from stlite.rewards.choice import chosen_letter
from stlite.rewards.parse import Reply, parse
from stlite.rewards.rewards import is_reward, reward_columns, text_of

CHECKS = {  # check: (the largest share that is fine, what to do about more)
    "most chosen letter": (
        0.5,
        "one letter is favoured: look at the keys of the data, shuffle the options",
    ),
    "groups without signal": (
        0.5,
        "all rollouts earn the same: change difficulty, temperature or rewards",
    ),
    "truncated": (
        0.1,
        "the thinking does not end: raise max_completion_length or teach shorter chains",
    ),
    "duplicates within a group": (0.5, "rollouts repeat each other: raise the temperature"),
    "thinks one letter, answers another": (
        0.05,
        "the chain does not lead to the answer: more chain SFT, or consistency",
    ),
    "rewarded for format alone": (
        0.5,
        "the tags are learnt, the answers are not: drop the format reward for a while",
    ),
}


# ---- replies that deserve nothing ------------------------------------------------------------


def adversarial_replies(sample: Sample) -> dict[str, str]:
    """Write the gold reply to a sample, and replies that deserve nothing for it."""
    chain = sample.trace or prompts.trace(sample) or "I see it."
    if sample.options:
        choices = list(sample.letters)
        constant = "A"
        wrong = "B" if sample.answer == "A" else "A"
    else:
        choices = ["left", "right"]
        constant = "Go straight."
        wrong = "Stay where you are."
    return {
        "gold": prompts.reply(chain, sample.answer),
        "constant": prompts.reply("I walk on.", constant),
        "hedging": prompts.reply("It is one of them.", " or ".join(choices)),
        "copy of the question": prompts.problem(sample),
        "tag stuffing": "".join(prompts.reply("I walk.", choice) for choice in choices),
        "empty": "",
        "very long": prompts.reply("I walk on and on. " * 500, wrong),
        "wrong letter, gold trace": prompts.reply(chain, wrong),
    }


def audit_rewards(functions: Sequence[Callable], samples: Sequence[Sample]) -> dict:
    """Tabulate the mean reward of the gold reply and of seven adversarial replies to each sample.

    A mean is None where a reward never applies. Notes name each reward that gives less than 1 for
    gold, and each adversarial reply that is rewarded.
    """
    columns = reward_columns(samples)
    written = [adversarial_replies(sample) for sample in samples]
    rows = [{"reply": name} for name in written[0]]
    for function in functions:
        for row in rows:
            completions = [replies[row["reply"]] for replies in written]
            row[_short_name(function)] = _mean(function(completions=completions, **columns))
    notes = _gold_notes(functions, rows) + _adversarial_notes(functions, rows)
    return {
        "title": "Which replies earn a reward?",
        "notes": notes,
        "tables": {"Mean reward": rows},
    }


def _short_name(function: Callable) -> str:
    return function.__name__.removesuffix("_reward")


def _mean(rewards: Sequence[float | None]) -> float | None:
    """Return the mean of the rewards that apply; None without any."""
    applicable = [reward for reward in rewards if reward is not None]
    return fmean(applicable) if applicable else None


def _gold_notes(functions: Sequence[Callable], rows: Sequence[Mapping]) -> list[str]:
    notes = []
    for name in map(_short_name, functions):
        value = rows[0][name]
        if value is not None and value < 1.0:
            notes.append(f"{name} gives {value:.2f} for the gold reply")
    return notes


def _adversarial_notes(functions: Sequence[Callable], rows: Sequence[Mapping]) -> list[str]:
    notes = []
    for name in map(_short_name, functions):
        rewarded = [f"{row['reply']} {row[name]:.2f}" for row in rows[1:] if row[name]]
        if rewarded:
            notes.append(f"{name} also rewards: {', '.join(rewarded)}")
    return notes


# ---- what a run's completions show ------------------------------------------------------------


def audit_completions(folder: str | os.PathLike) -> dict:
    """Check the completions that a run wrote.

    The folder holds parquet files with columns step, prompt, completion, advantage and rewards. The
    tables list six shares, each with its limit and a hint where it is more, and the letters chosen.
    """
    rows = _read_completions(folder)
    groups = defaultdict(list)
    for row in rows:
        groups[row["step"], row["prompt"]].append(row)
    replies = [_parse_row(row) for row in rows]
    letters = [chosen_letter(reply, LETTERS) for reply in replies]
    shares = {
        "most chosen letter": _most_chosen(letters),
        "groups without signal": fmean(map(_without_signal, groups.values())),
        "truncated": fmean(reply.reason == "truncated" for reply in replies),
        "duplicates within a group": fmean(map(_duplicates, groups.values())),
        "thinks one letter, answers another": _contradictions(replies, letters),
        "rewarded for format alone": _format_alone(rows),
    }
    checks = [_check(name, share) for name, share in shares.items()]
    failed = sum(bool(check["hint"]) for check in checks)
    chosen = []
    for letter, count in sorted(Counter(letters).items()):
        chosen.append({"letter": letter or "none", "share": count / len(rows)})
    note = f"{len(rows)} completions in {len(groups)} groups; {failed} of {len(checks)} checks fail"
    return {
        "title": "Completions",
        "notes": [note],
        "tables": {"Checks": checks, "Letters chosen": chosen},
    }


def _read_completions(folder: str | os.PathLike) -> list[dict]:
    import pyarrow.parquet as parquet

    files = sorted(Path(folder).glob("*.parquet"))
    rows = []
    for file in files:
        rows += parquet.read_table(file).to_pylist()
    if not rows:
        raise FileNotFoundError(
            f"{folder}: expected parquet files with completions, found {len(files)} files, no row"
        )
    return rows


def _parse_row(row: Mapping) -> Reply:
    return parse(text_of(row["completion"]), row.get("thinking_opened"))


def _check(name: str, share: float | None) -> dict:
    limit, hint = CHECKS[name]
    is_high = share is not None and share > limit
    return {"check": name, "share": share, "limit": limit, "hint": hint if is_high else ""}


def _most_chosen(letters: Sequence[str]) -> float | None:
    """Return the share of the most frequent letter among replies that choose one."""
    chosen = [letter for letter in letters if letter]
    return max(Counter(chosen).values()) / len(chosen) if chosen else None


def _without_signal(group: Sequence[Mapping]) -> bool:
    """Return whether all replies of a group earn the same, so that no advantage differs from 0."""
    return all(abs(row["advantage"]) < 1e-6 for row in group)


def _duplicates(group: Sequence[Mapping]) -> float:
    """Return the share of a group's replies that repeat another one."""
    different = {row["completion"] for row in group}
    return 1 - len(different) / len(group)


def _contradictions(replies: Sequence[Reply], letters: Sequence[str]) -> float | None:
    """Return the share of replies that answer another letter than their thinking names."""
    differs = []
    for reply, letter in zip(replies, letters):
        thought = chosen_letter(reply.think, LETTERS)
        if thought and letter:
            differs.append(thought != letter)
    return fmean(differs) if differs else None


def _format_alone(rows: Sequence[Mapping]) -> float | None:
    """Return the share of replies that earn the format reward and no other; None without one."""
    alone = []
    for row in rows:
        if "format_reward" in row:
            earned = [name for name, value in row.items() if is_reward(name) and _is_earned(value)]
            alone.append(earned == ["format_reward"])
    return fmean(alone) if alone else None


def _is_earned(reward: float | None) -> bool:
    return reward is not None and reward > 0  # NaN, which TRL writes for None, is not
