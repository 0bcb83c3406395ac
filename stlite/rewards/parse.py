"""Read a model's reply: `<think>…</think> <answer>B</answer>`, or as untidy as models write."""

import re
from dataclasses import dataclass

from stlite.data.steps import quoted_steps

SPAN = 20_000  # longest tail without tags, longest answer and longest chain that are read
THOUGHT_SPAN = 200_000  # characters of thinking in which a claimed way is looked for
MARKS = " \t\r\n*_`\"'“”()[]{}（）【】.,:：;。，!$\\~"  # what may stand around an answer or a step

OPENER = r"[<◁]\s?(?P<slash>/?)\s?"
CLOSER = r"(?:ing)?\s?[>▷]"
TAG = re.compile(rf"(?i){OPENER}(?P<name>think|(?:final[ _-]?)?answer){CLOSER}")  # "◁/think▷"
END_OF_THOUGHT = re.compile(rf"(?i){OPENER.replace('/?', '/')}(?P<name>think){CLOSER}")
OPENING = rf"{OPENER.replace('/?', '')}think{CLOSER}"
REPEATED_OPENING = re.compile(rf"(?i)\s*{OPENING}")
OPEN_END = re.compile(rf"(?i){OPENING}\s*\Z")
# "B<|im_end|>"
CONTROL_TOKEN = re.compile(r"<\|(?:im_end|im_start|endoftext|eot_id|end_of_box)\|>|</s>|<eos>")

# ---- the path thought of -----------------------------------------------------------------------

GOING = r"\b(?:walk|go|mov|head|trac|travel|step|work)ing\s"
PATH = r"(?:path|route|order|way|direction|walk|trip|journey|thinking|sequence|steps?)\b"
THINKING = r"\bthink(?:ing)?\s(?:(?:about|in|of|the)\s)*(?P<claim>forward|reverse|backward)s?\b"
GOING_BACK = rf"{GOING}(?:\w+\s)?(?:back(?:wards?)?|in reverse)\b"  # "walking it back"
RETRACING = r"\b(?:retracing|backtracking|in reverse)\b"
BACK_PATH = rf"\b(?:revers(?:e|ed)|backwards?|return)\s{PATH}|\b(?:the|my|our)\sway\sback\b"
GOING_FORWARD = rf"{GOING}forwards?\b|\bforwards?\s{PATH}"  # "walking forward", "forward path"
LABEL = r"^\W{0,4}(?P<label>forward|reverse|backward)s?\W{0,3}:"  # "**Forward**:" on a line
WAY = re.compile(  # a claim to think the path in one way
    rf"(?mi){THINKING}|(?P<reverse>{GOING_BACK}|{RETRACING}|{BACK_PATH})"
    rf"|(?P<forward>{GOING_FORWARD})|{LABEL}"
)
REPEATED_QUESTION = r"\s{0,3}(?:what|which|how|please)\b[^?]{0,200}\?"
REPEATED_TASK = r"\s{0,3}describe in detail[^.?]{0,200}[.?]"
UNTIL_COLON = r"[^:\n,\[?.]{0,60}[:：]"  # "from the end, I pass:"
SUBJECT = (  # ", from the shop, I would"
    r"[\s,]{0,3}(?:from [^,:.]{0,60}, )?(?:(?:i|we|you|one)\b(?: would| will| must| should)?)?"
)
LEAD = re.compile(  # what stands between the claim and its first step
    rf"(?i){REPEATED_QUESTION}|{REPEATED_TASK}|{UNTIL_COLON}|{SUBJECT}"
)
CONCLUSION = (  # "Hence …", "so the answer …"
    r"\b(?:hence|therefore|thus)\b|\bso\b,? (?=(?:the|i|it|option|my|[a-h])\b)"
)
NAMED_ANSWER = (  # "the final answer", "Option B", "answer:"
    r"\b(?:the|my|final) (?:(?:correct|right|final|best) )*(?:answer|option|choice)\b"
    r"|\bOption [A-H]\b|\banswer:"
)
COMPARISON = r"\b(?:this|that|which) (?:matches|corresponds|means|is|gives|fits|leads)\b"
CHAIN_END = re.compile(  # what follows the last step
    rf"(?i)\band then think\b|{CONCLUSION}|\n[ \t]{{0,9}}\n|{NAMED_ANSWER}|{COMPARISON}"
)
SEPARATOR = r"\n|->|→|=>|[;,；，、•]|\.(?=\s|$)"
BULLET = r"(?:^|(?<=\s))(?:\d{1,2}[.)]|[-*–])(?=\s)"  # "1." or "-"
STEP_SPLIT = re.compile(rf"(?i){SEPARATOR}|{BULLET}|\bthen\b|\bnext\b(?! to)")
STEP_LEAD = re.compile(r"(?i)(?:(?:and|first|finally|lastly|i|we|you)\b[\s,]*)*")  # "First, I …"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote, taken apart."""

    think: str
    answer: str  # as written: a letter, an option's text, a route; "" where there is none
    steps: tuple[str, ...]  # the path thought of
    way: str  # the way that path claims to run: forward, reverse or ""
    reason: str  # why there is no answer: absent, ambiguous, truncated or unreadable; else ""
    text: str
    source: str = ""  # where the answer stands: tagged, cut (its tag is not closed), untagged


def opens_thinking(prompt: str) -> bool:
    r"""Return whether a rendered prompt opens the thinking, as some chat templates do.

    Replies to such a prompt are parsed, scored and rewarded with `thinking_opened=True`.

    >>> opens_thinking("<|im_start|>assistant\n<think>\n")
    True
    >>> opens_thinking("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    False
    """
    return bool(OPEN_END.search(prompt))


def parse(text: str, thinking_opened: bool | None = None) -> Reply:
    """Take a reply apart without knowing the options: total, linear in the text, never guessing.

    `thinking_opened` says whether the prompt opened the thinking (`opens_thinking`). Then a reply
    cut inside it is truncated. None means unknown: a closing tag alone shows that it was open.

    >>> r = parse("<think>Walking back: 1. turn around 2. turn left</think> <answer>B</answer>")
    >>> r.answer, r.way, r.steps
    ('B', 'reverse', ('turn around', 'turn left'))
    >>> parse("so the answer is D. But wait", thinking_opened=True).reason
    'truncated'
    """
    pieces, last = _split_tags(text, bool(thinking_opened))
    think = "\n".join(pieces["think"]).strip()
    way, steps = claimed_path(think)
    answer, reason, source = _read_answer(pieces, last)
    return Reply(think, answer, steps, way, reason, text, source)


def _split_tags(text: str, thinking_opened: bool) -> tuple[dict[str, list[str]], str]:
    """Cut a reply into what stands in "think", in "answer" and in no tag; name the last."""
    pieces: dict[str, list[str]] = {"think": [], "answer": [], "": []}
    inside = ""
    start = 0
    if thinking_opened:
        inside = "think"
        repeated = REPEATED_OPENING.match(text)
        start = repeated.end() if repeated else 0
    while True:
        # all that stands in a thought is thinking, tags too
        tag = (END_OF_THOUGHT if inside == "think" else TAG).search(text, start)
        if not tag:
            break
        is_opening = not tag["slash"]
        name = "think" if tag["name"].lower() == "think" else "answer"
        if name == "think" and not (is_opening or inside or pieces["think"]):
            # nothing opened this thought: the prompt did, and all so far is thinking
            pieces = {"think": [text[: tag.start()]], "answer": [], "": []}
        else:
            pieces[inside].append(text[start : tag.start()])
        inside = name if is_opening else ""
        start = tag.end()
    pieces[inside].append(text[start:])
    return pieces, inside


def _read_answer(pieces: dict[str, list[str]], last: str) -> tuple[str, str, str]:
    """Return the one answer, or the reason why there is none, and where the answer stands."""
    if last == "think":
        return "", "truncated", ""
    answers = pieces["answer"]
    if len(answers) > 1:
        return "", "ambiguous", ""
    if answers:
        source = "cut" if last == "answer" else "tagged"
        answer = answers[0]
    else:
        source = "untagged"
        answer = "\n".join(pieces[""])[-SPAN:]
    if len(answer) > SPAN:  # no option and no route is so long
        return "", "unreadable", ""
    answer = CONTROL_TOKEN.sub("", answer).strip()
    if not answer:
        return "", "absent", ""
    return answer, "", source


def claimed_path(think: str) -> tuple[str, tuple[str, ...]]:
    """Find the way that thinking first claims to run, and the steps it lists for it.

    >>> claimed_path("Thinking forward: turn left, go straight. Hence B")
    ('forward', ('turn left', 'go straight'))
    """
    claim = WAY.search(think, 0, THOUGHT_SPAN)
    if not claim:
        return "", ()
    word = claim["claim"] or claim["label"] or claim.lastgroup
    way = "forward" if word.lower() == "forward" else "reverse"
    chain = think[claim.end() : claim.end() + SPAN]
    chain = chain[LEAD.match(chain).end() :]
    end = len(chain)
    for pattern in (CHAIN_END, WAY):
        match = pattern.search(chain)
        if match:
            end = min(end, match.start())
    return way, split_steps(chain[:end])


def split_steps(text: str) -> tuple[str, ...]:
    """Cut a written list into its steps.

    Steps are parted by numbers, bullets, arrows, commas, sentences or "then", or stand quoted in a
    Python list.

    >>> split_steps("First, turn left; then go straight.")
    ('turn left', 'go straight')
    """
    if text.lstrip().startswith("["):
        return quoted_steps(text)
    steps = []
    for part in STEP_SPLIT.split(text):
        part = part.strip(MARKS)
        step = part[STEP_LEAD.match(part).end() :].strip(MARKS)
        if step:
            steps.append(step)
    return tuple(steps)
