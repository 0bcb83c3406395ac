"""What the model is asked and taught to answer: one prompt for SFT, GRPO, evaluation and widgets.

<video> Please take an egocentric view ... Options: A. turn left go straight, B. ...
<think>Let's start by thinking reverse ... Hence, the correct answer is A</think> <answer>A</answer>
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from stlite.data.sample import LETTERS, Sample
from stlite.data.steps import Steps, quoted_steps

OPENING = "Please take an egocentric view to understand the following questions. "
DESTINATION = "to reach your destination?"
START = "to return to the starting point?"
PATH = "what directions do you need to go through"
SCENERY = "which landmarks (objects or scenery changes) did you pass by"
DEEDS = "which actions did you perform"
DESCRIBE = "Please describe in detail how to get"
QUESTIONS = {  # without opening: the paper's wording, its slips mended (paper section 1)
    ("direction", "forward"): f"{PATH} to get to your destination?",
    ("direction", "reverse"): f"{PATH} to get to the starting point?",
    ("landmark", "forward"): f"{SCENERY} {DESTINATION}",
    ("landmark", "reverse"): f"{SCENERY} {START}",
    ("action", "forward"): f"{DEEDS} {DESTINATION}",
    ("action", "reverse"): f"{DEEDS} {START}",
    ("route", "forward"): f"{DESCRIBE} to the final location.",
    ("route", "reverse"): (
        f"{DESCRIBE} from the last position in the end view of the picture "
        "back to the starting point."
    ),
}
TASK_SIGNS = {
    "route": "how to get",
    "direction": "what directions",
    "landmark": "which landmarks",
    "action": "which actions",
}
WAY_SIGNS = {"forward": ("your destination", "final location"), "reverse": ("starting point",)}
INSTRUCTION = (
    "Please answer in English. Output the thinking process in <think> </think> and final answer "
    "in <answer> </answer> tags, i.e., <think> reasoning process here </think> "
    "<answer> answer here </answer>."
)
DIRECT_INSTRUCTION = (
    "Please answer in English with the final answer alone, in <answer> </answer> tags."
)
CHOOSE = (
    "Please select the most appropriate answer from the options above and return only its letter."
)
OPPOSITE = {"forward": "reverse", "reverse": "forward"}
THEN = " And then think about "
VERDICT = "Hence, the correct answer is "
TRACE_START = re.compile(  # "Let's start by thinking reverse what directions …?"
    r"Let's start by thinking (?P<way>forward|reverse) (?P<question>[^?.]*[?.])"
)


def stem(task: str, way: str) -> str:
    """Return the question of a task and way, opening included (paper section 1, mended)."""
    return OPENING + ("" if task == "route" else "Based on this video, ") + QUESTIONS[task, way]


def options_text(options: Sequence[str]) -> str:
    """Letter the options as the paper does.

    >>> options_text(["turn left", "turn right"])
    'A. turn left, B. turn right'
    """
    return ", ".join(f"{letter}. {text}" for letter, text in zip(LETTERS, options))


def problem(sample: Sample, direct: bool = False) -> str:
    """Return the text of a question: stem, options, how to reply; `direct` asks for no thinking."""
    text = sample.question
    if sample.options:
        text += f" Options: {options_text(sample.options)}\n\nInstructions: {CHOOSE}"
    return f"{text} {DIRECT_INSTRUCTION if direct else INSTRUCTION}"


def trace(sample: Sample, way: str | None = None) -> str:
    """Return the chain that goes through the path in `way`, by default the opposite one.

    "" where that path is not annotated (paper section 3).
    """
    way = way or OPPOSITE[sample.way]
    steps = sample.steps_forward if way == "forward" else sample.steps_reverse
    return chain(sample.task, sample.way, way, steps, sample.answer)


def chain(task: str, asked: str, way: str, steps: Sequence[str], answer: str) -> str:
    """Return the chain of a question asked one way that goes through the steps of a way."""
    if not steps:
        return ""
    first = QUESTIONS[task, way].removeprefix("Please ")
    then = QUESTIONS[task, asked].removeprefix("Please ")
    path = ", ".join(steps)
    return f"Let's start by thinking {way} {first} {path}{THEN}{then} {VERDICT}{answer}"


def read_trace(trace: str) -> tuple[tuple[str, str], tuple[str, str], Steps] | None:
    """Read a trace of the paper's form (section 3): (task, way) of its two questions, first path.

    None where the text has another form. The path is verbatim.
    """
    start = TRACE_START.match(trace)
    if not start:
        return None
    path, _, then = trace[start.end() :].rpartition(THEN)
    first_kind = question_kind(start["question"])
    then_kind = question_kind(then.partition(f" {VERDICT}")[0])
    if not first_kind or not then_kind or first_kind[1] != start["way"]:
        return None
    return first_kind, then_kind, _read_path(path.strip())


def _read_path(path: str) -> Steps:
    if path.startswith("["):  # released traces of forward questions print a Python list
        return quoted_steps(path)
    return tuple(path.split(", ")) if path else ()


@lru_cache(1 << 12)
def question_kind(question: str) -> tuple[str, str] | None:
    """Tell the task and the way a question asks for, by its words; None where they do not tell."""
    tasks = [task for task, sign in TASK_SIGNS.items() if sign in question]
    ways = [way for way, signs in WAY_SIGNS.items() if any(sign in question for sign in signs)]
    return (tasks[0], ways[0]) if len(tasks) == len(ways) == 1 else None


def reply(thinking: str, answer: str) -> str:
    """Write a reply in the format that `parse` reads."""
    head = f"<think>{thinking}</think> " if thinking else ""
    return f"{head}<answer>{answer}</answer>"


def target(sample: Sample, recipe: str = "st-cot") -> str:
    """Return the reply that SFT teaches.

    "st-cot" thinks in the opposite way, "forward-cot" in the way asked, "label" not at all.
    """
    if recipe == "label":
        return reply("", sample.answer)
    if recipe == "forward-cot":
        thinking = trace(sample, sample.way)
    elif recipe == "st-cot":
        thinking = sample.trace or trace(sample)
    else:
        raise ValueError(f"recipe: expected label, st-cot or forward-cot, found {recipe!r}")
    if not thinking:
        way = sample.way if recipe == "forward-cot" else OPPOSITE[sample.way]
        column = sample.task if way == "forward" else f"{sample.task}_reverse"
        wanted = f"the {way} path that {recipe} goes through (column {column}; or leave it out)"
        sample.refuse(f"steps_{way}", wanted, "none")
    return reply(thinking, sample.answer)


def messages(sample: Sample, direct: bool = False, answer: str = "") -> list[dict]:
    """Return chat messages with the path of the video; `answer` becomes the assistant's turn."""
    video = {"type": "video", "video": sample.video}
    question = {"type": "text", "text": problem(sample, direct)}
    chat = [{"role": "user", "content": [video, question]}]
    if answer:
        chat.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return chat
