"""Similarity of patches: maps for one patch, and matches of two images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def patch_at(patches: Tensor, x: float, y: float) -> tuple[int, int]:
    """(row, column) of the patch at a place in shares of width and height."""
    height, width = patches.shape[-2:]
    return min(int(y * height), height - 1), min(int(x * width), width - 1)


def similarity(patches: Tensor, query: Tensor) -> Tensor:
    """Cosine similarity `[h, w]` of patch tokens `[D, h, w]` to a token `[D]`."""
    return torch.einsum("dhw,d->hw", F.normalize(patches, dim=0), F.normalize(query, dim=0))


@dataclass(frozen=True)
class Match:
    """A pair of patches. Their centres are in shares of each image's width and height."""

    source: tuple[float, float]
    target: tuple[float, float]
    similarity: float


def matches(source: Tensor, target: Tensor, count: int = 12) -> list[Match]:
    """The most similar pairs of patches that are mutual nearest neighbours.

    Spread out: a pair whose source is next to a better pair's is left out.

    Args:
        source, target: patch tokens `[D, h, w]` of two images by one encoder.
    """
    first = F.normalize(source, dim=0).flatten(1)
    second = F.normalize(target, dim=0).flatten(1)
    best_target = torch.empty(first.shape[1], dtype=torch.long)
    likeness = torch.empty(first.shape[1])
    best_source = torch.zeros(second.shape[1], dtype=torch.long)
    likeness_back = torch.full((second.shape[1],), -2.0)
    for start in range(0, first.shape[1], 1024):  # 16 384 patches of 2048 px would be 1 GB at once
        cosines = first[:, start : start + 1024].T @ second
        likeness[start : start + 1024], best_target[start : start + 1024] = cosines.max(dim=1)
        value, place = cosines.max(dim=0)
        better = value > likeness_back
        likeness_back = torch.where(better, value, likeness_back)
        best_source = torch.where(better, place + start, best_source)
    mutual = best_source[best_target] == torch.arange(first.shape[1])
    found: list[Match] = []
    taken: list[tuple[int, int]] = []
    near = max(2, round(max(source.shape[-2:]) / 12))
    for index in likeness.masked_fill(~mutual, -2).argsort(descending=True, stable=True).tolist():
        if not bool(mutual[index]) or len(found) == count:
            break
        row, column = divmod(index, source.shape[-1])
        if any(abs(row - r) < near and abs(column - c) < near for r, c in taken):
            continue
        taken.append((row, column))
        there = divmod(int(best_target[index]), target.shape[-1])
        found.append(
            Match(_centre((row, column), source), _centre(there, target), float(likeness[index]))
        )
    return found


def _centre(place: tuple[int, int], patches: Tensor) -> tuple[float, float]:
    height, width = patches.shape[-2:]
    return (place[1] + 0.5) / width, (place[0] + 0.5) / height
