"""A damaged `distillation.json` is one line with the file and the fix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openeupe.distillation.saved import read_info
from openeupe.errors import InputError

MINI = Path(__file__).parents[2] / "openeupe" / "models" / "openeupe-mini" / "distillation.json"


def test_the_carried_student_can_be_read() -> None:
    assert set(read_info(MINI).teachers) == {"semantic", "boundaries", "text"}


@pytest.mark.parametrize(
    "change",
    [
        {"teachers": None}, {"teachers": []}, {"teachers": {"a": {}}}, {"head_hidden": "512"},
        {"head_hidden": 10**9}, {"steps": 1.5}, {"images": None}, {"stage": ["x"]},
    ],
)  # fmt: skip
def test_wrong_fields_of_a_student_are_named(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "distillation.json"
    path.write_text(json.dumps(json.loads(MINI.read_text()) | change))
    field = next(iter(change))
    with pytest.raises(InputError, match=rf"distillation\.json is damaged \({field}.*copy"):
        read_info(path)
