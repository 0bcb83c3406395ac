"""Which answers score without a look at the video: always one letter, the longest option, a text classifier."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean

from stlite.data.checks import RULES
from stlite.data.sample import LETTERS, Sample
from stlite.data.splits import group_of
from stlite.eval.statistics import intervals


def shortcuts(samples: Iterable[Sample]) -> list[dict]:
    """Score the answers that need no look at a video: baseline, accuracy, low, high (95 %, by recording), n, chance.

    A rule that leaves several options draws among them. The text classifier is tested on recordings it has not seen.
    """
    choices = [s for s in samples if s.options]
    if not choices:
        return []
    letter, keys = (
        Counter(s.answer for s in choices).most_common(1)[0][0],
        [LETTERS.index(s.answer) for s in choices],
    )
    scores = {f"always {letter}": [float(s.answer == letter) for s in choices]}
    for name, rule in RULES.items():
        left = [rule(s.options) for s in choices]
        scores[name] = [(key in places) / len(places) for key, places in zip(keys, left)]
    scores["text classifier"] = _classified(choices)
    recordings, chance, rows = (
        [group_of(s) for s in choices],
        fmean(1 / len(s.options) for s in choices),
        [],
    )
    for name, values in scores.items():
        low, high = _interval(values, recordings) if values else (None, None)
        row = {
            "baseline": name,
            "accuracy": fmean(values) if values else None,
            "low": low,
            "high": high,
        }
        rows.append(row | {"n": len(values), "chance": chance})
    return rows


def _interval(values: Sequence[float], recordings: Sequence[str]) -> tuple[float, float]:
    """Return the 95 % interval of a mean, by recording, as reports compute it."""
    import numpy as np

    names = {name: i for i, name in enumerate(dict.fromkeys(recordings))}
    sums, counts = (
        np.bincount([names[t] for t in recordings], w)[:, None].astype(float)
        for w in (values, None)
    )
    found = intervals(sums, counts, [[1.0]])[0]
    return found["low"], found["high"]


def _classified(choices: Sequence[Sample]) -> list[float]:
    """Cross-validate, by recording, a logistic regression that tells right options by their words and their place."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline

    recordings = [group_of(s) for s in choices]
    if (folds := min(5, len({*recordings}))) < 2:
        return []
    texts, right = (
        [_described(s) for s in choices],
        [[letter == s.answer for letter in s.letters] for s in choices],
    )
    scores = [0.0] * len(choices)
    for train, test in GroupKFold(folds).split(choices, groups=recordings):
        train = [i for i in train if len(right[i]) > 1]
        if not train:
            return []
        model = make_pipeline(
            CountVectorizer(token_pattern=r"\S+", binary=True), LogisticRegression(max_iter=1000)
        )
        model.fit([t for i in train for t in texts[i]], [r for i in train for r in right[i]])
        for i in test:
            scores[i] = float(right[i][model.decision_function(texts[i]).argmax()])
    return scores


def _described(s: Sample) -> list[str]:
    texts = [f"{text} letter={letter}" for letter, text in zip(LETTERS, s.options)]
    for name, rule in RULES.items():
        for i in rule(s.options):
            texts[i] += f" is={name.replace(' ', '_')}"
    return texts
