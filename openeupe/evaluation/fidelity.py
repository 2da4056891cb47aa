"""Fidelity: R2 of experts' tokens predicted linearly, on held-out images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from openeupe.encoders import Tokens

_SHRINKAGE = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the covariance's mean eigenvalue
_MAX_ROWS = 6144  # patch tokens used to fit a readout


def fidelity(
    train: Tokens,
    train_targets: Mapping[str, Tokens],
    test: Tokens,
    test_targets: Mapping[str, Tokens],
    groups: Tensor,
) -> dict[str, dict[str, float]]:
    """R2 of ridge readouts: `{expert: {"cls": ..., "patches": ...}}`.

    A readout is fitted on training images, frozen encoder to frozen expert, and scored on
    held-out images. 1 is a perfect prediction, 0 is no better than the mean, less than 0 is worse
    than it. Because every encoder gets its own readout, an untrained one gets a fair chance too.
    An encoder's patch grid is brought to the expert's size (bilinear, or area when it shrinks).

    Args:
        train, test: the encoder's tokens of the training and the held-out views.
        train_targets, test_targets: each expert's standardized tokens of the same views.
        groups: `[N]` image of each training view, any integers; every fifth image chooses the
            shrinkage.
    """
    result: dict[str, dict[str, float]] = {name: {} for name in train_targets}
    cls_readout = RidgeReadout(train.cls, groups)
    patch_readouts: dict[tuple[int, ...], tuple[RidgeReadout, Tensor]] = {}
    for name, target in train_targets.items():
        result[name]["cls"] = cls_readout.r2(target.cls, test.cls, test_targets[name].cls)
        size = tuple(target.patches.shape[-2:])
        if size not in patch_readouts:
            rows = _rows(train.patches, size)
            keep = torch.arange(0, len(rows), max(len(rows) // _MAX_ROWS, 1))
            photo = groups.repeat_interleave(size[0] * size[1])
            patch_readouts[size] = (RidgeReadout(rows[keep], photo[keep]), keep)
        readout, keep = patch_readouts[size]
        result[name]["patches"] = readout.r2(
            _rows(target.patches, size)[keep],
            _rows(test.patches, size),
            _rows(test_targets[name].patches, size),
        )
    return result


class RidgeReadout:
    """Ridge regression from `x [N, D]` to any number of targets, decomposed once.

    The shrinkage of a target is chosen on every fifth group, then all rows are used. One group
    alone leaves nothing to choose on: the middle one is taken.
    """

    def __init__(self, x: Tensor, groups: Tensor) -> None:
        # By rank: numbers of groups may have gaps, and be multiples of five all of them.
        distinct, rank = groups.unique(return_inverse=True)
        validation = rank % 5 == 0
        splits = len(distinct) > 1
        self.validation = validation if splits else None
        self.x = x
        self.whole = _Decomposition(x)
        self.part = _Decomposition(x[~validation]) if splits else None

    def r2(self, y: Tensor, x_test: Tensor, y_test: Tensor) -> float:
        """R2 on `(x_test, y_test)`, pooled over coordinates, of the readout fitted to `y [N, E]`.

        `1 - sum of squared errors / sum of squares about the training mean`.
        """
        return self.whole.fit(y).r2(self.shrinkage(y), x_test, y_test)

    def predict(self, y: Tensor, x_test: Tensor) -> Tensor:
        """Predictions `[M, E]` for `x_test [M, D]` of the readout fitted to `y [N, E]`."""
        return self.whole.fit(y).predict(self.shrinkage(y), x_test)

    def shrinkage(self, y: Tensor) -> float:
        """The best shrinkage for held-out groups. It is in units of the covariance's mean
        eigenvalue.
        """
        if self.part is None or self.validation is None:
            return _SHRINKAGE[2]
        some = y[:, :: max(y.shape[1] // 64, 1)]  # 64 coordinates choose for all
        fit = self.part.fit(some[~self.validation])
        left = self.x[self.validation], some[self.validation]
        return max(_SHRINKAGE, key=lambda s: fit.r2(s, *left))


class _Decomposition:
    """Eigenvectors of the centred rows' covariance, shared by targets and shrinkages."""

    def __init__(self, x: Tensor) -> None:
        self.mean = x.mean(dim=0)
        self.centred = x - self.mean
        covariance = self.centred.double().T @ self.centred.double()
        values, vectors = torch.linalg.eigh(covariance)
        self.values, self.vectors = values.clamp_min(0).float(), vectors.float()
        self.scale = self.values.mean().clamp_min(1e-12)

    def fit(self, y: Tensor) -> _Fit:
        y_mean = y.mean(dim=0)
        return _Fit(self, y_mean, self.vectors.T @ (self.centred.T @ (y - y_mean)))


class _Fit:
    def __init__(self, base: _Decomposition, y_mean: Tensor, projected: Tensor) -> None:
        self.base, self.y_mean, self.projected = base, y_mean, projected

    def predict(self, shrinkage: float, x: Tensor) -> Tensor:
        base = self.base
        inverse = 1 / (base.values + shrinkage * base.scale)
        weights = base.vectors @ (self.projected * inverse[:, None])
        return (x - base.mean) @ weights + self.y_mean

    def r2(self, shrinkage: float, x: Tensor, y: Tensor) -> float:
        error = (self.predict(shrinkage, x) - y).square().sum()
        return float(1 - error / (y - self.y_mean).square().sum().clamp_min(1e-12))


def _rows(grid: Tensor, size: tuple[int, ...]) -> Tensor:
    """`[N, D, h, w]` at another grid size, as rows `[N * h' * w', D]`."""
    if grid.shape[-2] > size[0]:
        grid = F.interpolate(grid, size=size, mode="area")
    elif grid.shape[-2:] != size:
        grid = F.interpolate(grid, size=size, mode="bilinear", align_corners=False)
    return grid.flatten(2).transpose(1, 2).flatten(0, 1)
