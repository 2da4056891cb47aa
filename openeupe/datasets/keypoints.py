"""Objects with named points: SPair-71k's folders, keypoint tables (CSV), procedural scenes."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from openeupe.config import Config
from openeupe.data.decode import decode, opened, upright_size
from openeupe.data.string_array import printable
from openeupe.datasets.interfaces import KeypointImages
from openeupe.datasets.layouts import only_read
from openeupe.errors import InputError
from openeupe.identity import facts_identity, files_identity
from openeupe.plain_json import parse_json
from openeupe.seeds import derive_seed, shuffled

Point = tuple[float, float]
Box = tuple[float, float, float, float]


class KeypointData(Config):
    """Where images with keypoints are.

    spair: the folder SPair-71k as it is unpacked; boxes and pairs are its own.
    deeplabcut: a `CollectedData.csv` (three header rows: scorer, bodyparts, coords; then an image
        path, x, y, x, y, ...; empty or nan: not visible).
    csv: a table with the columns image, keypoint, x, y and, if there are several, category.
    scenes: procedural objects; needs no files.

    Tables have no boxes: an object's box is the extent of its visible points, widened on each side
    by `margin` of its larger side. Nor have they pairs: those are ordered pairs of images of one
    category that share a point, drawn without replacement by a fixed seed.
    """

    layout: Literal["spair", "deeplabcut", "csv", "scenes"]
    path: Path | None = Field(None, description="SPair-71k's folder, or the CSV file")
    split: Literal["trn", "val", "test"] = Field("test", description="Part of SPair-71k")
    margin: float = Field(0.1, ge=0, description="Tables: widening of the box, share of its side")
    pairs: int = Field(10_000, ge=1, description="Tables: at most this many pairs of a category")
    count: int = Field(400, ge=2, description="Scenes: number of images")
    seed: int = Field(0, description="Scenes: which images")

    @model_validator(mode="after")
    def _read(self) -> Self:
        table = "path margin pairs"
        return only_read(self, spair="path split", deeplabcut=table, csv=table, scenes="count seed")

    def open(self, root: Path) -> KeypointImages:
        """Read all annotations and check every image's header.

        Args:
            root: the folder that a relative `path` starts from.

        Raises:
            InputError: for missing, damaged or contradictory files.
        """
        if self.layout == "scenes":
            from openeupe.datasets.scenes.dataset import Scenes

            return Scenes(self.count, seed=self.seed, split="test", content="object")
        if self.path is None:
            raise InputError(f"keypoint data of layout {self.layout} needs a path: give one")
        path = root / self.path.expanduser()
        if self.layout == "spair":
            return read_spair(path, self.split)
        read = read_deeplabcut if self.layout == "deeplabcut" else read_csv
        return read(path, margin=self.margin, pairs=self.pairs)


class KeypointSet:
    """Image files with points, boxes and pairs: a `KeypointImages`.

    Args:
        root: folder of `files`.
        files: relative path of each image.
        points: for each image, visible points by name: (x, y) in pixels of the image.
        boxes: for each image the object's box (x0, y0, x1, y1) in pixels.
        pairs: (source image, target image, category).
        sizes: (width, height) that the annotations say, checked against each upright image's.

    Raises:
        InputError: for an image that is missing, damaged or of another size, for a point outside
            its image, and for a set without pairs.
    """

    def __init__(
        self,
        root: Path,
        files: list[str],
        points: list[dict[str, Point]],
        boxes: list[Box],
        pairs: list[tuple[int, int, str]],
        sizes: list[tuple[int, int] | None] | None = None,
    ) -> None:
        if not pairs:
            raise InputError(f"keypoints of {root}: no two images share a visible point; add some")
        self.root, self.files = root, files
        self._points, self._boxes, self._pairs = points, boxes, pairs
        for index, file in enumerate(files):
            _check(root / file, points[index], sizes[index] if sizes else None)

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the images, by names and contents."""
        return files_identity(self.root, (self.root / file for file in self.files))

    @property
    def identity(self) -> str:
        """Identity of the images and all annotations."""
        return facts_identity(self.fingerprint, self._points, self._boxes, self._pairs)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> Image.Image:
        """RGB image `index`. Raises `BrokenImage`."""
        return decode(self.root / self.files[index], str(self.root / self.files[index]))

    def name(self, index: int) -> str:
        """The image's path inside the set."""
        return printable(self.files[index])

    def keypoints(self, index: int) -> dict[str, Point]:
        """Visible points of image `index`: name -> (x, y) in pixels."""
        return self._points[index]

    def box(self, index: int) -> Box:
        """The object's box (x0, y0, x1, y1) in pixels."""
        return self._boxes[index]

    def pairs(self) -> list[tuple[int, int, str]]:
        """(source, target, category) of every pair."""
        return self._pairs


def read_spair(path: Path, split: str = "test") -> KeypointSet:
    """SPair-71k (arXiv 1908.10543) as it is unpacked: JPEGImages, PairAnnotation/SPLIT, Layout.

    `path` is that folder or the one around it. Pairs come in the order of their file names. An
    image's points are those that any of its pairs lists, by SPair's own numbers.

    Raises:
        InputError: for a missing or incomplete folder, and as `KeypointSet` does.
    """
    root = path / "SPair-71k" if (path / "SPair-71k").is_dir() else path
    folder = root / "PairAnnotation" / split
    found = sorted(f for f in folder.glob("*.json") if not f.name.startswith("."))
    if not found:
        raise InputError(f"{folder} holds no pair annotations: unpack SPair-71k, or correct path")
    layout = root / "Layout" / "large" / f"{split}.txt"
    listed = len(layout.read_text().split()) if layout.is_file() else len(found)
    if listed != len(found):
        raise InputError(
            f"{folder} holds {len(found)} pairs where {layout.name} of Layout/large lists {listed}:"
            " unpack SPair-71k again"
        )
    places: dict[str, int] = {}
    points: list[dict[str, Point]] = []
    boxes: list[Box] = []
    sizes: list[tuple[int, int] | None] = []
    pairs = []
    for file in found:
        try:
            pair = parse_json(file.read_bytes())
            category, ends = pair["category"], []
            for end in ("src", "trg"):
                image = f"JPEGImages/{category}/{pair[f'{end}_imname']}"
                box, size = _floats(pair[f"{end}_bndbox"], 4), pair.get(f"{end}_imsize")
                if not (box[0] < box[2] and box[1] < box[3]):  # PCK's threshold is measured by it
                    raise ValueError(f"{end}_bndbox {list(box)} is empty")
                given = {
                    str(number): _floats(point, 2)
                    for number, point in zip(pair["kps_ids"], pair[f"{end}_kps"], strict=True)
                }
                if image not in places:
                    places[image] = len(places)
                    points.append({})
                    boxes.append(box)
                    sizes.append((int(size[0]), int(size[1])) if size else None)
                index = places[image]
                before = [points[index].get(name, point) for name, point in given.items()]
                if not np.allclose(box, boxes[index], 0, 1) or not np.allclose(
                    before, list(given.values()), 0, 1
                ):
                    raise InputError(f"{file}: points or box of {image} are not as in other pairs")
                points[index].update(given)
                ends.append(index)
        except (ValueError, KeyError, TypeError, OverflowError, OSError) as error:
            raise InputError(
                f"{file} is not a pair annotation of SPair-71k ({error!r}): unpack it again"
            ) from None
        if given:
            pairs.append((ends[0], ends[1], str(category)))
    return KeypointSet(root, list(places), points, boxes, pairs, sizes)


def read_deeplabcut(path: Path, *, margin: float = 0.1, pairs: int = 10_000) -> KeypointSet:
    """A `CollectedData.csv` of DeepLabCut (one animal an image); see `KeypointData`.

    Image paths are looked for beside the table and in the two folders above it (DeepLabCut writes
    them from the project's folder). Paths divided over several columns are joined.
    """
    rows = _rows(path)
    head = [row[0].strip().lower() if row else "" for row in rows[:3]]
    if head != ["scorer", "bodyparts", "coords"]:
        raise InputError(
            f"{path} does not begin with the rows scorer, bodyparts, coords "
            "(one animal an image): export it so, or use layout csv"
        )
    parts, coords = rows[1], rows[2]
    first = next((i for i, value in enumerate(coords) if value.strip().lower() == "x"), len(coords))
    names = [name.strip() for name in parts[first::2]]
    kinds = [kind.strip().lower() for kind in coords[first:]]
    if kinds != ["x", "y"] * len(names) or names != [n.strip() for n in parts[first + 1 :: 2]]:
        raise InputError(f"{path}: each point needs the columns x, y: remove all others")
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path}: the point {twice[0]} comes twice: rename one")
    images: dict[str, dict[str, Point]] = {}
    for number, row in enumerate(rows[3:], start=4):
        image = "/".join(cell.strip() for cell in row[:first] if cell.strip())
        if image in images:
            raise InputError(f"{path} line {number}: {image} comes twice: keep one line")
        found = {}
        for column in range(first, len(parts) - 1, 2):
            point = _point(path, number, *row[column : column + 2])
            if point is not None:
                found[parts[column].strip()] = point
        images[image] = found
    return _table(path, {image: ("all", found) for image, found in images.items()}, margin, pairs)


def read_csv(path: Path, *, margin: float = 0.1, pairs: int = 10_000) -> KeypointSet:
    """A table with the header image,keypoint,x,y[,category], one row for each visible point."""
    rows = _rows(path)
    columns = {name.strip().lower(): i for i, name in enumerate(rows[0] if rows else [])}
    if missing := [name for name in ("image", "keypoint", "x", "y") if name not in columns]:
        raise InputError(f"{path} has no column {missing[0]}: its header is image,keypoint,x,y")
    images: dict[str, tuple[str, dict[str, Point]]] = {}
    for number, row in enumerate(rows[1:], start=2):
        row = row + [""] * (len(columns) - len(row))
        image, name = row[columns["image"]].strip(), row[columns["keypoint"]].strip()
        category = row[columns["category"]].strip() if "category" in columns else "all"
        point = _point(path, number, row[columns["x"]], row[columns["y"]])
        before, found = images.setdefault(image, (category, {}))
        if before != category or name in found:
            what = (
                f"point {name} of {image} comes twice"
                if name in found
                else (f"{image} is {category} here and {before} above")
            )
            raise InputError(f"{path} line {number}: {what}: correct the table")
        if point is not None:
            found[name] = point
    return _table(path, images, margin, pairs)


def _table(
    path: Path, images: dict[str, tuple[str, dict[str, Point]]], margin: float, most: int
) -> KeypointSet:
    """The set of a table: files found, boxes and pairs made."""
    files = sorted(images)
    roots = [path.parent, *path.parent.parents[:2]]
    root = next((r for r in roots if files and (r / files[0]).is_file()), path.parent)
    points = [images[file][1] for file in files]
    boxes = [_extent(found, margin) for found in points]
    pairs: list[tuple[int, int, str]] = []
    for category in sorted({category for category, _ in images.values()}):
        members = [i for i, file in enumerate(files) if images[file][0] == category]
        drawn = _drawn(members, points, derive_seed(0, "pairs", category))
        pairs += [(a, b, category) for (a, b), _ in zip(drawn, range(most), strict=False)]
    return KeypointSet(root, files, points, boxes, sorted(pairs, key=lambda p: (p[2], *p[:2])))


def _drawn(
    members: list[int], points: list[dict[str, Point]], key: int
) -> Iterator[tuple[int, int]]:
    """Ordered pairs of `members` that share a point, in a random order, none twice."""
    others = len(members) - 1
    size = len(members) * others
    for start in range(0, size, 4096):
        for position in shuffled(np.arange(start, min(start + 4096, size)), size, key):
            first, second = divmod(int(position), others)
            source, target = members[first], members[second + (second >= first)]
            if points[source].keys() & points[target].keys() and len(points[target]) > 1:
                yield source, target


def _extent(points: dict[str, Point], margin: float) -> Box:
    """The box of visible points, widened on each side by `margin` of its larger side."""
    if not points:
        return (0.0, 0.0, 0.0, 0.0)
    xs, ys = zip(*points.values(), strict=True)
    more = margin * max(max(xs) - min(xs), max(ys) - min(ys))
    return (min(xs) - more, min(ys) - more, max(xs) + more, max(ys) + more)


def _check(path: Path, points: dict[str, Point], said: tuple[int, int] | None) -> None:
    if not path.is_file():
        raise InputError(f"{path} is missing, though the keypoints name it: restore the image")
    try:
        with opened(path) as image:
            width, height = upright_size(image)  # as `read` gives it, and people mark it
    except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
        raise InputError(
            f"{printable(str(path))} cannot be read as an image: replace the file"
        ) from error
    if said is not None and said != (width, height):
        raise InputError(
            f"{path} has {width}x{height} pixels, its annotation says {said[0]}x{said[1]}: "
            "use the images that the keypoints were marked on"
        )
    for name, (x, y) in points.items():
        if not (-1 <= x <= width and -1 <= y <= height):
            raise InputError(
                f"point {name} of {path} lies at ({x:g}, {y:g}), outside its "
                f"{width}x{height} pixels: use the images that the keypoints were marked on"
            )


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a CSV table ({error}): check path") from None


def _point(path: Path, line: int, x: str = "", y: str = "") -> Point | None:
    """A point of a table; None where it is not visible."""
    try:
        point = (float(x.strip() or "nan"), float(y.strip() or "nan"))
    except ValueError:
        raise InputError(f"{path} line {line}: {x!r}, {y!r} is no point: correct it") from None
    return point if np.isfinite(point).all() else None


def _floats(values: Any, count: int) -> Any:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != count:
        raise ValueError(f"{count} numbers expected, not {values}")
    return numbers
