"""Names that become files and folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from openeupe.ablation.study import Study, load_study
from openeupe.config import packaged_names
from openeupe.distillation.recipe import load_recipe
from openeupe.errors import InputError
from openeupe.evaluation.suite import load_suite

BAD_NAMES = [
    *("..", ".", "", ".git", "a/b", "/etc", "a\\b", "a\0b", "a\nb", "a b", "-rf", "x" * 300),
    *("~", "a:b", "é", "$(x)", "a."),
]


def _recipe(**changes: Any) -> dict[str, Any]:
    return {**load_recipe("direct").model_dump(mode="json"), **changes}


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["recipe", "stage", "student", "teacher"])
def test_names_in_a_recipe_cannot_leave_the_run_folder(
    name: str, kind: str, tmp_path: Path
) -> None:
    raw = _recipe()
    stage = next(iter(raw["stages"].values()))
    if kind == "recipe":
        raw["name"] = name
    elif kind == "stage":
        raw["stages"] = {name: stage}
    else:
        stage[f"{kind}s"] = {name: next(iter(stage[f"{kind}s"].values()))}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(InputError, match="letters, digits") as found:
        load_recipe(path)
    assert len(str(found.value)) < 600


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["suite", "benchmark"])
def test_names_in_a_suite_cannot_leave_its_folder(name: str, kind: str, tmp_path: Path) -> None:
    raw = load_suite("mini").model_dump(mode="json")
    if kind == "suite":
        raw["name"] = name
    else:
        raw["benchmarks"] = {name: next(iter(raw["benchmarks"].values()))}
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(InputError, match="letters, digits"):
        load_suite(path)


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["study", "recipe", "arm", "table", "effect"])
def test_names_in_a_study_cannot_leave_its_folder(name: str, kind: str, tmp_path: Path) -> None:
    if kind in ("arm", "table", "effect"):
        name = name.replace("a b", " a")  # these may have spaces inside
    raw: dict[str, Any] = {
        "name": "good",
        "suite": "mini",
        "recipes": {"r": {"base": "direct"}},
        "arms": {"a": {"encoder": "resnet10t"}, "b": {"encoder": "resnet18"}},
        "tables": {"t": {"rows": ["b"], "reference": "a"}},
    }
    if kind == "study":
        raw["name"] = name
    elif kind == "recipe":
        raw["recipes"] = {name: {"base": "direct"}}
    elif kind == "arm":
        raw["arms"] = {name: {"encoder": "resnet10t"}, **raw["arms"]}
    elif kind == "table":
        raw["tables"] = {name: raw["tables"]["t"]}
    else:
        raw["tables"] = {"t": {"effects": {name: [["a", "b"]]}}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(InputError, match="letters, digits"):
        load_study(path)


def test_packaged_files_have_allowed_names() -> None:
    for name in packaged_names("recipe"):
        load_recipe(name)
    for name in packaged_names("study"):
        assert isinstance(load_study(name).study, Study)
