"""A study of tiny networks on coloured images: seconds a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny_recipe import network, write_colors


@pytest.fixture(scope="session")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of noisy red, green and blue images, and a suite of one benchmark."""
    root = tmp_path_factory.mktemp("colors")
    knn = write_colors(root)
    (root / "suite.yaml").write_text(yaml.safe_dump({"name": "colors", "benchmarks": {"knn": knn}}))
    return root


@pytest.fixture
def raw_study() -> dict[str, Any]:
    """Direct from two experts, one and two stages by way of a proxy, and each expert left out."""
    schedule = {"steps": 3, "batch_size": 4, "head_hidden": 16, "statistics": {"iterations": 1},
                "optimizer": {"lr": 1e-3}, "log_every": 3}  # fmt: skip
    experts = {"vit": network("test_vit"), "net": network("test_resnet")}
    proxy = {"teachers": experts, "students": {"proxy": network("test_vit2")}, **schedule}
    taught = {"teachers": {"proxy": {"encoder": "stage:proxy", "resolution": 32}},
              "students": {"student": network("test_efficientnet")}, **schedule}  # fmt: skip
    onward = {**taught, "students": {"student": {"encoder": "stage:student", "resolution": 32}}}
    data = {"sources": [{"path": "colors/train"}]}
    family = {name: {**network("test_efficientnet"), "teachers": chosen} for name, chosen in
              {"all": ["vit", "net"], "no_vit": ["net"], "no_net": ["vit"]}.items()}  # fmt: skip
    return {
        "name": "tiny",
        "seeds": [0, 1],
        "suite": "suite.yaml",
        "recipes": {
            "two": {"data": data, "stages": {"proxy": proxy, "student": taught}},
            "three": {
                "data": data,
                "stages": {"proxy": proxy, "student": taught, "finetuned": onward},
            },
            "direct": {
                "data": data,
                "stages": {"student": {"teachers": experts, "students": family, **schedule}},
            },
        },
        "arms": {
            "direct": {"recipe": "direct", "student": "all"},
            "no_vit": {"recipe": "direct", "student": "no_vit"},
            "no_net": {"recipe": "direct", "student": "no_net"},
            "1&2": {"recipe": "two"},
            "1&2&3": {"recipe": "three"},
            "pixels": {"encoder": "raw_pixels"},
        },
        "tables": {
            "stages": {"reference": "direct", "rows": ["direct", "1&2", "1&2&3", "pixels"]},
            "left out": {"reference": "direct", "rows": ["no_vit", "no_net"]},
        },
    }


@pytest.fixture
def study_file(raw_study: dict[str, Any], colors: Path, tmp_path: Path) -> Path:
    (tmp_path / "suite.yaml").write_text((colors / "suite.yaml").read_text())
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(raw_study, sort_keys=False))
    return path
