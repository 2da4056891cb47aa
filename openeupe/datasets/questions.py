"""Questions about images, with ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from openeupe.datasets.interfaces import WithLabels


@dataclass(frozen=True)
class Question:
    """One question about one image.

    image: index of the image in its set.
    text: the question as a person would ask it, without a prompt's suffix.
    answers: accepted answers, the first being what is trained on ("yes", "3", "red", "B").
    ability: that is tested: exist, count, attribute, spatial, read, choose.
    choices: of a multiple-choice question, in the order of the letters A, B, ...; else empty.
    """

    image: int
    text: str
    answers: tuple[str, ...]
    ability: str
    choices: tuple[str, ...] = ()


class QuestionedImages(WithLabels, Protocol):
    """Images with questions about them."""

    def questions(self) -> list[Question]:
        """Every question, in a fixed order."""
        ...


def with_article(name: str) -> str:
    """ "a dog", "an apple"; "skis" and their like have none."""
    if name.rpartition(" ")[2] in {"skis", "scissors", "broccoli"}:
        return f"any {name}"
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
