"""A recipe of three stages, small enough for a second a stage, and the images it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four smooth random images."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for i in range(24):
        small = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((80, 60), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def raw_recipe(images: Path) -> dict[str, Any]:
    """Two teachers -> proxy -> student -> finetuned, all tiny, as it would stand in a file."""
    schedule = {
        "steps": 6,
        "batch_size": 4,
        "head_hidden": 16,
        "statistics": {"iterations": 2},
        "optimizer": {"lr": 1e-3},
        "log_every": 3,
        "checkpoint_every": 2,
    }

    def random(name: str, side: Any) -> dict[str, Any]:
        return {"encoder": name, "pretrained": False, "resolution": side}

    return {
        "name": "tiny",
        "data": {"sources": [{"path": str(images)}]},
        "stages": {
            "proxy": {
                "teachers": {"vit": random("test_vit", 32), "net": random("test_resnet", 64)},
                "students": {"proxy": random("test_vit2", 32)},
                **schedule,
            },
            "student": {
                "teachers": {"proxy": {"encoder": "stage:proxy", "resolution": 32}},
                "students": {"student": random("test_efficientnet", 64)},
                **schedule,
            },
            "finetuned": {
                "teachers": {"proxy": {"encoder": "stage:proxy", "resolution": [32, 48, 64]}},
                "students": {"student": {"encoder": "stage:student", "resolution": [64, 96]}},
                **schedule,
            },
        },
    }


@pytest.fixture
def recipe_file(raw_recipe: dict[str, Any], tmp_path: Path) -> Path:
    """The recipe as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(raw_recipe, sort_keys=False))
    return path
