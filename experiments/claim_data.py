"""The study's data, small enough to carry: python -m experiments.claim_data ROOT OUT

ROOT holds the sets of docs/suites/small.yaml. Photos are made at most 192 pixels on their short
side (Caltech-101's 160; JPEG, quality 90), labels and depths follow by nearest neighbour.

    python -m experiments.claim_data OUT

adds what can be made from those: `slice`, a validation slice of the training parts on which layers
and settings are chosen (every fifth image of each is held out), `caltech101-words`, the training
photos with words drawn over them, `caltech101-words-500`, some of those, and `layers`, the experts
with other layers as their tokens.
"""

from __future__ import annotations

import os
import shutil
import sys
from multiprocessing import get_context
from pathlib import Path

from PIL import Image

from openeupe import encoders
from openeupe.data import FolderSource
from openeupe.datasets.scenes.word_images import WordPhotos

_SHORT = {"caltech101": 160}  # what the views of docs/suites/claim.yaml are cut from
_OTHERS = 192
_PHOTOS = {
    "caltech101/train": "*/*",
    "caltech101/test": "*/*",
    "nyuv2/train/images": "*",
    "nyuv2/test/images": "*",
    "camvid/train/images": "*",
    "camvid/test/images": "*",
    "coco128/images/train2017": "*",
}
_LABELS = ("nyuv2/train/depths", "nyuv2/test/depths", "camvid/train/labels11",
           "camvid/test/labels11")  # fmt: skip


def main(root: Path, out: Path) -> None:
    for folder, pattern in _PHOTOS.items():
        for file in sorted((root / folder).glob(pattern)):
            short = _SHORT.get(folder.split("/")[0], _OTHERS)
            image = _smaller(Image.open(file).convert("RGB"), short, Image.Resampling.LANCZOS)
            image.save(_made(out, root, file).with_suffix(".jpg"), quality=90)
    for folder in _LABELS:
        for file in sorted((root / folder).glob("*")):
            label = _smaller(Image.open(file), _OTHERS, Image.Resampling.NEAREST)
            label.save(_made(out, root, file))
    for file in (root / "mouse_keypoints").rglob("*.*"):
        shutil.copy(file, _made(out, root, file))


def make_slice(out: Path) -> None:
    """`OUT/slice`: links to the training parts, split in train and test."""
    shutil.rmtree(out / "slice", ignore_errors=True)
    for folder in ("caltech101", "nyuv2", "camvid"):
        kinds: dict[Path, list[Path]] = {}
        for file in sorted((out / folder / "train").rglob("*.*")):
            kinds.setdefault(file.parent, []).append(file)
        for files in kinds.values():
            for number, file in enumerate(files):
                part = "test" if number % 5 == 4 else "train"
                inside = file.relative_to(out / folder / "train")
                link = out / "slice" / folder / part / inside
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.resolve())


def _smaller(image: Image.Image, short: int, how: Image.Resampling) -> Image.Image:
    scale = min(short / min(image.size), 1)
    width, height = (round(length * scale) for length in image.size)
    return image.resize((width, height), how)


def _made(out: Path, root: Path, file: Path) -> Path:
    target = out / file.relative_to(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def add_layers(out: Path) -> None:
    """`OUT/layers/EXPERT-LAYERS`: what an expert may be judged by."""
    choices = {"efficientnet_lite0": ("16", "32", "16+32"), "craft": ("fc7", "fc7+relu5"),
               "hed": ("conv4", "conv5", "conv5+conv4")}  # fmt: skip
    for name, layers in choices.items():
        carried = out / "experts" / name  # where the registry's files are not at hand
        weights = encoders.load(carried if carried.is_dir() else name).state_dict()
        for layer in layers:
            expert = encoders.create(name, patches=layer)
            expert.load_state_dict(weights)
            encoders.save(expert, out / "layers" / f"{name}-{layer.replace('+', '-')}")


def add_words(out: Path, processes: int) -> None:
    """`OUT/caltech101-words`: every training photo of Caltech-101 with words over it."""
    count = len(FolderSource(out / "caltech101/train"))
    with get_context("spawn").Pool(processes) as pool:
        pool.starmap(_words, [(out, range(i, count, processes)) for i in range(processes)])


def some_words(out: Path) -> None:
    """`OUT/caltech101-words-500`: links to every third of the photos with words, 500 at most."""
    folder = out / "caltech101-words-500"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in sorted((out / "caltech101-words").iterdir())[::3][:500]:
        (folder / file.name).symlink_to(Path("..", file.parent.name, file.name))


def _words(out: Path, numbers: range) -> None:
    photos = WordPhotos(FolderSource(out / "caltech101/train"), seed=0)
    (out / "caltech101-words").mkdir(exist_ok=True)
    for number in numbers:
        photos.read(number).save(out / "caltech101-words" / f"{number:04d}.jpg", quality=80)


if __name__ == "__main__":
    *roots, out = (Path(word) for word in sys.argv[1:])
    if roots:
        main(roots[0], out)
    else:
        make_slice(out)
        add_layers(out)
        if not (out / "caltech101-words").is_dir():
            add_words(out, os.cpu_count() or 1)
        some_words(out)
