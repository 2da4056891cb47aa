"""Text regions: a linear head on images with drawn words."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from openeupe.data import View
from openeupe.datasets.interfaces import MaskedImages
from openeupe.datasets.words import TextData
from openeupe.evaluation.benchmark import Domain, EvaluatedEncoder
from openeupe.evaluation.cells import LEVELS, CellBenchmark, levels_reached, reaching
from openeupe.evaluation.measure import Measure, Outcome

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class TextRegions(CellBenchmark):
    """Text-region detection with a linear map of patch tokens.

    The head gives a value for each cell of a patch (`openeupe.heads.regions`), is trained by
    cross-entropy on how much of each cell is text and upsampled to the view, in which images keep
    their aspect ratio. text_iou counts pixels above one half over the whole set, as f1 does;
    best_f1 is F1 at the best of 99 thresholds, which leaves calibration out.
    """

    kind: Literal["text"] = "text"
    protocol: str = "text/linear-v1"
    domain: Domain = "text"
    data: TextData

    def open(self, root: Path) -> tuple[MaskedImages, MaskedImages]:
        """(train, test), checked."""
        return self.data.open(root)

    def run(
        self, data: tuple[MaskedImages, MaskedImages], evaluated: EvaluatedEncoder
    ) -> dict[str, Outcome]:
        """One head a seed. Their maps are scored together, so that masks are made once."""
        train, test = data
        features = evaluated.features
        view, cells = self.view_and_cells(evaluated.encoder)
        resolution = view.height
        wanted, weight = _cells(train, view, cells)
        tokens = features.patches(train, view)
        heads = self.fit(evaluated, tokens, wanted, weight, balanced=False)
        tokens = features.patches(test, view)
        counts = np.zeros((self.seeds, len(test), 3))
        levels = np.zeros((self.seeds, len(test), 4 * LEVELS))
        pixels = np.zeros(2)
        for index in range(len(test)):
            mask = view.mask(test.mask(index))
            text = (mask == 1)[mask != 255].numpy()
            pixels += text.sum(), text.size
            for which, head in enumerate(heads):
                logits = head.pixels(tokens[index : index + 1], (resolution, resolution))[0].cpu()
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
                baselines={"all is text": 100 * float(pixels[0] / pixels[1])},
                details={
                    "resolution": resolution,
                    "cell_pixels": resolution / cells,
                    "train_images": len(train),
                    "images": len(test),
                },
            )
        }


def confusion(probability: Array, text: Mask) -> Array:
    """`[3]` (true positives, false positives, false negatives) at one half, of evaluated pixels."""
    found = probability > 0.5
    counts = [(found & text).sum(), (found & ~text).sum(), (~found & text).sum()]
    return np.array(counts, np.float64)


def at_thresholds(probability: Array, text: Mask) -> Array:
    """`[4 * 99]` = (hits, predicted, hits, wanted) of one image, as `measure.best_f` takes them.

    Pixels that reach the thresholds 0.01 ... 0.99 are predicted.
    """
    level = levels_reached(probability)
    predicted, hits = reaching(level), reaching(level[text])
    return np.concatenate([hits, predicted, hits, np.full(LEVELS, float(text.sum()))])


def _cells(images: MaskedImages, view: View, cells: int) -> tuple[Tensor, Tensor]:
    """Training targets and weights: share of text, and evaluated share, of each cell."""
    wanted, weight = torch.zeros(2, len(images), cells, cells)
    for index in range(len(images)):
        mask = view.mask(images.mask(index))
        text, area = (
            F.adaptive_avg_pool2d(part.float()[None], cells)[0] for part in (mask == 1, mask != 255)
        )
        wanted[index], weight[index] = text / area.clamp(min=1e-6), area
    return wanted, weight
