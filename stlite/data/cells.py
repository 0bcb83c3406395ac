"""A cell of a table → its steps: what parts them is unmistakable, or refused with what to do.

turn left; go straight          a ";", a line break or a list in brackets parts
turn left -> go straight        otherwise arrows, "|", tabs, numbers, full-width marks
turn left, go straight          otherwise commas and the like, if each piece is one move
red, wooden door                refused: one landmark or two?
"""

import ast
import html
import json
import re
import unicodedata
from collections.abc import Sequence

from stlite.data.moves import PURE_MOVE, count_moves
from stlite.data.numbering import by_numbers, without_bare_numbers, without_numbers
from stlite.data.sample import SampleError
from stlite.data.steps import QUOTED

BLANK = " \t\r\n\ufeff\u200b\xa0"

NOTHING = {
    "", "n/a", "n.a.", "n.a", "na", "#n/a", "#na", "<na>", "nan", "none", "null", "nil", "nothing",
    "unknown", "tbd", "todo", "-", "--", "---", "–", "—", "_", "?", "??", "???", ".", "..", "...",
    "…", "/", "\\", "x", "[]", "()", "{}", "ninguno", "ninguna", "aucun", "aucune", "keine", "kein",
    "無", "无", "没有", "なし", "없음", "нет", "لا يوجد",
}  # fmt: skip

ADVICE = 'write ";" between steps, end a single one with ";", or pass separator=","'

# ---- marks

BREAK = re.compile(r"\s*(?:<br ?/?>|\\r\\n|\\n|[\n\r\v\f\x85\u2028\u2029])\s*")  # also spelled out
HARD = re.compile(r"\s*[;；؛]\s*")
LAST_MARK = re.compile(r"\s*[;；؛]\s*$")
ARROWS = "-{1,3}>|={1,3}>|[→⇒⟶⟹➔➙➜➝➞➡➤➛➨⮕▶►▸⇢⇨↦»›≫]|>{1,3}"
MARKS = {  # unmistakable: only one of these kinds may stand in a cell
    "arrow": re.compile(rf"\s*(?:{ARROWS})\ufe0f?\s*"),
    "bar": re.compile(r"\s*(?:\|{1,2}|[¦│｜‖])\s*"),
    "tab": re.compile(r" *(?:\t|\\t)+ *"),
    "bullet": re.compile(r"\s*[•●▪◦‣⁃∙⋅]\s*|\s+[·*]\s+"),
    "listing comma": re.compile(r"\s*、\s*"),
    "full-width comma": re.compile(r"\s*[，،]\s*"),
    "full-width stop": re.compile(r"\s*[。．]\s*"),
}
WITHIN = ("full-width comma", "full-width stop")  # may stand inside a step, as "," may
BACKWARD = re.compile(r"[←⇐⟵↔⇔]|<-+(?!>)|<=+")  # which way is that?

INSIDE = re.compile(r"\([^()]*\)|（[^（）]*）|\"[^\"]*\"|“[^”]*”")  # "(past the shop)" stays whole
THEN = r"(?:and then|then|after that|afterwards|and afterwards|next|finally|and finally|and)"
SOFT_MARKS = (
    r"(?<!\d)[,/]|[,/](?!\d)",  # not in "1,5 m" or "24/7"
    r"[+~\\–—·・…／～＋＆&]|\.\.\.|(?<=\s)[-‐‑‒]{1,2}(?=\s)|--",
    r"(?<=\w\w)\.\s+(?=[^\W\d_])",  # "Turn left. Go straight", not "U.S. flag"
    r"\u3000|%[0-9A-F]{2}",  # a space as wide as a character; a mark spelled as in an address
    r"(?<=\w)\s?[!:=_^](?=\s)",
)
SOFT = re.compile(  # what parts moves, and may or may not part other things
    rf"\s*(?:{'|'.join(SOFT_MARKS)})\s*(?:\b{THEN}\b,?\s*)?", re.I
)
CONNECTOR = re.compile(rf"\s+\b{THEN}\b,?\s+", re.I)
MOVE_MARK = re.compile(f"{SOFT.pattern}|{CONNECTOR.pattern}", re.I)
THEN_ALONE = re.compile(r"\s+\b(?:and then|then|after that|afterwards)\b,?\s+", re.I)
GUILLEMETS = re.compile("«([^«»]*)»")
LEADING = re.compile(r"^(?:and then|and|then),? (?=\S)", re.I)  # "then turn right"
FIRST = re.compile(r"^(?:first of all|firstly|first|at first),?\s+", re.I)
ABBREVIATION = re.compile(r"\b(?:st|mr|mrs|ms|dr|no|nr|approx|ca|vs|etc|e\.g|i\.e)\. ", re.I)
CJK = r"[\u3040-\u30ff\u3400-\u9fff]"
CJK_GAP = re.compile(rf"(?<={CJK})\s+(?={CJK})")  # there, words are not parted by spaces
WIDE_GAP = re.compile(r"\s{3,}")
PLAIN = set("'’‘`´\"“”„«()（）[].-‐‑&#%°№!?+€$£¥*ºª™®©・,/:_")  # judged above, or harmless

BULLET = re.compile(r"^\s*(?:->|→|[-*+–—•●▪◦‣⁃∙·>])\s*(?=\S)")


def split_cell(
    text: str, task: str, where: str, column: str, separator: str | None = None
) -> list[str]:
    """Split a cell into its steps; [] where it says that there are none.

    With `separator`, exactly that parts steps. Raises SampleError where steps cannot be told
    apart for certain, and where a direction step is not one move.

    >>> split_cell("1. turn left 2. go straight", "direction", "own.csv:2", "direction")
    ['turn left', 'go straight']
    """
    text = html.unescape(unicodedata.normalize("NFC", text)).strip(BLANK)
    text = GUILLEMETS.sub(r'"\1"', text)
    if is_nothing(text):
        return []
    if separator:
        pieces = text.split(separator.replace("\\t", "\t").replace("\\n", "\n"))
        return check_steps(_trimmed(pieces), task, where, column)
    pieces = _list(text)
    if pieces is None:
        pieces = _parted(text, task, where, column)
    return check_steps(pieces, task, where, column)


def is_nothing(text: str) -> bool:
    """Tell whether a cell says that there is nothing: "N/A", "-", "none"."""
    return text.strip(BLANK).casefold() in NOTHING


def check_steps(steps: Sequence[str], task: str, where: str, column: str) -> list[str]:
    """Trim steps; refuse those that say nothing, and direction steps that are not one move."""
    wanted = "a list of steps that are texts, none of them empty"
    if not isinstance(steps, (list, tuple)):
        raise SampleError(where, column, wanted, steps)
    cleaned = []
    for step in steps:
        if not isinstance(step, str) or is_nothing(_clean(step)):
            raise SampleError(where, column, wanted, steps)
        cleaned.append(_clean(step))
    for step in cleaned:
        _check_moves(step, task, where, column)
    return cleaned


def _check_moves(step: str, task: str, where: str, column: str):
    if task == "direction":
        moves = count_moves(step)
        if moves != 1:
            wanted = f"one move a step, like turn left ({ADVICE})"
            raise SampleError(where, column, wanted, f"{step} ({moves or 'no'} moves)")
    if task == "landmark" and PURE_MOVE.fullmatch(step):
        wanted = "things passed by (did the cells of this row slip into other columns?)"
        raise SampleError(where, column, wanted, step)


def _clean(step: str) -> str:
    """Trim a step of spaces, of quotes around it, and of marks and a period at its end."""
    text = " ".join(unicodedata.normalize("NFC", step).split()).strip(BLANK)
    text = LEADING.sub("", text.strip(",;，；、،؛").strip())
    quoted = len(text) > 2 and text[0] + text[-1] in ('""', "''", "“”", "「」")
    if quoted and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    if text.endswith((".", "。")) and not text.endswith(".."):
        text = text[:-1].rstrip()
    return text


# ---- lists


def _list(text: str) -> list | None:
    """Read a list in JSON or Python, in brackets or only in quotes; None where the text is none."""
    plain = text.replace("“", '"').replace("”", '"').rstrip(" ;,")
    if not plain or plain[0] + plain[-1] not in ("[]", "()", '""', "''"):
        return None
    value = _literal(plain)
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)) or len(QUOTED.findall(plain)) != len(value):
        return None  # no list, or two texts without a comma between
    return list(value)


def _literal(text: str) -> object:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


# ---- texts


def _parted(text: str, task: str, where: str, column: str) -> list[str]:
    """Split by what is unmistakable; where nothing is, by moves, or leave one step."""
    if text[0] + text[-1] == "[]":
        text = text[1:-1].strip()
    if text[:1] in ("", "{"):
        raise SampleError(where, column, f"a list of steps ({ADVICE})", text)
    if BACKWARD.search(text):
        raise SampleError(where, column, f"steps in their order ({ADVICE})", text)
    body = LAST_MARK.sub("", text)
    if HARD.search(body) or BREAK.search(body):
        return _unnumbered(_hard_pieces(text), task, where, column)
    numbered = by_numbers(body)
    if numbered:
        return numbered
    marked = _by_marks(BULLET.sub("", body).strip("。．.，، "), task, where, column)
    if marked:
        return marked
    if task == "direction":
        return _by_moves(BULLET.sub("", body), where, column)
    if body != text:  # "TV/radio;" is one step
        return [body]
    return _one(BULLET.sub("", body), where, column)


def _by_marks(text: str, task: str, where: str, column: str) -> list[str]:
    """Split by the one kind of unmistakable mark in a text; [] where there is none."""
    kinds = [kind for kind, mark in MARKS.items() if mark.search(text)]
    if not kinds:
        return []
    if len(kinds) == 1:
        return _unnumbered(_trimmed(MARKS[kinds[0]].split(text)), task, where, column)
    pieces = _all_marks(text)
    if task != "direction" or not all(map(_is_one_move, pieces)):
        raise SampleError(where, column, f"one kind of mark between steps ({ADVICE})", text)
    return pieces


def _all_marks(text: str) -> list[str]:
    pieces = [text]
    for mark in MARKS.values():
        pieces = [part for piece in pieces for part in _trimmed(mark.split(piece))]
    return pieces


def _hard_pieces(text: str) -> list[str]:
    """Split by line breaks and ";"; both together are one, and one at the end is none."""
    pieces = []
    for line in BREAK.split(text):
        line = BULLET.sub("", line)
        if line:
            pieces += _trimmed(HARD.split(line))
    return pieces


def _trimmed(pieces: Sequence[str]) -> list[str]:
    """Drop the empty piece that a mark at the start or the end leaves."""
    pieces = [piece.strip() for piece in pieces]
    if len(pieces) > 1 and not pieces[0]:
        pieces = pieces[1:]
    if len(pieces) > 1 and not pieces[-1]:
        pieces = pieces[:-1]
    return pieces


def _unnumbered(pieces: list[str], task: str, where: str, column: str) -> list[str]:
    """Take the numbers off the pieces, and refuse a piece that other marks would part."""
    pieces = without_numbers(pieces, where, column)
    pieces = [BULLET.sub("", piece) for piece in pieces]
    for kind, mark in MARKS.items():
        if kind in WITHIN:
            continue
        for piece in pieces:
            if mark.search(piece.strip(",;. ")):
                wanted = f"one kind of mark between steps, no {kind} too ({ADVICE})"
                raise SampleError(where, column, wanted, piece)
    return without_bare_numbers(pieces, task, where, column)


def _by_moves(text: str, where: str, column: str) -> list[str]:
    """Split a direction cell by soft marks if every piece is one move; else it must be one step."""
    masked = INSIDE.sub(lambda match: "\0" * len(match[0]), text)
    for mark in (SOFT, CONNECTOR, MOVE_MARK, CJK_GAP, WIDE_GAP):
        pieces = _cut(masked, text, mark)
        if len(pieces) > 1 and all(map(_is_one_move, pieces)):
            return [FIRST.sub("", piece) for piece in pieces]
    if SOFT.search(masked.strip(" .,!")):
        wanted = f"pieces that are one move each, or no mark between them ({ADVICE})"
        raise SampleError(where, column, wanted, text)
    return [text]


def _cut(masked: str, text: str, mark: re.Pattern) -> list[str]:
    """Split a text where a mark stands in its masked form."""
    pieces = []
    start = 0
    for match in mark.finditer(masked):
        pieces.append(text[start : match.start()])
        start = match.end()
    return _trimmed([*pieces, text[start:]])


def _is_one_move(piece: str) -> bool:
    return count_moves(FIRST.sub("", _clean(piece))) == 1


def _one(text: str, where: str, column: str) -> list[str]:
    """Return a cell as one step, unless something in it might part steps."""
    masked = ABBREVIATION.sub("", INSIDE.sub("", text)).strip(" .,!?")
    marks = [match[0].strip() for match in SOFT.finditer(masked)]
    unclear = [mark for mark in marks if mark != "&"]
    unclear += CJK_GAP.findall(masked) + WIDE_GAP.findall(masked)
    unclear += THEN_ALONE.findall(masked)
    if text[0] in "\"'" and len(QUOTED.findall(text)) > 1:
        unclear.append("quotes")
    unclear += [c for c in masked if unicodedata.category(c)[0] in "PSC" and c not in PLAIN]
    if unclear:
        wanted = f"steps that can be told apart ({ADVICE})"
        raise SampleError(where, column, wanted, text)
    return [text]


# ---- moments

CLOCK = re.compile(
    r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:[.,]\d+)?) ?(?:s|sec|seconds?)?", re.I
)  # 1:02.5
SECONDS_MARK = re.compile(r"\s*[;；|\n\t]\s*|,\s+|\s+")


def split_seconds(value: object, where: str, column: str) -> tuple[float, ...]:
    """Read a list of moments, or a cell of them with ";" between: 1.5, "1.5 s" or 1:02.5.

    >>> split_seconds("0.5; 1:02.5", "own.csv:2", "direction_moments")
    (0.5, 62.5)
    """
    if isinstance(value, str):
        text = value.strip(BLANK).strip("[]()").rstrip("; ")
        value = SECONDS_MARK.split(re.sub(r"(?<=\d) +(?=s)", "", text))
    elif not isinstance(value, (list, tuple)):
        value = [value]
    return tuple(_seconds(item, where, column) for item in value)


def _seconds(item: object, where: str, column: str) -> float:
    wanted = 'seconds like 1.5 with ";" between them'
    if isinstance(item, (int, float)) and not isinstance(item, bool):
        item = repr(item)
    match = CLOCK.fullmatch(item.strip()) if isinstance(item, str) else None
    if not match:
        raise SampleError(where, column, wanted, item)
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds.replace(",", "."))
