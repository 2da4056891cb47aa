"""Data sets with questions: images with boxes, procedural scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from openeupe.config import Config
from openeupe.datasets.coco_questions import BoxQuestions
from openeupe.datasets.questions import QuestionedImages
from openeupe.datasets.scenes.dataset import CLASSES, Scenes
from openeupe.datasets.scenes.staging import COLOURS

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LONGEST = 8  # letters of a sign in the ground truth
# The ground truth of a scene by channel: shapes, colours, then sign, log distance, position in the
# cell, then the letters.
_SHAPES, _COLOURS = list(CLASSES), list(COLOURS)
_MARKS = len(_SHAPES) + len(_COLOURS)
_FIRST_LETTER = _MARKS + 3


class BoxedPhotos(Config):
    """Images and YOLO boxes in COCO-128's layout: PATH/images/PART, PATH/boxes/PART, PATH/NAMES."""

    layout: Literal["boxes"] = "boxes"
    path: Path = Field(description="The data set's folder")
    train: str = Field("train2017", description="Folder inside images and boxes")
    test: str = Field("val2017", description="Folder inside images and boxes")
    names: Path = Field(Path("object_detection.yaml"), description="Of the classes; inside path")
    asked: int = Field(3, ge=1, description="Yes-questions of an image, at most; as many no")
    train_asked: int = Field(20, ge=1, description="The same, of the train part")
    seed: int = Field(0, description="Which questions")

    def open(self, root: Path) -> tuple[BoxQuestions, BoxQuestions]:
        """(train, test).

        Args:
            root: the folder that a relative `path` starts from.

        Raises:
            InputError: as `BoxQuestions`, and for files that are no images.
        """
        path = root / self.path.expanduser()
        train, test = (
            BoxQuestions(
                path / "images" / part,
                path / "boxes" / part,
                path / self.names,
                asked=asked,
                seed=self.seed,
            )
            for part, asked in ((self.train, self.train_asked), (self.test, self.asked))
        )
        train.check()
        test.check()
        return train, test


class QuestionScenes(Config):
    """Procedural scenes with questions; needs no files."""

    layout: Literal["scenes"] = "scenes"
    count: int = Field(1500, ge=1, description="Images of the train part")
    test_count: int = Field(300, ge=1, description="Images of the test part")
    seed: int = Field(0, description="Which scenes")
    resolution: int = Field(224, ge=32, description="Height and width in pixels")

    def open(self, root: Path) -> tuple[Scenes, Scenes]:
        """(train, test); nothing is read from `root`."""
        return (
            Scenes(self.count, seed=self.seed, split="train", resolution=self.resolution),
            Scenes(self.test_count, seed=self.seed, split="test", resolution=self.resolution),
        )


QuestionData = Annotated[BoxedPhotos | QuestionScenes, Field(discriminator="layout")]


def symbols(images: QuestionedImages, grid: int) -> NDArray[np.float32]:
    """Ground truth `[N, S, grid, grid]` about each image, in the cells of its objects.

    The upper bound of an encoder: each object's class, colour, position in its cell and distance,
    in the cell of its centre; for a sign its word.
    """
    if isinstance(images, Scenes):
        return np.stack([_scene(images, index, grid) for index in range(len(images))])
    if isinstance(images, BoxQuestions):
        truth = np.zeros((len(images), len(images.classes), grid, grid), np.float32)
        for index in range(len(images)):
            for number, x, y, _, _ in images.boxes(index):
                row, column = cell_of(x, y, grid)
                truth[index, int(number), row, column] += 1
        return truth
    raise TypeError(f"the truth of {type(images).__name__} is not known")


def _scene(scenes: Scenes, index: int, grid: int) -> NDArray[np.float32]:
    stage = scenes.stage(index)
    truth = np.zeros((_FIRST_LETTER + _LONGEST * len(_LETTERS), grid, grid), np.float32)
    for thing in stage.things:
        x, y = thing.middle
        row, column = cell_of(x, y, grid)
        cell = truth[:, row, column]
        if thing.kind in _SHAPES:
            cell[_SHAPES.index(thing.kind)] += 1
            cell[len(_SHAPES) + _COLOURS.index(thing.colour)] += 1
            cell[_MARKS + 1] = np.log(thing.depth_m)
            cell[_MARKS + 2] = x * grid - column
        elif thing.kind == "sign" and stage.sign is not None:
            cell += spelling(stage.sign.text.lower())
            cell[_MARKS] = 1
    return truth


def spelling(word: str) -> NDArray[np.float32]:
    """`[S]`: the channels of a word in small letters."""
    marks = np.zeros(_FIRST_LETTER + _LONGEST * len(_LETTERS), np.float32)
    for place, letter in enumerate(word[:_LONGEST]):
        marks[_FIRST_LETTER + place * len(_LETTERS) + _LETTERS.index(letter)] = 1
    return marks


def cell_of(x: float, y: float, grid: int) -> tuple[int, int]:
    """Cell (row, column) that contains or is nearest to relative (x, y)."""
    row, column = (int(np.clip(np.floor(v * grid), 0, grid - 1)) for v in (y, x))
    return row, column
