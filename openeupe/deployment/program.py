"""An encoder as one traced program: raw pixels in, class token and patch grid out."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from openeupe.deployment import fold
from openeupe.encoders import Encoder
from openeupe.encoders.export_layout import Pixels, Size
from openeupe.encoders.weights import first_line
from openeupe.errors import InputError

# A traced batch of 1 would be taken for a constant; even numbers of patches likewise.
_EXAMPLE_BATCH = 2
_MOST_PATCHES = 256  # across, of a dynamic program


class PixelProgram(nn.Module):
    """`images [B, 3, H, W]` -> `(cls [B, Dc], patches [B, Dp, h, w])`, with folded weights.

    The encoder is copied; the outputs are equal to the encoder's up to rounding.

    Args:
        pixels: "float32" RGB in [0, 1], or "uint8" RGB.
        dynamic: height and width will be symbolic.
    """

    shift: Tensor | None
    spread: Tensor | None

    def __init__(self, encoder: Encoder, pixels: Pixels, dynamic: bool) -> None:
        super().__init__()
        encoder = copy.deepcopy(encoder).cpu().float().eval().requires_grad_(False)
        unit = 255.0 if pixels == "uint8" else 1.0
        mean, std = encoder.mean * unit, encoder.std * unit
        fold.fold_layer_scales(encoder)
        if dynamic:
            fold.free_rope(encoder)
        layer = fold.pixel_layer(encoder)
        shift: Tensor | None = mean
        if layer is not None:
            shift = fold.fold_normalization(layer, mean, std)
        self.encoder = encoder
        self.register_buffer("shift", shift)
        self.register_buffer("spread", std if layer is None else None)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class tokens and patch tokens of raw pixels."""
        pixels = images.float()
        if self.shift is not None:
            pixels = pixels - self.shift
        if self.spread is not None:
            pixels = pixels / self.spread
        tokens = self.encoder.tokens(pixels)
        return tokens.cls, tokens.patches.contiguous()


def trace(
    encoder: Encoder,
    size: Size | None,
    *,
    pixels: Pixels = "float32",
    batch: int | None = None,
) -> torch.export.ExportedProgram:
    """Trace an encoder with `torch.export`.

    Args:
        size: height and width in pixels; None leaves both symbolic: multiples of the patch size,
            from two patches on.
        batch: a fixed batch size; None leaves it symbolic.

    Raises:
        InputError: if this architecture cannot be traced so.
    """
    module = PixelProgram(encoder, pixels, dynamic=size is None)
    step = encoder.patch_size
    height, width = size or (7 * step, 9 * step)
    shape = (batch or _EXAMPLE_BATCH, 3, height, width)
    images = torch.zeros(shape, dtype=getattr(torch, pixels))
    dims: dict[int, object] = {}
    if batch is None:
        dims[0] = torch.export.Dim("batch", min=1, max=65536)
    if size is None:
        dims[2] = step * torch.export.Dim("rows", min=2, max=_MOST_PATCHES)
        dims[3] = step * torch.export.Dim("columns", min=2, max=_MOST_PATCHES)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, (images,), dynamic_shapes=(dims,), strict=False)
            if size is not None:
                graph = program.run_decompositions({}).module(check_guards=False)
                fold.fold_constants(graph)
                program = torch.export.export(
                    graph, (images,), dynamic_shapes=(dims,), strict=False
                )
    except InputError:
        raise
    except Exception as error:  # torch.export raises errors of many kinds
        what = "with dynamic height and width" if size is None else f"at {height}x{width}"
        fix = "give a resolution in place of dynamic" if size is None else "try another target"
        raise InputError(
            f"{encoder.name} cannot be traced {what} ({first_line(error)}): {fix}"
        ) from error
    return program


def parse_sizes(text: str) -> list[Size]:
    """ "256,512x384" -> [(256, 256), (512, 384)], height first.

    Raises:
        InputError: if it is something else.
    """
    sizes = []
    for part in text.split(","):
        lengths = part.strip().lower().split("x")
        if len(lengths) > 2 or not all(one.isdigit() and int(one) for one in lengths):
            raise InputError(f"resolution {text}: write it as 256, 256,512 or 512x384")
        sizes.append((int(lengths[0]), int(lengths[-1])))
    return list(dict.fromkeys(sizes))
