"""HED's and CRAFT's own decoders: their trunks' maps to boundary and character maps.

The package uses the trunks only. On real images these show that the published weights were read
right (tests/experiments/test_decoders.py).
"""

from __future__ import annotations

import h5py
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openeupe.encoders import create
from openeupe.encoders.encoder import check_resolution
from openeupe.encoders.expert_weights import CRAFT, HED, keras_layer, renamed
from openeupe.encoders.experts import CraftEncoder, HedEncoder
from openeupe.registry import fetch


class Hed(nn.Module):
    """Boundary probability `[B, 1, H, W]` of images as encoders take them."""

    def __init__(self) -> None:
        super().__init__()
        encoder = create("hed", pretrained=True)
        assert isinstance(encoder, HedEncoder)
        self.sides = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in (64, 128, 256, 512, 512))
        self.fuse = nn.Conv2d(5, 1, 1)
        with h5py.File(fetch(HED)) as file:
            weights = keras_layer(file, "fuse", "fuse")
            for block in range(5):
                weights |= keras_layer(file, f"dsn{block + 1}", f"sides.{block}")
        self.load_state_dict(weights)
        self.encoder = encoder
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        for side in images.shape[-2:]:
            check_resolution(self.encoder, side)
        stages = self.encoder.stages((images - self.encoder.mean) / self.encoder.std)
        sides = [
            F.interpolate(side(stage), size=images.shape[-2:], mode="bilinear")
            for side, stage in zip(self.sides, stages, strict=True)
        ]
        return self.fuse(torch.cat(sides, 1)).sigmoid()


class Craft(nn.Module):
    """Heat maps `[B, 2, H/2, W/2]` of images: character centres, and links between neighbours."""

    def __init__(self) -> None:
        super().__init__()
        encoder = create("craft", pretrained=True)
        assert isinstance(encoder, CraftEncoder)
        self.up = nn.ModuleList(
            [_up(1536, 512, 256), _up(768, 256, 128), _up(384, 128, 64), _up(192, 64, 32)]
        )
        self.heat = _heat()
        names = {f"upconv{i + 1}.conv.": f"up.{i}." for i in range(4)} | {"conv_cls.": "heat."}
        weights = torch.load(fetch(CRAFT), map_location="cpu", weights_only=True)
        self.load_state_dict(renamed(weights, names))
        self.encoder = encoder
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        for side in images.shape[-2:]:
            check_resolution(self.encoder, side)
        pixels = (images - self.encoder.mean) / self.encoder.std
        *below, relu5 = self.encoder.stages(pixels)
        x = self.up[0](torch.cat([self.encoder.fc(relu5), relu5], 1))
        for up, skip in zip(self.up[1:], reversed(below), strict=True):
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear")
            x = up(torch.cat([x, F.relu(skip)], 1))
        return self.heat(x)


def _up(wide: int, middle: int, narrow: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(wide, middle, 1),
        nn.BatchNorm2d(middle),
        nn.ReLU(),
        nn.Conv2d(middle, narrow, 3, padding=1),
        nn.BatchNorm2d(narrow),
        nn.ReLU(),
    )


def _heat() -> nn.Sequential:
    layers: list[nn.Module] = []
    for wide, narrow, kernel in [(32, 32, 3), (32, 32, 3), (32, 16, 3), (16, 16, 1), (16, 2, 1)]:
        layers += [nn.Conv2d(wide, narrow, kernel, padding=kernel // 2), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
