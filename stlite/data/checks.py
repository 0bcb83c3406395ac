"""What is wrong with a data set, and which shortcuts answer its questions without a look at the video."""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from os import PathLike

from stlite.data import prompts
from stlite.data.egost import question_kind, read_trace
from stlite.data.sample import LETTERS, Sample, safe_path
from stlite.data.splits import group_of

OPENINGS = re.compile(
    r"Please take an? egocentric view to understand the following questions?\.\s*"
)
VERDICT = re.compile(r"(Hence, the correct answer is )([A-H])$")
FAR, NEAR = (
    3.0,
    1.6,
)  # standard errors: fair questions hardly ever are so far from chance, and one set in five so near


@lru_cache(1 << 16)
def words(text: str) -> str:
    """Reduce a text to its words, so that case and punctuation do not count.

    >>> words(" Turn  left.")
    'turn left'
    """
    return " ".join(re.findall(r"\w+", text.casefold()))


def _tells_answer(s: Sample) -> bool:
    path = {*words(" ".join(found[2] if (found := read_trace(s.trace)) else ())).split()}
    return s.kind == "choice" and bool(path) and path >= {*words(s.gold).split()}


def _same_both_ways(s: Sample) -> bool:
    forward, reverse = [words(x) for x in s.steps_forward], [words(x) for x in s.steps_reverse]
    return forward == reverse != [] and not (s.task == "landmark" and forward == forward[::-1])


def _twins(options: Sequence[str]) -> list[int]:
    bags = [tuple(sorted(words(option).split())) for option in options]
    return [i for i, bag in enumerate(bags) if bags.count(bag) > 1]


# code: severity, remedy, and whether a sample has it
CHECKS: dict[str, tuple[str, str, Callable[[Sample], bool]]] = {
    "stem-of-another-task": ("error", "fix() writes the stem of the task",
        lambda s: question_kind(s.question) not in (None, (s.task, s.way))),
    "opening-twice": ("warning", "fix() keeps the first of the openings",
        lambda s: len(OPENINGS.findall(s.question)) > 1),
    "trace-of-another-task": ("error", "fix() writes the trace again around the same path",
        lambda s: bool(t := read_trace(s.trace)) and (t[0][0] != s.task or t[1] != (s.task, s.way))),
    "trace-of-another-letter": ("error", "ask which letter was meant",
        lambda s: bool(m := VERDICT.search(s.trace)) and m[2] != s.answer),
    "trace-tells-answer": ("note", "expect chains that copy: score st-cot beside label training", _tells_answer),
    "reverse-is-forward": ("warning", "annotate the way back; a copy teaches no reversal", _same_both_ways),
    "few-options": ("warning", "add distractors; print chance beside scores",
        lambda s: s.kind == "choice" and len(s.options) < 4),
    "empty-option": ("error", "remove the option or the sample", lambda s: not all(o.strip() for o in s.options)),
    "duplicate-options": ("error", "change one of them: two letters cannot both be right",
        lambda s: len({words(option) or option for option in s.options}) < len(s.options)),
    "twin-options": ("note", "permute distractors too: see permutation pair below", lambda s: bool(_twins(s.options))),
}  # fmt: skip


def _question(s: Sample) -> tuple:
    return s.video, s.task, s.way, s.question, frozenset(s.options)


def check(
    samples: Iterable[Sample], videos: str | PathLike | None = None, frames: int | None = None,
    held_out: Iterable[Sample] = (),
) -> list[dict]:  # fmt: skip
    """Return what is wrong, worst first: code, severity, count, of, ids, remedy (paper section 2 names most of these).

    With `videos`, a root, every video is read; `frames` of it are asked. With `held_out`, recordings are compared.
    """
    samples = list(samples)
    met, tested = Counter(map(_question, samples)), {group_of(s) for s in held_out}
    checks = CHECKS | {
        "duplicate-questions": ("warning", "keep one of them", lambda s: met[_question(s)] > 1),
        "held-out-overlap": (
            "error",
            "split by splits.by_group",
            lambda s: bool(tested) and group_of(s) in tested,
        ),
    }
    findings = [
        _finding(code, severity, [s.id for s in samples if check(s)], len(samples), remedy)
        for code, (severity, remedy, check) in checks.items()
    ]
    letter, far = _commonest(samples)
    ids = [s.id for s in samples if far > NEAR and s.options and s.answer == letter]
    severity, of = "warning" if far > FAR else "note", sum(bool(s.options) for s in samples)
    findings.append(_finding("letter-imbalance", severity, ids, of, "fix() shuffles the options"))
    findings += _give_aways([s for s in samples if len(s.options) > 1])
    if videos is not None:
        findings += _videos(samples, videos, frames)
    order = ("error", "warning", "note")
    return sorted((f for f in findings if f["count"]), key=lambda f: order.index(f["severity"]))


def _finding(code: str, severity: str, ids: Sequence[str], of: int, remedy: str) -> dict:
    return {
        "code": code,
        "severity": severity,
        "count": len(ids),
        "of": of,
        "fix": remedy,
        "ids": list(ids),
    }


def _commonest(samples: Sequence[Sample]) -> tuple[str, float]:
    """Return the letter that is the key most above its share, and how many standard errors above."""
    best = ("A", 0.0)
    for i, letter in enumerate(LETTERS):
        some = [s for s in samples if len(s.options) > i]
        shares = [1 / len(s.options) for s in some]
        excess = sum(s.answer == letter for s in some) - sum(shares)
        best = max(
            best,
            (letter, excess / (sum(p * (1 - p) for p in shares) or 1) ** 0.5),
            key=lambda pair: pair[1],
        )
    return best


def _give_aways(choices: Sequence[Sample]) -> list[dict]:
    """Find the rules that name the right option without a video far more often than chance does."""
    found = [
        _give_away(f"key-is-{name.replace(' ', '-')}", rule, choices)
        for name, rule in RULES.items()
    ]
    if any(
        f["count"] for f in found if f["code"] == "key-is-no-final-period"
    ):  # what betrays it are the distractors
        ended = [
            (s.id, sum(o.endswith(".") for o in s.options) - s.gold.endswith(".")) for s in choices
        ]
        ids, of = [name for name, some in ended if some], sum(len(s.options) - 1 for s in choices)
        row = _finding("wrong-ends-in-period", "warning", ids, of, "end all options alike")
        found.append(row | {"count": sum(some for _, some in ended)})
    return found


def _give_away(
    code: str, rule: Callable[[Sequence[str]], list[int]], choices: Sequence[Sample]
) -> dict:
    """Count how often the key is among the options that a rule leaves, where it leaves some out."""
    ids, of, excess, variance = [], 0, 0.0, 0.0
    for s in choices:
        left, chance = rule(s.options), 1 / len(s.options)
        if len(left) < len(s.options):
            right = LETTERS.index(s.answer) in left
            ids += [s.id] * right
            of, excess = of + 1, excess + right / len(left) - chance
            variance += chance / len(left) - chance**2
    far = excess > FAR * variance**0.5
    return _finding(code, "warning", ids * far, of, "write distractors that the rule cannot tell")


def _videos(samples: Sequence[Sample], root: str | PathLike, frames: int | None) -> list[dict]:
    import warnings

    from stlite.data.video import ClipWarning, preflight

    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", ClipWarning)
        _, bad = preflight(samples, root, frames=frames or 2)
    missing = {video for video in bad if not safe_path(video, root).is_file()}
    short = {str(note.message).rpartition(": only ")[0] for note in notes if frames}
    kinds = (
        ("missing-video", missing, "put the file under the root"),
        ("unreadable-video", {*bad} - missing, "encode it again"),
        ("short-video", short, "ask for fewer frames"),
    )
    return [
        _finding(c, "error", [s.id for s in samples if s.video in some], len(samples), r)
        for c, some, r in kinds
    ]


def fix(samples: Iterable[Sample], seed: int = 0) -> tuple[list[Sample], list[dict]]:
    """Mend what needs no guess: stems, doubled openings, the wording of traces, and where a letter is too common, order.

    Returns the samples and the changes: id, code, field, before, after.
    """
    samples, changes = list(samples), []
    mends = list(MENDS.items())
    if _commonest(samples)[1] > NEAR:
        mends.append(("letter-imbalance", lambda s: shuffled(s, seed)))
    for i, s in enumerate(samples):
        for code, mend in mends:
            old = samples[i]
            samples[i] = new = mend(old) if code not in CHECKS or CHECKS[code][2](old) else old
            pairs = (
                (f, getattr(old, f), getattr(new, f))
                for f in ("question", "options", "answer", "trace")
            )
            changes += [
                {"id": s.id, "code": code, "field": f, "before": a, "after": b}
                for f, a, b in pairs
                if a != b
            ]
    return samples, changes


def _new_trace(s: Sample) -> Sample:
    (_, way), _, path = read_trace(s.trace)
    return replace(s, trace=prompts.trace(replace(s, **{f"steps_{way}": path}), way))


MENDS: dict[str, Callable[[Sample], Sample]] = {
    "stem-of-another-task": lambda s: replace(s, question=prompts.stem(s.task, s.way)),
    "opening-twice": lambda s: replace(
        s, question=OPENINGS.search(s.question)[0] + OPENINGS.sub("", s.question)
    ),
    "trace-of-another-task": _new_trace,
}


def shuffled(s: Sample, seed: int = 0) -> Sample:
    """Shuffle the options by seed and id, the answer and the trace's letter along; a trace of another form forbids it."""
    if not s.options or (s.trace and not VERDICT.search(s.trace)):
        return s
    order = random.Random(f"{seed}/{s.id}").sample(range(len(s.options)), len(s.options))
    letters = {LETTERS[old]: LETTERS[new] for new, old in enumerate(order)}
    trace = VERDICT.sub(lambda m: m[1] + letters.get(m[2], m[2]), s.trace)
    return replace(s, options=[s.options[i] for i in order], answer=letters[s.answer], trace=trace)


def _most(values: Sequence[float]) -> list[int]:
    return [i for i, value in enumerate(values) if value > max(values) - 1e-9]


def _medoid(options: Sequence[str]) -> list[int]:
    bags = [{*words(option).split()} for option in options]
    return _most([sum(len(a & b) / (len(a | b) or 1) for b in bags) for a in bags])


RULES: dict[
    str, Callable[[Sequence[str]], list[int]]
] = {  # options: the places of those that the rule would choose
    "longest": lambda options: _most([len(o) for o in options]),
    "shortest": lambda options: _most([-len(o) for o in options]),
    "no final period": lambda options: _most([-o.endswith(".") for o in options]),
    "permutation pair": lambda options: _twins(options) or list(range(len(options))),
    "medoid": _medoid,
}


def format_table(rows: Sequence[dict], hide: Sequence[str] = ("ids",)) -> str:
    """Write rows as aligned text, for findings, shortcuts and statistics alike."""
    names = [name for name in (rows[0] if rows else {}) if name not in hide]
    grid = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*grid)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in grid)


def _cell(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else "–" if value is None else str(value)
    return "".join(c if c.isprintable() else "?" for c in text)
