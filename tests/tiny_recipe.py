"""Tiny images and recipes, for tests and for the scripts that run them very often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

# timm's test networks with one block a stage: building and running more takes most of a tiny run.
SHALLOW: dict[str, dict[str, Any]] = {
    "test_vit": {"depth": 1},
    "test_vit2": {"depth": 1},
    "test_convnext": {"depths": [1, 1, 1, 1]},
}


def network(name: str, resolution: int | list[int] = 32, **args: Any) -> dict[str, Any]:
    """An untrained encoder's settings in a recipe, shallow if it is one of timm's test networks."""
    settings = {"encoder": name, "pretrained": False, "resolution": resolution}
    args = SHALLOW.get(name, {}) | args
    return settings | ({"args": args} if args else {})


def write_images(folder: Path, count: int = 24) -> Path:
    """Smooth random images of 80 x 60 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count):
        small = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((80, 60), Image.Resampling.BICUBIC)
        image.save(folder / f"{number}.png")
    return folder


def write_colors(root: Path) -> dict[str, Any]:
    """Class folders of noisy red, green and blue images; the settings of kNN on them.

    Args:
        root: gets `colors/train` and `colors/test`; where the settings' path starts.
    """
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for place, name in enumerate(("red", "green", "blue")):
            folder = root / "colors" / part / name
            folder.mkdir(parents=True)
            for number in range(4):
                pixels = random.integers(0, 200, (40, 40, 3), dtype=np.uint8)
                pixels[..., place] |= 128
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return {"kind": "knn", "protocol": "knn/test-v1", "domain": "image", "k": [1], "short": 32,
            "crop": 32, "data": {"layout": "folder", "path": "colors"}}  # fmt: skip


def write_recipe(folder: Path, steps: int, **stage: Any) -> Path:
    """Write `tiny.yaml` and its images into `folder`: one teacher, one student at 32 pixels.

    Args:
        folder: gets `images/` and `tiny.yaml`.
        steps: training steps of the only stage, "student".
        stage: further settings of that stage, which replace those written here.
    """
    images = write_images(folder / "images")
    settings: dict[str, Any] = {
        "teachers": {"vit": network("test_vit")},
        "students": {"student": network("test_vit2")},
        "steps": steps,
        "batch_size": 4,
        "head_hidden": 16,
        "statistics": {"iterations": 2},
        "optimizer": {"lr": 1e-3},
        **stage,
    }
    recipe = {
        "name": "tiny",
        "data": {"sources": [{"path": str(images)}]},
        "stages": {"student": settings},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path
