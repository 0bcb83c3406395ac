"""Questions and replies for the tests of widgets: six about one clip, its turn known."""

from stlite.data import prompts
from stlite.data.sample import Sample
from stlite.eval.records import record

OPTIONS = ("turn around turn left", "turn around turn right")


def samples(count: int = 6, video: str = "a.mp4") -> list[Sample]:
    steps = ("turn right",), ("turn around", "turn left")
    tasks = ["direction"] * 4 + ["action"] * 2
    asked = [(f"s{i}", video, tasks[i], "reverse", f"Back? {i}", "A") for i in range(count)]
    return [Sample(*some, OPTIONS, *steps, part=f"p{i % 2}") for i, some in enumerate(asked)]


def said(s: Sample, answer: str) -> dict:
    return record(s, {"reply": prompts.reply(prompts.trace(s), answer) if answer else "well"})
