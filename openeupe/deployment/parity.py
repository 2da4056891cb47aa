"""Parity: compare a file's tokens with the encoder's on real images."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from openeupe.encoders import Encoder, Tokens
from openeupe.encoders.engines import Engine, Precision
from openeupe.encoders.export_layout import Pixels, Size, size_name
from openeupe.encoders.exported import run_in_batches
from openeupe.encoders.weights import first_line

# The lowest cosine allowed. fp32 must also agree to 1e-4 of the largest magnitude.
COSINE = {"fp32": 0.99999, "fp16": 0.9999, "bf16": 0.995, "int8": 0.99}
RELATIVE_ERROR = 1e-4
# Of the worst image and patch; with coarse rounding of the mean, since the worst patch then has
# nearly no contrast, and its small token is dominated by rounding.
METRIC = {"fp32": "worst", "fp16": "worst", "bf16": "mean", "int8": "mean"}


@dataclass(frozen=True)
class Agreement:
    """Agreement of one kind of token: cosines and largest error.

    worst: lowest cosine of any image (or any patch of any image).
    percentile: the cosine that 99 of 100 exceed.
    """

    mean: float
    worst: float
    percentile: float
    relative_error: float


_NONE = Agreement(mean=-1.0, worst=-1.0, percentile=-1.0, relative_error=float("inf"))


@dataclass(frozen=True)
class Parity:
    """A file's agreement with its encoder at one size."""

    size: Size
    images: int
    cls: Agreement
    patches: Agreement
    passed: bool
    error: str = ""  # why the file could not run at all

    @property
    def fidelity(self) -> float:
        """The lower mean cosine of both kinds of tokens."""
        return min(self.cls.mean, self.patches.mean)

    @property
    def line(self) -> str:
        """Results as text."""
        if self.error:
            return f"{size_name(self.size)}: FAILED ({self.error})"
        error = max(self.cls.relative_error, self.patches.relative_error)
        return (
            f"{size_name(self.size)}: cosine cls {self.cls.mean:.6f} (worst {self.cls.worst:.6f}), "
            f"patches {self.patches.mean:.6f} (worst {self.patches.worst:.6f}), largest error "
            f"{error:.1e}: {'passed' if self.passed else 'FAILED'}"
        )

    def for_json(self) -> dict[str, object]:
        """Plain values for JSON; an infinite error is null."""
        values = {**asdict(self), "size": size_name(self.size)}
        for kind in ("cls", "patches"):
            if values[kind]["relative_error"] == float("inf"):
                values[kind]["relative_error"] = None
        return values


def as_input(images: Tensor, pixels: Pixels) -> Tensor:
    """uint8 images as a file takes them."""
    return images if pixels == "uint8" else images.float() / 255


def compare(expected: Tokens, got: Tokens, precision: Precision, size: Size) -> Parity:
    """Compare tokens with the limits of a precision. Wrong shapes and nan fail."""
    kinds = []
    for true, other in zip(expected, got, strict=True):
        if true.shape != other.shape or not bool(other.isfinite().all()):
            kinds.append(_NONE)
            continue
        kinds.append(_agreement(true.double(), other.double()))
    limit = COSINE[precision]
    passed = all(getattr(kind, METRIC[precision]) >= limit for kind in kinds)
    if precision == "fp32":
        passed = passed and all(kind.relative_error <= RELATIVE_ERROR for kind in kinds)
    return Parity(size, len(expected.cls), kinds[0], kinds[1], passed)


class Proof:
    """uint8 images `[N, 3, H, W]` of one size, and their float32 tokens.

    The tokens are those of eval mode; the encoder itself is copied and not changed.
    """

    def __init__(self, encoder: Encoder, images: Tensor) -> None:
        encoder = copy.deepcopy(encoder).cpu().float().eval()
        with torch.no_grad():
            parts = [encoder(part.float() / 255) for part in images.split(1)]
        self.images = images
        self.expected = Tokens(
            torch.cat([part.cls for part in parts]), torch.cat([part.patches for part in parts])
        )

    def check(self, engine: Engine, path: Path, precision: Precision, pixels: Pixels) -> Parity:
        """Run a file on the images and compare its tokens."""
        size = (self.images.shape[-2], self.images.shape[-1])
        try:
            session = engine.open(path, precision, torch.get_num_threads(), engine.batch)
            given = as_input(self.images, pixels)
            parts = [run_in_batches(session, part, engine.batch) for part in _layouts(given)]
            got = Tokens(torch.cat([p.cls for p in parts]), torch.cat([p.patches for p in parts]))
        except Exception as error:  # engines raise errors of their own kinds
            reason = first_line(error)
            return Parity(size, len(self.images), _NONE, _NONE, passed=False, error=reason)
        return compare(self.expected, got, precision, size)


def _layouts(images: Tensor) -> list[Tensor]:
    """Half of the images contiguous, half with channels last in memory."""
    first, *rest = images.chunk(2)
    return [first, *(part.contiguous(memory_format=torch.channels_last) for part in rest)]


def complaint(parities: Sequence[Parity], precision: Precision) -> str:
    """Which limit was missed, where, in one line."""
    failed = next(parity for parity in parities if not parity.passed)
    if failed.error:
        return f"at {size_name(failed.size)}: the file cannot run ({failed.error})"
    metric = METRIC[precision]
    cosines = ", ".join(
        f"{kind} cosine {getattr(getattr(failed, kind), metric):.6f} ({metric}), largest error "
        f"{getattr(failed, kind).relative_error:.1e}"
        for kind in ("cls", "patches")
    )
    limit = f"cosine {COSINE[precision]:g}"
    limit += f" and error {RELATIVE_ERROR:g}" if precision == "fp32" else ""
    return f"at {size_name(failed.size)}: {cosines}; the limit of {precision} is {limit}"


def _agreement(true: Tensor, got: Tensor) -> Agreement:
    cosine = F.cosine_similarity(true, got, dim=1, eps=1e-30)
    # Two vectors of zeros agree, whatever their cosine.
    both_zero = (true.abs().amax(1) == 0) & (got.abs().amax(1) == 0)
    cosine = torch.where(both_zero, 1.0, cosine).flatten()
    error = (true - got).flatten(1).abs().amax(1) / true.flatten(1).abs().amax(1).clamp(min=1e-30)
    return Agreement(
        mean=cosine.mean().item(),
        worst=cosine.min().item(),
        percentile=cosine.quantile(0.01).item() if len(cosine) < 1 << 24 else cosine.min().item(),
        relative_error=error.max().item(),
    )
