"""Prompts: whole rendered strings, for the eight tasks and the chat templates of three Qwen-VL families and of tiny."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stlite.data import prompts
from stlite.data.sample import Sample, SampleError, replace
from stlite.rewards.parse import parse
from stlite.rewards.rewards import score

# The public templates of Qwen2-VL and Qwen2.5-VL (the same text in both), then of Qwen3-VL without its tool calls.
QWEN2_VL = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif content['type'] == 'video' or 'video' in content %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3_VL = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}{%- for content in message.content %}"
    "{%- if message.role == 'user' and (content.type == 'image' or 'image' in content or 'image_url' in content) -%}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif message.role == 'user' and (content.type == 'video' or 'video' in content) -%}"
    "<|vision_start|><|video_pad|><|vision_end|>{%- elif 'text' in content %}{{- content.text }}{%- endif %}"
    "{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
TINY = (Path(__file__).parents[2] / "sample_data" / "tiny" / "chat_template.jinja").read_text()
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
TEMPLATES = {
    "qwen2-vl": (QWEN2_VL, SYSTEM),
    "qwen2.5-vl": (QWEN2_VL, SYSTEM),
    "qwen3-vl": (QWEN3_VL, ""),
    "tiny": (TINY, ""),
}

THERE, BACK = ("turn left", "go straight"), ("turn around", "go straight", "turn right")
PATHS = {
    "route": (("Turn left at the gate.",), ("Turn around, then right at the gate.",)),
    "direction": (THERE, BACK),
    "landmark": (("gate", "car park"), ("car park", "gate")),
    "action": (("open the door", "take the cup"), ("return the cup", "close the door")),
}
OPTIONS = ("one two", "two one")
CHOOSE = (
    " Options: A. one two, B. two one\n\n"
    "Instructions: Please select the most appropriate answer from the options above and return only its letter."
)
THINK = (
    " Please answer in English. Output the thinking process in <think> </think> and final answer in <answer> </answer> "
    "tags, i.e., <think> reasoning process here </think> <answer> answer here </answer>."
)
VIEW = "Please take an egocentric view to understand the following questions. "
SEEN = VIEW + "Based on this video, "
ASKED = {  # (task, way): the whole text of the question, and the whole reply that is taught
    ("route", "forward"): (
        VIEW + "Please describe in detail how to get to the final location." + THINK,
        "<think>Let's start by thinking reverse describe in detail how to get from the last position in the end view of "
        "the picture back to the starting point. Turn around, then right at the gate. And then think about describe in "
        "detail how to get to the final location. Hence, the correct answer is Turn left at the gate.</think> "
        "<answer>Turn left at the gate.</answer>",
    ),
    ("route", "reverse"): (
        VIEW + "Please describe in detail how to get from the last position in the end view of the picture back to the "
        "starting point." + THINK,
        "<think>Let's start by thinking forward describe in detail how to get to the final location. Turn left at the "
        "gate. And then think about describe in detail how to get from the last position in the end view of the picture "
        "back to the starting point. Hence, the correct answer is Turn around, then right at the gate.</think> "
        "<answer>Turn around, then right at the gate.</answer>",
    ),
    ("direction", "forward"): (
        SEEN + "what directions do you need to go through to get to your destination?" + CHOOSE + THINK,
        "<think>Let's start by thinking reverse what directions do you need to go through to get to the starting point? "
        "turn around, go straight, turn right And then think about what directions do you need to go through to get to "
        "your destination? Hence, the correct answer is B</think> <answer>B</answer>",
    ),
    ("direction", "reverse"): (
        SEEN + "what directions do you need to go through to get to the starting point?" + CHOOSE + THINK,
        "<think>Let's start by thinking forward what directions do you need to go through to get to your destination? "
        "turn left, go straight And then think about what directions do you need to go through to get to the starting "
        "point? Hence, the correct answer is B</think> <answer>B</answer>",
    ),
    ("landmark", "forward"): (
        SEEN + "which landmarks (objects or scenery changes) did you pass by to reach your destination?" + CHOOSE + THINK,
        "<think>Let's start by thinking reverse which landmarks (objects or scenery changes) did you pass by to return to "
        "the starting point? car park, gate And then think about which landmarks (objects or scenery changes) did you "
        "pass by to reach your destination? Hence, the correct answer is B</think> <answer>B</answer>",
    ),
    ("landmark", "reverse"): (
        SEEN + "which landmarks (objects or scenery changes) did you pass by to return to the starting point?"
        + CHOOSE + THINK,
        "<think>Let's start by thinking forward which landmarks (objects or scenery changes) did you pass by to reach "
        "your destination? gate, car park And then think about which landmarks (objects or scenery changes) did you pass "
        "by to return to the starting point? Hence, the correct answer is B</think> <answer>B</answer>",
    ),
    ("action", "forward"): (
        SEEN + "which actions did you perform to reach your destination?" + CHOOSE + THINK,
        "<think>Let's start by thinking reverse which actions did you perform to return to the starting point? return the "
        "cup, close the door And then think about which actions did you perform to reach your destination? Hence, the "
        "correct answer is B</think> <answer>B</answer>",
    ),
    ("action", "reverse"): (
        SEEN + "which actions did you perform to return to the starting point?" + CHOOSE + THINK,
        "<think>Let's start by thinking forward which actions did you perform to reach your destination? open the door, "
        "take the cup And then think about which actions did you perform to return to the starting point? Hence, the "
        "correct answer is B</think> <answer>B</answer>",
    ),
}  # fmt: skip


def sample(task: str, way: str) -> Sample:
    there, back = PATHS[task]
    answer, options = (
        ("B", OPTIONS) if task != "route" else ((there if way == "forward" else back)[0], ())
    )
    return Sample("1", "walk.mp4", task, way, prompts.stem(task, way), answer, options, there, back)


def render(template: str, chat: list[dict], generation: bool) -> str:
    """Render as transformers does."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(messages=chat, add_generation_prompt=generation)


def user(question: str) -> str:
    return f"<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>{question}<|im_end|>\n"


@pytest.mark.parametrize("model", TEMPLATES)
@pytest.mark.parametrize("key", ASKED, ids="-".join)
def test_the_whole_prompt_and_the_whole_target(key, model):
    (template, system), (question, told), one = TEMPLATES[model], ASKED[key], sample(*key)
    asked = render(template, prompts.messages(one), generation=True)
    assert asked == system + user(question) + "<|im_start|>assistant\n"
    taught = render(template, prompts.messages(one, answer=prompts.target(one)), generation=False)
    assert taught == system + user(question) + f"<|im_start|>assistant\n{told}<|im_end|>\n"
    assert taught.startswith(asked)  # what SFT teaches continues what GRPO and evaluation ask


@pytest.mark.parametrize(("name", "ours"), [("qwen2_5_vl", QWEN2_VL), ("qwen3_vl", QWEN3_VL)])
def test_the_templates_written_here_are_those_that_trl_ships(name, ours):
    shipped = Path(find_spec("trl").origin).parent / "chat_templates" / f"{name}.jinja"
    if not shipped.exists():
        pytest.skip(f"this trl ships no {name}.jinja")
    for key in ASKED:
        one = sample(*key)
        for chat in (prompts.messages(one), prompts.messages(one, answer=prompts.target(one))):
            for generation in (True, False):
                assert render(ours, chat, generation) == render(
                    shipped.read_text(), chat, generation
                )


@pytest.mark.parametrize("key", ASKED, ids="-".join)
def test_what_is_taught_is_read_back_and_is_right(key):
    one = sample(*key)
    found = parse(prompts.target(one))
    thought = {"forward": one.steps_reverse, "reverse": one.steps_forward}[one.way]
    opposite = {"forward": "reverse", "reverse": "forward"}[one.way]
    assert (found.answer, found.way, score(one, found).value) == (one.answer, opposite, 1.0)
    if key[0] != "route":  # a route is one text, and the parser cuts its sentences
        assert found.steps == thought


def test_the_message_carries_the_path_of_the_video_and_nothing_that_trl_would_take_for_an_image():
    chat = prompts.messages(sample("landmark", "forward"))
    assert [part["type"] for part in chat[0]["content"]] == ["video", "text"]
    assert chat[0]["content"][0] == {"type": "video", "video": sample("landmark", "forward").video}


def test_the_direct_variant_asks_for_the_answer_alone():
    text = prompts.problem(sample("direction", "forward"), direct=True)
    assert text == (
        SEEN + "what directions do you need to go through to get to your destination?" + CHOOSE
        + " Please answer in English with the final answer alone, in <answer> </answer> tags."
    )  # fmt: skip


def test_other_recipes_think_the_way_asked_or_not_at_all():
    one = sample("direction", "reverse")
    assert prompts.target(one, "label") == "<answer>B</answer>"
    assert prompts.target(one, "forward-cot").startswith(
        "<think>Let's start by thinking reverse what directions do you need to go through to get to the starting point? "
        "turn around, go straight, turn right And then think about"
    )
    with pytest.raises(ValueError, match="expected label, st-cot or forward-cot, found 'cot'"):
        prompts.target(one, "cot")


def test_a_sample_without_the_path_is_refused_rather_than_taught_an_empty_thought():
    with pytest.raises(SampleError, match="steps"):
        prompts.target(replace(sample("direction", "reverse"), steps_forward=()))


def test_a_trace_that_came_with_the_data_is_taught_verbatim():
    one = replace(sample("direction", "reverse"), trace="Forward: left. So B")
    assert prompts.target(one) == "<think>Forward: left. So B</think> <answer>B</answer>"
