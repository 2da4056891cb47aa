"""A setting that the layout of evaluation data does not read is an error."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from openeupe.config import Config
from openeupe.datasets.classification import ClassData
from openeupe.datasets.dense import DepthData, MaskData
from openeupe.datasets.keypoints import KeypointData
from openeupe.datasets.question_data import QuestionData
from openeupe.evaluate.text_regions import TextData


@pytest.mark.parametrize(
    ("kind", "settings", "ignored"),
    [
        (ClassData, {"layout": "imagenet", "path": "in1k"}, {"train": "other"}),
        (ClassData, {"layout": "folder", "path": "set"}, {"count": 9}),
        (ClassData, {"layout": "scenes", "count": 9}, {"path": "set"}),
        (MaskData, {"layout": "ade20k", "path": "ade"}, {"zero_is_ignore": True}),
        (MaskData, {"layout": "scenes", "side": 64}, {"ignore": [7]}),
        (DepthData, {"layout": "nyuv2", "path": "nyu", "depth_scale": 1.0}, {"seed": 1}),
        (DepthData, {"layout": "scenes"}, {"depth_scale": 1.0}),
        (KeypointData, {"layout": "spair", "path": "spair"}, {"margin": 0.2}),
        (KeypointData, {"layout": "csv", "path": "a.csv", "pairs": 5}, {"split": "val"}),
        (QuestionData, {"layout": "boxes", "path": "coco", "seed": 1}, {"side": 64}),
        (QuestionData, {"layout": "scenes", "seed": 1}, {"asked": 5}),
        (TextData, {"layout": "scenes", "seed": 1}, {"test": "photos"}),
    ],
)
def test_it_is_refused(
    kind: type[Config], settings: dict[str, Any], ignored: dict[str, Any]
) -> None:
    kind.model_validate(settings)
    (name,) = ignored
    with pytest.raises(ValidationError, match=f"layout {settings['layout']} does not read {name}"):
        kind.model_validate(settings | ignored)
