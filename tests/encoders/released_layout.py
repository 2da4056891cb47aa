"""Files in the layout of the released EUPE students, with weights that follow from their names.

The numbers of a tensor are drawn with its name as the seed, so that the same "random" student can
be made here and in the authors' own code (`experiments/parity_official.py`) without any download.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

VIT = {"eupe_vit_t": 192, "eupe_vit_s": 384, "eupe_vit_b": 768}
CONVNEXT = {
    "eupe_convnext_t": ((96, 192, 384, 768), (3, 3, 9, 3)),
    "eupe_convnext_s": ((96, 192, 384, 768), (3, 3, 27, 3)),
    "eupe_convnext_b": ((128, 256, 512, 1024), (3, 3, 27, 3)),
}
FILES = {
    name: f"EUPE-{kind}-{name[-1].upper()}.pt"
    for kind, names in (("ViT", VIT), ("ConvNeXt", CONVNEXT))
    for name in names
}


def shapes(name: str, depth: int = 12) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the backbone's tensors."""
    return _vit(VIT[name], depth) if name in VIT else _convnext(*CONVNEXT[name])


def drawn(key: str, shape: tuple[int, ...]) -> Tensor:
    """The numbers of a tensor: normal, of a scale at which every part of the network acts."""
    if key.endswith("periods"):
        return 100 ** (torch.arange(shape[0]) / shape[0])
    if key.endswith("bias_mask"):
        return torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(shape[0] // 3)
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, np.float32)
    if key.endswith("gamma"):
        return torch.from_numpy(0.3 + 0.1 * noise)
    if len(shape) == 1 and key.endswith("weight"):
        return torch.from_numpy(1 + 0.1 * noise)
    if len(shape) > 1 and key.endswith("weight"):
        return torch.from_numpy(noise / float(np.sqrt(np.prod(shape[1:]))))
    return torch.from_numpy(0.1 * noise)


def write(folder: Path, name: str, *, heads: bool = True, depth: int = 12) -> Path:
    """Write `FILES[name]` with its heads (hidden width 24 in place of 3072)."""
    layout = shapes(name, depth)
    if heads:
        width = VIT[name] if name in VIT else CONVNEXT[name][0][-1]
        for kind in ("cls", "patch"):
            layout |= {
                f"projectors.{kind}.0.weight": (24, width),
                f"projectors.{kind}.1.weight": (24,),
                f"projectors.{kind}.1.bias": (24,),
                f"projectors.{kind}.3.weight": (16, 24),
            }
        if name in CONVNEXT:  # the authors' code keeps the last norm under a second name
            layout |= {f"norms.3.{kind}": (width,) for kind in ("weight", "bias")}
    weights = {k: drawn(k.replace("norms.3.", "norm."), shape) for k, shape in layout.items()}
    torch.save(weights, folder / FILES[name])
    return folder / FILES[name]


def _vit(width: int, depth: int) -> dict[str, tuple[int, ...]]:
    layout: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "storage_tokens": (1, 4, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
        "rope_embed.periods": (16,),
    }
    for i in range(depth):
        block = {
            **_linear("attn.qkv", 3 * width, width),
            "attn.qkv.bias_mask": (3 * width,),
            **_linear("attn.proj", width, width),
            **_linear("mlp.fc1", 4 * width, width),
            **_linear("mlp.fc2", width, 4 * width),
            **_norm("norm1", width),
            **_norm("norm2", width),
            "ls1.gamma": (width,),
            "ls2.gamma": (width,),
        }
        layout |= {f"blocks.{i}.{key}": shape for key, shape in block.items()}
    return layout | _norm("norm", width)


def _convnext(widths: tuple[int, ...], depths: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    layout: dict[str, tuple[int, ...]] = {
        "downsample_layers.0.0.weight": (widths[0], 3, 4, 4),
        "downsample_layers.0.0.bias": (widths[0],),
        **_norm("downsample_layers.0.1", widths[0]),
    }
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if stage:
            layout |= _norm(f"downsample_layers.{stage}.0", widths[stage - 1])
            layout[f"downsample_layers.{stage}.1.weight"] = (width, widths[stage - 1], 2, 2)
            layout[f"downsample_layers.{stage}.1.bias"] = (width,)
        for i in range(depth):
            block = {
                "gamma": (width,),
                "dwconv.weight": (width, 1, 7, 7),
                "dwconv.bias": (width,),
                **_norm("norm", width),
                **_linear("pwconv1", 4 * width, width),
                **_linear("pwconv2", width, 4 * width),
            }
            layout |= {f"stages.{stage}.{i}.{key}": shape for key, shape in block.items()}
    return layout | _norm("norm", widths[-1])


def _linear(name: str, out: int, inner: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, inner), f"{name}.bias": (out,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
