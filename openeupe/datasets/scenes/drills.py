"""Training questions about procedural scenes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from openeupe.datasets.question_data import cell_of
from openeupe.datasets.questions import Question, QuestionedImages, with_article
from openeupe.datasets.scenes.dataset import (
    CLASSES,
    HELD_OUT,
    RELATIONS,
    Scenes,
    plural_shape,
    relation,
)
from openeupe.datasets.scenes.lettering import WORDS
from openeupe.datasets.scenes.staging import COLOURS
from openeupe.seeds import derive_seed

T = TypeVar("T")


def drills(images: QuestionedImages, grid: int) -> list[Question]:
    """Further training questions, for scenes only.

    All six abilities in the words of the scenes' own questions, and "place": which cell of a
    grid x grid an object is in. They are not balanced as the scenes' own questions are, so they
    are not used for evaluation. No question names a pair of `HELD_OUT`, unless the scenes contain
    such pairs.
    """
    if not isinstance(images, Scenes):
        return []
    return [q for index in range(len(images)) for q in _Drill(images, index, grid).questions()]


class _Drill:
    """Questions about one scene. single: the things that are unique in their kind."""

    def __init__(self, scenes: Scenes, index: int, grid: int) -> None:
        self.index, self.grid = index, grid
        self.rng = np.random.default_rng(derive_seed(scenes.seed, scenes.split, "drill", index))
        self.held_out = HELD_OUT if scenes.split == "train" else frozenset()
        stage = scenes.stage(index)
        self.things = [thing for thing in stage.things if thing.kind in CLASSES]
        self.sign = stage.sign
        self.kinds = Counter(thing.kind for thing in self.things)
        self.single = [thing for thing in self.things if self.kinds[thing.kind] == 1]
        self.absent = [kind for kind in CLASSES if kind not in self.kinds]

    def questions(self) -> Iterator[Question]:
        for thing in self.single:
            yield self._question("attribute", f"what colour is the {thing.kind}?", thing.colour)
            row, column = cell_of(*thing.middle, self.grid)
            text = f"which cell is the {thing.kind} in?"
            yield self._question("place", text, f"{row} {column}")
        yield from self._exist()
        commonest = max(self.kinds, key=lambda kind: self.kinds[kind])
        for kind in (commonest, self._one_of(CLASSES)):
            text = f"how many {plural_shape(kind)} are there?"
            yield self._question("count", text, str(self.kinds[kind]))
        yield from self._spatial()
        if self.sign is not None:
            word = self.sign.text.lower()
            yield self._question("read", "what does the sign say?", word)
            others = [other for other in WORDS if other != word]
            yield self._choice("which word is on the sign?", word, others)
        for thing in self._some(self.things, 2):
            yield self._choice("which of these is in the picture?", thing.kind, self.absent)

    def _exist(self) -> Iterator[Question]:
        """Pairs that are there, and as many that are not: mostly of a shape that is there."""
        there = sorted({(thing.kind, thing.colour) for thing in self.things})
        for kind, colour in self._some(there, 3):
            wrong = [
                (k, c)
                for k in ([kind] if self.rng.random() < 0.75 else self.absent)
                for c in COLOURS
                if (k, c) not in there and (k, c) not in self.held_out
            ]
            seen = [pair for pair in wrong if any(pair[1] == c for _, c in there)]
            asked = [((kind, colour), "yes"), (self._one_of(seen or wrong), "no")]
            for (k, c), answer in asked:
                yield self._question("exist", f"is there {with_article(f'{c} {k}')}?", answer)

    def _spatial(self) -> Iterator[Question]:
        pairs = [(a, b) for a in self.single for b in self.single if a is not b]
        for first, second in self._some(pairs, 3):
            words = self._one_of(RELATIONS)
            holds = relation(first, words, second)
            if holds is not None:
                text = f"is the {first.kind} {words} the {second.kind}?"
                yield self._question("spatial", text, "yes" if holds else "no")

    def _choice(self, text: str, right: str, wrong: Sequence[str]) -> Question:
        choices = self._some(wrong, 3)
        place = int(self.rng.integers(4))
        choices.insert(place, right)
        return Question(self.index, text, ("ABCD"[place],), "choose", tuple(choices))

    def _question(self, ability: str, text: str, answer: str) -> Question:
        return Question(self.index, text, (answer,), ability)

    def _one_of(self, items: Sequence[T]) -> T:
        return items[int(self.rng.integers(len(items)))]

    def _some(self, items: Sequence[T], count: int) -> list[T]:
        return [items[k] for k in self.rng.permutation(len(items))[:count]]
