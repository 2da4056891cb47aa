"""A recipe of three stages, small enough for a second a stage, and the images it needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from openeupe.distillation.students import Learner
from tests.tiny_recipe import network, write_images


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four smooth random images."""
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def raw_recipe(images: Path) -> dict[str, Any]:
    """Two teachers -> proxy -> student -> finetuned, all tiny, as it would stand in a file."""
    return three_stages(images)


def three_stages(images: Path) -> dict[str, Any]:
    """What `raw_recipe` gives, for fixtures of a wider scope."""
    schedule = {
        "steps": 6,
        "batch_size": 4,
        "head_hidden": 16,
        "statistics": {"iterations": 2},
        "optimizer": {"lr": 1e-3},
        "log_every": 3,
        "checkpoint_every": 2,
    }

    return {
        "name": "tiny",
        "data": {"sources": [{"path": str(images)}]},
        "stages": {
            "proxy": {
                "teachers": {"vit": network("test_vit"), "net": network("test_resnet", 64)},
                "students": {"proxy": network("test_vit2")},
                **schedule,
            },
            "student": {
                "teachers": {"proxy": {"encoder": "stage:proxy", "resolution": 32}},
                "students": {"student": network("test_efficientnet", 64)},
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
def raw_views(raw_recipe: dict[str, Any]) -> dict[str, Any]:
    """A stage that takes each of the two views of its 24 images once."""
    stage = raw_recipe["stages"]["proxy"]
    stage |= {"views": 2, "steps": 6, "batch_size": 8, "log_every": 1}
    stage |= {"teacher_precision": "bf16", "student_precision": "fp32"}
    raw_recipe["stages"] = {"proxy": stage}
    return raw_recipe


@pytest.fixture
def recipe_file(raw_recipe: dict[str, Any], tmp_path: Path) -> Path:
    """The recipe as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(raw_recipe, sort_keys=False))
    return path


@contextmanager
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run inside begins, and must end in its fourth step, like one that is interrupted."""
    step = Learner.update

    def cut(self: Learner, at: int) -> dict[str, torch.Tensor]:
        if at == 3:
            raise KeyboardInterrupt
        return step(self, at)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", cut)
        with pytest.raises(KeyboardInterrupt):
            yield
