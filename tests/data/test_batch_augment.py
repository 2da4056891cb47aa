"""The batched augmentation against torchvision's, kind by kind, and against its own promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from openeupe.data.augment import blur_kernel
from openeupe.data.batch_augment import BatchAugment, batch_draws
from openeupe.data.config import AugmentConfig
from openeupe.seeds import uniform

from .conftest import picture

OFF: dict[str, Any] = {"flip": 0, "jitter": 0, "blur": 0, "solarize": 0}
CPU = torch.device("cpu")


def augmented(draws: torch.Tensor, **changes: Any) -> torch.Tensor:
    config = AugmentConfig.model_validate({**OFF, **changes})
    return BatchAugment(config, 64, CPU)(photos(len(draws)), draws)


def photos(count: int) -> torch.Tensor:
    return torch.stack([F.pil_to_tensor(picture(i).resize((64, 64))) for i in range(count)])


def draws(**columns: float) -> torch.Tensor:
    """One image's: 0 applies a kind of positive probability, strengths of 0.5 leave as it is."""
    names = ["flip", "jitter", "brightness", "contrast", "saturation", "hue"]
    names += ["gray", "blur", "sigma", "solarize"]
    values = {"flip": 1.0, "gray": 1.0, "blur": 1.0, "solarize": 1.0}
    return torch.tensor([[columns.get(n, values.get(n, 0.5)) for n in names]])


def assert_close(one: torch.Tensor, other: torch.Tensor, mean: float) -> None:
    assert (one.float() - other.float()).abs().mean() < mean  # of 255 levels


def test_all_off_is_the_crop() -> None:
    assert torch.equal(augmented(batch_draws([1, 2, 3])), photos(3))


def test_kinds_are_torchvisions() -> None:
    photo = photos(1)
    assert torch.equal(augmented(draws(flip=0.4), flip=0.5), photo.flip(-1))
    assert torch.equal(augmented(draws(flip=0.6), flip=0.5), photo)
    solarized = augmented(draws(solarize=0), solarize=1, solarize_threshold=100)
    assert torch.equal(solarized, F.solarize(photo, 100))
    gray = augmented(draws(gray=0), grayscale=1)
    assert_close(gray, F.rgb_to_grayscale(photo, 3), 1)
    for name, change in (
        ("brightness", F.adjust_brightness),
        ("contrast", F.adjust_contrast),
        ("saturation", F.adjust_saturation),
    ):
        for drawn, factor in ((0.0, 0.6), (0.75, 1.2)):
            limits = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, name: 0.4}
            mine = augmented(draws(**{name: drawn}), jitter=1, **limits)
            assert_close(mine, change(photo, factor), 1)
    config = AugmentConfig(blur=1)
    size, (low, high) = blur_kernel(config, 64)
    blurred = augmented(draws(blur=0, sigma=0.75), blur=1)
    sigma = low + 0.75 * (high - low)
    assert_close(blurred, F.gaussian_blur(photo, [size, size], [sigma, sigma]), 0.6)


def test_a_turn_of_hue_keeps_luma_and_comes_round() -> None:
    limits = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0.5}
    pale = photos(1) // 4 + 96  # nothing is clipped
    change = BatchAugment(AugmentConfig.model_validate({**OFF, "jitter": 1, **limits}), 64, CPU)
    turned = change(pale, draws(jitter=0, hue=0.75))
    assert (turned.float() - pale.float()).abs().mean() > 2
    luma = [F.rgb_to_grayscale(t.float()) for t in (turned, pale)]
    assert_close(luma[0], luma[1], 1)
    assert_close(change(pale, draws(jitter=0, hue=1.0)), change(pale, draws(jitter=0, hue=0.0)), 1)


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    seeds = [3, 2**63 - 1, 5]
    all_kinds = {"flip": 0.5, "jitter": 0.8, "blur": 0.5, "solarize": 0.2, "grayscale": 0.2}
    whole = augmented(batch_draws(seeds), **all_kinds)
    config = AugmentConfig.model_validate(all_kinds)
    last = BatchAugment(config, 64, CPU)(photos(3)[2:], batch_draws(seeds[2:]))
    assert (whole[2:].int() - last.int()).abs().max() <= 1  # sums in another order


def test_draws_are_uniform_and_independent() -> None:
    drawn = uniform(np.arange(20_000, dtype=np.uint64), 10)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert drawn.mean(0) == pytest.approx(0.5, abs=0.01)
    assert drawn.std(0) == pytest.approx(12**-0.5, abs=0.01)
    between = np.corrcoef(drawn.T) - np.eye(10)
    assert np.abs(between).max() < 0.04
    assert abs(np.corrcoef(drawn[1:, 0], drawn[:-1, 0])[0, 1]) < 0.04
