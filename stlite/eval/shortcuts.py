"""Which answers score without a look at the video: one letter, the longest option, a classifier."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean

from stlite.data.checks import RULES
from stlite.data.sample import LETTERS, Sample
from stlite.data.splits import group_of
from stlite.eval.statistics import intervals

FOLDS = 5


def shortcuts(samples: Iterable[Sample]) -> list[dict]:
    """Score the answers that need no look at a video, with 95 % intervals by group.

    A rule that leaves several options draws among them. The text classifier is tested on groups it
    has not seen.
    """
    choices = [s for s in samples if s.options]
    if not choices:
        return []
    answers = [s.answer for s in choices]
    letter = Counter(answers).most_common(1)[0][0]
    scores = {f"always {letter}": [float(answer == letter) for answer in answers]}
    for name, rule in RULES.items():
        scores[name] = [rule_score(rule, s) for s in choices]
    scores["text classifier"] = classifier_scores(choices)

    chance = fmean(1 / len(s.options) for s in choices)
    rows = []
    for name, values in scores.items():
        row = {"baseline": name} | _mean_and_interval(choices, values)
        rows.append(row | {"n": len(values), "chance": chance})
    return rows


def rule_score(rule, sample: Sample) -> float:
    """Return the chance to be right of one who draws among the options that a rule leaves."""
    left = rule(sample.options)
    return (LETTERS.index(sample.answer) in left) / len(left)


def _mean_and_interval(choices: Sequence[Sample], values: Sequence[float]) -> dict:
    """Return accuracy, low and high, as reports compute them; None without values."""
    import numpy as np

    if not values:
        return {"accuracy": None, "low": None, "high": None}
    groups = list(map(group_of, choices))
    row = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    sums = np.zeros((len(row), 1))
    counts = np.zeros((len(row), 1))
    for group, value in zip(groups, values):
        sums[row[group]] += value
        counts[row[group]] += 1
    estimate = intervals(sums, counts, [[1.0]])[0]
    return {"accuracy": fmean(values), "low": estimate["low"], "high": estimate["high"]}


def classifier_scores(choices: Sequence[Sample]) -> list[float]:
    """Cross-validate, by group, a logistic regression that tells right options by words and place.

    Returns 1 or 0 a sample; nothing where the groups are too few to leave one out.
    """
    from sklearn.model_selection import GroupKFold

    groups = list(map(group_of, choices))
    folds = min(FOLDS, len(set(groups)))
    if folds < 2:
        return []
    scores = [0.0] * len(choices)
    for train, test in GroupKFold(folds).split(choices, groups=groups):
        train = [i for i in train if len(choices[i].options) > 1]
        if not train:
            return []
        model = _fit([choices[i] for i in train])
        for i in test:
            favourite = model.decision_function(_described(choices[i])).argmax()
            scores[i] = float(LETTERS[favourite] == choices[i].answer)
    return scores


def _fit(choices: Sequence[Sample]):
    """Fit a classifier of options, right or wrong."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = []
    right = []
    for sample in choices:
        texts += _described(sample)
        right += [letter == sample.answer for letter in sample.letters]
    words = CountVectorizer(token_pattern=r"\S+", binary=True)
    return make_pipeline(words, LogisticRegression(max_iter=1000)).fit(texts, right)


def _described(sample: Sample) -> list[str]:
    """Write each option with its letter and the rules that would choose it."""
    texts = [f"{text} letter={letter}" for letter, text in zip(LETTERS, sample.options)]
    for name, rule in RULES.items():
        for i in rule(sample.options):
            texts[i] += f" is={name.replace(' ', '_')}"
    return texts
