"""Studies are read with their recipes and suite; a mistake is one line; addresses tell contents."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from openeupe.ablation.addresses import address, lineage, needs
from openeupe.ablation.study import load_study
from openeupe.config import packaged_names
from openeupe.errors import InputError


def test_packaged_studies_are_valid() -> None:
    assert "stages" in packaged_names("study")
    for name in packaged_names("study"):
        loaded = load_study(name)
        assert loaded.recipes
        assert loaded.benchmarks


def test_arms_lead_to_stages_and_the_first_seed_comes_first(study_file: Path) -> None:
    loaded = load_study(study_file)
    assert loaded.trained("1&2&3") is not None
    assert loaded.trained("1&2&3").stage == "finetuned"  # type: ignore[union-attr]
    assert loaded.trained("pixels") is None
    assert list(loaded.wanted()) == [
        ("direct", 0), ("1&2", 0), ("1&2&3", 0), ("pixels", 0),
        ("direct", 1), ("1&2", 1), ("1&2&3", 1),
        ("no_vit", 0), ("no_net", 0), ("no_vit", 1), ("no_net", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"arms": {"x": {"recipe": "nine"}}}, "arms.x.recipe: there is no 'nine': use one of"),
        ({"arms": {"x": {}}}, "an arm needs either a recipe or an encoder"),
        ({"arms": {"x": {"recipe": "direct"}}, "tables": {}}, "several students: name one of all"),
        ({"tables": {"t": {"rows": ["y"]}}}, "tables.t: there is no 'y'"),
        ({"tables": {"t": {"rows": []}}}, "a table needs either rows or effects"),
        ({"tables": {"t": {"effects": {"net": []}}}}, "and every effect a pair of arms"),
        ({"tables": {"t": {"effects": {"net": [["direct", "y"]]}}}}, "tables.t: there is no 'y'"),
        ({"tables": {"t": {"rows": ["pixels"], "reference": ""}}}, "tables.t.reference: "),
        ({"arms": {"x": {"recipe": "direct", "stage": ""}}}, "arms.x.stage: "),
        ({"benchmarks": ["depht"]}, "benchmarks: there is no 'depht': use one of knn"),
        ({"seed": [1]}, "unknown key, did you mean seeds?"),
        ({"suite": "colours"}, "suite colours is no file in "),
    ],
)
def test_mistakes_are_one_line(
    change: dict[str, Any], told: str, raw_study: dict[str, Any], study_file: Path
) -> None:
    study_file.write_text(yaml.safe_dump(raw_study | change, sort_keys=False))
    with pytest.raises(InputError, match=r".") as error:
        load_study(study_file)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mistake_in_a_recipe_names_it(raw_study: dict[str, Any], study_file: Path) -> None:
    raw_study["recipes"]["two"]["stages"]["student"]["stepps"] = 3
    study_file.write_text(yaml.safe_dump(raw_study, sort_keys=False))
    with pytest.raises(InputError, match=r"recipe two of study tiny: stages.student.*stepps"):
        load_study(study_file)


def test_a_factor_on_the_steps(study_file: Path) -> None:
    recipes = load_study(study_file, ["steps=0.1"]).recipes
    assert {stage.steps for recipe in recipes.values() for stage in recipe.stages.values()} == {1}
    assert load_study(study_file, ["steps=4"]).recipes["two"].stages["proxy"].steps == 12


def test_stages_that_agree_share_an_address(study_file: Path) -> None:
    loaded = load_study(study_file)
    two, three = (loaded.seeded(name, 0) for name in ("two", "three"))
    for stage in ("proxy", "student"):
        assert address(two, stage) == address(three, stage)
    assert address(two, "proxy") != address(loaded.seeded("two", 1), "proxy")
    changed = load_study(study_file, ["recipes.two.stages.proxy.steps=4"]).seeded("two", 0)
    assert address(two, "proxy") != address(changed, "proxy")
    assert address(two, "student") != address(changed, "student")  # it begins from the proxy
    stage = two.stages["proxy"].model_copy(update={"teacher_cache_path": "elsewhere"})
    moved = two.model_copy(update={"stages": two.stages | {"proxy": stage}})
    assert address(two, "student") == address(moved, "student")
    unimportant = load_study(study_file, ["recipes.two.data.workers=3"]).seeded("two", 0)
    assert address(two, "proxy") == address(unimportant, "proxy")
    assert needs(three, "finetuned") == ["proxy", "student"]


def test_a_students_own_line_leaves_out_its_siblings_and_their_teachers(study_file: Path) -> None:
    recipe = load_study(study_file).recipes["direct"]
    alone = lineage(recipe, "student", "no_vit").stages["student"]
    assert set(alone.students) == {"no_vit"}
    assert set(alone.teachers) == {"net"}


def test_a_factor_on_the_steps_of_a_student_with_some_optimizer_settings_of_its_own(
    raw_study: dict[str, Any], study_file: Path
) -> None:
    stage = raw_study["recipes"]["two"]["stages"]["student"]
    stage["optimizer"] = {"lr": 1e-3, "warmup_steps": 2}
    stage["students"]["student"]["optimizer"] = {"lr": 1e-4, "freeze_backbone_steps": 1}
    study_file.write_text(yaml.safe_dump(raw_study, sort_keys=False))
    stretched = load_study(study_file, ["steps=4"]).recipes["two"].stages["student"]
    own = stretched.optimizer_of("student")
    assert (own.lr, own.freeze_backbone_steps, own.warmup_steps) == (1e-4, 4, 8)


def test_a_network_called_like_a_setting_counts_in_the_address(
    raw_study: dict[str, Any], study_file: Path
) -> None:
    addresses = set()
    for encoder in ("test_vit", "test_resnet"):
        stage = raw_study["recipes"]["two"]["stages"]["proxy"]
        stage["teachers"] = {"workers": {"encoder": encoder, "pretrained": False, "resolution": 32}}
        study_file.write_text(yaml.safe_dump(raw_study, sort_keys=False))
        addresses.add(address(load_study(study_file).seeded("two", 0), "proxy"))
    assert len(addresses) == 2
