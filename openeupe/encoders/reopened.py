"""Check that a saved folder reproduces the encoder's tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from openeupe.encoders.create import remade
from openeupe.encoders.encoder import Encoder, Tokens, evaluating

# Relative. The same kernels give the same bits; other orders of summation differ by some 1e-7. A
# random network's layer scales of 1e-5 hide a wrong activation down to about 1e-5.
_TOLERANCE = 2e-6


def in_float32(encoder: Encoder) -> Encoder:
    """The encoder in float32 on the CPU, copied if needed."""
    if all(p.dtype == torch.float32 and p.device.type == "cpu" for p in encoder.parameters()):
        return encoder
    return remade(encoder)


@torch.inference_mode()
def sample(encoder: Encoder) -> tuple[Tensor, Tokens]:
    """Two random images of the native resolution, and their tokens."""
    resolution = encoder.resolution
    images = torch.rand(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))
    with evaluating(encoder):
        return images, encoder(images)


def equal(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two outputs agree up to the rounding of float32."""
    same_shape = ours.shape == theirs.shape
    return same_shape and bool((ours - theirs).norm() <= _TOLERANCE * ours.norm())  # NaN: false


def same_tokens(encoder: Encoder, other: Encoder) -> bool:
    """Whether two encoders give equal tokens."""
    return all(equal(a, b) for a, b in zip(sample(encoder)[1], sample(other)[1], strict=True))
