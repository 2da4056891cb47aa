from __future__ import annotations

import pytest
import torch
from PIL import Image

from openeupe.data import BrokenImage, View
from openeupe.encoders import create
from openeupe.errors import InputError
from openeupe.evaluation.features import Features, fitting_resolution


def test_tokens_do_not_depend_on_the_batch_and_modes_come_back() -> None:
    encoder = create("test_resnet").train()
    features = Features(encoder)
    views = torch.randint(0, 256, (5, 3, 64, 64)).byte()
    many = features(views)
    one = torch.cat([features(view).cls for view in views.split(1)])
    torch.testing.assert_close(one, many.cls, rtol=1e-4, atol=1e-5)
    assert encoder.training
    part = next(m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)).eval()
    features(views)
    assert encoder.training
    assert not part.training
    assert not many.patches.requires_grad


class Colors:
    """Ten one-coloured images that count how often they are read."""

    fingerprint = "colors"

    def __init__(self, broken: int | None = None) -> None:
        self.reads = 0
        self.broken = broken

    def __len__(self) -> int:
        return 10

    def read(self, index: int) -> Image.Image:
        self.reads += 1
        if index == self.broken:
            raise BrokenImage(f"{index}.jpg: cannot be read as an image")
        return Image.new("RGB", (50, 40), (25 * index, 0, 0))

    def name(self, index: int) -> str:
        return f"{index}.jpg"


def test_each_image_is_encoded_once_per_view() -> None:
    images = Colors()
    features = Features(create("test_resnet"), batch_size=4)
    patches = features.patches(images, View(32, 32))
    cls = features.cls(images, View(32, 32))
    assert images.reads == 10
    assert (len(cls), len(patches)) == (10, 10)
    assert (cls.dtype, patches.dtype) == (torch.float32, torch.float16)
    features.cls(images, View(64, 64))
    assert images.reads == 20


def test_tokens_are_in_the_order_of_the_images() -> None:
    images = Colors()
    encoder = create("test_resnet").eval()
    features = Features(encoder, batch_size=3, workers=4)
    found = features.cls(images, View(32, 32))
    for index in (0, 4, 9):
        alone = features(View(32, 32).image(images.read(index))[None]).cls[0]
        torch.testing.assert_close(found[index], alone, rtol=1e-4, atol=1e-5)


def test_only_the_last_patch_tokens_are_kept() -> None:
    images = Colors()
    features = Features(create("test_resnet"), keep=1)
    for resolution in (32, 64, 32):
        features.patches(images, View(resolution, resolution))
    assert images.reads == 30


def test_an_evaluation_leaves_no_image_out() -> None:
    features = Features(create("test_resnet"))
    with pytest.raises(InputError, match=r"7.jpg: cannot be read as an image.*replace the file"):
        features.cls(Colors(broken=7), View(32, 32))


def test_bf16_tokens_come_as_float32() -> None:
    encoder = create("test_resnet").eval()
    pixels = torch.randint(0, 256, (2, 3, 64, 64)).byte()
    exact, half = (Features(encoder, precision=p)(pixels) for p in ("fp32", "bf16"))
    assert half.cls.dtype == torch.float32
    assert not torch.equal(half.cls, exact.cls)
    torch.testing.assert_close(half.cls, exact.cls, rtol=0.1, atol=0.05)


def test_sides_that_fit() -> None:
    vit = create("vit_tiny_patch16_224")
    assert [fitting_resolution(vit, resolution) for resolution in (224, 250, 5, 231, 232)] == [
        224,
        256,
        16,
        224,
        240,
    ]
