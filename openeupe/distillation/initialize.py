"""Initialize a student with selected weights of a larger network."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from openeupe.encoders import Encoder
from openeupe.errors import InputError

_NUMBER = re.compile(r"\d+")
_LEAST = 0.5  # share of a student's parameters that must be found for the networks to be of a kind


@dataclass(frozen=True)
class Cut:
    """Which tensors of a student were initialized.

    taken: name -> name in the larger network.
    left: names of those that the larger network lacks, or has smaller or of other kernels.
    """

    taken: dict[str, str]
    left: list[str]


def initialize(student: Encoder, larger: Encoder) -> Cut:
    """Give a student the selected weights of a larger network.

    Layers are evenly spaced, the first and the last among them; channels are evenly spaced, and
    the same ones in every layer of a width; whole heads of attention are. Position embeddings are
    resampled. What cannot be taken keeps its value. Source: weight selection (arXiv 2311.18823);
    here the layers are spread over the depth instead of the first ones.

    Args:
        student: gets the weights in place.
        larger: of the same kind (two ViTs, two ConvNeXts, two EfficientNets), on the same device.

    Raises:
        InputError: if less than half of the student's parameters are found.
    """
    cut = plan_cut(student, larger)
    mine, theirs = student.state_dict(), larger.state_dict()
    grids = _grid(student), _grid(larger)
    heads = {name: _heads(student, larger, name, source) for name, source in cut.taken.items()}
    with torch.no_grad():
        for name, source in cut.taken.items():
            value = theirs[source]
            if name.endswith("pos_embed"):
                value = _resampled(value, mine[name], *grids)
            mine[name].copy_(_selected(value, mine[name].shape, heads[name]))
    return cut


def plan_cut(student: Encoder, larger: Encoder) -> Cut:
    """Which tensors `initialize` would take; needs no memory (networks may be on meta).

    Raises:
        InputError: as `initialize`.
    """
    mine, theirs = student.state_dict(), larger.state_dict()
    names = _names(mine, theirs)
    taken = {
        name: source
        for name, source in names.items()
        if _fits(mine[name], theirs[source], name.endswith("pos_embed"))
    }
    parameters = dict(student.named_parameters())
    found = sum(p.numel() for name, p in parameters.items() if name in taken)
    if found < _LEAST * sum(p.numel() for p in parameters.values()):
        raise InputError(
            f"init: {larger.name} is not a larger network of the kind of {student.name}: only "
            f"{found:,} of its parameters are found there: choose another one, or leave init out"
        )
    return Cut(taken, [name for name in mine if name not in taken])


def spread(small: int, large: int) -> list[int]:
    """`small` of `large` positions, evenly spaced, with the first and the last.

    >>> spread(3, 12)
    [0, 6, 11]
    """
    if small == 1:
        return [0]
    return [int(i * (large - 1) / (small - 1) + 0.5) for i in range(small)]


def _names(mine: Iterable[str], theirs: Iterable[str]) -> dict[str, str]:
    """Map the student's names to the larger network's, with spread layer numbers."""
    there = set(theirs)
    small, large = _children(mine), _children(there)
    found = {}
    for name in mine:
        here: list[str] = []
        source: list[str] = []
        for part in name.split("."):
            if _NUMBER.fullmatch(part):
                ours, others = small[".".join(here)], large.get(".".join(source), [])
                if len(others) < len(ours):
                    break
                chosen = others[spread(len(ours), len(others))[ours.index(int(part))]]
                source.append(str(chosen))
            else:
                source.append(part)
            here.append(part)
        else:
            if ".".join(source) in there:
                found[name] = ".".join(source)
    return found


def _children(names: Iterable[str]) -> dict[str, list[int]]:
    """Numbered children by the name of their parent, in order."""
    found: dict[str, set[int]] = {}
    for name in names:
        parts = name.split(".")
        for i, part in enumerate(parts):
            if _NUMBER.fullmatch(part):
                found.setdefault(".".join(parts[:i]), set()).add(int(part))
    return {parent: sorted(numbers) for parent, numbers in found.items()}


def _fits(mine: Tensor, theirs: Tensor, positions: bool) -> bool:
    """Whether a tensor can be selected from another: not larger, kernels of equal size."""
    if mine.ndim != theirs.ndim or mine.is_floating_point() != theirs.is_floating_point():
        return False
    if positions:
        return mine.shape[-1] <= theirs.shape[-1]
    smaller = all(a <= b for a, b in zip(mine.shape, theirs.shape, strict=True))
    return smaller and (mine.ndim < 4 or mine.shape[2:] == theirs.shape[2:])


def _selected(value: Tensor, shape: torch.Size, heads: dict[int, Tensor]) -> Tensor:
    """Evenly spaced entries of each dimension, or those given by `heads`."""
    for axis, size in enumerate(shape):
        if value.shape[axis] != size:
            index = heads.get(axis)
            if index is None:
                index = torch.tensor(spread(size, value.shape[axis]))
            value = value.index_select(axis, index.to(value.device))
    return value


def _heads(student: Encoder, larger: Encoder, name: str, source: str) -> dict[int, Tensor]:
    """Entries of attention tensors by dimension, in whole heads."""
    owner, _, kind = name.partition(".attn.")
    if not kind:
        return {}
    mine = student.get_submodule(f"{owner}.attn")
    theirs = larger.get_submodule(f"{source.partition('.attn.')[0]}.attn")
    ours, others = getattr(mine, "num_heads", 0), getattr(theirs, "num_heads", 0)
    weight = getattr(mine, "qkv", None), getattr(theirs, "qkv", None)
    if not ours or not others or None in weight:
        return {}
    widths = [module.weight.shape[0] // 3 for module in weight if isinstance(module, nn.Linear)]
    if len(widths) < 2 or ours > others or widths[0] // ours > widths[1] // others:
        return {}
    size = widths[1] // others
    within = torch.tensor(spread(widths[0] // ours, size))
    one = (torch.tensor(spread(ours, others))[:, None] * size + within).flatten()
    three = torch.cat([one + k * widths[1] for k in range(3)])
    rows = {"qkv.weight": three, "qkv.bias": three, "q_bias": one, "k_bias": one, "v_bias": one}
    if kind in rows:
        return {0: rows[kind]}
    return {1: one} if kind == "proj.weight" else {}


def _grid(encoder: Encoder) -> tuple[int, int]:
    """Rows and columns of the position embedding's patches."""
    embed = getattr(getattr(encoder, "trunk", None), "patch_embed", None)
    size: tuple[int, int] | None = getattr(embed, "grid_size", None)
    return size or (0, 0)


def _resampled(
    value: Tensor, mine: Tensor, grid: tuple[int, int], theirs: tuple[int, int]
) -> Tensor:
    prefix = mine.shape[1] - grid[0] * grid[1]
    if value.shape[1] == mine.shape[1] or prefix < 0:
        return value
    return resample_abs_pos_embed(value, list(grid), list(theirs), num_prefix_tokens=prefix)


def measure_batch_norm(student: nn.Module, batches: Iterable[Tensor]) -> None:
    """Measure batch norm's running statistics again, as plain means over batches.

    Args:
        student: in training mode afterwards as before; its weights stay.
        batches: images `[B, 3, H, W]` in [0, 1].
    """
    layers = [m for m in student.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    mode = student.training
    student.train()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean
    with torch.no_grad():
        for images in batches:
            student(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    student.train(mode)
