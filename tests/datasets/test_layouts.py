"""Each layout of evaluation data has settings of its own; a foreign one is an error."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from openeupe.datasets.classification import ClassData
from openeupe.datasets.depths import DepthData
from openeupe.datasets.keypoints import KeypointData
from openeupe.datasets.masks import MaskData
from openeupe.datasets.question_data import QuestionData
from openeupe.datasets.words import TextData


@pytest.mark.parametrize(
    ("kind", "settings", "foreign"),
    [
        (ClassData, {"layout": "imagenet", "path": "in1k"}, {"train": "other"}),
        (ClassData, {"layout": "imagenet", "path": "in1k"}, {"count": 3}),
        (ClassData, {"layout": "folder", "path": "set"}, {"count": 9}),
        (ClassData, {"layout": "scenes", "count": 9}, {"path": "set"}),
        (ClassData, {"layout": "heldout", "path": "set", "heldout": 0.2}, {"count": 9}),
        (MaskData, {"layout": "ade20k", "path": "ade"}, {"zero_is_ignore": True}),
        (MaskData, {"layout": "scenes", "resolution": 64}, {"ignore": [7]}),
        (DepthData, {"layout": "nyuv2", "path": "nyu", "depth_scale": 1.0}, {"seed": 1}),
        (DepthData, {"layout": "scenes"}, {"depth_scale": 1.0}),
        (KeypointData, {"layout": "spair", "path": "spair"}, {"margin": 0.2}),
        (KeypointData, {"layout": "csv", "path": "a.csv", "pairs": 5}, {"split": "val"}),
        (QuestionData, {"layout": "boxes", "path": "coco", "seed": 1}, {"resolution": 64}),
        (QuestionData, {"layout": "scenes", "seed": 1}, {"asked": 5}),
        (TextData, {"layout": "scenes", "seed": 1}, {"test": "photos"}),
    ],
)
def test_a_foreign_setting_is_refused(
    kind: Any, settings: dict[str, Any], foreign: dict[str, Any]
) -> None:
    data: TypeAdapter[Any] = TypeAdapter(kind)
    assert data.validate_python(settings).layout == settings["layout"]
    (name,) = foreign
    with pytest.raises(ValidationError, match="Extra inputs are not permitted") as error:
        data.validate_python(settings | foreign)
    assert error.value.errors()[0]["loc"] == (settings["layout"], name)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (ClassData, {"layout": "imagenet"}),
        (ClassData, {"layout": "folder"}),
        (ClassData, {"layout": "heldout", "path": "set"}),
        (MaskData, {"layout": "ade20k"}),
        (MaskData, {"layout": "folder", "path": "x", "classes": 3}),
        (DepthData, {"layout": "nyuv2"}),
        (KeypointData, {"layout": "spair"}),
        (QuestionData, {"layout": "boxes"}),
        (TextData, {"layout": "folder", "train": "a"}),
    ],
)
def test_what_a_layout_needs_must_be_given(kind: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="Field required"):
        TypeAdapter(kind).validate_python(settings)
