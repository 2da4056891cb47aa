"""An expert of one domain: python -m experiments.domain_expert DATA depth|scene|untrained

EfficientNet-Lite0 from its ImageNet weights, trained whole on the labels of one training part:
`depth` on NYUv2's depths, `scene` on CamVid's classes, each read off the patch tokens by one linear
layer that is then thrown away. DATA is what `experiments.claim_data` made; the expert goes to
DATA/experts. The test parts are not touched. `untrained` is the same network with random weights.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

import openeupe
from openeupe import encoders

_CROP = (160, 208)
_BATCH, _STEPS, _LR = 16, 400, 3e-4
_SETS = {  # folder, labels, outputs
    "depth": ("nyuv2/train", "depths", 1),
    "scene": ("camvid/train", "labels11", 11),
}
_VOID = 11


def main(data: Path, domain: str) -> None:
    torch.manual_seed(0)
    if domain == "untrained":
        expert = encoders.create("efficientnet_lite0")
    else:
        expert = trained(data, domain)
    encoders.save(expert.eval(), data / "experts" / domain)


def trained(data: Path, domain: str) -> encoders.Encoder:
    folder, labels, outputs = _SETS[domain]
    photos = [_photo(p) for p in sorted((data / folder / "images").iterdir())]
    truths = [_truth(p) for p in sorted((data / folder / labels).iterdir())]
    expert = openeupe.load("efficientnet_lite0").train()
    readout = nn.Sequential(
        nn.BatchNorm2d(expert.patch_dim), nn.Conv2d(expert.patch_dim, outputs, 1)
    )
    weights = [*expert.parameters(), *readout.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=_LR, weight_decay=0.05)
    view = v2.Compose([v2.RandomCrop(_CROP), v2.RandomHorizontalFlip()])
    colours = v2.ColorJitter(0.3, 0.3, 0.2, 0.05)
    judge = _depth_loss if domain == "depth" else _scene_loss
    begin = time.perf_counter()
    for step in range(_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = (
                _LR * min(1, (step + 1) / 20) * (1 + math.cos(math.pi * step / _STEPS)) / 2
            )
        chosen = torch.randint(len(photos), (_BATCH,)).tolist()
        pairs = [view(photos[i], truths[i]) for i in chosen]
        images = torch.stack([colours(image) for image, _ in pairs]).float() / 255
        with torch.autocast("cpu", torch.bfloat16):
            told = readout(expert(images).patches)
        loss = judge(told.float(), torch.stack([truth.as_subclass(Tensor) for _, truth in pairs]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 49:
            print(f"{step + 1}/{_STEPS} {loss:.3f} {time.perf_counter() - begin:.0f} s", flush=True)
    return expert


def _depth_loss(told: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of log depth, where there is a depth, at four places a token each way."""
    told = F.interpolate(told, scale_factor=4, mode="bilinear")[:, 0]
    truth = F.interpolate(truth[:, None].float(), told.shape[1:], mode="nearest")[:, 0] / 25.5
    there = truth > 0
    return (told - truth.clamp_min(1e-3).log())[there].abs().mean()


def _scene_loss(told: Tensor, truth: Tensor) -> Tensor:
    told = F.interpolate(told, truth.shape[1:], mode="bilinear")
    return F.cross_entropy(told, truth.long(), ignore_index=_VOID)


def _photo(path: Path) -> tv_tensors.Image:
    return tv_tensors.Image(np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1).copy())


def _truth(path: Path) -> tv_tensors.Mask:
    return tv_tensors.Mask(np.array(Image.open(path)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
