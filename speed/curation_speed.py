"""How fast `openeupe curate` reads and embeds, against bare decoding and the bare encoder.

    python -m speed.curation_speed PHOTOS... [--images 256] [--rounds 5] [--encoder NAME]

One thread decodes, one computes. A round times the four one after another, every other round in
the opposite order; the first is left out, which loads libraries. Told: the median over rounds of
bare time / our time, and the range, by the clock and by CPU time of all threads, which other
programs disturb less. Bare decoding is `decode` of the same files at full size. The
bare encoder sees the same batches, already made.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import openeupe
from experiments.planted_pool import photos
from openeupe.curation.embed import BATCH, Embeddings
from openeupe.curation.image_pool import ImagePool
from openeupe.curation.scan import readable, scan
from openeupe.data import View, decode
from openeupe.distributed import Processes
from openeupe.progress import SILENT


def show(clock: dict[str, list[float]], cpu: dict[str, list[float]], images: int) -> None:
    """Print each task of ours next to the bare one; the first round is left out."""
    rounds = len(clock["decoding"]) - 1
    print(f"{rounds} rounds of {images} images")
    for bare, ours in (("decoding", "scanning"), ("encoding", "embedding")):
        for kind, seconds in (("clock", clock), ("CPU", cpu)):
            pairs = list(zip(seconds[bare], seconds[ours], strict=True))[1:]
            ratios = [b / o for b, o in pairs]
            spent = [1000 * statistics.median(s) / images for s in zip(*pairs, strict=True)]
            print(
                f"{ours}, {kind}: {statistics.median(ratios):.2f} of bare {bare} "
                f"({min(ratios):.2f} to {max(ratios):.2f}); 1,000 images take {spent[1]:.1f} s, "
                f"bare {spent[0]:.1f} s"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--encoder", default="efficientnet_lite0")
    given = parser.parse_args()
    torch.set_num_threads(1)
    encoder = openeupe.load(given.encoder)
    resolution = encoder.resolution
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "pool").mkdir()
        all_ = photos(given.photos)
        for number in np.linspace(0, len(all_) - 1, min(given.images, len(all_))).astype(int):
            (place / "pool" / f"{number}{all_[number].suffix}").symlink_to(all_[number].resolve())
        image_pool, here = ImagePool([place / "pool"]), Processes(torch.device("cpu"))
        scanned = scan(image_pool, place / "first", here, 1, SILENT)
        rows = readable(scanned)
        view = View(resolution, resolution, "squash")
        images = [view.image(decode(image_pool.encoded(int(row)), "")) for row in rows]
        batches = [torch.stack(images[at : at + BATCH]) for at in range(0, len(rows), BATCH)]
        number = 0

        def decoding() -> None:
            for row in rows:
                decode(image_pool.encoded(int(row)), "")

        def scanning() -> None:
            scan(image_pool, place / f"scan{number}", here, 1, SILENT)

        def encoding() -> None:
            with torch.inference_mode():
                for batch in batches:
                    encoder(batch.float() / 255)

        def embedding() -> None:
            folder = place / f"vectors{number}"
            Embeddings(folder, image_pool, rows, scanned.digest, encoder, resolution).make(
                here, 1, SILENT
            )

        tasks: list[Callable[[], None]] = [decoding, scanning, encoding, embedding]
        clock: dict[str, list[float]] = {task.__name__: [] for task in tasks}
        cpu: dict[str, list[float]] = {task.__name__: [] for task in tasks}
        for number in range(given.rounds + 1):
            for task in tasks if number % 2 else tasks[::-1]:
                start = time.perf_counter(), time.process_time()
                task()
                clock[task.__name__].append(time.perf_counter() - start[0])
                cpu[task.__name__].append(time.process_time() - start[1])
    show(clock, cpu, len(rows))


if __name__ == "__main__":
    main()
