"""What the tiny model can do, on dev walks that nothing was trained on and no result is reported on."""

from pathlib import Path

import numpy as np

from sample_data import walks
from sample_data.tiny_parts import TEXT_WALK
from stlite.data import prompts
from stlite.data.sample import Sample, replace
from stlite.rewards.parse import parse, split_steps
from stlite.rewards.rewards import score

TASKS = ("direction", "landmark", "action")
WAYS = ("forward", "reverse")
TOKENS = 96
BATCH = 48
TRIES = 8


def dev_samples(count: int, folder: Path) -> list[Sample]:
    """Draw `count` dev walks, the parts in turn, and half as many more of part 4 for its actions."""
    first = walks.SEEDS["dev"]
    samples = []
    for i in range(count):
        samples += _walk_samples(walks.draw(first + i, 1 + i % 4, "test"), folder)
    for i in range(count // 2):
        more = _walk_samples(walks.draw(first + 5000 + i, 4, "test"), folder)
        samples += [sample for sample in more if sample.task == "action"]
    return samples


def _walk_samples(walk: dict, folder: Path) -> list[Sample]:
    path = folder / f"{walk['id']}.mp4"
    if not path.exists():
        walks.write_video(walk, path)
    return walks.samples(walk, path.name, seed=1)


def ask(model, processor, samples: list[Sample], videos: Path, **settings) -> list[str]:
    """Return the replies of a model."""
    from stlite.train.generation import generate

    replies = []
    for start in range(0, len(samples), BATCH):
        part = samples[start : start + BATCH]
        answers = generate(model, processor, part, videos=videos, max_new_tokens=TOKENS, **settings)
        replies += [answer["reply"] for answer in answers]
    return replies


def lists_right(sample: Sample, reply: str) -> bool:
    """Tell whether a chain lists the annotated steps of the way it says it thinks."""
    chain = parse(reply)
    if chain.way == "forward":
        return chain.steps == sample.steps_forward
    return chain.way == "reverse" and chain.steps == sample.steps_reverse


def check(model, processor, count: int, folder: Path) -> dict[str, float]:
    """Measure seeing, reasoning over text, and the six cells of the choice tasks."""
    samples = dev_samples(count, folder)
    choices = [sample for sample in samples if sample.kind == "choice"]
    numbers = described(model, processor, samples, folder)
    numbers["over text"] = over_text(model, processor, choices)
    replies = {
        "thinking": ask(model, processor, choices, folder),
        "blank": ask(model, processor, choices, folder, order="blank"),
        "direct": ask(model, processor, choices, folder, direct=True),
    }
    for seed in range(TRIES):
        tried = ask(model, processor, choices, folder, temperature=1.0, seed=seed)
        replies[f"try {seed}"] = tried
    rows = outcomes(choices, replies)
    numbers |= cells(rows)
    for name in ("readable", "opposite", "direct", "once in eight", "tried"):
        numbers[name] = share(rows, name)
    return {name: round(float(value), 3) for name, value in numbers.items()}


def outcomes(samples: list[Sample], replies: dict[str, list[str]]) -> list[dict]:
    """Say of each question what its replies were worth, each measure from 0 to 1."""
    rows = []
    for i, sample in enumerate(samples):
        thinking = replies["thinking"][i]
        parsed = parse(thinking)
        tries = [replies[f"try {seed}"][i] for seed in range(TRIES)]
        values = [score(sample, reply).value for reply in tries]
        row = {"task": sample.task, "way": sample.way}
        row["right"] = score(sample, thinking).value
        row["chain"] = lists_right(sample, thinking)
        row["readable"] = not parsed.reason
        row["opposite"] = parsed.way not in ("", sample.way)
        row["blank"] = score(sample, replies["blank"][i]).value
        row["direct"] = score(sample, replies["direct"][i]).value
        row["tried"] = np.mean(values)
        row["once in eight"] = any(lists_right(sample, reply) for reply in tries)
        row["signal"] = max(values) > min(values)
        rows.append(row)
    return rows


def share(rows: list[dict], name: str, **chosen) -> float:
    """Average a measure over the questions whose columns are as `chosen`."""
    values = []
    for row in rows:
        if all(row[column] == value for column, value in chosen.items()):
            values.append(row[name])
    return float(np.mean(values))


def cells(rows: list[dict]) -> dict[str, float]:
    """Measure each task and way by itself, and what eight tries at temperature 1 find."""
    numbers = {}
    for task in TASKS:
        for way in WAYS:
            numbers[f"{task} {way}"] = share(rows, "right", task=task, way=way)
    numbers["mean of six"] = np.mean(list(numbers.values()))
    for task in TASKS:
        numbers[f"{task}: chain right"] = share(rows, "chain", task=task)
        numbers[f"{task}: chain right once in eight"] = share(rows, "once in eight", task=task)
        numbers[f"{task}: groups of eight with a signal"] = share(rows, "signal", task=task)
        numbers[f"{task}: frames blank"] = share(rows, "blank", task=task)
    return numbers


def described(model, processor, samples: list[Sample], folder: Path) -> dict[str, float]:
    """Return the share of annotated clauses described at their place, also behind a question."""
    routes = [s for s in samples if (s.task, s.way) == ("route", "forward")]
    question = {s.group: s for s in samples if s.kind == "choice"}
    longer = []
    for route in routes:
        text = f"{prompts.problem(question[route.group])}\n{route.question}"
        longer.append(replace(route, question=text, id=f"{route.id}+"))
    return {
        "described": clauses_right(routes, ask(model, processor, routes, folder)),
        "described behind a question": clauses_right(longer, ask(model, processor, longer, folder)),
    }


def clauses_right(routes: list[Sample], replies: list[str]) -> float:
    """Return the share of clauses, turn and landmark together, found at their place."""
    right = 0
    total = 0
    for sample, reply in zip(routes, replies):
        written = split_steps(parse(reply).answer)
        right += sum(a == b for a, b in zip(sample.steps_forward, written))
        total += len(sample.steps_forward)
    return right / total


def over_text(model, processor, samples: list[Sample]) -> float:
    """Return the share answered right when the steps are given as text in place of the video."""
    from stlite.train.generation import encode

    right = 0
    for start in range(0, len(samples), BATCH):
        part = samples[start : start + BATCH]
        chats = []
        for sample in part:
            text = f"{prompts.problem(sample)}\n{TEXT_WALK} {' '.join(sample.steps_forward)}"
            chats.append([{"role": "user", "content": [{"type": "text", "text": text}]}])
        inputs = encode(processor, chats)
        written = model.generate(**inputs, max_new_tokens=TOKENS)
        written = written[:, inputs["input_ids"].shape[1] :]
        replies = processor.batch_decode(written, skip_special_tokens=True)
        for sample, reply in zip(part, replies):
            right += score(sample, reply).value
    return right / len(samples)
