"""What is right, and the gap that tells whether a probe resolves anything."""

from __future__ import annotations

import numpy as np
import pytest

from openeupe.datasets.questions import Question
from openeupe.evaluation.vlm.marking import gap_and_error, is_right


@pytest.mark.parametrize(
    ("said", "answers", "ability", "choices", "right"),
    [
        ("Yes.", ("yes",), "exist", (), True),
        ("yes, there is", ("yes",), "exist", (), True),
        ("there is", ("yes",), "exist", (), False),
        ("three", ("3",), "count", (), True),
        ("3.", ("3",), "count", (), True),
        ("33", ("3",), "count", (), False),
        ("", ("red",), "attribute", (), False),
        ("Stop", ("stop",), "read", (), True),
        ("stop it", ("stop",), "read", (), False),
        ("B.", ("B",), "choose", ("key", "star"), True),
        ("star", ("B",), "choose", ("key", "star"), True),
        ("A", ("B",), "choose", ("key", "star"), False),
    ],
)
def test_what_is_right(
    said: str, answers: tuple[str, ...], ability: str, choices: tuple[str, ...], right: bool
) -> None:
    assert is_right(said, Question(0, "?", answers, ability, choices)) is right


def test_the_gap_counts_images_not_questions() -> None:
    above, below = np.ones((1, 40)), np.zeros((1, 40))
    below[0, :20] = 1
    apart = gap_and_error(above, below, [str(k) for k in range(40)])
    joint = gap_and_error(above, below, [str(k // 20) for k in range(40)])
    assert apart[0] == joint[0] == 50
    assert apart[1] == pytest.approx(100 * 0.5 / 40**0.5)
    assert joint[1] == pytest.approx(100 * 0.5 / 2**0.5)
    seeds = gap_and_error(np.array([[1.0] * 40, [0.0] * 40]), below, [str(k) for k in range(40)])
    assert seeds[1] > 50  # two seeds of which one learned nothing resolve nothing
