"""Read which options an answer names.

The rules, in this order:
1. The exact text of one option is that option: "a red door" is no letter A.
2. A letter counts only where it stands as an answer: alone, beside its option's text, after words
   that lead up to it ("so the answer is B") or before words that judge it ("B is correct").
3. Letters that are ruled out ("not A", "C is wrong") do not count.
4. Two answers, or a letter beside another option's text, are ambiguous.
5. All else is unreadable: letters in names ("gate B"), numbers and ordinals ("the second one"),
   questions, conditions and possibilities ("if it is B", "it could be B").
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

from stlite.data.sample import LETTERS
from stlite.rewards import statements
from stlite.rewards.parse import MARKS, SPAN

ARTICLES = {"a", "an", "the"}
WORD = re.compile(r"[^\W_]+")
MOST_LEADS = 10  # words that lead up to an answer
CLAUSE_SPAN = 300  # characters read of an answer's text, and before it
INLINE_TAG = re.compile(r"</?(?:b|i|em|strong|u|code|span|p)\s?/?>", re.I)  # "<b>B</b>"
OTHER_TAG = re.compile(r"</?[A-Za-z][\w-]{0,20}\s?/?>")  # "<choice>B</choice>"
QUOTED_LETTER = re.compile(r"['’‘]([A-Ha-h])['’]")  # "'B'"
SYMBOLS = {  # "🅱", "🅑", "🇧"
    first + i: chr(65 + i) for first in (0x1F170, 0x1F150, 0x1F1E6) for i in range(26)
}
SYMBOLS |= {0xFE0F: None}
ANY_SYMBOL = re.compile("[\U0001f150-\U0001f1ff]")
LONE = re.compile(rf"(?<![{statements.LATIN}])[A-Ha-h](?![{statements.LATIN}])")
LETTER_BEHIND = re.compile(r"(?i)\((?:option |choice )?([A-H])\W*\Z")  # "the kitchen (B)"
NUMBERED = re.compile(r"(?i)(?:option|choice)\W{0,3}\Z")  # "option 2" is not the option "2"
LIST_MARKER = re.compile(r"([,;\n]?)\s\(?([A-H])[.):]\s")  # "…, B. the kitchen"
LONE_LETTER = re.compile(r"(?mi)^[^\w\n]{0,6}([A-H])[^\w\n?+#&%]{0,6}$")  # "**B**" on a line
LETTER_SENTENCE = re.compile(
    r"(?:\A|(?<=\w{3}[.!?])\s)[^\w\n]{0,6}([A-H])(?=[.!]\s|[^\w\n?+#&%]{0,6}\Z)"
)
LAST_LETTER = re.compile(LETTER_SENTENCE.pattern.replace(r"[.!]\s|", ""))
LETTER_AND_TEXT = re.compile(r"(?m)^[^\w\n]{0,6}([A-H])[.):\]*]{1,4}[ \t](.*)$")  # "B. the kitchen"


def named_options(answer: str, options: Sequence[str], source: str) -> set[str]:
    """Return the letters of the options that an answer names; "" stands for what is no option.

    `source` is where the answer stands, as `parse` says: tagged, cut or untagged.

    >>> sorted(named_options("The answer is B, not A.", ["left", "right"], "untagged"))
    ['B']
    """
    tagged = source != "untagged"
    text = _normal(answer)
    named = _named(text.rstrip("?") if tagged else text, options)
    if not named:
        named = _stated(text, options, tagged)
    if source == "cut":
        named |= _continued(text, options, named)
    return named


def names_several(answer: str, tagged: bool) -> bool:
    """Return whether an answer lists several letters that it does not rule out."""
    text = statements.CONTRAST.sub(" ", _normal(answer)).lstrip(MARKS)
    letters = {match[0].upper() for match in statements.ONE_LETTER.finditer(text)}
    return len(letters) > 1 and (tagged or bool(statements.LETTER_LIST.match(text)))


# ---- texts -------------------------------------------------------------------------------------


def _normal(text: str) -> str:
    """Replace letters in other shapes (full width, circled, emoji) by plain ones, and tags."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)[-SPAN:]
        if ANY_SYMBOL.search(text):
            text = text.translate(SYMBOLS)
    if "<" in text:
        text = OTHER_TAG.sub("\n", INLINE_TAG.sub("", text))
    return QUOTED_LETTER.sub(r'"\1"', text)


def plain(text: str) -> str:
    """Return the words of a text in lower case, without articles and marks.

    >>> plain("The red door."), plain("gate A")
    ('red door', 'gate a')
    """
    words = WORD.findall(text.casefold())
    named = [word for word in words[:-1] if word not in ARTICLES]
    return " ".join(named + words[-1:])


def _exact(text: str) -> str:
    """Return a text in lower case, without outer marks and doubled spaces."""
    return " ".join(text.casefold().split()).strip(MARKS)


@lru_cache(4096)
def _option_texts(options: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the options as `_exact` and as `plain` texts."""
    texts = [_normal(option) for option in options]
    return [_exact(text) for text in texts], [plain(text) for text in texts]


def _matches(text: str, options: Sequence[str]) -> set[str]:
    """Return the letters of the options with this text: exactly, or else word for word."""
    exact_texts, plain_texts = _option_texts(tuple(options))
    exact = _exact(text)
    if exact in exact_texts:
        return {letter for letter, option in zip(LETTERS, exact_texts) if option == exact}
    words = plain(text)
    if words and words in plain_texts:
        return {letter for letter, option in zip(LETTERS, plain_texts) if option == words}
    return set()


# ---- an answer that is nothing but an option -----------------------------------------------------


def _named(answer: str, options: Sequence[str]) -> set[str]:
    """Return the letters that a whole answer names: a text, a letter, or a letter before a text."""
    bare = answer.strip(MARKS)
    if len(bare) == 1 and bare.isalpha():
        # a letter that is the text of another option names two
        return {bare.upper()} | _matches(bare, options)
    return _texts_named(bare, options)


def _texts_named(text: str, options: Sequence[str]) -> set[str]:
    """Return the letters of "the kitchen", or of "B. the kitchen": the exact text comes first."""
    exact_texts, _ = _option_texts(tuple(options))
    matches = _matches(text, options)
    if matches and _exact(text) in exact_texts:
        return matches
    return _lettered(text, options) or matches


def _lettered(answer: str, options: Sequence[str]) -> set[str]:
    """Return the letters that "B. the kitchen" names: the letter, and that of the text."""
    behind = LETTER_BEHIND.search(answer)
    if behind:
        letter = behind[1].upper()
        matches = _matches(answer[: behind.start()], options)
    else:
        letter = answer[:1].upper()
        if not letter or letter not in LETTERS or answer[1:2].isalnum() or answer[:2] == "a ":
            return set()
        matches = _matches(answer[1:], options)
    if letter in matches:  # of two options with this text, the letter names one
        return {letter}
    return matches | {letter} if matches else set()


def _continued(answer: str, options: Sequence[str], named: set[str]) -> set[str]:
    """Return the letters of longer options that an answer, cut short, may have begun."""
    exact_texts, _ = _option_texts(tuple(options))
    begun = _exact(answer)
    letters = set()
    for letter, text in zip(LETTERS, exact_texts):
        rest = text[len(begun) :]
        if begun and text.startswith(begun) and rest and not rest[0].isalpha():
            letters.add(letter)
    return letters if named else set()


# ---- an answer that is stated ------------------------------------------------------------------


def _stated(answer: str, options: Sequence[str], tagged: bool) -> set[str]:
    """Return the letters of all options that a text states to be the answer; "" is none of them."""
    text = statements.CONTRAST.sub(" ", answer)
    named: set[str] = set()
    sentence = reached = 0
    for start in statements.START.finditer(text):
        if start.lastgroup == "sentence":
            sentence = start.end()
        if start.start() < reached:  # read already, as words that lead up to an answer
            continue
        ends = list(_lead_ends(text, start.end(), tagged))
        reached = ends[-1]
        if not _is_doubtful(text, sentence, start):
            named |= _statement(text, start, ends, options, tagged)
    if not tagged:
        named |= _bare_letters(text)
        return named or _lettered_lines(text, options)
    reason = statements.REASON.search(answer)
    if reason and not named:
        named = _matches(answer[: reason.start()], options)
    return named


def _bare_letters(text: str) -> set[str]:
    """Return the letters that stand alone in an untagged text: on a line, or first or last."""
    letters = {match[1].upper() for match in LONE_LETTER.finditer(text)}
    first = statements.BARE_LETTER.match(text)
    if first:
        letters.add(first[1].upper())
    if LAST_LETTER.search(text[-CLAUSE_SPAN:]):
        letters |= {match[1] for match in LETTER_SENTENCE.finditer(text)}
    return letters


def _statement(
    text: str, start: re.Match, ends: list[int], options: Sequence[str], tagged: bool
) -> set[str]:
    """Read what is stated behind the words that lead up to it: letters, or "" for no option.

    `ends` are the places where the text of an option may begin: after each of those words.
    """
    has_noun = bool(statements.NOUN.search(text, start.start(), ends[-1]))
    is_led = len(ends) > 1 or has_noun
    letters = statements.ANSWER_LETTERS.match(text, ends[-1])
    if letters:
        is_bare = tagged and start.lastgroup == "sentence"
        if not (is_led or is_bare or letters["judged"]) or _is_question(text, letters.end()):
            return set()
        named = {match[0].upper() for match in LONE.finditer(letters["letters"])}
        return named | _contradictions(text, letters.end(), named, options)
    if not is_led or _is_question(text, ends[-1]):
        return set()
    for end in ends if start.lastgroup == "noun" else ends[1:]:
        named = _text_at(text, end, options)
        if named:
            return named
    rest = text[ends[-1] : ends[-1] + CLAUSE_SPAN].lstrip(MARKS)
    return {""} if has_noun and rest and not statements.UNSTATED.match(rest) else set()


def _lead_ends(text: str, place: int, tagged: bool) -> Iterator[int]:
    """Yield a place, and the places after each of the words there that lead up to an answer."""
    yield place
    for _ in range(MOST_LEADS):
        lead = statements.LEAD.match(text, place)
        if not lead and tagged:
            lead = statements.HEDGE.match(text, place)
        if not lead:
            return
        place = lead.end()
        yield place


def _is_doubtful(text: str, sentence: int, start: re.Match) -> bool:
    """Return whether the words before a statement make it a condition, or deny it."""
    end = start.start() if start.lastgroup == "noun" else start.end()
    before = text[max(sentence, end - CLAUSE_SPAN) : end]
    return bool(statements.CONDITION.search(before) or statements.DENIAL.search(before))


def _is_question(text: str, end: int) -> bool:
    sentence_end = statements.SENTENCE_END.search(text, end, end + CLAUSE_SPAN)
    return bool(sentence_end) and sentence_end[0] in "?？"


def _span(options: Sequence[str]) -> int:
    """Return how many characters behind a statement can hold an option's text."""
    return 60 + 2 * max(map(len, options))


def _text_at(text: str, place: int, options: Sequence[str]) -> set[str]:
    """Return the letters of the option whose text stands at a place.

    The text runs to the end of the line, or of the sentence, or to a reason.
    """
    line = text[place : place + _span(options)].lstrip(MARKS).split("\n", 1)[0]
    if line[:1].isdigit() and NUMBERED.search(text[max(0, place - 10) : place]):
        return set()
    matches = _texts_named(line, options)
    if matches:
        return matches
    for pattern in (statements.SENTENCE_END, statements.REASON):
        end = pattern.search(line)
        matches = _texts_named(line[: end.start()], options) if end else set()
        if matches:
            return matches | _continued(line[: end.start()], options, matches)
    return set()


def _contradictions(text: str, end: int, named: set[str], options: Sequence[str]) -> set[str]:
    """Return the other options that stand right behind a letter, by text or by letter."""
    line = text[end : end + _span(options)].split("\n", 1)[0]
    exact_texts, _ = _option_texts(tuple(options))
    others = set()
    for marker in LIST_MARKER.finditer(line):
        option = (
            exact_texts[LETTERS.index(marker[2])] if marker[2] in LETTERS[: len(options)] else ""
        )
        if marker[1] or (option and _exact(line[marker.end() :]).startswith(option)):
            others.add(marker[2])
    matches = _text_at(text, end, options)
    return others | (set() if named & matches else matches)


def _lettered_lines(text: str, options: Sequence[str]) -> set[str]:
    """Return the letters of lines like "B. the kitchen", and of other options' texts there."""
    named = set()
    for line in LETTER_AND_TEXT.finditer(text):
        listed = {marker[2] for marker in LIST_MARKER.finditer(line[2])}
        if len(listed) > 1:  # "A: no. B: no. C: yes."
            named |= listed
        named |= {line[1]} | _contradictions(text, line.start(2), {line[1]}, options)
    return named
