"""Read a model's reply, whether it is `<think>…</think> <answer>B</answer>` or as untidy as models write."""

import re
from dataclasses import dataclass

from stlite.data.steps import quoted_steps

SPAN = 20_000  # characters that are read at the end of a reply without tags, of an answer, and of a chain
THOUGHT_SPAN = 200_000  # characters of thinking in which a claimed way is looked for
MARKS = " \t\r\n*_`\"'“”()[]{}（）【】.,:：;。，!$\\~"
TAG = re.compile(r"[<◁]\s?(/?)\s?(think|answer)(?:ing)?\s?[>▷]", re.I)
THOUGHT = re.compile(r"[<◁]\s?(/)\s?(think)(?:ing)?\s?[>▷]", re.I)
JUNK = re.compile(r"<\|(?:im_end|im_start|endoftext|eot_id|end_of_box)\|>|</s>|<eos>")

# "A" before a small word is the article, unless the word speaks of an answer; "a" is a letter only before a mark.
SPEAKS = r"(?:and|or|is|are|was|but|not|then|as|because|since|if|with|would|seems|plus|instead|option|choice|answer)\b"
LETTER = re.compile(
    rf"(?<![A-Za-z0-9_'’\-])(?<![a-z]\.)(?:(?!A\s[a-z])[A-H]|A(?=\s{SPEAKS})|[b-h]|a(?=\W*$|[.):,/&]|\s(?:or|and|then)\b))"
    r"(?![A-Za-z0-9_'’]|-\w|\.[a-z]\b)"
)
IT_IS = r"it(?:'s|’s| is)"
STATED = re.compile(
    r"(?i)\b(?:answer|choice|option)(?: (?:here|to (?:this|the) question))?[\W_]{0,6}"
    r"(?:\b(?:is|(?:would|should|must|has to) be)\b|(?<=[:=：]))(?!\s(?:not|in|that|un\w+)\b)"
    rf"|\b(?:(?:i|we)(?:['’]d|['’]ll| would| will)? (?:choose|pick|select|go with|say|think)|{IT_IS})\b"
    rf"(?= (?:{IT_IS} |option |the answer is )?\W{{0,4}}(?-i:[A-H])(?![\w'’-]| [a-z]{{2}}))"
    r"|(?<![\w'’])(?=(?-i:[A-H])\W{1,4}is (?:the )?(?:correct|right|best)\b)"
    r"|(?:答案|选择|选)(?:是|为|选|：|:|\s)?|\\boxed\{|<\|begin_of_box\|>"
)
FILLER = re.compile(
    r"(?i)(?:(?:therefore|thus|clear(?:ly)?|as follows|the following|likely|most|probably|either|both|option|choice|"
    r"letter|boxed|text|选项)(?:\b|(?=[A-H]))[\W_]*)*"
)
REASONS = re.compile(r"(?i)\b(?:because|since|as|while|whereas|given|which|so|based)\b|\n|\}")
LINE = re.compile(
    r"(?mi)^[ \t*_`\"'#>(\[]{0,6}(?:(?:final )?(?:option|choice|answer)\s)?[*_(]{0,3}"
    r"(?:[A-H][^\w\n]{0,6}$|(?-i:[A-H])[.):：\]*]{1,4}[ \t].*$)"
)
GOING = r"\b(?:walk|go|mov|head|trac|travel|step|work)ing\s"
PATH = r"(?:path|route|order|way|direction|walk|trip|journey|thinking|sequence|steps?)\b"
WAY = re.compile(  # a claim to think the path in one way
    r"(?mi)\bthink(?:ing)?\s(?:(?:about|in|of|the)\s)*(?P<said>forward|reverse|backward)s?\b"
    rf"|(?P<reverse>{GOING}(?:\w+\s)?(?:back(?:wards?)?|in reverse)\b|\b(?:retracing|backtracking|in reverse)\b"
    rf"|\b(?:revers(?:e|ed)|backwards?|return)\s{PATH}|\b(?:the|my|our)\sway\sback\b)"
    rf"|(?P<forward>{GOING}forwards?\b|\bforwards?\s{PATH})|^\W{{0,4}}(?P<label>forward|reverse|backward)s?\W{{0,3}}:"
)
LEAD = re.compile(  # what stands between the claim and its first step
    r"(?i)\s{0,3}(?:what|which|how|please)\b[^?]{0,200}\?|\s{0,3}describe in detail[^.?]{0,200}[.?]"
    r"|[^:\n,\[?.]{0,60}[:：]|[\s,]{0,3}(?:from [^,:.]{0,60}, )?(?:(?:i|we|you|one)\b(?: would| will| must| should)?)?"
)
END = re.compile(  # what follows the last step
    r"(?i)\band then think\b|\b(?:hence|therefore|thus)\b|\bso\b,? (?=(?:the|i|it|option|my|[a-h])\b)|\n[ \t]{0,9}\n"
    r"|\b(?:the|my|final) (?:(?:correct|right|final|best) )*(?:answer|option|choice)\b|\bOption [A-H]\b|\banswer:"
    r"|\b(?:this|that|which) (?:matches|corresponds|means|is|gives|fits|leads)\b"
)
SPLIT = re.compile(
    r"(?i)\n|->|→|=>|[;,；，、•]|\.(?=\s|$)|(?:^|(?<=\s))(?:\d{1,2}[.)]|[-*–])(?=\s)|\bthen\b|\bnext\b(?! to)"
)
OPENER = re.compile(r"(?i)(?:(?:and|first|finally|lastly|i|we|you)\b[\s,]*)*")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote, taken apart."""

    think: str
    answer: str  # as written: a letter, an option's text, a route; "" where there is none
    steps: tuple[str, ...]  # the path thought of
    way: str  # the way that path claims to run: forward, reverse or ""
    reason: str  # why there is no answer: absent, ambiguous, truncated or unreadable; "" where there is one
    text: str
    how: str = ""  # where the answer was found: tagged, stated, or the whole text


def parse(text: str) -> Reply:
    """Take a reply apart without knowing the options; total, linear in the text, and never guessing.

    >>> r = parse("<think>Walking back: 1. turn around 2. turn left</think> <answer>B</answer>")
    >>> r.answer, r.way, r.steps
    ('B', 'reverse', ('turn around', 'turn left'))
    """
    think, outside, answers, closed = _split(text)
    way, steps = claim(think)
    if not closed or len(answers) > 1:
        answer, reason, how = "", "ambiguous" if closed else "truncated", ""
    else:
        answer, reason, how = (answers[0], "", "tagged") if answers else _bare(outside)
    if len(answer) > SPAN:  # no option and no route is so long
        answer, reason = "", "unreadable" if how == "tagged" else "absent"
    answer = JUNK.sub("", answer).strip()
    return Reply(
        think.strip(),
        answer,
        steps,
        way,
        reason or ("" if answer else "absent"),
        text,
        how if answer else "",
    )


def _split(text: str) -> tuple[str, str, list[str], bool]:
    """Cut a reply into thinking, text outside all tags, answers, and whether the thinking is closed."""
    pieces: dict[str, list[str]] = {"think": [], "answer": [], "": []}
    inside, start, tag = "", 0, TAG.search(text)
    while tag:
        opens, name = not tag[1], tag[2].lower()
        if not (
            opens or inside or name == "answer" or pieces["think"]
        ):  # the chat template opened the thinking
            pieces = {"think": [text[: tag.start()]], "answer": [], "": []}
        else:
            pieces[inside].append(text[start : tag.start()])
        inside, start = (name if opens else ""), tag.end()
        tag = (THOUGHT if inside == "think" else TAG).search(
            text, start
        )  # all that is said while thinking is thinking
    pieces[inside].append(text[start:])
    return "\n".join(pieces["think"]), "\n".join(pieces[""]), pieces["answer"], inside != "think"


def _bare(text: str) -> tuple[str, str, str]:
    """Find the one answer of text without tags: stated, on a line of its own, or the whole; with reason and how."""
    end = JUNK.sub("", text[-SPAN:]).strip()
    lines = [_after(FILLER, m[0].strip(MARKS)) for m in LINE.finditer(end)]
    said = [_clause(end[m.end() : m.end() + 300]) for m in STATED.finditer(end)]
    said += [line for line in lines if len(line) == 1]
    found = [s for s in said if s] or lines
    if not found:
        return text, "", "whole"
    heads = {m[0].upper() if (m := LETTER.match(s)) else s.lower() for s in found}
    return (max(found, key=len), "", "stated") if len(heads) == 1 else ("", "ambiguous", "")


def _clause(text: str) -> str:
    """Cut what is stated before its reasons, and drop the words that lead up to it."""
    return _after(FILLER, REASONS.split(text.strip(MARKS), maxsplit=1)[0].strip(MARKS))


def _after(lead: re.Pattern, text: str) -> str:
    return text[lead.match(text).end() :].strip(MARKS)


def claim(think: str) -> tuple[str, tuple[str, ...]]:
    """Find the way that thinking first claims to run, and the steps it lists for it."""
    found = WAY.search(think, 0, THOUGHT_SPAN)
    if not found:
        return "", ()
    way = (
        "forward"
        if (found["said"] or found["label"] or found.lastgroup).lower() == "forward"
        else "reverse"
    )
    body = think[found.end() : found.end() + SPAN]
    body = body[LEAD.match(body).end() :]
    ends = [m.start() for m in (END.search(body), WAY.search(body)) if m]
    return way, split_steps(body[: min(ends, default=len(body))])


def split_steps(text: str) -> tuple[str, ...]:
    """Cut a written list into its steps: a Python list, numbers, bullets, arrows, commas, sentences, "then"."""
    if text.lstrip().startswith("["):
        return quoted_steps(text)
    return tuple(step for part in SPLIT.split(text) if (step := _after(OPENER, part.strip(MARKS))))
