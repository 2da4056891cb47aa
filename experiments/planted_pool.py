"""A pool of real photos with copies, broken files and leaked test images planted in it.

    python -m experiments.planted_pool POOL --photos TRAIN... --test TEST... [--smallest 8]

Of every `--photos` image one is written as it is; 30 % get an exact copy under another name, 20 %
a near one (re-encoded, resized, cropped to 95 % of each side, mirrored, of another brightness,
cropped, resized and re-encoded together, gray, or turned by 90 degrees, in turns), 1 % a broken
one. 50 test images are mixed in, as they are and changed in the same ways, with tiny and extremely
narrow pictures. What was planted is written to POOL.json: file -> {kind, of, class}. Classes are
folders.

With `--classes N --smallest M` the image pool is instead one of N classes of very unequal size:
50 M to M images, in equal ratios. A class has too few photos, so other views of them are added:
a random 40 to 70 % of the area, mirrored or not, of another brightness. Nothing else is planted.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

ENDINGS = {".jpg", ".jpeg", ".png"}


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue())).convert("RGB")


def _crop(image: Image.Image, draw: random.Random) -> Image.Image:
    width, height = round(0.95 * image.width), round(0.95 * image.height)
    left, top = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def _resize(image: Image.Image, draw: random.Random) -> Image.Image:
    share = draw.uniform(0.5, 0.9)
    size = (round(share * image.width), round(share * image.height))
    return image.resize(size, Image.Resampling.BICUBIC)


def _brightness(image: Image.Image, draw: random.Random) -> Image.Image:
    factor = draw.choice([draw.uniform(0.65, 0.85), draw.uniform(1.15, 1.35)])
    return ImageEnhance.Brightness(image).enhance(factor)


_QUARTERS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270)

CHANGES: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "reencoded": lambda image, draw: _jpeg(image, draw.randint(30, 70)),
    "resized": _resize,
    "cropped": _crop,
    "mirrored": lambda image, draw: ImageOps.mirror(image),
    "brightness": _brightness,
    "combined": lambda image, draw: _resize(_crop(image, draw), draw),
    "gray": lambda image, draw: image.convert("L"),
    "turned": lambda image, draw: image.transpose(draw.choice(_QUARTERS)),
}


def photos(folders: list[Path]) -> list[Path]:
    """Every image under the folders, in a fixed order."""
    return sorted(f for folder in folders for f in folder.rglob("*") if f.suffix in ENDINGS)


def class_of(source: Path) -> str:
    """The folder, or what it is the `images` of."""
    names = [part for part in source.parts[:-1] if part not in ("images", "train", "train2017")]
    return names[-1]


def plant_classes(
    image_pool: Path, train: list[Path], count: int, smallest: int, seed: int
) -> dict[str, dict[str, str]]:
    """Fill the folder `image_pool` with classes of very unequal size."""
    draw = random.Random(seed)
    classes: dict[str, list[Path]] = {}
    for source in train:
        classes.setdefault(class_of(source), []).append(source)
    chosen = draw.sample(sorted(classes), count)
    planted: dict[str, dict[str, str]] = {}
    image_pool.mkdir(parents=True)
    for i, name in enumerate(chosen):
        photos = draw.sample(classes[name], len(classes[name]))
        for number in range(round(smallest * 50 ** (1 - i / (count - 1)))):
            source = photos[number % len(photos)]
            out = f"{draw.getrandbits(40):010x}.jpg"
            with Image.open(source) as image:
                seen = image.convert("RGB")
                if number >= len(photos):
                    seen = _view(seen, draw)
                seen.save(image_pool / out, "JPEG", quality=90)
            planted[out] = {"kind": "class", "of": str(source), "class": name}
    return planted


def _view(image: Image.Image, draw: random.Random) -> Image.Image:
    share = draw.uniform(0.4, 0.7) ** 0.5
    width, height = round(share * image.width), round(share * image.height)
    left, top = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
    view = image.crop((left, top, left + width, top + height))
    if draw.random() < 0.5:
        view = ImageOps.mirror(view)
    return ImageEnhance.Brightness(view).enhance(draw.uniform(0.7, 1.3))


def change(source: Path, out: Path, kind: str, draw: random.Random) -> None:
    """Write a changed copy of an image as a JPEG of quality 85."""
    with Image.open(source) as image:
        CHANGES[kind](image.convert("RGB"), draw).save(out, "JPEG", quality=85)


def plant(
    image_pool: Path, train: list[Path], test: list[Path], seed: int
) -> dict[str, dict[str, str]]:
    """Fill the folder `image_pool`; returns what was planted, by file name."""
    draw = random.Random(seed)
    image_pool.mkdir(parents=True)
    planted: dict[str, dict[str, str]] = {}
    kinds = list(CHANGES)

    def add(kind: str, of: str = "", ending: str = ".jpg") -> Path:
        name = f"{draw.getrandbits(40):010x}{ending}"  # a copy may come before its original
        first = planted[of]["of"] if of in planted else of
        planted[name] = {"kind": kind, "of": of, "class": class_of(Path(first))}
        return image_pool / name

    originals: list[tuple[Path, str]] = []
    for source in train:
        out = add("original", str(source), source.suffix)
        shutil.copyfile(source, out)
        originals.append((source, out.name))
    for source, name in draw.sample(originals, round(0.3 * len(originals))):
        shutil.copyfile(source, add("exact", name, source.suffix))
    for i, (source, name) in enumerate(draw.sample(originals, round(0.2 * len(originals)))):
        change(source, add(kinds[i % len(kinds)], name), kinds[i % len(kinds)], draw)
    for i, (source, _) in enumerate(draw.sample(originals, round(0.01 * len(originals)))):
        content = source.read_bytes()
        keep = [content[: len(content) // 3], draw.randbytes(2000), b""][i % 3]
        add("broken", str(source)).write_bytes(keep)
    for i, source in enumerate(draw.sample(test, min(50, len(test)))):
        if i % 3 == 0:
            shutil.copyfile(source, add("leak exact", str(source), source.suffix))
        else:
            kind = kinds[i % len(kinds)]
            change(source, add(f"leak {kind}", str(source)), kind, draw)
    for i in range(10):
        with Image.open(originals[i][0]) as image:
            small = image.convert("RGB").resize((24, 24))
            small.save(add("tiny", str(originals[i][0])))
            image.convert("RGB").resize((80, 900)).save(add("narrow", str(originals[i][0])))
    return planted


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image_pool", type=Path)
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    parser.add_argument("--test", type=Path, nargs="+", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--classes", type=int)
    parser.add_argument("--smallest", type=int, default=4)
    given = parser.parse_args()
    train = photos(given.photos)
    if given.classes:
        planted = plant_classes(given.image_pool, train, given.classes, given.smallest, given.seed)
    else:
        planted = plant(given.image_pool, train, photos(given.test), given.seed)
    given.image_pool.with_suffix(".json").write_text(json.dumps(planted, indent=1))
    print(f"{len(planted)} files in {given.image_pool}")


if __name__ == "__main__":
    main()
