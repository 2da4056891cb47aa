"""Boundary detection by a linear head: F-measure at the optimal data-set scale."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from openeupe.data import View
from openeupe.datasets.interfaces import MaskedImages, check_apart
from openeupe.datasets.masks import MaskData
from openeupe.evaluation.benchmark import Domain, EvaluatedEncoder
from openeupe.evaluation.cells import LEVELS, CellBenchmark, levels_reached, reaching
from openeupe.evaluation.edge_match import label_boundaries, matched, ridges, thinned
from openeupe.evaluation.measure import Measure, Outcome, best_f


class Boundaries(CellBenchmark):
    """Boundary detection with a linear map of patch tokens.

    The ground truth is the border between mask labels, one pixel thin, in a view of the same aspect
    ratio. The head gives a value for each cell of a patch (`openeupe.heads.regions`), is trained by
    class-balanced cross-entropy (a cell is "yes" if a boundary runs through it) and upsampled to
    the view. Its crests (non-maximum suppression, thinned) are paired one to one with true pixels
    no farther than `tolerance` times the image's diagonal; precision and recall are summed over the
    set, and the best of 99 thresholds gives the F-measure (ODS of BSDS, PAMI 33:5, 2011). One set
    of labels is one annotator, so that wanted pixels are found exactly as often as predicted ones.

    Nothing is evaluated in or within the tolerance of pixels without a label and of the padding:
    annotations are incomplete there.
    """

    kind: Literal["boundaries"] = "boundaries"
    protocol: str = "boundaries/linear-v1"
    domain: Domain = "dense"
    data: MaskData
    tolerance: float = Field(0.0075, gt=0, description="Of the image's diagonal")
    smoothing: float = Field(1.5, gt=0, description="Pixels (sigma), before the crests are found")

    def open(self, root: Path) -> tuple[MaskedImages, MaskedImages]:
        """(train, test), checked."""
        train, test = self.data.open(root)
        check_apart(train, test)
        return train, test

    def run(
        self, data: tuple[MaskedImages, MaskedImages], evaluated: EvaluatedEncoder
    ) -> dict[str, Outcome]:
        """One head a seed. Their maps are scored together, so that masks are read once."""
        train, test = data
        features = evaluated.features
        view, cells = self.view_and_cells(evaluated.encoder)
        resolution = view.height
        wanted, weight = self._cells(train, view, cells)
        tokens = features.patches(train, view)
        heads = self.fit(evaluated, tokens, wanted, weight, balanced=True)
        # Baseline by position: the share of training images with a boundary in each cell.
        prior = (wanted * weight).sum(0) / weight.sum(0).clamp(min=1e-6)
        logits = prior.clamp(1e-4, 1 - 1e-4).logit()[None, None]
        prior = F.interpolate(logits, (resolution, resolution), mode="bilinear")[0]
        tokens = features.patches(test, view)
        sums = np.zeros((self.seeds + 1, len(test), 4 * LEVELS))
        for index in range(len(test)):
            target = self._target(test, index, view)
            one = tokens[index : index + 1]
            maps = [head.pixels(one, (resolution, resolution)).cpu() for head in heads]
            stays, smoothed = ridges(torch.cat([*maps, prior]), self.smoothing)
            for which in range(self.seeds + 1):
                sums[which, index] = score(
                    stays[which].numpy(), smoothed[which].sigmoid().numpy(), target
                )
        names = [test.name(index) for index in range(len(test))]
        return {
            "": Outcome(
                "ods_f",
                {"ods_f": Measure("best_f", names, sums[:-1])},
                baselines={"mean boundary map": float(best_f(sums[-1].sum(0)))},
                details={
                    "resolution": resolution,
                    "cell_pixels": resolution / cells,
                    "train_images": len(train),
                    "images": len(test),
                    "boundary_share": float(wanted.sum() / weight.sum()),
                },
            )
        }

    def _target(self, images: MaskedImages, index: int, view: View) -> Target:
        mask = images.mask(index)
        labels = view.mask(mask).numpy()
        sx, sy, *_ = view.placement((mask.shape[1], mask.shape[0]))
        reach = self.tolerance * float(np.hypot(mask.shape[1] * sx, mask.shape[0] * sy))
        return target_of(labels, reach)

    def _cells(self, images: MaskedImages, view: View, cells: int) -> tuple[Tensor, Tensor]:
        """Training targets and weights: boundary cells, and the evaluated share of each."""
        wanted = torch.zeros(len(images), cells, cells)
        weight = torch.zeros(len(images), cells, cells)
        for index in range(len(images)):
            target = self._target(images, index, view)
            lines, area = (torch.from_numpy(m).float() for m in (target.lines, target.valid))
            wanted[index] = F.adaptive_max_pool2d(lines[None], cells)[0]
            weight[index] = F.adaptive_avg_pool2d(area[None], cells)[0]
        return wanted, weight


@dataclass(frozen=True)
class Target:
    """True boundaries of one view.

    lines, valid: `[H, W]` bool. reach: tolerance in pixels.
    """

    lines: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    reach: float


def target_of(labels: NDArray[np.uint8], reach: float) -> Target:
    """The boundaries of `labels [H, W]` (255: no label) and where they are evaluated."""
    unknown = torch.from_numpy(labels == 255).float()[None]
    margin = int(np.ceil(reach))
    near = F.max_pool2d(unknown, 2 * margin + 1, 1, margin)[0] > 0
    valid = ~near.numpy()
    return Target(label_boundaries(labels) & valid, valid, reach)


def score(
    stays: NDArray[np.bool_], probability: NDArray[np.float32], target: Target
) -> NDArray[np.float64]:
    """`[4 * 99]` = (hits, predicted, found, wanted) of one image, as `measure.best_f` takes them.

    Args:
        stays: `[H, W]` which pixels are crests of the probability map.
        probability: `[H, W]` in [0, 1].
    """
    # Where a crest lies between pixels, both stay; thinned once, for all thresholds.
    rows, columns = np.nonzero(thinned(stays & (probability >= 0.01)) & target.valid)
    levels = levels_reached(probability[rows, columns])
    hits = np.zeros(LEVELS)
    if len(rows):
        found = matched(np.stack([rows, columns], 1), levels, target.lines, target.reach)
        hits[: len(found)] = found
    wanted = np.full(LEVELS, float(target.lines.sum()))
    return np.concatenate([hits, reaching(levels), hits, wanted])
