"""Score answers to `VlmMini`'s questions."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np

from openeupe.datasets.questions import Question
from openeupe.evaluation.measure import Array, Measure, joined

_NUMBERS = dict(zip(["zero", "one", "two", "three", "four", "five"], "012345", strict=True))


def is_right(answer: str, question: Question) -> bool:
    """Whether an answer is accepted; case and punctuation are ignored.

    Existence counts the first word; a number may be a word; a choice may be its letter or text.
    """
    words = _plain(answer)
    if question.choices:
        letter = question.answers[0]
        right = question.choices[string.ascii_uppercase.index(letter)]
        return bool(words) and (words[0] == letter.lower() or words == _plain(right))
    if question.ability in ("exist", "spatial"):
        words = words[:1]
    words = [_NUMBERS.get(word, word) for word in words]
    return any(words == _plain(answer) for answer in question.answers)


def gap_and_error(above: Array, below: Array, samples: Sequence[str]) -> tuple[float, float]:
    """Difference of two accuracies in points, with its standard error. The error is over images and
    seeds.

    above, below: hits `[seeds, Q]` of the same questions. samples: the image of each question.
    """
    each = above.mean(0) - below.mean(0)
    gap = float(each.mean())
    _, image = np.unique(np.asarray(samples), return_inverse=True)
    sums = np.bincount(image, each - gap)
    variance = float(np.square(sums).sum()) / len(each) ** 2
    for hits in (above, below):
        if len(hits) > 1:
            variance += float(hits.mean(1).var(ddof=1)) / len(hits)
    return 100 * gap, 100 * variance**0.5


def _plain(text: str) -> list[str]:
    marks = str.maketrans(dict.fromkeys(string.punctuation, " "))
    return text.lower().translate(marks).split()


def marked(predictions: Sequence[Sequence[str]], asked: Sequence[Question]) -> Array:
    """`[seeds, Q]`: 1 where the answer is right."""
    return np.array(
        [
            [is_right(answer, question) for answer, question in zip(answers, asked, strict=True)]
            for answers in predictions
        ],
        dtype=np.float64,
    )


def exist_f1(
    predictions: Sequence[Sequence[str]], asked: Sequence[Question], names: Sequence[str]
) -> Measure:
    """F1 of "yes" over the existence questions, as POPE counts: what is not "no" is "yes"."""
    of = [k for k, question in enumerate(asked) if question.ability == "exist"]
    there = np.array([asked[k].answers[0] == "yes" for k in of])
    yes = np.array([["no" not in _plain(answers[k]) for k in of] for answers in predictions])
    sums = np.stack([yes & there, yes & ~there, ~yes & there], axis=-1).astype(np.float64)
    return joined("f1", [names[k] for k in of], sums, scale=100, unit="%")
