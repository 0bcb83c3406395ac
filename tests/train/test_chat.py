"""What is taught goes on from exactly what is asked, with the templates of every family, thinking or not."""

from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import pytest
from random_models import architecture

from stlite.data import prompts
from stlite.data.egost import read_rows
from stlite.rewards.parse import parse
from stlite.rewards.rewards import format_reward
from stlite.train import chat as chats

DATA = Path(__file__).resolve().parents[2] / "sample_data"
THINKING = ("qwen3_5_think", "qwen3_5_nothink", "qwen3_6", "qwen3_8")  # open it when asked to
PLAIN = ("qwen2_5_vl", "qwen3_vl")
TEXT_ONLY = ("qwen3", "qwen3_instruct_2507")  # their messages are strings


def template(name: str) -> str:
    """Return a chat template as TRL ships it, equal to the genuine file."""
    return (resources.files("trl") / "chat_templates" / f"{name}.jinja").read_text("utf-8")


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    from transformers import AutoProcessor

    folder = architecture("qwen3", tmp_path_factory.mktemp("chat"))
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def rows():
    """All 630 shipped training rows."""
    return read_rows(DATA / "train" / "total_test_mcq_630.jsonl", videos=DATA / "videos")


def set_template(processor, name: str):
    processor.chat_template = template(name)
    processor.tokenizer.chat_template = template(name)


def chat_of(sample, name: str, direct: bool = False) -> list[dict]:
    """Return a sample's chat, for a template that knows no pictures with its text alone."""
    chat = prompts.messages(sample, direct=direct)
    if name not in TEXT_ONLY:
        return chat
    return [{"role": "user", "content": prompts.problem(sample)}]


@pytest.mark.parametrize("name", [*PLAIN, *THINKING, *TEXT_ONLY])
def test_every_shipped_row_teaches_what_is_asked(processor, rows, name):
    set_template(processor, name)
    shell = processor.tokenizer if name in TEXT_ONLY else processor
    tokenizer = processor.tokenizer
    for sample in rows:
        chat = chat_of(sample, name)
        asked = tokenizer(chats.question_text(shell, chat))["input_ids"]
        if name in TEXT_ONLY:  # the same by hand: a template of strings takes no list of parts
            question = chats.question_text(shell, chat)
            taught_text = question + chats.rest_of(prompts.target(sample), question)
        else:
            taught_text = chats.taught_text(shell, chat, prompts.target(sample))
        taught = tokenizer(taught_text)["input_ids"]
        assert taught[: len(asked)] == asked, sample.id
        assert len(taught) > len(asked)


@pytest.mark.parametrize("name", THINKING)
def test_a_template_that_can_think_opens_the_thought_and_counts_as_having_opened_it(processor, rows, name):  # fmt: skip
    set_template(processor, name)
    sample = rows[0]
    question = chats.question_text(processor, prompts.messages(sample))
    written = chats.rest_of(prompts.target(sample), question)
    assert question.endswith("<think>\n")
    assert not written.startswith("<think>")
    assert chats.thinking_opened(processor)
    assert parse(written, thinking_opened=True).answer == sample.answer
    assert format_reward([written], thinking_opened=True) == [1.0]
    cut = written.split("</think>")[0]
    assert parse(cut, thinking_opened=True).reason == "truncated"


@pytest.mark.parametrize("name", THINKING)
def test_a_direct_question_closes_the_thought_before_the_answer(processor, rows, name):
    set_template(processor, name)
    chat = prompts.messages(rows[0], direct=True)
    question = chats.question_text(processor, chat, direct=True)
    assert question.endswith("<think>\n\n</think>\n\n")
    assert not chats.thinking_opened(processor, direct=True)
    text = chats.taught_text(processor, chat, "<answer>A</answer>", direct=True)
    assert text.startswith(question + "<answer>A</answer>")


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_template_teaches_the_whole_reply(processor, rows, name):
    set_template(processor, name)
    chat = prompts.messages(rows[0])
    reply = prompts.target(rows[0])
    expected = processor.apply_chat_template([*chat, assistant(reply)], tokenize=False)
    assert chats.taught_text(processor, chat, reply) == expected
    assert not chats.thinking_opened(processor)


def assistant(reply: str) -> dict:
    return {"role": "assistant", "content": [{"type": "text", "text": reply}]}


def test_a_label_alone_is_refused_where_the_template_opens_a_thought(processor, rows):
    set_template(processor, "qwen3_5_think")
    with pytest.raises(ValueError, match="direct=True"):
        chats.taught_text(processor, prompts.messages(rows[0]), "<answer>A</answer>")


def test_a_template_without_a_generation_prompt_is_said_at_load(processor):
    set_template(processor, "qwen2_5_vl")
    chats.check_processor(processor, "mine")
    processor.chat_template = "{% for m in messages %}{{ m['role'] }}{% endfor %}"
    with pytest.raises(ValueError, match="mine: expected a chat template that opens"):
        chats.check_processor(processor, "mine")


PLACEHOLDER = "<|vision_start|><|video_pad|><|vision_end|>"
ASKING = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            "{{ raise_exception('no videos') }}",
            "renders a question about a video, found: no videos",
        ),
        (
            "{% if messages %}",
            "renders a question about a video, found: Unexpected end of template",
        ),
        ("{{ messages[0].content + 'x' }}" + ASKING, "renders a question about a video"),
        ("{{ messages[0].content[1].text }}" + ASKING, "once for a video, found 0"),
        ("<|vision_start|><|image_pad|><|vision_end|>" + ASKING, "once for a video, found 0"),
        (2 * PLACEHOLDER + ASKING, "once for a video, found 2"),
        (None, "renders a question about a video, found: .*does not have a chat template"),
    ],
)
def test_a_template_that_cannot_ask_about_a_video_is_said_at_load(processor, broken, message):
    processor.chat_template = broken
    with pytest.raises(ValueError, match=f"mine: expected a chat template that .*{message}"):
        chats.check_processor(processor, "mine")


@pytest.mark.parametrize("part", ["tokenizer", "video_processor"])
def test_a_processor_that_lacks_a_part_is_said_at_load(processor, part):
    parts = {"tokenizer": processor.tokenizer, "video_processor": processor.video_processor}
    parts[part] = None
    with pytest.raises(ValueError, match=f"mine: expected a processor.*without {part}"):
        chats.check_processor(SimpleNamespace(**parts), "mine")


def test_a_tokenizer_without_vision_tokens_is_said_at_load(processor):
    class Shell:
        """A processor around a tokenizer that knows no added tokens."""

        class tokenizer:
            """Knows nothing."""

            @staticmethod
            def get_added_vocab():
                return {"<|im_start|>": 1}

        video_processor = "any"

    with pytest.raises(ValueError, match="mine: expected a tokenizer with the tokens"):
        chats.check_processor(Shell, "mine")
