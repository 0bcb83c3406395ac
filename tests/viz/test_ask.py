"""One line asks a film: the reply is told while it is written, and is the one that `generate` gives."""

import io
import itertools
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from stlite.data.sample import Sample
from stlite.train.generation import generate
from stlite.train.models import add_lora, load
from stlite.viz.ask import Stream, ask, reply_view

DATA = Path(__file__).parents[2] / "sample_data" / "videos"
FILM = DATA / "part1" / "w0000003.mp4"
QUESTION = "Which landmarks did you pass by to reach your destination?"


def test_the_reply_is_printed_as_it_is_written_and_returned_whole(tiny):
    model, processor = tiny
    printed = io.StringIO()
    with redirect_stdout(printed):
        reply = ask(model, processor, FILM, QUESTION, max_new_tokens=60)
    sample = Sample("x", "part1/w0000003.mp4", "route", "forward", QUESTION, "")
    expected = generate(model, processor, [sample], videos=DATA, max_new_tokens=60)[0]["reply"]
    assert reply == expected and len(reply) > 20
    assert printed.getvalue().startswith(reply)


def test_every_token_adds_to_what_was_told(tiny):
    model, processor = tiny
    told = []
    sample = Sample("x", "part1/w0000003.mp4", "route", "forward", QUESTION, "")
    stream = Stream(processor.tokenizer, told.append)
    reply = generate(model, processor, [sample], videos=DATA, max_new_tokens=30, streamer=stream)[0]
    assert len(told) == reply["tokens"] and told[-1] == reply["reply"]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(told))


def test_options_are_asked_as_a_choice(tiny):
    model, processor = tiny
    options = ("turn left go straight", "go straight turn right")
    sample = Sample("x", "part1/w0000003.mp4", "direction", "forward", "Which way?", "B", options)
    expected = generate(model, processor, [sample], videos=DATA, max_new_tokens=40)[0]["reply"]
    with redirect_stdout(io.StringIO()):
        assert ask(model, processor, FILM, "Which way?", options, max_new_tokens=40) == expected


def test_a_film_that_cannot_be_read_says_which_and_why(tiny, tmp_path):
    model, processor = tiny
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(ValueError, match=r"text.mp4.*damaged, or not a video"):
        ask(model, processor, tmp_path / "text.mp4", QUESTION)
    with pytest.raises(ValueError, match="no such file"):
        ask(model, processor, tmp_path / "none.mp4", QUESTION)


CHAIN = "Let's start by thinking forward which way? turn left, go straight And then think about it."


@pytest.mark.parametrize(
    "text, chain, steps, answer",
    [
        (f"<think>{CHAIN}</think> <answer>B</answer>", CHAIN, ["turn left", "go straight"], "B"),
        (f"<think>{CHAIN}</think> <answer>on the ta", CHAIN, ["turn left", "go straight"], "on the ta"),
        (f"<think>{CHAIN}</thi", CHAIN, ["turn left", "go straight"], ""),
        ("It is on the table.", "", [], "It is on the table."),
        ("It is on the table. </answ", "", [], "It is on the table."),
        ("<think>I see.</think> Either A or B", "I see.", [], "Either A or B"),
        ("", "", [], ""),
    ],
)  # fmt: skip
def test_a_reply_is_taken_apart_whole_or_half_written(text, chain, steps, answer):
    assert reply_view(text) == {"chain": chain, "steps": steps, "answer": answer}


def test_a_run_folder_is_enough_to_load_and_ask(tmp_path):
    model, processor = load("tiny", frames=8)
    model = add_lora(model)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.fill_(0.05)
    model.save_pretrained(tmp_path / "run" / "adapter")
    reading = '{"frames": 8, "max_pixels": 7056, "multiple": 28}'
    made_by = f'{{"training": {{"made_by": {{"reading": {reading}}}}}}}'
    (tmp_path / "run" / "run.json").write_text(made_by)
    expected = ask(model.eval(), processor, FILM, QUESTION, max_new_tokens=20)
    loaded, again = load(tmp_path / "run")
    assert again.reading == processor.reading
    assert ask(loaded, again, FILM, QUESTION, max_new_tokens=20) == expected
    base, plain = load("tiny", frames=8)
    assert ask(base, plain, FILM, QUESTION, max_new_tokens=20) != expected
