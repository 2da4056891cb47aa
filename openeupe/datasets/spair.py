"""Keypoints of SPair-71k (arXiv 1908.10543) as it is unpacked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from openeupe.config import Config
from openeupe.datasets.point_files import Box, KeypointSet, Point
from openeupe.errors import InputError
from openeupe.plain_json import parse_json


class SPair(Config):
    """The folder SPair-71k as it is unpacked. Boxes and pairs are its own."""

    layout: Literal["spair"] = "spair"
    path: Path = Field(description="That folder, or the one around it")
    split: Literal["trn", "val", "test"] = Field("test", description="Part of SPair-71k")

    def open(self, root: Path) -> KeypointSet:
        """As `read_spair`; a relative `path` starts from `root`."""
        return read_spair(root / self.path.expanduser(), self.split)


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


def _floats(values: Any, count: int) -> Any:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != count:
        raise ValueError(f"{count} numbers expected, not {values}")
    return numbers
