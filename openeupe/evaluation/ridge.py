"""Ridge regression from frozen features, whose shrinkage is chosen on held-out groups."""

from __future__ import annotations

import torch
from torch import Tensor

_SHRINKAGE = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the covariance's mean eigenvalue


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

    def sums(self, y: Tensor, x_test: Tensor, y_test: Tensor) -> Tensor:
        """Squared errors and squared distances from the training mean `[M, 2]`, for `r2`.

        Sums over coordinates for each row of `(x_test, y_test)`; the readout is fitted to
        `y [N, E]`.
        """
        return self.whole.fit(y).sums(self.shrinkage(y), x_test, y_test)

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
        return max(_SHRINKAGE, key=lambda s: r2(fit.sums(s, *left)))


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

    def sums(self, shrinkage: float, x: Tensor, y: Tensor) -> Tensor:
        error = (self.predict(shrinkage, x) - y).square().sum(dim=1)
        return torch.stack([error, (y - self.y_mean).square().sum(dim=1)], dim=1)


def r2(sums: Tensor) -> float:
    """R2 `1 - squared errors / squared distances from the mean` of sums `[M, 2]` over all rows."""
    error, spread = sums.sum(dim=0)
    return float(1 - error / spread.clamp_min(1e-12))
