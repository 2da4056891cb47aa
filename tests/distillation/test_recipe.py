from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from openeupe.config import packaged_names
from openeupe.distillation.recipe import Recipe, dump_recipe, load_recipe
from openeupe.distillation.run_folder import settings_that_count
from openeupe.errors import InputError


def test_every_packaged_recipe_is_valid() -> None:
    assert set(packaged_names("recipe")) == {
        "direct", "eupe", "one_teacher", "quickstart", "short", "stage1_2", "stage1_3",
    }  # fmt: skip
    for name in packaged_names("recipe"):
        assert load_recipe(name).name == name


def test_eupe_holds_the_papers_numbers() -> None:
    stages = load_recipe("eupe").stages
    proxy, student, finetuned = stages["proxy"], stages["student"], stages["finetuned"]
    sides = {k: t.resolution for k, t in proxy.teachers.items()}
    assert sides == {"pe_core": (448,), "pe_lang": (448,), "dinov3": (256,)}
    assert proxy.statistics.iterations == 500
    assert [s.head_hidden for s in stages.values()] == [1536, 3072, 3072]
    assert (student.batch_size, student.steps, student.optimizer.lr) == (8192, 390_000, 2e-5)
    assert (finetuned.batch_size, finetuned.steps, finetuned.optimizer.lr) == (4096, 100_000, 1e-5)
    assert student.optimizer.weight_decay == finetuned.optimizer.weight_decay == 1e-4
    assert finetuned.teachers["proxy"].resolution == (256, 384, 512)
    assert finetuned.students["vit_b"].resolution == (256, 384, 512)
    assert all((s.loss.cosine, s.loss.smooth_l1) == (0.9, 0.1) for s in stages.values())
    weights = [s.weight for s in load_recipe("eupe").data.sources]
    assert weights == [0.9, 0.1]


def test_ablations_differ_from_the_method_only_where_they_say() -> None:
    eupe, direct = load_recipe("eupe"), load_recipe("direct")
    assert list(direct.stages) == ["student"]
    assert direct.stages["student"].teachers == eupe.stages["proxy"].teachers
    assert direct.stages["student"].students == eupe.stages["student"].students
    assert list(load_recipe("stage1_2").stages) == ["proxy", "student"]
    assert load_recipe("stage1_2").stages["student"] == eupe.stages["student"]
    third = load_recipe("stage1_3").stages["student"]
    assert third.students["vit_b"].resolution == (256, 384, 512)
    assert third.steps == eupe.stages["student"].steps  # section 4.3: the same schedule
    assert list(load_recipe("one_teacher").stages["student"].teachers) == ["dinov3"]


def test_overrides(recipe_file: Path) -> None:
    recipe = load_recipe(
        recipe_file,
        [
            "stages.proxy.steps=9",
            "stages.proxy.teachers.net=null",
            "stages.student.optimizer.lr=1e-2",
            "stages.finetuned=null",
            "data.sources.0.weight=2",
        ],
    )
    assert recipe.data.sources[0].weight == 2
    assert recipe.stages["proxy"].steps == 9
    assert list(recipe.stages["proxy"].teachers) == ["vit"]
    assert recipe.stages["student"].optimizer.lr == 0.01
    assert list(recipe.stages) == ["proxy", "student"]


@pytest.mark.parametrize(
    ("given", "paths"),
    [("a", ["a"]), ("[a, b]", ["a", "b"]), ("[a, {path: b, weight: 2}]", ["a", "b"])],
)
def test_data_may_be_a_path_or_a_list(recipe_file: Path, given: str, paths: list[str]) -> None:
    """In a file or as an override; the other settings of the data stay."""
    before = load_recipe(recipe_file, ["data.workers=3"]).data
    short = recipe_file.with_name("short.yaml")
    short.write_text(f"base: {recipe_file.name}\ndata: {given}\n")
    for source, changes in ((recipe_file, [f"data={given}"]), (short, [])):
        data = load_recipe(source, [*changes, "data.workers=3"]).data
        assert [one.path for one in data.sources] == paths
        assert data.model_copy(update={"sources": before.sources}) == before
    assert load_recipe(short, ["data.sources.0.path=c"]).data.sources[0].path == "c"


def test_a_dumped_recipe_is_the_same_recipe(recipe_file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file)
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_base_may_lie_beside_the_file(recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("base: tiny.yaml\nname: other\nseed: 7\n")
    recipe = load_recipe(tmp_path / "other.yaml")
    assert (recipe.name, recipe.seed) == ("other", 7)
    assert list(recipe.stages) == ["proxy", "student", "finetuned"]


def change(raw: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        raw = raw[key]
    raw[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("stages.proxy.step", 3, r"stages\.proxy\.step: unknown key, did you mean steps\?"),
        ("stages.proxy.steps", -1, r"stages\.proxy\.steps: .*greater than 0.*-1"),
        ("stages.proxy.steps", "many", r"stages\.proxy\.steps: .*'many'"),
        ("stages.proxy.optimizer", {}, r"stages\.proxy\.optimizer\.lr: is missing"),
        ("stages.proxy.optimizer.betas", [], r"optimizer\.betas\.0: is missing"),
        ("stages.proxy.students.proxy.resolution", [], r"students\.proxy\.resolution"),
        (
            "stages.student.teachers.proxy.encoder",
            "stage:prox",
            r"no earlier stage is named 'prox'",
        ),
        ("stages.student.teachers.proxy.encoder", "stage:student", r"no earlier stage"),
        ("stages.student.teachers.proxy.encoder", "stage:proxy/x", r"has no student 'x' \(proxy\)"),
        ("stages.proxy.teachers.keys", {"encoder": "a", "resolution": 8}, r"reserved name"),
        ("stages.proxy.teachers", {}, r"stages\.proxy\.teachers"),
        (
            "stages.proxy.students.proxy.optimizer",
            {"lr": 1e300},
            r"students\.proxy\.optimizer\.lr: .*less than",
        ),
        ("name", "../up", r"name: "),
        ("data", {"sources": []}, r"data\.sources"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_field(
    raw_recipe: dict[str, Any], tmp_path: Path, path: str, value: Any, message: str
) -> None:
    change(raw_recipe, path, value)
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(raw_recipe, sort_keys=False))
    with pytest.raises(InputError, match=message) as error:
        load_recipe(file)
    assert "\n" not in str(error.value)
    assert "wrong.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "a mapping"),
        ("base: nowhere", "its base nowhere is no file in"),
        ("base: [1]", "base must be"),
        ("base: loop.yaml", "leads back to itself"),
        ("\x00", "not valid YAML"),
    ],
)
def test_unreadable_files(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "loop.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        load_recipe(file)


def test_a_misspelt_recipe_gets_a_guess() -> None:
    with pytest.raises(InputError, match="did you mean quickstart"):
        load_recipe("quickstrat")


@pytest.mark.parametrize("override", ["steps", "=3", "stages.proxy.steps=["])
def test_malformed_overrides(recipe_file: Path, override: str) -> None:
    with pytest.raises(InputError, match="override"):
        load_recipe(recipe_file, [override])


def test_several_students_need_naming(raw_recipe: dict[str, Any]) -> None:
    students = raw_recipe["stages"]["proxy"]["students"]
    students["second"] = dict(students["proxy"])
    with pytest.raises(ValueError, match="several students, write stage:proxy/STUDENT"):
        Recipe.model_validate(raw_recipe)


def test_an_override_of_a_resolved_recipe_reaches_students_that_have_not_set_their_own(
    raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    proxy = raw_recipe["stages"]["proxy"]
    proxy["students"]["proxy"]["optimizer"] = {"weight_decay": 0.5}
    proxy["students"]["own"] = {**proxy["students"]["proxy"], "optimizer": {"lr": 0.25}}
    raw_recipe["stages"] = {"proxy": proxy}
    resolved = tmp_path / "recipe.yaml"
    resolved.write_text(dump_recipe(Recipe.model_validate(raw_recipe)))
    stage = load_recipe(resolved, ["stages.proxy.optimizer.lr=0.125"]).stages["proxy"]
    assert stage.optimizer_of("proxy").lr == 0.125
    assert stage.optimizer_of("proxy").weight_decay == 0.5
    assert stage.optimizer_of("own").lr == 0.25
    both = ["stages.proxy.students.proxy.optimizer.lr=1", "stages.proxy.optimizer.lr=0.125"]
    with pytest.raises(InputError, match=r"lr has no effect, .*students\.own\.optimizer"):
        load_recipe(resolved, both)


def test_what_is_inherited_counts_as_if_it_were_written_out(raw_recipe: dict[str, Any]) -> None:
    inherited = Recipe.model_validate(raw_recipe)
    student = raw_recipe["stages"]["proxy"]["students"]["proxy"]
    student["optimizer"] = inherited.stages["proxy"].optimizer.model_dump()
    written = Recipe.model_validate(raw_recipe)
    one, other = (settings_that_count(r.stages["proxy"]) for r in (inherited, written))
    assert one == other
