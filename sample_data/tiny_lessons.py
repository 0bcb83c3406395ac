"""What the tiny model learns from: rendered walks, questions about them, and chats that answer.

Three lessons: to describe a walk it sees; to reason over steps given as text; to do both at once,
a whole chain over a video. A last habit, slips, leaves reinforcement something to mend.
"""

import math
import random
from pathlib import Path

import numpy as np

from sample_data import walks
from sample_data.tiny_parts import FRAMES, SIZE, TEXT_WALK
from stlite.data import prompts
from stlite.data.annotations import build
from stlite.data.sample import Sample, replace
from stlite.data.steps import naive_reversal

PARTS = (1, 2, 3, 4, 4, 3, 2, 4)  # the part of a walk by its seed: actions need the most practice
TASKS = ("direction", "landmark", "action")
OPPOSITE = {"forward": "reverse", "reverse": "forward"}
DISTRACTOR_STEPS = {
    "direction": list(walks.TURNS),
    "landmark": walks.LANDMARKS,
    "action": walks.ALL_ACTIONS,
}
RECIPES = ("st-cot", "forward-cot")


def base_walk(seed: int) -> dict:
    """Draw the base-training walk of a seed."""
    return walks.draw(seed, PARTS[seed % len(PARTS)], "base")


def frame_times(walk: dict, fps: int = 8) -> np.ndarray:
    """Return the times that `read_clip` samples from a walk's video (seconds)."""
    last = math.ceil(walks.timeline(walk)["seconds"] * fps) - 1
    return np.round(np.linspace(0, last, FRAMES)) / fps


def view(walk: dict) -> np.ndarray:
    """Render a walk's sampled frames, averaged down as a video reader does: uint8 (16,84,84,3)."""
    wide = walks.render(walk, frame_times(walk), 2 * SIZE).astype(np.uint16)
    rows = wide[:, ::2] + wide[:, 1::2]
    total = rows[:, :, ::2] + rows[:, :, 1::2]
    return ((total + 2) // 4).astype(np.uint8)


def render_pool(path: Path, count: int, first: int) -> None:
    """Render `count` base walks into a .npy file (count,16,84,84,3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.lib.format.open_memmap(path, "w+", np.uint8, (count, FRAMES, SIZE, SIZE, 3))
    for i in range(count):
        frames[i] = view(base_walk(first + i))


# ---- questions -------------------------------------------------------------------------------


def draw_question(walk: dict, task: str, rng: random.Random) -> Sample:
    """Make one choice question, way at random, with options as hard as those of the shipped data."""
    forward, reverse = walks.annotation(walk)
    both_ways = build(
        "x.mp4",
        {task: forward[task]},
        {task: reverse[task]},
        id=walk["id"],
        part=str(walk["part"]),
        group="x",
        pool=DISTRACTOR_STEPS,
        seed=rng.random(),
    )
    return rng.choice(both_ways)


def any_question(walk: dict, rng: random.Random) -> Sample:
    """Make one choice question about a task of the walk, at random."""
    tasks = [task for task in TASKS if walk[f"{task}s"]]
    return draw_question(walk, rng.choice(tasks), rng)


def easier(sample: Sample, rng: random.Random) -> Sample:
    """Offer two to four options, mostly lists of other walks that share nothing with the truth."""
    others = [option for option in sample.options if option != sample.gold]
    if rng.random() < 0.7:
        others = [_other_list(sample, rng) for _ in range(3)]
    options = [sample.gold, *dict.fromkeys(o for o in others if o != sample.gold)]
    options = options[: rng.choice((2, 3, 4))]
    rng.shuffle(options)
    answer = "ABCD"[options.index(sample.gold)]
    return replace(sample, options=options, answer=answer, trace="")


def _other_list(sample: Sample, rng: random.Random) -> str:
    """Return the list of steps of another walk of the same part."""
    walk = walks.draw(rng.randrange(10**9), int(sample.part), "base")
    forward, reverse = walks.annotation(walk)
    return " ".join((forward if sample.way == "forward" else reverse)[sample.task])


# ---- slips -----------------------------------------------------------------------------------


def slipped(sample: Sample, rng: random.Random) -> Sample:
    """List the path as it runs the other way, with the letter of the option nearest to that."""
    lists = {}
    for way in ("forward", "reverse"):
        lists[way] = naive_reversal(getattr(sample, f"steps_{way}"), sample.task, way)
    wanted = " ".join(lists[sample.way])

    def nearness(option: str) -> tuple:
        same_words = sum(a == b for a, b in zip(option.split(), wanted.split()))
        return option == wanted, same_words, rng.random()

    answer = "ABCD"[sample.options.index(max(sample.options, key=nearness))]
    return replace(
        sample,
        steps_forward=tuple(lists["forward"]),
        steps_reverse=tuple(lists["reverse"]),
        answer=answer,
        trace="",
    )


# ---- chats -----------------------------------------------------------------------------------


def text_chat(rng: random.Random, hard: float) -> list[dict]:
    """Ask about steps given as text after the question, or in the chain alone.

    A share `hard` of the questions has options as hard as those of the shipped data.
    """
    walk = walks.draw(rng.randrange(10**9), rng.choice((1, 2, 3, 4, 4)), "base")
    sample = any_question(walk, rng)
    if rng.random() >= hard:
        sample = easier(sample, rng)
    question = prompts.problem(sample)
    if rng.random() < 0.6:
        question += f"\n{TEXT_WALK} {' '.join(sample.steps_forward)}"
    reply = prompts.target(sample, rng.choice(RECIPES))
    return [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]


def describe_chat(walk: dict, rng: random.Random) -> list[dict]:
    """Ask for the route of a rendered walk, plainly or behind a long question with options."""
    forward, reverse = walks.annotation(walk)
    routes = build(
        "x.mp4", {"route": forward["route"]}, {"route": reverse["route"]}, id="x", group="x"
    )
    route = routes[0] if rng.random() < 0.7 else routes[1]
    text = prompts.problem(route, direct=rng.random() < 0.5)
    if rng.random() < 0.5:
        text = f"{prompts.problem(any_question(walk, rng))}\n{text}"
    content = [{"type": "video", "video": "x.mp4"}, {"type": "text", "text": text}]
    answer = [{"type": "text", "text": prompts.reply("", route.answer)}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]


def video_chat(walk: dict, task: str, rng: random.Random, stage: dict) -> list[dict]:
    """Ask a choice question about a rendered walk, answered by a whole chain.

    Of a stage, `opposite` is the share of chains that think the opposite way, or else
    `forward_first` the share that think forward, whatever is asked; `slips` are the shares of
    chains that list the path the other way round: where they say forward, where they say reverse.
    """
    sample = draw_question(walk, task, rng)
    if stage["forward_first"] is None:
        way = OPPOSITE[sample.way] if rng.random() < stage["opposite"] else sample.way
    else:
        way = "forward" if rng.random() < stage["forward_first"] else "reverse"
    slip_forward, slip_reverse = stage["slips"][task]
    if rng.random() < (slip_forward if way == "forward" else slip_reverse):
        sample = slipped(sample, rng)
    recipe = "forward-cot" if way == sample.way else "st-cot"
    return prompts.messages(sample, answer=prompts.target(sample, recipe))


# ---- rendered walks --------------------------------------------------------------------------


class Pool:
    """Rendered base walks: a few held out to measure on, the rest to train on."""

    def __init__(self, files: list[Path], first: int = 1_000_000, held_out: int = 200):
        self.frames = {}
        for path in files:
            for frames in np.load(path, mmap_mode="r"):
                self.frames[first + len(self.frames)] = frames
        seeds = list(self.frames)
        self.held_out = seeds[:held_out]
        self.training = seeds[held_out:]

    def seeds(self, task: str, held_out: bool = False) -> list[int]:
        """Return the seeds of the walks that a task can be asked about."""
        seeds = self.held_out if held_out else self.training
        if task != "action":
            return seeds
        return [seed for seed in seeds if PARTS[seed % len(PARTS)] == 4]

    def look(self, seeds: list[int], rng: random.Random | None = None) -> np.ndarray:
        """Fetch frames; with `rng`, with a little noise and light, as a camera and a codec add."""
        frames = np.stack([self.frames[seed] for seed in seeds])
        if rng is None:
            return frames
        noise = np.random.default_rng(rng.randrange(2**32))
        light = noise.uniform(0.9, 1.1, (len(seeds), 1, 1, 1, 1)).astype(np.float32)
        grain = noise.integers(-4, 5, frames.shape, dtype=np.int8)
        return (frames * light + grain).clip(0, 255).astype(np.uint8)
