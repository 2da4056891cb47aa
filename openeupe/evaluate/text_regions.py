"""Where text is: a linear head on photos with words drawn over them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from openeupe.config import Config
from openeupe.data import FolderSource, View
from openeupe.data.decode import image_size
from openeupe.data.string_array import printable
from openeupe.datasets.interfaces import Images, MaskedImages
from openeupe.datasets.layouts import only_read
from openeupe.datasets.subset import spread
from openeupe.errors import InputError
from openeupe.evaluate.cells import LEVELS, CellColumn, levels_reached, reaching
from openeupe.evaluate.column import Domain, Judged
from openeupe.evaluate.measure import Measure, Outcome
from openeupe.seeds import derive_seed

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class TextData(Config):
    """Photos that words are drawn over: two folders without a common image, or scenes.

    folder: images at any depth under `train` and `test`.
    scenes: procedural objects; needs no files.
    """

    layout: Literal["folder", "scenes"]
    train: Path | None = Field(None, description="Folder of the photos to learn on")
    test: Path | None = Field(None, description="Folder of the photos to judge on")
    train_count: int | None = Field(300, ge=1, description="Evenly spaced; null: all")
    test_count: int | None = Field(150, ge=1)
    seed: int = Field(0, description="Which words, fonts and places")

    @model_validator(mode="after")
    def _read(self) -> Self:
        count = "train_count test_count seed"
        return only_read(self, folder=f"train test {count}", scenes=count)

    def open(self, root: Path) -> tuple[MaskedImages, MaskedImages]:
        """(train, test) with words; classes background and text.

        Raises:
            InputError: for a missing or empty folder, folders that share images, and files that
                are no images.
        """
        from openeupe.datasets.scenes.word_images import WordPhotos

        train, test = self._photos(root)
        return (
            WordPhotos(train, seed=derive_seed(self.seed, "words", "train")),
            WordPhotos(test, seed=derive_seed(self.seed, "words", "test")),
        )

    def _photos(self, root: Path) -> tuple[Images, Images]:
        if self.layout == "scenes":
            from openeupe.datasets.scenes.dataset import Scenes

            return (
                Scenes(self.train_count or 300, seed=self.seed, split="train", content="object"),
                Scenes(self.test_count or 150, seed=self.seed, split="test", content="object"),
            )
        if self.train is None or self.test is None:
            raise InputError("text data of layout folder needs train and test: give both folders")
        folders = [(root / path.expanduser()).resolve() for path in (self.train, self.test)]
        if folders[0] in (folders[1], *folders[1].parents) or folders[1] in folders[0].parents:
            raise InputError(
                f"text data: train {self.train} and test {self.test} share images: "
                "give two separate folders"
            )
        train, test = (
            spread(_Photos(folder), count)
            for folder, count in zip(folders, (self.train_count, self.test_count), strict=True)
        )
        return train, test


class _Photos(FolderSource):
    """A folder of photos, each of which was seen to be an image."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for index in range(len(self)):
            image_size(self.root / self._names[index])

    def name(self, index: int) -> str:
        """The path inside the folder, so that results of two machines can be compared."""
        return printable(self._names[index])


class TextRegions(CellColumn):
    """How well a linear map of patch tokens finds the pixels that are text.

    The head gives a value for each cell of a patch (`openeupe.heads.regions`), is trained by
    cross-entropy on how much of each cell is text and upsampled to the view, in which photos keep
    their aspect. text_iou counts pixels above one half over the whole set, as f1 does; best_f1 is
    F1 at the best of 99 thresholds, which leaves calibration out.
    """

    kind: Literal["text"] = "text"
    protocol: str = "text/linear-v1"
    domain: Domain = "text"
    data: TextData

    def open(self, root: Path) -> tuple[MaskedImages, MaskedImages]:
        """(train, test), checked."""
        return self.data.open(root)

    def run(self, data: tuple[MaskedImages, MaskedImages], judged: Judged) -> dict[str, Outcome]:
        """One head a seed; their maps are scored together, so that masks are made once."""
        train, test = data
        features = judged.features
        view, cells = self.view_and_cells(judged.encoder)
        side = view.height
        wanted, weight = _cells(train, view, cells)
        tokens = features.patches(train, view)
        heads = self.fit(judged, tokens, wanted, weight, balanced=False)
        tokens = features.patches(test, view)
        counts = np.zeros((self.seeds, len(test), 3))
        levels = np.zeros((self.seeds, len(test), 4 * LEVELS))
        pixels = np.zeros(2)
        for index in range(len(test)):
            mask = view.mask(test.mask(index))
            text = (mask == 1)[mask != 255].numpy()
            pixels += text.sum(), text.size
            for which, head in enumerate(heads):
                logits = head.pixels(tokens[index : index + 1], (side, side))[0].cpu()
                probability = logits.sigmoid()[mask != 255].numpy()
                counts[which, index] = confusion(probability, text)
                levels[which, index] = at_thresholds(probability, text)
        names = [test.name(index) for index in range(len(test))]
        true, wrong, missed = np.moveaxis(counts, -1, 0)
        overlap = np.stack([true, true + wrong + missed], axis=-1)
        return {
            "": Outcome(
                "text_iou",
                {
                    "text_iou": Measure("class_mean", names, overlap, scale=100, unit="%"),
                    "f1": Measure("f1", names, counts, scale=100, unit="%"),
                    "best_f1": Measure("best_f", names, levels, scale=100, unit="%"),
                },
                floors={"all is text": 100 * float(pixels[0] / pixels[1])},
                details={
                    "side": side,
                    "cell_pixels": side / cells,
                    "train_images": len(train),
                    "images": len(test),
                },
            )
        }


def confusion(probability: Array, text: Mask) -> Array:
    """`[3]` (true positives, false positives, false negatives) at one half, of judged pixels."""
    said = probability > 0.5
    return np.array([(said & text).sum(), (said & ~text).sum(), (~said & text).sum()], np.float64)


def at_thresholds(probability: Array, text: Mask) -> Array:
    """`[4 * 99]` = (hits, predicted, hits, wanted) of one image, as `measure.best_f` takes them.

    Pixels that reach the thresholds 0.01 ... 0.99 are predicted.
    """
    level = levels_reached(probability)
    predicted, hits = reaching(level), reaching(level[text])
    return np.concatenate([hits, predicted, hits, np.full(LEVELS, float(text.sum()))])


def _cells(images: MaskedImages, view: View, cells: int) -> tuple[Tensor, Tensor]:
    """For training: how much of each cell's judged part is text, and how much is judged."""
    wanted, weight = torch.zeros(2, len(images), cells, cells)
    for index in range(len(images)):
        mask = view.mask(images.mask(index))
        text, area = (
            F.adaptive_avg_pool2d(part.float()[None], cells)[0] for part in (mask == 1, mask != 255)
        )
        wanted[index], weight[index] = text / area.clamp(min=1e-6), area
    return wanted, weight
