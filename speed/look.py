"""What `openeupe look` adds to its encoders: its wall time over that of their forward passes.

    python -m speed.look efficientnet_lite0 hed craft untrained:eupe_vit_t --image image.jpg

Reading the image, decompositions, drawing and writing every picture count; loading weights and
importing libraries do not, as they do not depend on the image. Forward passes are timed inside
the same run, and once more by themselves.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401  (imported here so as not to be timed)

import openeupe
from openeupe.visualization.images import patch_tokens, read_images
from openeupe.visualization.pictures import draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoders", nargs="+")
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--resolution", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    encoders = {name: openeupe.load(name) for name in args.encoders}
    (image,) = read_images([args.image], 64)
    for encoder in encoders.values():  # the first pass of a network sets it up
        patch_tokens(encoder, image)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            started = time.perf_counter()
            (image,) = read_images([args.image], args.resolution)
            looked = draw(encoders, [image], Path(folder))
            whole_s = time.perf_counter() - started
            started = time.perf_counter()
            for encoder in encoders.values():
                patch_tokens(encoder, image)
            bare_s = time.perf_counter() - started
            print(
                f"{image.pixels.width} x {image.pixels.height} px, {len(looked.files)} pictures: "
                f"{whole_s:.2f} s, of which forward passes {looked.forward_s:.2f} s: "
                f"{whole_s / looked.forward_s:.2f} x; against passes alone ({bare_s:.2f} s): "
                f"{whole_s / bare_s:.2f} x"
            )


if __name__ == "__main__":
    main()
