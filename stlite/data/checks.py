"""What is wrong with a data set, and what of it can be mended without a guess."""

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from os import PathLike
from statistics import fmean

from stlite.data import prompts
from stlite.data.defects import DEFECTS, OPENINGS, VERDICT, twins, words
from stlite.data.prompts import read_trace
from stlite.data.sample import LETTERS, TASKS, Sample
from stlite.data.splits import group_of
from stlite.data.steps import uncertain_steps

FAR = 3.0  # standard errors: fair questions hardly ever are so far from chance
NEAR = 1.6  # one fair set in five is as far
SEVERITIES = ("error", "warning", "note")
FIELDS = ("question", "options", "answer", "trace")  # that `fix` may change

Rule = Callable[[Sequence[str]], list[int]]  # options → places of those it would choose


# ---- a whole data set


def check(
    samples: Iterable[Sample], videos: str | PathLike | None = None, frames: int | None = None,
    held_out: Iterable[Sample] = (),
) -> list[dict]:  # fmt: skip
    """Return what is wrong, worst first: code, severity, count, of, fix, ids.

    Most are faults of the released files (paper section 2). With `videos`, a root, every video is
    read, `frames` of it. With `held_out`, groups on both sides are found.
    """
    samples = list(samples)
    findings = []
    for code, (severity, fix, has) in DEFECTS.items():
        ids = [s.id for s in samples if has(s)]
        findings.append(_finding(code, severity, ids, len(samples), fix))
    findings.append(_duplicate_questions(samples))
    findings.append(_held_out_overlap(samples, held_out))
    findings.append(_letter_imbalance(samples))
    findings += _no_way_back(samples)
    findings += _give_aways([s for s in samples if len(s.options) > 1])
    if videos is not None:
        findings += _videos(samples, videos, frames)
    there = [finding for finding in findings if finding["count"]]
    return sorted(there, key=lambda finding: SEVERITIES.index(finding["severity"]))


def _finding(code: str, severity: str, ids: Sequence[str], of: int, fix: str) -> dict:
    return {
        "code": code,
        "severity": severity,
        "count": len(ids),
        "of": of,
        "fix": fix,
        "ids": list(ids),
    }


def _duplicate_questions(samples: Sequence[Sample]) -> dict:
    def question(s: Sample) -> tuple:
        return s.video, s.task, s.way, s.question, frozenset(s.options)

    counts = Counter(map(question, samples))
    ids = [s.id for s in samples if counts[question(s)] > 1]
    return _finding("duplicate-questions", "warning", ids, len(samples), "keep one of them")


def _held_out_overlap(samples: Sequence[Sample], held_out: Iterable[Sample]) -> dict:
    groups = {group_of(s) for s in held_out}
    ids = [s.id for s in samples if groups and group_of(s) in groups]
    return _finding("held-out-overlap", "error", ids, len(samples), "split by splits.by_group")


def _letter_imbalance(samples: Sequence[Sample]) -> dict:
    letter, z = _most_frequent_letter(samples)
    choices = [s for s in samples if s.options]
    ids = [s.id for s in choices if z > NEAR and s.answer == letter]
    severity = "warning" if z > FAR else "note"
    return _finding("letter-imbalance", severity, ids, len(choices), "fix() shuffles the options")


def _most_frequent_letter(samples: Sequence[Sample]) -> tuple[str, float]:
    """Return the letter that is right most above chance, and by how many standard errors."""
    z_scores = {}
    for place, letter in enumerate(LETTERS):
        offered = [s for s in samples if len(s.options) > place]
        chances = [1 / len(s.options) for s in offered]
        observed = sum(s.answer == letter for s in offered)
        variance = sum(p * (1 - p) for p in chances)
        z_scores[letter] = (observed - sum(chances)) / math.sqrt(variance or 1)
    letter = max(z_scores, key=z_scores.get)
    return letter, z_scores[letter]


def _no_way_back(samples: Sequence[Sample]) -> list[dict]:
    """Find annotated lists that no rule walks back for certain, and name the column to write."""
    findings = []
    for task in TASKS[1:]:
        column = f"{task}_reverse"
        ids = []
        unsure = Counter()
        for s in samples:
            one_way = s.task == task and s.steps_forward and not s.steps_reverse and not s.trace
            steps = uncertain_steps(s.steps_forward, task) if one_way else ()
            if steps:
                ids.append(s.id)
                unsure.update(steps)
        steps = "; ".join(step for step, _ in unsure.most_common(3))
        fix = f"write the column {column}: no certain way back for {steps}"
        of = sum(s.task == task for s in samples)
        findings.append(_finding(f"no-{column.replace('_', '-')}", "warning", ids, of, fix))
    return findings


def _give_aways(choices: Sequence[Sample]) -> list[dict]:
    """Find the rules that name the right option without a video far more often than chance."""
    findings = {}
    for name, rule in RULES.items():
        findings[name] = _give_away(f"key-is-{name.replace(' ', '-')}", rule, choices)
    if findings["no final period"]["count"]:
        findings["wrong ends"] = _wrong_ends(choices)
    return list(findings.values())


def _wrong_ends(choices: Sequence[Sample]) -> dict:
    """Count the distractors that end in a period: they tell the key that does not."""
    ids = []
    count = 0
    for s in choices:
        ended = sum(option.endswith(".") for option in s.options) - s.gold.endswith(".")
        if ended:
            ids.append(s.id)
        count += ended
    of = sum(len(s.options) - 1 for s in choices)
    finding = _finding("wrong-ends-in-period", "warning", ids, of, "end all options alike")
    return finding | {"count": count}


def _give_away(code: str, rule: Rule, choices: Sequence[Sample]) -> dict:
    """Count how often the key is among the options a rule chooses, where it leaves some out."""
    ids = []
    applied = 0
    excess = 0.0
    variance = 0.0
    for s in choices:
        chosen = rule(s.options)
        if len(chosen) == len(s.options):
            continue
        chance = 1 / len(s.options)
        right = LETTERS.index(s.answer) in chosen
        if right:
            ids.append(s.id)
        applied += 1
        excess += right / len(chosen) - chance
        variance += chance / len(chosen) - chance**2
    if excess <= FAR * math.sqrt(variance):
        ids = []
    fix = "write distractors that the rule cannot tell"
    return _finding(code, "warning", ids, applied, fix)


def _videos(samples: Sequence[Sample], root: str | PathLike, frames: int | None) -> list[dict]:
    from stlite.data.video_checks import check_videos  # numpy takes its time

    findings = []
    for code, severity, fix, ids in check_videos(samples, root, frames):
        findings.append(_finding(code, severity, ids, len(samples), fix))
    return findings


# ---- mending


def fix(samples: Iterable[Sample], seed: int = 0) -> tuple[list[Sample], list[dict]]:
    """Mend what needs no guess: stems, doubled openings, wording of traces, too common letters.

    Returns the samples and the changes: id, code, field, before, after.
    """
    samples = list(samples)
    _, z = _most_frequent_letter(samples)
    mended = []
    changes = []
    for sample in samples:
        for code, mend in MENDS.items():
            if DEFECTS[code][2](sample):
                sample = _mend(sample, code, mend(sample), changes)
        if z > NEAR:
            sample = _mend(sample, "letter-imbalance", shuffled(sample, seed), changes)
        mended.append(sample)
    return mended, changes


def _mend(before: Sample, code: str, after: Sample, changes: list[dict]) -> Sample:
    """Note each field that a mend changes, and return the mended sample."""
    for field in FIELDS:
        old = getattr(before, field)
        new = getattr(after, field)
        if old != new:
            change = {"id": before.id, "code": code, "field": field, "before": old, "after": new}
            changes.append(change)
    return after


def _new_stem(s: Sample) -> Sample:
    return replace(s, question=prompts.stem(s.task, s.way))


def _first_opening(s: Sample) -> Sample:
    first = OPENINGS.search(s.question)[0]
    return replace(s, question=first + OPENINGS.sub("", s.question))


def _new_trace(s: Sample) -> Sample:
    (_, way), _, path = read_trace(s.trace)
    traced = replace(s, **{f"steps_{way}": path})
    return replace(s, trace=prompts.trace(traced, way))


MENDS: dict[str, Callable[[Sample], Sample]] = {
    "stem-of-another-task": _new_stem,
    "opening-twice": _first_opening,
    "trace-of-another-task": _new_trace,
}


def shuffled(s: Sample, seed: int = 0) -> Sample:
    """Shuffle the options by seed and id, the answer and the trace's letter along.

    A trace of another form, whose letter cannot be found, forbids it.
    """
    if not s.options or (s.trace and not VERDICT.search(s.trace)):
        return s
    count = len(s.options)
    order = random.Random(f"{seed}/{s.id}").sample(range(count), count)
    options = [s.options[place] for place in order]
    new_letters = {LETTERS[old]: LETTERS[new] for new, old in enumerate(order)}

    def verdict(match: re.Match) -> str:
        return match[1] + new_letters.get(match[2], match[2])

    trace = VERDICT.sub(verdict, s.trace)
    return replace(s, options=options, answer=new_letters[s.answer], trace=trace)


# ---- rules that look at the options alone


def _longest(options: Sequence[str]) -> list[int]:
    return _highest([len(option) for option in options])


def _shortest(options: Sequence[str]) -> list[int]:
    return _highest([-len(option) for option in options])


def _no_final_period(options: Sequence[str]) -> list[int]:
    return _highest([not option.endswith(".") for option in options])


def _permutation_pair(options: Sequence[str]) -> list[int]:
    return twins(options) or list(range(len(options)))


def _medoid(options: Sequence[str]) -> list[int]:
    """Choose the option most like all: the highest sum of overlaps of words (Jaccard)."""
    bags = [set(words(option).split()) for option in options]
    likeness = []
    for bag in bags:
        likeness.append(sum(len(bag & other) / (len(bag | other) or 1) for other in bags))
    return _highest(likeness)


def _highest(values: Sequence[float]) -> list[int]:
    return [i for i, value in enumerate(values) if value > max(values) - 1e-9]


RULES: dict[str, Rule] = {
    "longest": _longest,
    "shortest": _shortest,
    "no final period": _no_final_period,
    "permutation pair": _permutation_pair,
    "medoid": _medoid,
}


# ---- tables


def describe(samples: Iterable[Sample]) -> list[dict]:
    """Count samples, and average options, steps and words, by task and way (paper Figure 4)."""
    kinds = defaultdict(list)
    for s in samples:
        kinds[TASKS.index(s.task), s.way].append(s)
    return [_count(TASKS[task], way, kinds[task, way]) for task, way in sorted(kinds)]


def _count(task: str, way: str, samples: Sequence[Sample]) -> dict:
    lengths = [len(s.steps) for s in samples if s.steps]
    return {
        "task": task,
        "way": way,
        "samples": len(samples),
        "videos": len({s.video for s in samples}),
        "options": fmean(len(s.options) for s in samples),
        "steps": fmean(lengths or [0]),
        "words": fmean(len(s.gold.split()) for s in samples),
    }


def format_table(rows: Sequence[dict], hide: Sequence[str] = ("ids",)) -> str:
    """Write rows as aligned text, for findings, shortcuts and counts alike."""
    names = [name for name in (rows[0] if rows else {}) if name not in hide]
    grid = [names]
    for row in rows:
        grid.append([_cell(row[name]) for name in names])
    widths = [max(map(len, column)) for column in zip(*grid)]
    lines = ["  ".join(map(str.ljust, line, widths)) for line in grid]
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return "".join(c if c.isprintable() else "?" for c in text)
