"""What the model is asked and how it is taught to answer: one prompt for SFT, GRPO, evaluation and widgets.

<video> Please take an egocentric view ... Options: A. turn left go straight, B. turn right go straight ...
<think>Let's start by thinking reverse ... Hence, the correct answer is A</think> <answer>A</answer>
"""

from collections.abc import Sequence

from stlite.data.sample import LETTERS, Sample

OPENING = "Please take an egocentric view to understand the following questions. "
DESTINATION, START = "to reach your destination?", "to return to the starting point?"
QUESTIONS = {  # the sub-question, without opening: the paper's wording, its slips mended (paper section 1)
    (
        "direction",
        "forward",
    ): "what directions do you need to go through to get to your destination?",
    (
        "direction",
        "reverse",
    ): "what directions do you need to go through to get to the starting point?",
    (
        "landmark",
        "forward",
    ): f"which landmarks (objects or scenery changes) did you pass by {DESTINATION}",
    (
        "landmark",
        "reverse",
    ): f"which landmarks (objects or scenery changes) did you pass by {START}",
    ("action", "forward"): f"which actions did you perform {DESTINATION}",
    ("action", "reverse"): f"which actions did you perform {START}",
    ("route", "forward"): "Please describe in detail how to get to the final location.",
    (
        "route",
        "reverse",
    ): "Please describe in detail how to get from the last position in the end view of the "
    "picture back to the starting point.",
}
INSTRUCTION = (
    "Please answer in English. Output the thinking process in <think> </think> and final answer in <answer> </answer> "
    "tags, i.e., <think> reasoning process here </think> <answer> answer here </answer>."
)
DIRECT_INSTRUCTION = (
    "Please answer in English with the final answer alone, in <answer> </answer> tags."
)
CHOOSE = (
    "Please select the most appropriate answer from the options above and return only its letter."
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
    """Return the text of a sample's question: stem, options, and how to reply; `direct` asks for no thinking."""
    choices = (
        f" Options: {options_text(sample.options)}\n\nInstructions: {CHOOSE}"
        if sample.options
        else ""
    )
    return f"{sample.question}{choices} {DIRECT_INSTRUCTION if direct else INSTRUCTION}"


def trace(sample: Sample, way: str | None = None) -> str:
    """Return the chain that thinks of the path in `way`, by default the other one (paper section 3); "" without steps."""
    way = way or {"forward": "reverse", "reverse": "forward"}[sample.way]
    steps = sample.steps_forward if way == "forward" else sample.steps_reverse
    first, then = (QUESTIONS[sample.task, w].removeprefix("Please ") for w in (way, sample.way))
    chain = f"Let's start by thinking {way} {first} {', '.join(steps)} And then think about {then}"
    return f"{chain} Hence, the correct answer is {sample.answer}" if steps else ""


def reply(thinking: str, answer: str) -> str:
    """Write a reply in the format that `parse` reads."""
    return (f"<think>{thinking}</think> " if thinking else "") + f"<answer>{answer}</answer>"


def target(sample: Sample, recipe: str = "st-cot") -> str:
    """Return the reply that SFT teaches: "st-cot" thinks the opposite way, "forward-cot" the way asked, "label" not."""
    if recipe == "label":
        return reply("", sample.answer)
    if recipe not in ("st-cot", "forward-cot"):
        raise ValueError(f"recipe: expected label, st-cot or forward-cot, found {recipe!r}")
    thinking = (
        trace(sample, sample.way) if recipe == "forward-cot" else (sample.trace or trace(sample))
    )
    if not thinking:
        sample.refuse("steps", f"the annotated path that {recipe} thinks of", "none")
    return reply(thinking, sample.answer)


def messages(sample: Sample, direct: bool = False, answer: str = "") -> list[dict]:
    """Return chat messages with the video's path as a video part; with `answer`, the assistant's turn is appended."""
    content = [
        {"type": "video", "video": sample.video},
        {"type": "text", "text": problem(sample, direct)},
    ]
    said = [{"role": "assistant", "content": [{"type": "text", "text": answer}]}]
    return [{"role": "user", "content": content}, *(said if answer else ())]
