from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from openeupe.data.config import AugmentConfig, DataConfig, SourceConfig


@pytest.mark.parametrize("model", [SourceConfig, AugmentConfig, DataConfig])
def test_every_field_is_described(model: type[BaseModel]) -> None:
    assert all(field.description for field in model.model_fields.values())


def test_lists_of_a_recipe_are_taken() -> None:
    config = DataConfig.model_validate(
        {"sources": [{"path": "a"}], "augment": {"scale": [0.5, 1.0], "jitter": 0}}
    )
    assert config.augment.scale == (0.5, 1.0)
    assert DataConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (SourceConfig, {"path": ""}),
        (SourceConfig, {"path": "a", "weight": 0}),
        (SourceConfig, {"path": "a", "weight": float("inf")}),
        (SourceConfig, {"path": "a", "kind": "web"}),
        (DataConfig, {"sources": []}),
        (DataConfig, {"sources": [{"path": "a"}], "workers": -1}),
        (DataConfig, {"sources": [{"path": "a"}], "wokers": 1}),
        (AugmentConfig, {"scale": (0.0, 1.0)}),
        (AugmentConfig, {"scale": (0.5, 0.4)}),
        (AugmentConfig, {"ratio": (-1, 1)}),
        (AugmentConfig, {"blur_sigma": (2.0, 1.0)}),
        (AugmentConfig, {"flip": 1.5}),
        (AugmentConfig, {"hue": 0.6}),
    ],
)
def test_mistakes_are_refused(model: type[BaseModel], values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(values)
