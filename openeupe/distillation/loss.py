"""The distillation loss, the same in all stages (paper section 3.2, Eq. 4-6)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from openeupe.config import Config
from openeupe.encoders.encoder import Tokens
from openeupe.limits import RATE

_ONE_PRODUCT = 2**14  # weights; 6 x 6 to 8 x 8: 9 times as fast on a CPU, 14 x 14 to 16 x 16: half
_NORM_FLOOR = 1e-8  # that of PyTorch's cosine_similarity


class LossConfig(Config):
    """Weights of the loss terms; the defaults are the paper's."""

    cosine: float = Field(
        0.9, ge=0, le=RATE, description="alpha, weight of the patch cosine (Eq. 6)"
    )
    smooth_l1: float = Field(
        0.1, ge=0, le=RATE, description="beta, weight of the patch smooth-L1 (Eq. 6)"
    )
    smooth_l1_transition: float = Field(
        1.0,
        gt=0,
        le=RATE,
        description="where smooth-L1 turns linear; not in the paper, PyTorch's default",
    )


class TokenLosses(NamedTuple):
    """Losses of class and patch tokens for one teacher, as float32 scalars."""

    cls: Tensor
    patches: Tensor


def token_losses(predicted: Tokens, target: Tokens, config: LossConfig) -> TokenLosses:
    """Class token: cosine. Patch tokens: `0.9 cosine + 0.1 smooth-L1` (Eq. 5 and 6).

    Both arguments have the teacher's widths; `target` is standardized. The smaller patch grid is
    upsampled to the larger one, bicubically (paper section 4.1). Reductions are means over batch,
    positions and coordinates; all arithmetic is float32, also under autocast.
    """
    cls = 1 - F.cosine_similarity(predicted.cls.float(), target.cls.float(), dim=-1).mean()
    mine, theirs = match_grids(predicted.patches.float(), target.patches.float())
    patches = _PatchLoss.apply(mine, theirs, config)
    return TokenLosses(cls, patches)


class _PatchLoss(torch.autograd.Function):
    """Eq. 6 of matched grids, with its gradient written out.

    The same as `cosine_similarity` and `smooth_l1_loss` in half the passes over memory, with one
    tensor kept for backward in place of a dozen: on a CPU the loss was a third of a small student's
    step. The target gets no gradient.
    """

    @staticmethod
    def forward(ctx: Any, mine: Tensor, theirs: Tensor, config: LossConfig) -> Tensor:
        beta = config.smooth_l1_transition
        mine_square, their_square = (
            (grid * grid).sum(1, keepdim=True).clamp_min(_NORM_FLOOR**2) for grid in (mine, theirs)
        )
        scale = (mine_square * their_square).rsqrt()
        cosine = (mine * theirs).sum(1, keepdim=True) * scale
        off = mine - theirs
        clipped = off.clamp(-beta, beta)
        l1 = off.sub_(clipped, alpha=0.5).mul_(clipped).mean() / beta
        places = config.cosine / cosine.numel()
        gradient = clipped.mul_(config.smooth_l1 / (beta * mine.numel()))
        gradient.addcmul_(theirs, scale, value=-places)
        gradient.addcmul_(mine, cosine / mine_square, value=places)
        ctx.save_for_backward(gradient)
        return config.cosine * (1 - cosine.mean()) + config.smooth_l1 * l1

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * upstream, None, None


def match_grids(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Upsample `[B, D, h, w]` grids to the larger of the two heights and widths."""
    size = (max(a.shape[-2], b.shape[-2]), max(a.shape[-1], b.shape[-1]))
    return _upsample(a, size), _upsample(b, size)


def _upsample(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic interpolation, as matrix products: one for small grids, else one for each direction.

    PyTorch's CUDA kernel gives each place of the output one thread, which goes through all images
    and channels in turn: little work for a GPU where grids are small and channels many.
    """
    if grid.shape[-2:] == size:
        return grid
    down = _weights(grid.shape[-2], size[0], grid.device)
    across = _weights(grid.shape[-1], size[1], grid.device)
    with torch.autocast(grid.device.type, enabled=False):
        if down.numel() * across.numel() <= _ONE_PRODUCT:
            return (grid.flatten(2) @ torch.kron(down, across)).unflatten(2, size)
        return ((grid @ across).mT @ down).mT


@lru_cache(maxsize=64)  # a pyramid has few sizes
def _weights(small: int, large: int, device: torch.device) -> Tensor:
    """`[small, large]`: what each place of a line gives to each of its upsampled places."""
    lines = torch.eye(small)[:, None, :, None]
    finer = F.interpolate(lines, size=(large, 1), mode="bicubic", align_corners=False)
    return finer[:, 0, :, 0].to(device)
