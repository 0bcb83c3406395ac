"""Read a model's reply: `<think>…</think> <answer>B</answer>`, or as untidy as models write."""

import re
from dataclasses import dataclass

from stlite.data.steps import quoted_steps

SPAN = 20_000  # longest tail without tags, longest answer and longest chain that are read
THOUGHT_SPAN = 200_000  # characters of thinking in which a claimed way is looked for
STATEMENT_SPAN = 300  # characters read after "the answer is"
MARKS = " \t\r\n*_`\"'“”()[]{}（）【】.,:：;。，!$\\~"  # what may stand around an answer

TAG = re.compile(r"[<◁]\s?(/?)\s?(think|answer)(?:ing)?\s?[>▷]", re.I)  # "<think>", "◁/think▷"
END_OF_THOUGHT = re.compile(r"[<◁]\s?(/)\s?(think)(?:ing)?\s?[>▷]", re.I)
# "B<|im_end|>"
CONTROL_TOKEN = re.compile(r"<\|(?:im_end|im_start|endoftext|eot_id|end_of_box)\|>|</s>|<eos>")

# ---- a letter on its own -----------------------------------------------------------------------

AFTER_LETTER = (  # "A is right", "A or B": these words show that "A" is a letter, not the article
    r"(?:and|or|is|are|was|but|not|then|as|because|since|if|with|would|seems|plus|instead"
    r"|option|choice|answer)\b"
)
BEFORE = r"(?<![A-Za-z0-9_'’\-])(?<![a-z]\.)"  # not "vitaminB", "plan-B", "e.B"
BEHIND = r"(?![A-Za-z0-9_'’]|-\w|\.[a-z]\b)"  # not "Bob", "B-side", "a.m"
CAPITAL = r"(?!A\s[a-z])[A-H]"  # "B", but not the article of "A person"
CAPITAL_A = rf"A(?=\s{AFTER_LETTER})"
SMALL = r"[b-h]"
SMALL_A = r"a(?=\W*$|[.):,/&]|\s(?:or|and|then)\b)"  # "a)", "a or b", "a."
LETTER = re.compile(rf"{BEFORE}(?:{CAPITAL}|{CAPITAL_A}|{SMALL}|{SMALL_A}){BEHIND}")

# ---- an answer without tags --------------------------------------------------------------------

IT_IS = r"it(?:'s|’s| is)"
NOUN = r"\b(?:answer|choice|option)(?: (?:here|to (?:this|the) question))?[\W_]{0,6}"
BEING = r"(?:\b(?:is|(?:would|should|must|has to) be)\b|(?<=[:=：]))"
DENIED = r"(?!\s(?:not|in|that|un\w+)\b)"  # "the answer is not B", "the answer is unclear"
ANSWER_IS = NOUN + BEING + DENIED  # "The answer is …", "Answer: …", "The choice should be …"
CHOOSING = r"(?:i|we)(?:['’]d|['’]ll| would| will)? (?:choose|pick|select|go with|say|think)"
LETTER_AHEAD = (
    rf"(?= (?:{IT_IS} |option |the answer is )?\W{{0,4}}(?-i:[A-H])(?![\w'’-]| [a-z]{{2}}))"
)
I_CHOOSE = rf"\b(?:{CHOOSING}|{IT_IS})\b{LETTER_AHEAD}"  # "I'd go with B", "I think it is B"
IS_CORRECT = (
    r"(?<![\w'’])(?=(?-i:[A-H])\W{1,4}is (?:the )?(?:correct|right|best)\b)"  # "B is correct"
)
CHINESE = r"(?:答案|选择|选)(?:是|为|选|：|:|\s)?"  # "答案是B"
BOXED = r"\\boxed\{|<\|begin_of_box\|>"  # "\boxed{B}"
STATEMENT = re.compile(rf"(?i){ANSWER_IS}|{I_CHOOSE}|{IS_CORRECT}|{CHINESE}|{BOXED}")

FILLER_WORD = (  # "the answer is most likely option B": what leads up to the answer
    r"(?:therefore|thus|clear(?:ly)?|as follows|the following|likely|most|probably|either|both"
    r"|option|choice|letter|boxed|text|选项)"
)
FILLER = re.compile(rf"(?i)(?:{FILLER_WORD}(?:\b|(?=[A-H]))[\W_]*)*")
REASONS = re.compile(  # "B because …": the answer ends here
    r"(?i)\b(?:because|since|as|while|whereas|given|which|so|based)\b|\n|\}"
)
LINE_START = r"^[ \t*_`\"'#>(\[]{0,6}(?:(?:final )?(?:option|choice|answer)\s)?[*_(]{0,3}"
LETTER_ALONE = r"[A-H][^\w\n]{0,6}$"  # "**B**"
LETTER_AND_TEXT = r"(?-i:[A-H])[.):：\]*]{1,4}[ \t].*$"  # "B. the kitchen"
ANSWER_LINE = re.compile(rf"(?mi){LINE_START}(?:{LETTER_ALONE}|{LETTER_AND_TEXT})")

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
    source: str = ""  # where the answer stands: tagged, stated, or the whole text


def parse(text: str) -> Reply:
    """Take a reply apart without knowing the options: total, linear in the text, never guessing.

    >>> r = parse("<think>Walking back: 1. turn around 2. turn left</think> <answer>B</answer>")
    >>> r.answer, r.way, r.steps
    ('B', 'reverse', ('turn around', 'turn left'))
    """
    think, outside, answers, closed = _split_tags(text)
    way, steps = claimed_path(think)
    answer, reason, source = _read_answer(outside, answers, closed)
    return Reply(think.strip(), answer, steps, way, reason, text, source)


def _split_tags(text: str) -> tuple[str, str, list[str], bool]:
    """Cut a reply into thinking, text outside all tags, answers, and whether the thinking ends."""
    pieces: dict[str, list[str]] = {"think": [], "answer": [], "": []}
    inside = ""
    start = 0
    tag = TAG.search(text)
    while tag:
        is_opening = not tag[1]
        name = tag[2].lower()
        if name == "think" and not (is_opening or inside or pieces["think"]):
            # nothing opened this thought: the chat template did, and all so far is thinking
            pieces = {"think": [text[: tag.start()]], "answer": [], "": []}
        else:
            pieces[inside].append(text[start : tag.start()])
        inside = name if is_opening else ""
        start = tag.end()
        # all that stands in a thought is thinking, tags too
        tag = (END_OF_THOUGHT if inside == "think" else TAG).search(text, start)
    pieces[inside].append(text[start:])
    return "\n".join(pieces["think"]), "\n".join(pieces[""]), pieces["answer"], inside != "think"


def _read_answer(outside: str, answers: list[str], closed: bool) -> tuple[str, str, str]:
    """Return the one answer, or the reason why there is none, and where the answer stands."""
    if not closed:
        return "", "truncated", ""
    if len(answers) > 1:
        return "", "ambiguous", ""
    if answers:
        answer, reason, source = answers[0], "", "tagged"
    else:
        answer, reason, source = _untagged_answer(outside)
    if reason:
        return "", reason, ""
    if len(answer) > SPAN:  # no option and no route is so long
        return "", "unreadable" if source == "tagged" else "absent", ""
    answer = CONTROL_TOKEN.sub("", answer).strip()
    if not answer:
        return "", "absent", ""
    return answer, "", source


def _untagged_answer(text: str) -> tuple[str, str, str]:
    """Find the one answer of text without tags: stated, on a line of its own, or the whole text."""
    end = CONTROL_TOKEN.sub("", text[-SPAN:]).strip()
    statements = _statements(end)
    lines = [_without(FILLER, match[0].strip(MARKS)) for match in ANSWER_LINE.finditer(end)]
    statements += [line for line in lines if len(line) == 1]
    statements = [statement for statement in statements if statement] or lines
    if not statements:
        return text, "", "whole"
    if len({_leading_letter(statement) for statement in statements}) > 1:
        return "", "ambiguous", ""
    return max(statements, key=len), "", "stated"


def _statements(text: str) -> list[str]:
    """List what stands after "the answer is" and its like, each cut before its reasons."""
    clauses = []
    for match in STATEMENT.finditer(text):
        rest = text[match.end() : match.end() + STATEMENT_SPAN].strip(MARKS)
        clause = REASONS.split(rest, maxsplit=1)[0].strip(MARKS)
        clauses.append(_without(FILLER, clause))
    return clauses


def _leading_letter(statement: str) -> str:
    """Return the letter that a statement starts with, or else all of it, to compare statements."""
    letter = LETTER.match(statement)
    return letter[0].upper() if letter else statement.lower()


def _without(lead: re.Pattern, text: str) -> str:
    """Drop what matches at the start of a text, and the marks around the rest."""
    return text[lead.match(text).end() :].strip(MARKS)


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
    steps = [_without(STEP_LEAD, part.strip(MARKS)) for part in STEP_SPLIT.split(text)]
    return tuple(step for step in steps if step)
