"""Damaged files of a run are one line with the file and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from openeupe.encoders.run_layout import RunFolder, read_ending
from openeupe.errors import InputError


def test_the_students_of_each_stage_are_read_in_order(tmp_path: Path) -> None:
    text = "stages: {b: {students: {y: {}, x: {}}, steps: 1}, a: {students: {z: null}}}"
    (tmp_path / "recipe.yaml").write_text(text)
    students = RunFolder.read(tmp_path).students
    assert list(students.items()) == [("b", ("y", "x")), ("a", ("z",))]


@pytest.mark.parametrize(
    "text",
    ["", "[", "stages: []", "stages: {}", "stages: {a: {}}", "stages: {a: {students: {}}}",
     "stages: {../a: {students: {x: {}}}}", "stages: {a: {students: {../x: {}}}}"],
)  # fmt: skip
def test_a_damaged_recipe_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InputError, match=r"recipe\.yaml is damaged .*: copy it back") as error:
        RunFolder.read(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '{"files": {}, "dropped": "x"}', '{"files": {"a": 3}}']
)
def test_a_damaged_ending_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "finished.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"finished\.json is damaged .*run distill again"):
        read_ending(path)
