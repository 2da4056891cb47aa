"""Real photos that two packages of the registry carry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from openeupe.registry import RegistryFile, fetch, fetch_all

# Twenty ImageNet photos; the number at the end of a name is the label.
_IMAGENET = (
    ("imagenet_00_243", "28b7b933c8028c6e20bf74a86a709eda42ce99f14c8742cb657cb386f08a4c9d"),
    ("imagenet_01_559", "5f03b0c74dff01b5b4195d0beabcae2a625a406e6917957ab9c455b5b7dea6d6"),
    ("imagenet_02_438", "ccef0734c1a65549c6cb5adb0f5d9b1c0b2e2104aba50a9e5f9202dc6d4532ed"),
    ("imagenet_03_990", "c7f0b2f1e9ee39d8f900759e8983afa2e4a2d7de090060e8bb947f6e90cace5f"),
    ("imagenet_04_949", "a7f62f3c1d214de4718c7253871ab38209283249e131faf65b8f2b7fdc970669"),
    ("imagenet_05_853", "8a449436c61da867528b1f4efaf8ae832ab9c9201705eae0d3af1353fbdac131"),
    ("imagenet_06_609", "fb061102a4e58b3ed942bb2a4f9542e1e1acdc8f225ef95498e93889290e192f"),
    ("imagenet_07_609", "2c297ad1e5c4804a647e9b34bc02ee2fc348b05a4d49050d170fb61c948efa5c"),
    ("imagenet_08_915", "c6a3411a3987799f0de45adc142f00ca412c3e14073c635e2adfae1f3913180c"),
    ("imagenet_09_455", "ace3716b60ac5843269b270e17020e4f8138440cd30ef3487f7d6e54da9745a4"),
    ("imagenet_10_541", "f325c71d9f4290ee45e99bd7ad42f4bffe513b1450ad21e7bd61c7cb137395d9"),
    ("imagenet_11_630", "892dff58fc528fe63d2df0c783aa3eca2342637798578ce01763fbc0553eda01"),
    ("imagenet_12_741", "6c256e17545b25bbf2e06cf6513ff48d049583569515ac4d4c3a52aea804a529"),
    ("imagenet_13_471", "52ed0e738b90d27afcabc3e92c81ae637f160c2d9f75b93a65211005ab5dcd81"),
    ("imagenet_14_129", "ad9371d813bf24b0365ee2f78f28c08718ee7c5975f060caa16c3f264e828139"),
    ("imagenet_15_99", "4b588649cd835d4c65521727ebee03d9621baff1f54d3e8a53a26b53d983ec2e"),
    ("imagenet_16_251", "ce3440a3b7beb6ca3009817504c44d39fa789e7c2f70a2eef7e2f9cc9a87b129"),
    ("imagenet_17_22", "b432341845620e9cfd67d848c4783c32dd6eaddad45513866b17180d2b09fcf5"),
    ("imagenet_18_317", "b9412f92f0b1c3faede45b55a44940977daa744f2040118d0538cf597fca785d"),
    ("imagenet_19_305", "e1f58f00e2e47ce930d7ecab0e46a78316054f68c10d0742e87c1cc092324556"),
)
_SKIMAGE = {
    "coins": "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
    "page": "341a6f0a61557662b02734a9b6e56ec33a915b2c41886b97509dedf2a43b47a3",
    "coffee": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
}


@pytest.fixture(scope="session")
def imagenet() -> tuple[Tensor, Tensor]:
    """Photos `[20, 3, 224, 224]` in [0, 1] (side 256, centre crop) and labels `[20]`."""
    files = [
        RegistryFile("foolbox", "3.3.4", f"foolbox/data/{name}.jpg", sha256, "MIT (package)")
        for name, sha256 in _IMAGENET
    ]
    photos = [_open(path, resize=256, crop=(224, 224)) for path in fetch_all(files)]
    labels = [int(name.rsplit("_", 1)[1]) for name, _ in _IMAGENET]
    return torch.stack(photos), torch.tensor(labels)


@pytest.fixture(scope="session")
def photo() -> Callable[[str], Tensor]:
    """A photo of scikit-image by name, `[1, 3, H, W]` in [0, 1], cut to multiples of 16."""

    def open_photo(name: str) -> Tensor:
        member = f"skimage/data/{name}.png"
        file = RegistryFile("scikit-image", "0.26.0", member, _SKIMAGE[name], "BSD-3-Clause")
        return _open(fetch(file))[None]

    return open_photo


def _open(path: Path, resize: int | None = None, crop: tuple[int, int] | None = None) -> Tensor:
    image = Image.open(path).convert("RGB")
    if resize:
        scale = resize / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Image.Resampling.BICUBIC)
    width, height = crop or (image.width // 16 * 16, image.height // 16 * 16)
    left, top = ((image.width - width) // 2, (image.height - height) // 2) if crop else (0, 0)
    image = image.crop((left, top, left + width, top + height))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
