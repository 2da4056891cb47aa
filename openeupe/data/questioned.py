"""Which images with questions: photos with boxes, procedural scenes; and what is true of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from openeupe.config import Config
from openeupe.data.coco_questions import BoxQuestions, with_article
from openeupe.data.questions import Question, QuestionedImages
from openeupe.data.scenes import CLASSES, Scenes
from openeupe.data.seeds import derive_seed
from openeupe.data.staging import COLOURS

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LONGEST = 8  # letters of a sign that the truth spells


class QuestionData(Config):
    """Images with questions to learn from ("train") and to judge by ("test").

    boxes: photos and YOLO boxes, as COCO-128 comes: PATH/images/PART, PATH/boxes/PART, and the
    classes' names in PATH/NAMES. scenes: procedural scenes; needs no files.
    """

    layout: Literal["boxes", "scenes"]
    path: Path | None = Field(None, description="Layout boxes: the data set's folder")
    train: str = Field("train2017", description="Layout boxes: folder inside images and boxes")
    test: str = Field("val2017", description="Layout boxes: folder inside images and boxes")
    names: Path = Field(Path("object_detection.yaml"), description="Layout boxes: inside path")
    asked: int = Field(3, ge=1, description="Boxes: yes-questions of an image, at most; as many no")
    train_asked: int = Field(20, ge=1, description="Boxes: the same, of the train part")
    count: int = Field(1500, ge=1, description="Scenes: images of the train part")
    test_count: int = Field(300, ge=1, description="Scenes: images of the test part")
    seed: int = Field(0, description="Which scenes, or which questions")
    side: int = Field(224, ge=32, description="Scenes: height and width in pixels")

    @model_validator(mode="after")
    def _complete(self) -> QuestionData:
        if self.layout == "boxes" and self.path is None:
            raise ValueError("layout boxes needs a path")
        return self

    def open(self, root: Path) -> tuple[QuestionedImages, QuestionedImages]:
        """(train, test). Raises `InputError` as `BoxQuestions`, and for files that are no images.

        Args:
            root: the folder that a relative `path` starts from.
        """
        if self.layout == "scenes":
            train = Scenes(self.count, seed=self.seed, split="train", side=self.side)
            return train, Scenes(self.test_count, seed=self.seed, split="test", side=self.side)
        assert self.path is not None
        path = root / self.path.expanduser()
        parts = [
            BoxQuestions(
                path / "images" / part,
                path / "boxes" / part,
                path / self.names,
                asked=asked,
                seed=self.seed,
            )
            for part, asked in ((self.train, self.train_asked), (self.test, self.asked))
        ]
        for part in parts:
            part.check()
        return parts[0], parts[1]


def drills(images: QuestionedImages) -> list[Question]:
    """Further questions to learn from, more of the easy kind than an image's own.

    Scenes: the colour of every shape that is there once; two objects that are there, and each with
    the colour of another. They are not balanced as the scenes' own questions are, so nothing is
    judged by them. Other images: none.
    """
    if not isinstance(images, Scenes):
        return []
    return [question for index in range(len(images)) for question in _drilled(images, index)]


def _drilled(scenes: Scenes, index: int) -> Iterator[Question]:
    rng = np.random.default_rng(derive_seed(scenes.seed, scenes.split, "drill", index))
    things = [t for t in scenes.stage(index).things if t.kind in CLASSES]
    kinds = Counter(thing.kind for thing in things)
    for thing in things:
        if kinds[thing.kind] == 1:
            text = f"what colour is the {thing.kind}?"
            yield Question(index, text, (thing.colour,), "attribute")
    pairs = sorted({(thing.kind, thing.colour) for thing in things})
    for k in rng.permutation(len(pairs))[:2]:
        kind, colour = pairs[k]
        others = sorted({c for _, c in pairs if (kind, c) not in pairs})
        yield Question(index, f"is there {with_article(f'{colour} {kind}')}?", ("yes",), "exist")
        if others:
            wrong = others[rng.integers(len(others))]
            yield Question(index, f"is there {with_article(f'{wrong} {kind}')}?", ("no",), "exist")


def symbols(images: QuestionedImages, grid: int) -> NDArray[np.float32]:
    """`[N, S, grid, grid]`: the truth about each image, said where it is.

    What a perfect encoder could say at best: each object's class, colour, place in its cell and
    distance, written in the cell its middle lies in; a sign spells its word there.
    """
    if isinstance(images, Scenes):
        return np.stack([_scene(images, index, grid) for index in range(len(images))])
    if isinstance(images, BoxQuestions):
        truth = np.zeros((len(images), len(images.classes), grid, grid), np.float32)
        for index in range(len(images)):
            for number, x, y, _, _ in images.boxes(index):
                row, column = _cell(x, y, grid)
                truth[index, int(number), row, column] += 1
        return truth
    raise TypeError(f"the truth of {type(images).__name__} is not known")


def _scene(scenes: Scenes, index: int, grid: int) -> NDArray[np.float32]:
    shapes, colours = list(CLASSES), list(COLOURS)
    stage = scenes.stage(index)
    marks = len(shapes) + len(colours)  # sign, log distance, place inside the cell
    letters = marks + 3
    truth = np.zeros((letters + _LONGEST * len(_LETTERS), grid, grid), np.float32)
    for thing in stage.things:
        x, y = (thing.box[0] + thing.box[2]) / 2, (thing.box[1] + thing.box[3]) / 2
        row, column = _cell(x, y, grid)
        cell = truth[:, row, column]
        if thing.kind in shapes:
            cell[shapes.index(thing.kind)] += 1
            cell[len(shapes) + colours.index(thing.colour)] += 1
            cell[marks + 1] = np.log(thing.depth_m)
            cell[marks + 2] = x * grid - column
        elif thing.kind == "sign" and stage.sign is not None:
            cell[marks] = 1
            for place, letter in enumerate(stage.sign.text.lower()[:_LONGEST]):
                cell[letters + place * len(_LETTERS) + _LETTERS.index(letter)] = 1
    return truth


def _cell(x: float, y: float, grid: int) -> tuple[int, int]:
    """Row and column of the cell where (x, y), in shares of the sides, lies or is nearest."""
    row, column = (int(np.clip(np.floor(v * grid), 0, grid - 1)) for v in (y, x))
    return row, column
