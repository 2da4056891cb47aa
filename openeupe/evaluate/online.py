"""Linear probes trained as the paper does: the frozen encoder sees each augmented image anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress
from torch import Tensor

from openeupe.data.ahead import batched_ahead
from openeupe.datasets.interfaces import Images
from openeupe.evaluate.column import Judged
from openeupe.evaluate.features import readable
from openeupe.evaluate.probe import LinearProbe
from openeupe.seeds import derive_seed, shuffled

Sample = Callable[[int, np.random.Generator], tuple[Tensor, Tensor]]


def with_variant(given: Any, *, online: str, cached: str) -> Any:
    """Settings as given, `variant: cached` written out, and under that variant's protocol.

    Args:
        online, cached: the protocols of the two variants. A suite that names the first and uses
            the other variant gets the second.
    """
    if not isinstance(given, dict):
        return given
    variant = given.get("variant", "online")
    if isinstance(variant, str):
        variant = {"name": variant}
    given = {**given, "variant": variant}
    is_cached = isinstance(variant, dict) and variant.get("name") == "cached"
    if is_cached and given.get("protocol", online) == online:
        given["protocol"] = cached
    return given


def cosine(step: int, steps: int, peak: float, end: float) -> float:
    """From `peak` at step 0 to `end` at step `steps`, on half a cosine."""
    return end + (peak - end) * (1 + math.cos(math.pi * step / steps)) / 2


def fit_online(
    judged: Judged,
    images: Images,
    sample: Sample,
    loss: Callable[[Tensor, Tensor, int], Tensor],
    *,
    outputs: int,
    steps: int,
    batch_size: int,
    rate: Callable[[int], float],
    betas: Callable[[int], tuple[float, float]],
    weight_decay: float,
    seed: int,
    clip: float | None = None,
    dropout: float = 0.0,
) -> LinearProbe:
    """Train a probe with AdamW on augmented images; the last iterate, in eval mode.

    The encoder stays in eval mode. Everything random is a function of `seed`, however many
    threads decode.

    Args:
        sample: (index, random generator) -> uint8 pixels `[3, H, W]` and labels `[H, W]`.
        loss: (outputs `[B, outputs, h, w]`, labels `[B, H, W]`, step) -> scalar.
        rate, betas: learning rate and betas of each step.
        clip: largest norm of the gradient.
    """
    device = judged.device

    def read(number: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(number, len(images))
        index = int(shuffled(place, len(images), derive_seed(seed, "order", epoch)))
        return sample(index, np.random.default_rng(derive_seed(seed, "augment", number)))

    batches = batched_ahead(read, range(steps * batch_size), batch_size, judged.features.workers)
    accelerators = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=accelerators),
        torch.enable_grad(),
        Progress(console=judged.console, transient=True) as progress,
    ):
        torch.manual_seed(derive_seed(seed, "probe"))
        probe = LinearProbe(judged.encoder.patch_dim, outputs, dropout).to(device)
        optimizer = torch.optim.AdamW(probe.parameters(), weight_decay=weight_decay)
        task = progress.add_task(f"{judged.encoder.name}: probe {seed}", total=steps)
        for step, batch in enumerate(batches):
            pixels, labels = (torch.stack(part) for part in zip(*batch, strict=True))
            tokens = judged.features(pixels).patches
            value = loss(probe(tokens), labels.to(device, non_blocking=True), step)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(probe.parameters(), clip)
            for group in optimizer.param_groups:
                group["lr"], group["betas"] = rate(step), betas(step)
            optimizer.step()
            progress.advance(task)
    return probe.eval()


def ahead(images: Images, judged: Judged) -> Iterator[tuple[int, Image.Image]]:
    """Every image with its index, decoded by threads while the one before is judged."""
    indices: Sequence[int] = range(len(images))

    def read(index: int) -> tuple[int, Image.Image]:
        return index, readable(images, index)

    with Progress(console=judged.console, transient=True) as progress:
        task = progress.add_task(f"{judged.encoder.name} is judged", total=len(images))
        for (found,) in batched_ahead(read, indices, 1, judged.features.workers):
            yield found
            progress.advance(task)
