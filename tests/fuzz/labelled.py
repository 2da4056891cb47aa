"""Good labelled data sets, one of each layout that people fill with files of their own."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

_RESOLUTION = 32
_PARTS = ("train", "test")
_SHORT = {
    "steps": 1,
    "warmup_steps": 0,
    "height": _RESOLUTION,
    "width": _RESOLUTION,
    "batch_size": 2,
}


def _folders(labels: str) -> dict[str, Any]:
    return {part: {"images": f"images/{part}", "labels": f"{labels}/{part}"} for part in _PARTS}


def _benchmarks() -> dict[str, Any]:
    masks = {"layout": "folder", "path": ".", "names": "masks.yaml", **_folders("masks")}
    classes = {"layout": "folder", "path": "classes", "names": "classes.yaml"}
    dense = {"domain": "dense", "seeds": 1}
    points: dict[str, Any] = {
        "kind": "correspondence",
        "domain": "dense",
        "resolution": _RESOLUTION,
    }
    return {
        "knn": {"kind": "knn", "domain": "image", "k": [1], "short": _RESOLUTION,
                "crop": _RESOLUTION, "data": classes},
        "masks": {"kind": "segmentation", "data": masks, **dense,
                  "variant": {"name": "cached", **_SHORT}},
        "depths": {"kind": "depth", **dense, "variant": {"name": "cached", **_SHORT},
                   "data": {"layout": "folder", "path": ".", **_folders("depths")}},
        "edges": {"kind": "boundaries", "data": masks, **dense,
                  "resolution": _RESOLUTION, "steps": 1},
        "points": points | {"data": {"layout": "csv", "path": "points.csv"}},
        "animal": points | {"data": {"layout": "deeplabcut", "path": "CollectedData.csv"}},
    }  # fmt: skip


def write_labelled(folder: Path) -> None:
    """Write images with classes, masks, depths and points, and a `suite.yaml` that reads them."""
    rng = np.random.default_rng(0)
    for part in _PARTS:
        for kind in ("images", "masks", "depths"):
            (folder / kind / part).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (_RESOLUTION, _RESOLUTION, 3), dtype=np.uint8)
            mask = rng.integers(0, 3, (_RESOLUTION // 8, _RESOLUTION // 8), dtype=np.uint8).repeat(
                8, 0
            )
            depth = rng.integers(500, 5000, (_RESOLUTION, _RESOLUTION), dtype=np.uint16)
            name = f"{part}/{number}.png"
            Image.fromarray(pixels).save(folder / "images" / name)
            Image.fromarray(mask.repeat(8, 1)).save(folder / "masks" / name)
            Image.fromarray(depth).save(folder / "depths" / name)
            chosen = folder / "classes" / part / "ab"[number % 2]
            chosen.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(chosen / f"{number}.png")
    _write_points(folder)
    (folder / "masks.yaml").write_text("{0: sky, 1: wall, 2: floor}\n")
    (folder / "classes.yaml").write_text("{a: ant, b: bee}\n")
    named = {name: {"protocol": f"{name}/cut", **one} for name, one in _benchmarks().items()}
    (folder / "suite.yaml").write_text(yaml.safe_dump({"name": "cut", "benchmarks": named}))


def _write_points(folder: Path) -> None:
    names = [f"images/train/{number}.png" for number in range(3)]
    with (folder / "points.csv").open("w", newline="") as file:
        rows = [["image", "keypoint", "x", "y", "category"]]
        rows += [[name, point, str(4 + i), str(9 + 5 * i), "all"]
                 for name in names for i, point in enumerate(("eye", "ear", "tail"))]  # fmt: skip
        csv.writer(file).writerows(rows)
    with (folder / "CollectedData.csv").open("w", newline="") as file:
        head = [["scorer", "me", "me", "me", "me"], ["bodyparts", "eye", "eye", "tail", "tail"],
                ["coords", "x", "y", "x", "y"]]  # fmt: skip
        csv.writer(file).writerows(head + [[name, "4", "5", "20.5", "21"] for name in names])
