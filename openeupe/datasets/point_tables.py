"""Keypoints of tables: DeepLabCut's `CollectedData.csv`, and one line for each point."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from openeupe.config import Config
from openeupe.datasets.point_files import Box, KeypointSet, Point
from openeupe.errors import InputError
from openeupe.seeds import derive_seed, shuffled


class PointTable(Config):
    """A CSV file with the points of images.

    deeplabcut: a `CollectedData.csv` (three header rows: scorer, bodyparts, coords; then an image
        path, x, y, x, y, ...; empty or nan: not visible).
    csv: a table with the columns image, keypoint, x, y and, if there are several, category.

    Tables have no boxes: an object's box is the extent of its visible points, widened on each side
    by `margin` of its larger side. Pairs are ordered pairs of images of one
    category that share a point, drawn without replacement by a fixed seed.
    """

    layout: Literal["deeplabcut", "csv"]
    path: Path = Field(description="The CSV file")
    margin: float = Field(0.1, ge=0, description="Widening of the box, share of its side")
    pairs: int = Field(10_000, ge=1, description="At most this many pairs of a category")

    def open(self, root: Path) -> KeypointSet:
        """Read the table and check every image's header. A relative `path` starts from `root`.

        Raises:
            InputError: for missing, damaged or contradictory files.
        """
        read = read_deeplabcut if self.layout == "deeplabcut" else read_csv
        return read(root / self.path.expanduser(), margin=self.margin, pairs=self.pairs)


def read_deeplabcut(path: Path, *, margin: float = 0.1, pairs: int = 10_000) -> KeypointSet:
    """A `CollectedData.csv` of DeepLabCut (one animal an image); see `PointTable`.

    Image paths are searched in the table's folder and the two folders above it (DeepLabCut writes
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
    header = [name.strip().lower() for name in (rows[0] if rows else [])]
    columns = {name: place for place, name in enumerate(header)}
    if twice := [name for name in columns if header.count(name) > 1]:
        raise InputError(f"{path} has two columns {twice[0]!r}: keep one")
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


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a CSV table ({error}): check path") from None


def _point(path: Path, line: int, x: str = "", y: str = "") -> Point | None:
    """A point of a table; None where it is not visible: both are empty or nan."""
    try:
        point = (float(x.strip() or "nan"), float(y.strip() or "nan"))
    except ValueError:
        point = (np.inf, np.inf)
    if np.isnan(point).all():
        return None
    if not np.isfinite(point).all():
        raise InputError(f"{path} line {line}: {x!r}, {y!r} is no point: correct it")
    return point
