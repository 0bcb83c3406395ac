"""Ask a model about a film: one line, any question; the reply is seen as it is written.

    >>> ask(model, processor, "film.mp4", "Where did I leave the red box?")  # doctest: +SKIP

In a notebook the reply stands beside the film, with its chain and the frames that the model saw.
"""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from stlite.data.prompts import options_text
from stlite.data.sample import Sample
from stlite.rewards.parse import parse
from stlite.viz.player import FilmView, frames_view

HALF_TAG = re.compile(r"</?\w*$")  # "</answ", while a reply is being written
PAUSE = 0.1  # seconds between two drawings of a reply that is being written


class Reply(str):
    """The text of a reply; a notebook does not print it again below the view that has shown it."""

    def _ipython_display_(self):
        pass


def ask(
    model, processor, film, question: str, options: Sequence[str] = (), max_new_tokens: int = 512,
    temperature: float = 0.0,
) -> str:  # fmt: skip
    """Return a model's reply to a question about a film, shown while it is written.

    `film` is the path of a video, or a part of one: "film.mp4#t=3,9.5". With `options` the model is
    asked to choose one by its letter. Raises ValueError for a film that cannot be read.
    """
    from stlite.train.generation import generate

    path = Path(film)
    task = "landmark" if options else "route"  # neither task nor answer is part of the prompt
    answer = "A" if options else ""
    sample = Sample("ask", path.name, task, "forward", question, answer, tuple(options))
    asked = f"{question} {options_text(options)}".strip()
    tell, done = _screen(processor, path, asked)
    stream = Stream(processor.tokenizer, tell)
    told = "stopped"
    try:
        settings = {"max_new_tokens": max_new_tokens, "temperature": temperature}
        reply = generate(
            model, processor, [sample], videos=path.parent, streamer=stream, **settings
        )[0]
        if "error" in reply:
            raise ValueError(f"{film}: {reply['error']}")
        told = "" if reply["tokens"] < max_new_tokens else f"cut after {max_new_tokens} tokens"
    finally:
        done(told)
    return Reply(reply["reply"])


class Stream:
    """A streamer for transformers' `generate`: tells the whole reply again with every token."""

    def __init__(self, tokenizer, tell: Callable[[str], None]):
        self.tokenizer = tokenizer
        self.tell = tell
        self.tokens = None

    def put(self, tokens):
        """Take the prompt, which comes first and is not shown, or the next tokens (1,)."""
        if self.tokens is None:
            self.tokens = []
            return
        self.tokens += tokens.flatten().tolist()
        text = self.tokenizer.decode(self.tokens, skip_special_tokens=True)
        self.tell(text.rstrip("\ufffd"))  # a character whose bytes are not all there yet

    def end(self):
        """Be told that the reply is whole."""


def _screen(processor, path: Path, question: str) -> tuple[Callable, Callable]:
    """Return two functions that show a reply: one for its text so far, one for its end."""
    from IPython import get_ipython

    if getattr(get_ipython(), "kernel", None) is None:
        return _terminal()
    return _notebook(processor, path, question)


def _terminal() -> tuple[Callable, Callable]:
    shown = ""

    def tell(text: str):
        nonlocal shown
        print(text[len(shown) :], end="", flush=True)
        shown = text

    def done(told: str):
        print(f" ({told})" if told else "")

    return tell, done


def _notebook(processor, path: Path, question: str) -> tuple[Callable, Callable]:
    from IPython.display import display

    reading = getattr(processor, "reading", {})
    view = FilmView(path.parent)
    view.show(path.name)
    view.view = {"question": question} | frames_view(path.name, path.parent, **reading)
    view.reply = {"state": "reading the film …"}
    display(view)
    text = ""
    drawn = 0.0

    def tell(so_far: str):
        nonlocal text, drawn
        text = so_far
        if time.monotonic() - drawn > PAUSE:
            view.reply = reply_view(text) | {"state": "writing …"}
            drawn = time.monotonic()

    def done(told: str):
        view.reply = reply_view(text) | {"state": told}

    return tell, done


def reply_view(text: str) -> dict:
    """Take a reply, whole or half written, apart: its chain, the chain's steps, the answer.

    >>> reply_view("<think>Walking back: 1. turn left</think> <answer>B</answer>")
    {'chain': 'Walking back: 1. turn left', 'steps': ['turn left'], 'answer': 'B'}
    """
    reply = parse(HALF_TAG.sub("", text))
    _, closed, rest = reply.text.rpartition("</think>")
    answer = reply.answer
    if not answer and (closed or not reply.think):  # in no form that `parse` knows
        answer = rest.strip()
    return {"chain": reply.think, "steps": list(reply.steps), "answer": answer}
