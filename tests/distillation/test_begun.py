"""What a stage records when it begins, and compares when it goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from openeupe.data import recorded
from openeupe.distillation import precision
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.run_folder import Run
from openeupe.encoders import create, save
from openeupe.errors import InputError
from tests.lines import Lines

from .conftest import cut_off


@pytest.mark.parametrize("change", ["deleted", "added", "replaced"])
def test_a_run_does_not_go_on_with_other_images(
    raw_recipe: dict[str, Any], images: Path, tmp_path: Path, change: str, monkeypatch: Any
) -> None:
    shutil.copytree(images, tmp_path / "images")
    raw_recipe["data"]["sources"] = [{"path": str(tmp_path / "images")}]
    raw_recipe["stages"] = {"proxy": raw_recipe["stages"]["proxy"]}
    recipe = Recipe.model_validate(raw_recipe)
    with cut_off(monkeypatch):
        run_recipe(recipe, tmp_path / "run")
    file = tmp_path / "images" / "7.png"
    before = file.read_bytes()
    message = "contents of images have changed"
    if change == "deleted":
        file.unlink()
        message = "24 images then, 23 now"
    elif change == "added":
        shutil.copy(file, tmp_path / "images" / "new.png")
        message = "24 images then, 25 now"
    else:
        file.write_bytes(before[:-1] + b"?")
    with pytest.raises(InputError, match=rf"other images .*{message}.*put the images back"):
        run_recipe(recipe, tmp_path / "run")
    file.write_bytes(before)
    (tmp_path / "images" / "new.png").unlink(missing_ok=True)
    run_recipe(recipe, tmp_path / "run")


def test_a_stage_does_not_go_on_with_another_teacher(
    raw_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers = {}
    for seed in (1, 2):
        torch.manual_seed(seed)
        teachers[seed] = create("test_vit")
    save(teachers[1], tmp_path / "teacher")
    stage = raw_recipe["stages"]["proxy"]
    stage["teachers"] = {"vit": {"encoder": str(tmp_path / "teacher"), "resolution": 32}}
    raw_recipe["stages"] = {"proxy": stage}
    recipe = Recipe.model_validate(raw_recipe)
    with cut_off(monkeypatch):
        run_recipe(recipe, tmp_path / "run")
    shutil.rmtree(tmp_path / "teacher")
    save(teachers[2], tmp_path / "teacher")
    with pytest.raises(InputError, match=r"proxy: vit is not the teacher that .* began with"):
        run_recipe(recipe, tmp_path / "run")
    shutil.rmtree(tmp_path / "teacher")
    save(teachers[1], tmp_path / "teacher")
    run_recipe(recipe, tmp_path / "run")


@pytest.mark.parametrize(
    "content", ["{", '{"a": 1}', '[{"a": 1}]', "[" * 100_000], ids=["cut", "mapping", "key", "deep"]
)
def test_a_damaged_record_of_the_images_is_one_line(
    raw_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    raw_recipe["stages"] = {"proxy": raw_recipe["stages"]["proxy"]}
    recipe = Recipe.model_validate(raw_recipe)
    with cut_off(monkeypatch):
        run_recipe(recipe, tmp_path / "run")
    (tmp_path / "run" / "proxy" / "images.json").write_text(content)
    with pytest.raises(InputError, match=r"images\.json is damaged: .*copy it back"):
        run_recipe(recipe, tmp_path / "run")


def test_images_are_read_once_for_the_run_and_its_cache(
    raw_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    one = recorded._image_set
    monkeypatch.setattr(recorded, "_image_set", lambda source: read.append(1) or one(source))
    raw_recipe["stages"] = {
        "proxy": raw_recipe["stages"]["proxy"] | {"views": 1, "teacher_cache": "bf16"}
    }
    run_recipe(Recipe.model_validate(raw_recipe), tmp_path / "run")
    assert len(read) == 1


def computes_in(monkeypatch: pytest.MonkeyPatch, native: str) -> None:
    """A machine on which `auto` is `native`."""
    real = precision.resolve_precision
    for module in ("precision", "placement", "run", "teacher_cache_writer"):
        monkeypatch.setattr(
            f"openeupe.distillation.{module}.resolve_precision",
            lambda asked, device: native if asked == "auto" else real(asked, device),
            raising=False,
        )


@pytest.mark.parametrize("begun", ["fp32", "bf16"])
def test_a_stage_goes_on_in_the_precision_that_it_began_in(
    raw_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: str
) -> None:
    raw_recipe["stages"] = {"proxy": raw_recipe["stages"]["proxy"]}
    recipe = Recipe.model_validate(raw_recipe)
    with monkeypatch.context() as machine:
        computes_in(machine, begun)
        whole = run_recipe(recipe, tmp_path / "whole").student("proxy")
        with cut_off(monkeypatch):
            run_recipe(recipe, tmp_path / "cut")
    other = {"fp32": "bf16", "bf16": "fp32"}[begun]
    computes_in(monkeypatch, other)
    told = Lines()
    run = run_recipe(recipe, tmp_path / "cut", progress=told)
    assert f"proxy: continues in {begun}, as it began; auto is {other} here" in told.text
    one, two = whole.encoder.state_dict(), run.student("proxy").encoder.state_dict()
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    record = json.loads((tmp_path / "cut" / "proxy" / "finished.json").read_text())
    assert record["precision"] == {"teachers": begun, "students": begun}


@pytest.mark.parametrize("content", ["{", "[]", '{"teachers": "fp64", "students": "fp32"}'])
def test_a_damaged_record_of_the_precision_is_one_line(
    raw_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    raw_recipe["stages"] = {"proxy": raw_recipe["stages"]["proxy"]}
    recipe = Recipe.model_validate(raw_recipe)
    with cut_off(monkeypatch):
        run_recipe(recipe, tmp_path / "run")
    (tmp_path / "run" / "proxy" / "precision.json").write_text(content)
    with pytest.raises(InputError, match=r"precision\.json .*copy it back, or delete"):
        run_recipe(recipe, tmp_path / "run")


@pytest.mark.parametrize("old", [None, 1, 3])
def test_a_run_of_another_format_is_refused(
    raw_recipe: dict[str, Any], tmp_path: Path, old: int | None
) -> None:
    recipe = Recipe.model_validate(raw_recipe)
    path = Run.start(recipe, tmp_path / "run").folder / "recipe.yaml"
    raw = yaml.safe_load(path.read_text())
    assert raw.pop("format") == 2
    path.write_text(yaml.safe_dump(raw if old is None else raw | {"format": old}))
    for opened in (lambda: Run.open(path.parent), lambda: Run.start(recipe, path.parent)):
        with pytest.raises(InputError, match=r"recipe\.yaml has format \d, this .* a new run"):
            opened()
