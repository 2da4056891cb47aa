from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from openeupe.data.augment import Augment, resize
from openeupe.data.config import AugmentConfig

from .conftest import picture

OFF: dict[str, Any] = {"flip": 0, "jitter": 0, "blur": 0, "solarize": 0}


def _augment(resolution: int = 32, **changes: Any) -> Augment:
    return Augment(AugmentConfig.model_validate({**OFF, **changes}), resolution)


def test_a_view_is_a_function_of_its_seed() -> None:
    augment = Augment(AugmentConfig(), 32)
    one = augment(picture(0), 7)
    torch.manual_seed(99)
    again = augment(picture(0), 7)
    assert one.shape == (3, 32, 32)
    assert one.dtype == torch.uint8
    assert torch.equal(one, again)
    assert not torch.equal(one, augment(picture(0), 8))
    assert augment(picture(0), 2**63 - 1).shape == (3, 32, 32)


def test_global_random_states_are_left_alone() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    Augment(AugmentConfig(blur=1, jitter=1), 32)(picture(0), 7)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
    with pytest.raises(TypeError):
        Augment(AugmentConfig(), 32)(None, 7)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), before[0])


def test_all_off_is_the_plain_crop() -> None:
    view = _augment()(picture(0), 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        bicubic = v2.InterpolationMode.BICUBIC
        crop = v2.RandomResizedCrop(32, (0.32, 1.0), (3 / 4, 4 / 3), bicubic)(picture(0))
    there = v2.functional.pil_to_tensor(crop)  # resampled by Pillow, within rounding
    assert (view.int() - there.int()).abs().max() <= 2


def test_crops_keep_to_their_area() -> None:
    ramp = np.zeros((100, 100, 3), dtype=np.uint8)
    ramp[..., 0] = np.arange(100)[None]  # red tells the column, green the row
    ramp[..., 1] = np.arange(100)[:, None]
    augment = _augment(scale=(0.5, 0.6))
    for seed in range(50):
        view = augment(Image.fromarray(ramp), seed).float()
        width = (view[0].max() - view[0].min() + 1) * 1.0
        height = (view[1].max() - view[1].min() + 1) * 1.0
        assert 0.44 < width * height / 10_000 < 0.64  # the outermost columns are averaged away
        assert 0.7 < width / height < 1.42


def test_half_are_flipped() -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (64, 64, 3)).copy()
    augment = _augment(flip=0.5)
    flipped = sum(
        bool((view := augment(Image.fromarray(ramp), seed))[0, 0, 0] > view[0, 0, -1])
        for seed in range(400)
    )
    assert 150 < flipped < 250  # 5 standard deviations


@pytest.mark.parametrize(
    ("kind", "share"), [("jitter", 0.8), ("blur", 0.1), ("solarize", 0.2), ("grayscale", 0.2)]
)
def test_each_kind_happens_as_often_as_said(kind: str, share: float) -> None:
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}  # the same crop at every seed
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    plain = _augment(16, **whole)(image, 0)
    augment = _augment(16, **whole, **{kind: share}, blur_sigma=(20.0, 32.0))
    changed = sum(not torch.equal(augment(image, seed), plain) for seed in range(400))
    assert abs(changed / 400 - share) < 5 * (share * (1 - share) / 400) ** 0.5


def test_solarize_inverts_the_bright() -> None:
    image = Image.fromarray(np.array([[[100, 127, 128]]], dtype=np.uint8)).resize((8, 8))
    view = _augment(8, solarize=1, scale=(1, 1), ratio=(1, 1))(image, 0)
    assert view[:, 0, 0].tolist() == [100, 127, 127]


def test_blur_scales_with_the_view() -> None:
    found = []
    for resolution in (32, 128, 256, 512):
        _, _, chance = _augment(resolution, blur=1)._steps.transforms  # crop, to tensor, blur
        found.append((chance.transforms[0].kernel_size[0], chance.transforms[0].sigma[1]))
    assert found == [(3, 0.25), (5, 1.0), (9, 2.0), (17, 4.0)]


def test_least_side_never_makes_a_crop_coarse() -> None:
    augment = _augment(64)
    smallest = min(
        min(
            v2.RandomResizedCrop(64, (0.32, 1.0)).make_params([picture(0, s, s)])[key]
            for key in ("height", "width")
        )
        for s in [augment.min_resolution]
        for _ in range(300)
    )
    assert 63 <= smallest < 80


def test_resize_is_the_identity_at_its_own_side() -> None:
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    out = resize(images, 16)
    assert out.dtype == torch.float32
    assert torch.equal((out * 255).round().byte(), images)
    assert torch.equal(resize(out, 16), out)


@pytest.mark.parametrize("resolution", [8, 24, 40])
def test_resize_stays_in_range(resolution: int) -> None:
    images = torch.randint(0, 2, (2, 3, 16, 16), dtype=torch.uint8) * 255
    out = resize(images, resolution)
    assert out.shape == (2, 3, resolution, resolution)
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.allclose(out, resize(images.float() / 255, resolution))
    gray = resize(torch.full((1, 3, 16, 16), 51, dtype=torch.uint8), resolution)
    assert torch.allclose(gray, torch.tensor(0.2), atol=1e-6)


def test_resize_is_antialiased() -> None:
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(16).expand(1, 3, 32, 32)
    assert (resize(stripes, 8) - 0.5).abs()[..., 1:-1].max() < 0.02
