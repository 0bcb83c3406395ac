"""Records and models made up for the tests of evaluation: recordings that differ, a model that sees or guesses."""

import random

import numpy as np

from stlite.data.sample import Sample

TASKS = ("direction", "landmark", "action")
WAYS = ("forward", "reverse")


def record(group, task, way, value, name="", **more) -> dict:
    reason = "right" if value else "wrong"
    row = {"id": f"{group}/{task}/{way}{name}", "task": task, "way": way, "kind": "choice"}
    row |= {"part": "", "video": "a.mp4"}
    row |= {
        "group": str(group),
        "gold": "A",
        "answer": "A" if value else "B",
        "value": float(value),
    }
    row |= {
        "options": list("wxyz"),
        "reason": reason,
        "reply": "",
        "explanation": "",
        "tokens": 1,
        "seconds": 0.1,
    }
    return row | {"order": "forward"} | more


def drawn(groups: int, rate: float = 0.7, seed: int = 0, spread: float = 0.8) -> list[dict]:
    """Records of recordings that differ: some are easy, some hard."""
    rng, rows = np.random.default_rng(seed), []
    for g in range(groups):
        logit = np.log(rate / (1 - rate)) + spread * rng.standard_normal()
        rows += [
            record(g, t, w, rng.random() < 1 / (1 + np.exp(-logit))) for t in TASKS for w in WAYS
        ]
    return rows


def questions(n: int = 60) -> list[Sample]:
    made, rng = [], random.Random(0)
    for i in range(n):
        words, walk = (
            rng.sample(("gate", "bridge", "door", "tree", "car", "stairs"), 4),
            f"w{i // 3}",
        )
        asked = "landmark", WAYS[i % 2], "Which?", "ABCD"[i % 4]
        made.append(Sample(f"q{i}", f"{walk}.mp4", *asked, words, group=walk))
    return made


def seeing(orders=("forward",), skill: float = 0.9):
    """Make a model that knows the answer when the frames come in one of these orders, and else guesses a text."""

    def generate(samples, order):
        replies = []
        for s in samples:
            rng = random.Random(s.id.split("@")[0] + order)
            text = (
                s.gold
                if order in orders and rng.random() < skill
                else rng.choice(sorted(s.options))
            )
            replies.append(
                {"reply": f"<answer>{'ABCD'[s.options.index(text)]}</answer>", "tokens": 1}
            )
        return replies

    return generate
