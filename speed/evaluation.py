"""What an evaluation adds to its encoder: images/s of `Features` over those of the bare encoder.

    python -m speed.evaluation vit_small_patch16_224 FOLDER --images 128

Rounds of both are interleaved in one process; the figure is the median of the ratios. The bare
encoder gets a batch that lies in memory; `Features` reads, decodes and lays out every file.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from openeupe.data import FolderSource, View
from openeupe.encoders import create
from openeupe.evaluation.features import Features


class Part:
    """The first `count` images of a set."""

    def __init__(self, images: FolderSource, count: int) -> None:
        self.images, self.count = images, min(count, len(images))
        self.fingerprint = images.fingerprint

    def __len__(self) -> int:
        return self.count

    def read(self, index: int):
        return self.images.read(index)

    def name(self, index: int) -> str:
        return self.images.name(index)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder")
    parser.add_argument("folder")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    args = parser.parse_args()
    device = torch.device(args.device)
    encoder = create(args.encoder).to(device).eval()
    images = Part(FolderSource(args.folder), args.images)
    view = View(args.resolution, args.resolution)
    pixels = torch.randint(0, 256, (args.batch, 3, args.resolution, args.resolution)).byte()

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def bare() -> float:
        features = Features(encoder, precision=args.precision)
        started = time.perf_counter()
        for start in range(0, len(images), args.batch):
            features(pixels[: len(images) - start])
        wait()
        return len(images) / (time.perf_counter() - started)

    def whole() -> float:
        features = Features(encoder, precision=args.precision, batch_size=args.batch)
        started = time.perf_counter()
        features.cls(images, view)
        wait()
        return len(images) / (time.perf_counter() - started)

    bare(), whole()
    rounds = [(bare(), whole()) for _ in range(args.rounds)]
    ratios = [evaluated / alone for alone, evaluated in rounds]
    print(
        f"{args.encoder} at {args.resolution} px on {device}, {args.precision}, "
        f"{len(images)} images: "
        f"bare {statistics.median(r[0] for r in rounds):.1f} images/s, "
        f"evaluation {statistics.median(r[1] for r in rounds):.1f} images/s, "
        f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()
