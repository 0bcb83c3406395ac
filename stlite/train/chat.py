"""Chats as text: what is asked, and what is taught, whatever a model's template opens or closes.

A template may open the model's thinking (Qwen3.5 ends its prompt with `<think>`). What is taught is
then the rest of the reply, so that it goes on from exactly the text that is asked. Whether a
template thinks is set here and nowhere else.
"""

from jinja2 import TemplateError

from stlite.rewards.parse import opens_thinking

OPENING_TAG = "<think>"
PROBE = [{"role": "user", "content": [{"type": "text", "text": "Where?"}]}]  # to look at a template
PROBE_VIDEO = [
    {"role": "user", "content": [{"type": "video", "video": "clip.mp4"}, *PROBE[0]["content"]]}
]
MARK = "\u241erest\u241e"  # stands for a reply, to see what a template writes after it
VISION_TOKENS = ("<|vision_start|>", "<|video_pad|>", "<|vision_end|>")
CLIP = "".join(VISION_TOKENS)  # what templates write for a clip


def question_text(processor, chat: list[dict], direct: bool = False) -> str:
    """Render a chat up to where the model's reply begins.

    `direct` asks for an answer without thinking.
    """
    text = processor.apply_chat_template(
        chat, tokenize=False, add_generation_prompt=True, **_switch(processor, direct)
    )
    return unwrap_clips(processor, text)


def unwrap_clips(processor, text: str) -> str:
    """Drop the vision tokens around each clip, where the times of its frames are to stand bare.

    Qwen3-VL and Qwen3.5 write "<0.5 seconds>" and vision tokens for each two frames, so that a
    clip's own pair is one too many. Their models were trained without it: transformers 4.57
    replaced it, from 5.10 on it stays.
    """
    if getattr(processor, "timestamps", None) != "bare":
        return text
    return text.replace(CLIP, "<|video_pad|>")


def timestamps_of(processor) -> dict:
    """Return how the times of frames are written, for a run's record; {} where there are none."""
    timestamps = getattr(processor, "timestamps", None)
    return {"timestamps": timestamps} if timestamps else {}


def _switch(processor, direct: bool) -> dict:
    """Return the setting that a template which may think reads.

    Others warn of settings that they do not know.
    """
    if "enable_thinking" not in str(processor.chat_template):
        return {}
    return {"enable_thinking": not direct}


def render(processor, chat: list[dict], direct: bool = False) -> str:
    """Render a chat: up to where the model's reply begins, or with the reply that ends it."""
    last = chat[-1]
    if last["role"] != "assistant":
        return question_text(processor, chat, direct)
    question = question_text(processor, chat[:-1], direct)
    reply = last["content"][0]["text"]
    return question + rest_of(reply, question) + end_of_reply(processor, chat[:-1], direct)


def taught_text(processor, chat: list[dict], reply: str, direct: bool = False) -> str:
    """Render a chat with the reply that is taught.

    One that does not think where the template does is refused.
    """
    question = question_text(processor, chat, direct)
    if opens_thinking(question) and not reply.startswith(OPENING_TAG):
        raise ValueError(
            f"chat template: it opens the thinking with {OPENING_TAG}, and the reply to be taught does not think: "
            f"{reply[:80]!r}. Teach it under the direct question (direct=True)"
        )
    return render(processor, [*chat, _answer(reply)], direct)


def _answer(text: str) -> dict:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def rest_of(reply: str, question: str) -> str:
    """Return what is left to write of a reply after the text of its question.

    >>> rest_of("<think>I turn.</think> <answer>A</answer>", "<|im_start|>assistant\\n<think>\\n")
    'I turn.</think> <answer>A</answer>'
    >>> rest_of("<answer>A</answer>", "<|im_start|>assistant\\n")
    '<answer>A</answer>'
    """
    if opens_thinking(question) and reply.startswith(OPENING_TAG):
        return reply.removeprefix(OPENING_TAG).lstrip()
    return reply


def end_of_reply(processor, chat: list[dict], direct: bool = False) -> str:
    """Return what a template writes after a reply: the token that ends it, and often a line break."""
    text = processor.apply_chat_template(
        [*chat, _answer(MARK)], tokenize=False, **_switch(processor, direct)
    )
    _, mark, end = text.rpartition(MARK)
    if not mark:
        raise ValueError("chat template: it does not write the assistant's reply as it is given")
    if not end.strip():
        raise ValueError(
            "chat template: it writes nothing after the assistant's reply, so a model taught with it would never "
            "end its own; let it write the token that ends a reply"
        )
    return end


def thinking_opened(processor, direct: bool = False) -> bool:
    """Return whether the model's template opens the thinking of a reply."""
    return opens_thinking(question_text(processor, PROBE, direct))


def load_processor(source: str):
    """Load a model's own processor; one of no use for videos raises ValueError."""
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(source)
    except OSError as error:
        found = str(error).split(". ")[0]
        raise ValueError(
            f"{source}: expected a processor of text and video beside the weights, found: {found}. Copy "
            "processor_config.json, or preprocessor_config.json and video_preprocessor_config.json, from its base model"
        ) from error


def check_processor(processor, name: str) -> None:
    """Refuse what cannot ask about a video: no reader of videos, no tokens for them, or no template for a question.

    A template must render, open the assistant's turn, and write one placeholder for a clip.
    """
    for part in ("tokenizer", "video_processor"):
        if getattr(processor, part, None) is None:
            raise ValueError(
                f"{name}: expected a processor of text and video, found a {type(processor).__name__} without {part}: "
                "is processor_config.json or video_preprocessor_config.json missing from the folder?"
            )
    known = processor.tokenizer.get_added_vocab()
    missing = [token for token in VISION_TOKENS if token not in known]
    if missing:
        raise ValueError(
            f"{name}: expected a tokenizer with the tokens {', '.join(VISION_TOKENS)}, found no {', '.join(missing)}: is this "
            "a model that sees?"
        )
    plain, asked = _render_probe(processor, name)
    if asked == plain:
        raise ValueError(
            f"{name}: expected a chat template that opens the assistant's turn (add_generation_prompt), found one that "
            "does not: replies would not be asked for"
        )
    if asked.count(CLIP) != 1:
        raise ValueError(
            f"{name}: expected a chat template that writes {CLIP} once for a video, found {asked.count(CLIP)} in "
            f"{asked[:200]!r}: the model would not see its clip"
        )


def _render_probe(processor, name: str) -> tuple[str, str]:
    """Render a question about a video, without and with the opening of the assistant's turn."""
    try:
        plain = processor.apply_chat_template(
            PROBE_VIDEO, tokenize=False, add_generation_prompt=False
        )
        asked = processor.apply_chat_template(
            PROBE_VIDEO, tokenize=False, add_generation_prompt=True, **_switch(processor, False)
        )
    except (ValueError, TypeError, TemplateError) as error:
        raise ValueError(
            f"{name}: expected a chat template that renders a question about a video, found: {error}"
        ) from error
    return plain, asked
