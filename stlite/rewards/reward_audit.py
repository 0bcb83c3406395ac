"""Rewards tried on replies that deserve nothing, and the completions of a run looked through, for `render.text`."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from stlite.data import prompts
from stlite.data.sample import LETTERS, Sample
from stlite.rewards.choice import letter
from stlite.rewards.parse import parse

COLUMNS = ("task", "way", "kind", "options", "answer", "steps_forward", "steps_reverse")
NOT_REWARDS = ("step", "prompt", "completion", "advantage")
CHECKS = {  # check: (the most it may be, what to do about it)
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
    "paid for format alone": (
        0.5,
        "the tags are learnt, the answers are not: drop the format reward for a while",
    ),
}


def adversarial_replies(sample: Sample) -> dict[str, str]:
    """Write the gold reply to a sample, and replies that deserve nothing for it."""
    chain, choices = (
        sample.trace or prompts.trace(sample) or "I see it.",
        [*sample.letters] or ["left", "right"],
    )
    wrong = (
        next(x for x in LETTERS if x != sample.answer) if sample.options else "Stay where you are."
    )
    return {
        "gold": prompts.reply(chain, sample.answer),
        "constant": prompts.reply("I walk on.", "A" if sample.options else "Go straight."),
        "hedging": prompts.reply("It is one of them.", " or ".join(choices)),
        "copy of the question": prompts.problem(sample),
        "tag stuffing": "".join(prompts.reply("I walk.", x) for x in choices),
        "empty": "",
        "very long": prompts.reply("I walk on and on. " * 500, wrong),
        "wrong letter, gold trace": prompts.reply(chain, wrong),
    }


def audit_rewards(functions: Sequence[Callable], samples: Sequence[Sample]) -> dict:
    """Run the gold reply and seven adversarial replies for every sample through every reward: mean paid, None where it does not apply.

    Notes name each reward that pays less than 1 for gold, and each trick that is paid.
    """
    columns = {name: [getattr(s, name) for s in samples] for name in COLUMNS}
    written = [adversarial_replies(s) for s in samples]
    rows = [{"reply": trick} for trick in written[0]]
    notes: list[str] = []
    for function in functions:
        name = function.__name__.removesuffix("_reward")
        for row in rows:
            paid = function(completions=[replies[row["reply"]] for replies in written], **columns)
            given = [value for value in paid if value is not None]
            row[name] = fmean(given) if given else None
        if rows[0][name] not in (None, 1.0):
            notes.insert(0, f"{name} pays {rows[0][name]:.2f} for the gold reply")
        if others := [f"{row['reply']} {row[name]:.2f}" for row in rows[1:] if row[name]]:
            notes.append(f"{name} also pays: {', '.join(others)}")
    return {"title": "Who is paid for what", "notes": notes, "tables": {"Mean reward": rows}}


def audit_completions(folder: str | os.PathLike) -> dict:
    """Look through the completions that a run wrote (parquet files of step, prompt, completion, rewards, advantage).

    Six shares, each with the most it may be and a hint where it is more; then how often each letter was chosen.
    """
    import pyarrow.parquet as parquet

    files = sorted(Path(folder).glob("*.parquet"))
    if not (rows := [row for file in files for row in parquet.read_table(file).to_pylist()]):
        raise FileNotFoundError(
            f"{folder}: expected parquet files with completions, found {len(files)} files, no row"
        )
    read = [parse(row["completion"]) for row in rows]
    letters = [letter(reply, LETTERS) for reply in read]
    groups = defaultdict(list)
    for row in rows:
        groups[row["step"], row["prompt"]].append(row)
    checks = []
    for (name, (limit, hint)), share in zip(
        CHECKS.items(), _shares(rows, read, letters, groups.values())
    ):
        high = share is not None and share > limit
        checks.append({"check": name, "share": share, "limit": limit, "hint": hint if high else ""})
    chosen = [
        {"letter": x or "none", "share": n / len(rows)} for x, n in sorted(Counter(letters).items())
    ]
    note = f"{len(rows)} completions in {len(groups)} groups; {sum(bool(c['hint']) for c in checks)} of {len(checks)} checks fail"
    return {
        "title": "Completions",
        "notes": [note],
        "tables": {"Checks": checks, "Letters chosen": chosen},
    }


def _shares(rows, read, letters, groups):
    """Yield the shares in the order of CHECKS; None where there is nothing to take a share of."""
    known = [x for x in letters if x]
    yield max(Counter(known).values()) / len(known) if known else None
    yield fmean(all(abs(row["advantage"]) < 1e-6 for row in group) for group in groups)
    yield fmean(reply.reason == "truncated" for reply in read)
    yield fmean(1 - len({row["completion"] for row in group}) / len(group) for group in groups)
    thought = [letter(reply.think, LETTERS) for reply in read]
    both = [(a, b) for a, b in zip(thought, letters) if a and b]
    yield fmean(a != b for a, b in both) if both else None
    yield fmean(map(_for_format_alone, rows)) if "format_reward" in rows[0] else None


def _for_format_alone(row: Mapping) -> bool:
    others = [v for name, v in row.items() if name not in NOT_REWARDS and name != "format_reward"]
    return bool(row["format_reward"]) and not any(
        v == v and v for v in others
    )  # v == v: TRL writes NaN for None
