"""No encoder of a page hides another one of its name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from openeupe.distillation.recipe import Recipe
from openeupe.encoders import create
from openeupe.report import seen as module
from openeupe.report.seen import frozen_teachers, see

from .conftest import Reported


@pytest.mark.parametrize(
    ("encoder", "names"), [("hed", ["net", "net of second"]), ("resnet10t", ["net"])]
)
def test_two_teachers_of_one_name_are_both_there(encoder: str, names: list[str]) -> None:
    def stage(teacher: str) -> dict[str, Any]:
        return {
            "teachers": {"net": {"encoder": teacher, "resolution": 32}},
            "students": {"own": {"encoder": "test_resnet", "resolution": 32}},
            "steps": 1,
            "batch_size": 1,
            "head_hidden": 8,
            "optimizer": {"lr": 0.001},
        }

    stages = {"first": stage("resnet10t"), "second": stage(encoder)}
    data = {"sources": [{"path": "images"}]}
    found = frozen_teachers(Recipe.model_validate({"name": "a", "data": data, "stages": stages}))
    assert list(found) == names
    assert found["net"].encoder == "resnet10t"


def test_an_encoder_next_to_the_run_does_not_take_a_stages_name(
    reported: Reported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load", lambda name: create("raw_pixels"))
    seen = see(reported.run, also=["first"], device=torch.device("cpu"))
    assert list(seen.tokens) == ["untrained", "first", "second", "first (also)"]
    assert len(seen.tokens["first"][0]) == len(seen.tokens["untrained"][0])


def test_images_that_were_trained_on_are_called_so(reported: Reported) -> None:
    seen = see(reported.run, device=torch.device("cpu"))
    assert "No images are held out" in seen.notes[-1]
    images = [reported.run.parent.parent / "images"]
    seen = see(reported.run, images=images, device=torch.device("cpu"))
    assert not any("held out" in note for note in seen.notes)
