"""Thin boundaries and their one-to-one matching, as the BSDS benchmark defines them.

Arbelaez et al. 2011 (PAMI 33:5): a predicted boundary pixel is right if it can be paired with a
true one within a tolerance, each pixel being used once. The benchmark pairs them approximately, by
a least-cost assignment; here the number of pairs is the exact maximum.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


def label_boundaries(labels: NDArray[np.uint8], ignore: int = 255) -> NDArray[np.bool_]:
    """Where the label changes, `[H, W]` and one pixel thin. Never next to an `ignore` pixel."""
    lines = np.zeros(labels.shape, dtype=bool)
    known = labels != ignore
    right = (labels[:, 1:] != labels[:, :-1]) & known[:, 1:] & known[:, :-1]
    below = (labels[1:] != labels[:-1]) & known[1:] & known[:-1]
    lines[:, :-1] |= right
    lines[:-1] |= below
    return thinned(lines)


def thinned(lines: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Lines thinned to one pixel without breaking them (Guo and Hall, CACM 32:3, 1989, A1).

    Zhang and Suen's better known rule deletes diagonal staircases altogether.
    """
    lines = np.pad(lines, 1)
    inner = lines[1:-1, 1:-1]
    height, width = inner.shape
    # Eight views of the neighbours, clockwise from above; they follow `lines` as it changes.
    p2, p3, p4, p5, p6, p7, p8, p9 = (
        lines[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        for dy, dx in ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
    )
    deleted = True
    while deleted:
        deleted = False
        for half in (0, 1):
            parts = _sum(~p2 & (p3 | p4), ~p4 & (p5 | p6), ~p6 & (p7 | p8), ~p8 & (p9 | p2))
            ends = np.minimum(
                _sum(p9 | p2, p3 | p4, p5 | p6, p7 | p8), _sum(p2 | p3, p4 | p5, p6 | p7, p8 | p9)
            )
            kept = ((p2 | p3 | ~p5) & p4) if half == 0 else ((p6 | p7 | ~p9) & p8)
            delete = inner & (parts == 1) & (ends >= 2) & (ends <= 3) & ~kept
            deleted |= bool(delete.any())
            inner &= ~delete
    return inner.copy()


def _sum(*parts: NDArray[np.bool_]) -> NDArray[np.int8]:
    total = np.zeros(parts[0].shape, np.int8)
    for part in parts:
        total += part
    return total


def ridges(logits: Tensor, sigma: float = 1.5) -> tuple[Tensor, Tensor]:
    """Non-maximum suppression: the crests of a boundary map.

    The map is smoothed; a pixel stays if it is at least as high as both neighbours at one pixel's
    distance across the line, whose direction is that of the strongest downward curvature. Done on
    logits, which do not saturate as probabilities do.

    Args:
        logits: `[B, H, W]` float.
        sigma: smoothing, in pixels.

    Returns:
        Which pixels stay, `[B, H, W]` bool, and the smoothed logits.
    """
    radius = max(round(3 * sigma), 1)
    at = torch.arange(-radius, radius + 1, device=logits.device, dtype=logits.dtype)
    kernel = (-(at**2) / (2 * sigma**2)).exp()
    kernel = kernel / kernel.sum()
    x = logits[:, None]
    x = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    x = F.conv2d(F.pad(x, (0, 0, radius, radius), mode="replicate"), kernel.view(1, 1, -1, 1))
    around = F.pad(x, (1, 1, 1, 1), mode="replicate")[:, 0]
    x = x[:, 0]
    height, width = x.shape[1:]

    def neighbour(dy: int, dx: int) -> Tensor:
        return around[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    xx = neighbour(0, 1) + neighbour(0, -1) - 2 * x
    yy = neighbour(1, 0) + neighbour(-1, 0) - 2 * x
    xy = (neighbour(1, 1) + neighbour(-1, -1) - neighbour(1, -1) - neighbour(-1, 1)) / 4
    # The eigenvector of the smaller eigenvalue of the Hessian: across the crest.
    angle = torch.atan2(2 * xy, xx - yy) / 2 + torch.pi / 2
    across_x, across_y = angle.cos(), angle.sin()
    curvature = (xx + yy) / 2 - ((xx - yy) ** 2 / 4 + xy**2).sqrt()

    def step(sign: int) -> Tensor:
        """The map one pixel to one side of the line, bilinearly."""
        dx, dy = sign * across_x, sign * across_y
        along_x = torch.where(dx > 0, neighbour(0, 1), neighbour(0, -1))
        along_y = torch.where(dy > 0, neighbour(1, 0), neighbour(-1, 0))
        both = torch.where(
            dx > 0,
            torch.where(dy > 0, neighbour(1, 1), neighbour(-1, 1)),
            torch.where(dy > 0, neighbour(1, -1), neighbour(-1, -1)),
        )
        dx, dy = dx.abs(), dy.abs()
        return (
            (1 - dx) * (1 - dy) * x
            + dx * (1 - dy) * along_x
            + (1 - dx) * dy * along_y
            + dx * dy * both
        )

    stays = (x > step(1)) & (x >= step(-1)) & (curvature < -1e-4)  # flat ground has no crest
    return stays, x


def matched(
    predicted: NDArray[np.int64], levels: NDArray[np.int64], truth: NDArray[np.bool_], reach: float
) -> NDArray[np.float64]:
    """Maximum matching of predicted and true pixels, for all thresholds.

    Predicted pixels are added from the most certain on, each by an augmenting path (Kuhn 1955), so
    that after those of a level the matching is a maximum one for that threshold. A failed search
    leaves true pixels that no later path can pass; they are dropped, so that all failures
    together cost no more than one look at every possible pair.

    Args:
        predicted: `[P, 2]` rows and columns.
        levels: `[P]` how many thresholds each pixel passes: it counts for the first that many.
        truth: `[H, W]` true boundary pixels.
        reach: largest distance of a pair, in pixels (inclusive).

    Returns:
        `[T]` pairs where T is the largest level; entry t for pixels of level above t.
    """
    top = int(levels.max(initial=0))
    pairs = np.zeros(top + 1)
    number = np.full(truth.shape, -1)
    number[truth] = np.arange(int(truth.sum()))
    radius = int(reach)
    number = np.pad(number, radius, constant_values=-1)
    dy, dx = np.mgrid[-radius : radius + 1, -radius : radius + 1].reshape(2, -1)
    near = np.argsort(dy**2 + dx**2, kind="stable")
    near = near[(dy**2 + dx**2)[near] <= reach**2]
    order = np.argsort(-levels, kind="stable")
    predicted, levels = predicted[order], levels[order]
    options = number[
        predicted[:, :1] + radius + dy[near], predicted[:, 1:] + radius + dx[near]
    ]  # [P, offsets], nearest first
    possible = [row[row >= 0].tolist() for row in options]
    owner = [-1] * int(truth.sum())
    dead = [False] * len(owner)
    for pixel, level in enumerate(levels.tolist()):
        if possible[pixel] and _augment(pixel, possible, owner, dead):
            pairs[level] += 1
    return pairs[::-1].cumsum()[::-1][1:]


def _augment(pixel: int, possible: list[list[int]], owner: list[int], dead: list[bool]) -> bool:
    """Pair one more predicted pixel, moving others if need be (breadth first)."""
    came: dict[int, int] = {}  # true pixel -> the predicted pixel it was reached from
    queue = deque([pixel])
    while queue:
        here = queue.popleft()
        for true in possible[here]:
            if dead[true] or true in came:
                continue
            came[true] = here
            if owner[true] >= 0:
                queue.append(owner[true])
                continue
            while True:  # walk back, handing every pixel on the path its new partner
                here = came[true]
                given = next((t for t in possible[here] if owner[t] == here), -1)
                owner[true] = here
                if here == pixel:
                    return True
                true = given
    for true in came:
        dead[true] = True
    return False
