"""Training crops of images with masks: geometry of both, colours of the image alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from openeupe.evaluation.crops import LabelledCrops, distorted, labelled_crop, resized

from .test_segmentation import COLOURS

ONE_COLOUR = np.full((3, 2, 2), 100, np.uint8)


def changed(settings: LabelledCrops, tries: int = 400) -> set[int]:
    """Red after every change that so many seeds make of (100, 100, 100)."""
    return {
        int(distorted(torch.from_numpy(ONE_COLOUR), np.random.default_rng(seed), settings)[0, 0, 0])
        for seed in range(tries)
    }


def test_brightness_is_an_offset_of_up_to_32_levels() -> None:
    """U(-32, 32), cut to whole levels as the released code cuts them."""
    alone = LabelledCrops(contrast=0, saturation=0, hue=0)
    found = changed(alone)
    assert min(found) in (68, 69)
    assert max(found) in (130, 131)
    dark = torch.full((3, 1, 1), 5, dtype=torch.uint8)
    darker = {
        int(distorted(dark, np.random.default_rng(seed), alone)[0, 0, 0]) for seed in range(40)
    }
    assert min(darker) == 0  # clipped, where a factor would leave 4 of 5
    assert max(darker) > 30


def test_contrast_multiplies_pixels() -> None:
    """A factor of 0.5 to 1.5, and not a pull to the picture's mean, which is 100 here."""
    found = changed(LabelledCrops(brightness_offset=0, saturation=0, hue=0))
    assert min(found) in (50, 51)
    assert max(found) in (148, 149)
    bright = torch.full((3, 1, 1), 250, dtype=torch.uint8)
    settings = LabelledCrops(brightness_offset=0, saturation=0, hue=0, distort=1)
    brightest = [
        int(distorted(bright, np.random.default_rng(seed), settings)[0, 0, 0]) for seed in range(30)
    ]
    assert max(brightest) == 255
    assert min(brightest) < 150


def test_saturation_and_hue_are_torchvisions() -> None:
    pixels = torch.tensor([200, 40, 90], dtype=torch.uint8).view(3, 1, 1)
    settings = LabelledCrops(brightness_offset=0, contrast=0, hue=0)
    gray = int(0.2989 * 200 + 0.587 * 40 + 0.114 * 90)
    for seed in range(20):
        found = distorted(pixels, np.random.default_rng(seed), settings).flatten().tolist()
        # Each channel by the same factor, 0.5 to 1.5, about the gray of the pixel.
        factor = (found[1] - gray) / (40 - gray)
        assert 0.4 < factor < 1.6
        assert found[2] - gray == pytest.approx(factor * (90 - gray), abs=1.5)
    turned = LabelledCrops(brightness_offset=0, contrast=0, saturation=0)
    values = {
        tuple(sorted(distorted(pixels, np.random.default_rng(seed), turned).flatten().tolist()))
        for seed in range(60)
    }
    assert all(abs(low - 40) < 3 and abs(high - 200) < 3 for low, _, high in values)


def test_the_short_side_is_cut_and_the_long_one_rounded() -> None:
    assert resized((400, 300), 512) == (683, 512)
    assert resized((300, 400), 512) == (512, 683)
    assert resized((333, 500), 256) == (256, 384)  # 384.38
    assert resized((7, 1000), 1) == (1, 143)


def test_a_crop_is_drawn_again_after_each_try() -> None:
    """Ten tries look at ten crops and leave, if all fail, an eleventh that nobody looked at."""
    mask = np.zeros((64, 640), np.uint8)  # one class: every crop fails
    draws = Counting(np.random.default_rng(0))
    labelled_crop(
        Image.new("RGB", (640, 64)), mask, draws, LabelledCrops(scale=(1, 1), distort=0),  # type: ignore[arg-type]
        64, 64, (0, 0, 0),
    )  # fmt: skip
    assert draws.integers_drawn == 2 * 11


class Counting:
    """A random generator that counts."""

    def __init__(self, random: np.random.Generator) -> None:
        self.made, self.integers_drawn = random, 0

    def integers(self, *given: int) -> int:
        self.integers_drawn += 1
        return int(self.made.integers(*given))

    def uniform(self, *given: float) -> float:
        return self.made.uniform(*given)

    def random(self) -> float:
        return self.made.random()


def test_crops_keep_image_and_mask_together() -> None:
    random = np.random.default_rng(1)
    mask = np.kron(random.integers(0, 4, (6, 9)), np.ones((20, 20))).astype(np.uint8)
    image = Image.fromarray(COLOURS[mask])
    settings = LabelledCrops(distort=0)
    padded = mirrored = 0
    for seed in range(20):
        pixels, labels = labelled_crop(
            image, mask, np.random.default_rng(seed), settings, 128, 128, (1, 2, 3)
        )
        assert pixels.shape == (3, 128, 128)
        assert pixels.dtype == labels.dtype == torch.uint8
        inside = labels != 255
        exact = torch.from_numpy(COLOURS)[labels[inside].long()].short()
        near = (pixels[:, inside].T.short() - exact).abs().amax(1) < 40
        assert near.float().mean() > 0.85  # all but blurred borders
        outside = pixels[:, ~inside].T
        assert torch.equal(outside, torch.tensor([[1, 2, 3]], dtype=torch.uint8).expand_as(outside))
        padded += int((~inside).any())
        again = labelled_crop(
            image, mask, np.random.default_rng(seed), settings, 128, 128, (1, 2, 3)
        )
        assert torch.equal(again[0], pixels)
        assert torch.equal(again[1], labels)
        mirrored += not torch.equal(labels, labels.flip(-1))
    assert 0 < padded < 20
    assert mirrored


def test_a_crop_is_not_all_one_class() -> None:
    mask = np.zeros((256, 1024), np.uint8)
    mask[:, 900:] = 1
    image = Image.new("RGB", (1024, 256))
    settings = LabelledCrops(scale=(1.0, 1.0), distort=0)
    share = {}
    for tries in (1, 10):
        rare = [
            labelled_crop(
                image,
                mask,
                np.random.default_rng(seed),
                settings.model_copy(update={"tries": tries}),
                256,
                256,
                (0, 0, 0),
            )[1]
            for seed in range(40)
        ]
        share[tries] = np.mean([0.25 < (m == 1).float().mean() < 0.75 for m in rare])
    assert share[10] > share[1] + 0.2


def test_colour_changes_leave_the_labels() -> None:
    mask = np.zeros((64, 64), np.uint8)
    image = Image.new("RGB", (64, 64), (200, 40, 90))
    means = []
    for seed in range(12):
        pixels, labels = labelled_crop(
            image, mask, np.random.default_rng(seed), LabelledCrops(), 64, 64, (0, 0, 0)
        )
        means.append(pixels[:, labels == 0].float().mean(1))
    assert torch.stack(means).std(0).min() > 10
