"""Fixed per-coordinate standardization of teacher tokens (paper sections 3.3 and 4.1)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor, nn

from openeupe.config import Config
from openeupe.encoders.encoder import Tokens, TokenWidths
from openeupe.limits import STEPS


class StatisticsConfig(Config):
    """Settings of the measurement of standardization constants."""

    iterations: int = Field(500, gt=0, le=STEPS, description="batches (paper section 4.1, stage 1)")
    standard_error: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="stop earlier, as soon as the standard error of a mean is this share of its "
        "coordinate's std: 0.03 takes 1,112 images (1 / 0.03^2), whatever the batch",
    )
    min_std: float = Field(
        0.01,
        ge=0,
        description="minimum std, as a share of the token kind's RMS std; our guard against "
        "nearly constant coordinates. 0: the paper's plain (y - mean) / std",
    )

    def batches(self, batch_size: int) -> int:
        """How many batches of that many images are measured."""
        if self.standard_error is None:
            return self.iterations
        return min(self.iterations, math.ceil(self.standard_error**-2 / batch_size))


class Moments:
    """Running count, mean and variance of `[n, D]` rows. Float64, on the rows' device.

    Chunks are merged by Chan's formula, so the result does not lose precision over many batches
    and nothing is read back to the host.
    """

    def __init__(self, dim: int, device: torch.device) -> None:
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self.squares = torch.zeros(dim, dtype=torch.float64, device=device)

    def add(self, rows: Tensor) -> None:
        """Add `[n, D]` rows."""
        rows = rows.double()
        mean = rows.mean(dim=0)
        self._merge(rows.shape[0], mean, (rows - mean).square().sum(dim=0))

    def gathered(self, gather: Callable[[Tensor], list[Tensor]]) -> Moments:
        """The moments of every process's rows. `gather` gives each process's tensor, in order."""
        count = torch.full_like(self.mean, self.count)
        merged = Moments(len(self.mean), self.mean.device)
        for one in gather(torch.stack([count, self.mean, self.squares])):
            merged._merge(int(one[0, 0]), one[1], one[2])
        return merged

    def _merge(self, n: int, mean: Tensor, squares: Tensor) -> None:
        total = self.count + n
        delta = mean - self.mean
        self.squares += squares + delta.square() * (self.count * n / total)
        self.mean += delta * (n / total)
        self.count = total

    def std(self) -> Tensor:
        """Standard deviation `[D]` of all rows so far (population form)."""
        return (self.squares / max(self.count, 1)).sqrt()


class Standardizer(nn.Module):
    """`(y - mean) / std` for one teacher, separately for class and patch tokens.

    Without it one token type of one teacher dominates the loss (paper section 3.3). Nearly
    constant coordinates (dead channels of a ReLU network) would be amplified to noise, so std is
    at least `min_std` times the root mean square std of its token kind. With `min_std` 0 only
    constant coordinates are not divided.
    """

    cls_mean: Tensor
    cls_std: Tensor
    patch_mean: Tensor
    patch_std: Tensor

    def __init__(self, teacher: TokenWidths) -> None:
        super().__init__()
        for kind, dim in (("cls", teacher.cls_dim), ("patch", teacher.patch_dim)):
            self.register_buffer(f"{kind}_mean", torch.zeros(dim))
            self.register_buffer(f"{kind}_std", torch.ones(dim))

    def set(self, cls: Moments, patches: Moments, min_std: float) -> None:
        """Fix the constants from measured moments."""
        for kind, moments in (("cls", cls), ("patch", patches)):
            std = moments.std()
            std = std.clamp_min(min_std * std.square().mean().sqrt())
            # A coordinate that varies less than float32 resolves is constant: std 1, target 0.
            varies = std > torch.finfo(torch.float32).eps * moments.mean.abs()
            getattr(self, f"{kind}_mean").copy_(moments.mean)
            getattr(self, f"{kind}_std").copy_(torch.where(varies, std, torch.ones_like(std)))

    def forward(self, tokens: Tokens) -> Tokens:
        """Teacher tokens of any float dtype -> standardized float32 tokens."""
        grid = (1, -1, 1, 1)
        return Tokens(
            cls=(tokens.cls.float() - self.cls_mean) / self.cls_std,
            patches=(tokens.patches.float() - self.patch_mean.view(grid))
            / self.patch_std.view(grid),
        )

    def inverse(self, tokens: Tokens) -> Tokens:
        """Standardized tokens -> float32 tokens in the teacher's own space."""
        grid = (1, -1, 1, 1)
        return Tokens(
            cls=tokens.cls.float() * self.cls_std + self.cls_mean,
            patches=tokens.patches.float() * self.patch_std.view(grid) + self.patch_mean.view(grid),
        )
