"""The files that the paper's authors released: EUPE-ViT-{T,S,B}.pt and EUPE-ConvNeXt-{T,S,B}.pt.

The layout: the backbone's tensors by the authors' own names, and the adapter heads of the last
stage under `projectors.`. timm knows the names; its assumptions are checked here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openeupe.encoders.eupe import ARCHITECTURES
from openeupe.encoders.weights import read_weights
from openeupe.errors import InputError

_HEADS = "projectors."
# (width, blocks) of the transformers; (width of the stem, blocks of the third stage) of the others.
_VIT = {(192, 12): "eupe_vit_t", (384, 12): "eupe_vit_s", (768, 12): "eupe_vit_b"}
_CONVNEXT = {(96, 9): "eupe_convnext_t", (96, 27): "eupe_convnext_s", (128, 27): "eupe_convnext_b"}


def architecture(path: Path) -> str:
    """Identify which of the six students a file contains, by its tensors.

    Raises:
        InputError: if the file cannot be read or holds something else.
    """
    weights = read_weights(path, str(path))
    if "cls_token" in weights and "storage_tokens" in weights:
        shape = (_side(weights, "cls_token", -1), _count(weights, r"blocks\.(\d+)\."))
        name = _VIT.get(shape)
        _check_conventions(path, weights)
    elif "downsample_layers.0.0.weight" in weights:
        shape = (
            _side(weights, "downsample_layers.0.0.weight", 0),
            _count(weights, r"stages\.2\.(\d+)\."),
        )
        name = _CONVNEXT.get(shape)
    else:
        raise InputError(
            f"{path}: these are not the weights of a released EUPE student: for another network, "
            f"openeupe.create(NAME, pretrained={str(path)!r})"
        )
    if name is None:
        raise InputError(
            f"{path}: width {shape[0]} with {shape[1]} blocks is none of the six released students "
            f"({', '.join(n for n in ARCHITECTURES if n.startswith('eupe_'))})"
        )
    return name


def read_heads(path: Path) -> dict[str, dict[str, Tensor]]:
    """The adapter heads of a released file: `{"cls": ..., "patches": ...}`, each a state dict.

    A head is Linear, LayerNorm, GELU, Linear without biases: four tensors. They are
    identified by the word cls or patch in the name; otherwise the class head comes first (our
    choice: the released names behind `projectors.` are not documented).

    Raises:
        InputError: if the file holds no such heads.
    """
    weights = read_weights(path, str(path))
    keys = [key for key in weights if key.startswith(_HEADS)]
    heads: dict[str, dict[str, Tensor]] = {}
    for start in range(0, len(keys), 4):
        group = keys[start : start + 4]
        linear = [key for key in group if weights[key].ndim == 2]
        norm = [key for key in group if weights[key].ndim == 1]
        if len(linear) != 2 or len(norm) != 2:
            break
        if weights[linear[0]].shape[0] != weights[linear[1]].shape[1]:
            linear.reverse()
        kind = "patches" if "cls" in heads else "cls"
        words = group[0].removeprefix(_HEADS).lower()
        kind = "patches" if "patch" in words else "cls" if "cls" in words else kind
        state = {"0.weight": weights[linear[0]], "3.weight": weights[linear[1]]}
        heads[kind] = state | {f"1.{key.rsplit('.', 1)[1]}": weights[key] for key in norm}
    if set(heads) != {"cls", "patches"}:
        raise InputError(f"{path}: {_HEADS}* does not hold a class head and a patch head")
    return heads


def _side(weights: dict[str, Tensor], key: str, dim: int) -> int:
    shape = weights[key].shape
    return shape[dim] if shape else 0


def _count(weights: dict[str, Tensor], pattern: str) -> int:
    return len({found[1] for key in weights if (found := re.match(pattern, key))})


def _check_conventions(path: Path, weights: dict[str, Tensor]) -> None:
    """Refuse a file with another rotary base or with active key biases."""
    periods = weights.get("rope_embed.periods")
    if periods is not None:
        steps = torch.arange(len(periods)) / len(periods) if periods.ndim == 1 else periods * 0
        if not torch.allclose(periods.float(), 100**steps, rtol=0.02):
            raise InputError(f"{path}: its rotary embedding is not of base 100: it is no EUPE file")
    for key, bias in weights.items():
        mask: Any = weights.get(key.replace("qkv.bias", "qkv.bias_mask"))
        if not key.endswith("qkv.bias") or mask is None:
            continue
        acting = (bias * mask).float()
        third = len(acting) // 3
        query_value = torch.cat([acting[:third], acting[2 * third :]])
        free = torch.cat([bias[:third], bias[2 * third :]]).float()
        if acting[third : 2 * third].count_nonzero() or not torch.equal(query_value, free):
            raise InputError(f"{path}: {key} is masked in another way than the released files")
