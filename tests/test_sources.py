"""Whatever one command takes for an encoder, every command, recipe and study takes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import openeupe
from openeupe.ablation.running import Place, check
from openeupe.ablation.study import load_study
from openeupe.distillation.chain import load_with_chains
from openeupe.distillation.check import check_recipe
from openeupe.distillation.load import load_networks
from openeupe.distillation.recipe import Recipe, load_recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.run_folder import Run
from openeupe.encoders import Encoder, create, resolver, save, sources
from openeupe.errors import InputError
from openeupe.share.saving import save as save_for_others

from .conftest import call
from .encoders.released_layout import write as write_released
from .tiny_recipe import write_colors, write_images, write_recipe

KINDS = (
    "name", "untrained", "released file", "folder", "carried", "hub", "run", "stage", "student",
    "export", "code",
)  # fmt: skip
_MODULE = """
from openeupe import create

def make(**args):
    return create("test_resnet", **args)

def wrong():
    return 3
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a user writes for each kind of source."""
    place = tmp_path_factory.mktemp("sources")
    run_recipe(load_recipe(write_recipe(place, steps=1)), place / "run")
    network = create("test_resnet", resolution=32).eval()
    save(network, place / "folder")
    shutil.copytree(place / "folder", place / "models" / "stand-in")
    (place / "hub").symlink_to(place / "folder")
    openeupe.export(network, "onnx", place / "export", images=write_images(place / "photos"))
    (place / "own_module.py").write_text(_MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resolver, "_CARRIED", place / "models")
        patch.setattr(sources, "download", lambda _: place / "hub")
        patch.syspath_prepend(str(place))
        yield {
            "name": "raw_pixels",
            "untrained": "untrained:test_resnet",
            "released file": str(write_released(place, "eupe_vit_t")),
            "folder": str(place / "folder"),
            "carried": "stand-in",
            "hub": "hf-hub:somebody/network",
            "run": str(place / "run"),
            "stage": str(place / "run" / "student"),
            "student": str(place / "run" / "student" / "student"),
            "export": str(place / "export"),
            "code": "python:own_module:make",
        }
    sys.modules.pop("own_module", None)


def _recipe(folder: Path, kind: str, **member: Any) -> Recipe:
    """A recipe with a teacher or a student of that kind, read from a file."""
    file = write_recipe(folder, steps=1, **{kind: {"net": {"resolution": 32, **member}}})
    return load_recipe(file, allow_code=True)


def _teacher(source: str, folder: Path) -> Encoder:
    recipe = _recipe(folder, "teachers", encoder=source)
    check_recipe(recipe)
    members = recipe.stages["student"].teachers
    return load_networks(Run(folder, recipe), "student", "teachers", members)["net"]


def _study(source: str, folder: Path) -> None:
    suite = {"name": "tiny", "benchmarks": {"knn": write_colors(folder)}}
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    recipe = yaml.safe_load(write_recipe(folder, steps=1).read_text())
    recipe["stages"]["student"]["teachers"] = {"net": {"encoder": source, "resolution": 32}}
    study = {"name": "tiny", "suite": "suite.yaml", "recipes": {"one": recipe}, "seeds": [0],
             "arms": {"there": {"encoder": source}, "made": {"recipe": "one"}}}  # fmt: skip
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    check(load_study(folder / "study.yaml", allow_code=True), Place(folder / "out", folder))


def _evaluate(source: str, folder: Path) -> None:
    suite = {"name": "tiny", "benchmarks": {"knn": write_colors(folder)}}
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    call("evaluate", source, "--suite", folder / "suite.yaml", "--data", folder, "--out",
         folder / "results", "--device", "cpu", "--allow-code")  # fmt: skip


TAKERS: dict[str, Callable[[str, Path], object]] = {
    "load": lambda source, folder: openeupe.load(source, allow_code=True),
    "chains": lambda source, folder: load_with_chains(source, allow_code=True),
    "suite": lambda source, folder: resolver.random_network(source),  # a baseline's network
    "recipe": _teacher,
    "study": _study,
    "evaluate": _evaluate,
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_is_taken(
    kind: str, taker: str, written: dict[str, str], tmp_path: Path
) -> None:
    if (kind, taker) == ("code", "suite"):
        with pytest.raises(InputError, match="runs code"):  # a suite cannot ask for it
            TAKERS[taker](written[kind], tmp_path)
        return
    TAKERS[taker](written[kind], tmp_path)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("export", "code")])
def test_every_kind_with_a_network_can_be_trained_saved_and_exported(
    kind: str, written: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = written[kind]
    recipe = _recipe(tmp_path, "students", encoder=source)
    check_recipe(recipe)
    saved = openeupe.load(save_for_others(source, tmp_path / "saved"))
    assert saved.name == openeupe.load(source).name
    exported: list[Encoder] = []
    monkeypatch.setattr(
        "openeupe.deployment.export.export",
        lambda encoder, *_, **__: exported.append(encoder) or {"bytes": {}},
    )
    call("export", source, "--out", tmp_path / "out")
    assert exported[0].name == saved.name


def test_a_teacher_of_a_recipe_has_the_tokens_of_the_run(
    written: dict[str, str], tmp_path: Path
) -> None:
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(
            _teacher(written["run"], tmp_path)(images).patches,
            openeupe.load(written["student"])(images).patches,
        )


def test_an_exported_file_is_no_student_and_is_not_saved(
    written: dict[str, str], tmp_path: Path
) -> None:
    source = written["export"]
    with pytest.raises(InputError, match=r"students\.net: .* cannot be trained: name the encoder"):
        check_recipe(_recipe(tmp_path, "students", encoder=source))
    with pytest.raises(InputError, match="is an exported file: save the encoder"):
        save_for_others(source, tmp_path / "saved")
    with pytest.raises(InputError, match="has no file for 64x64 pixels"):
        check_recipe(_recipe(tmp_path, "teachers", encoder=source, resolution=64))


def test_code_runs_only_where_it_is_allowed(written: dict[str, str], tmp_path: Path) -> None:
    source = written["code"]
    sys.modules.pop("own_module", None)
    recipe = write_recipe(
        tmp_path, steps=1, teachers={"net": {"encoder": source, "resolution": 32}}
    )
    study = {"name": "tiny", "suite": "mini", "arms": {"own": {"encoder": source}}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    for refused in (
        lambda: openeupe.load(source),
        lambda: load_recipe(recipe),
        lambda: load_study(tmp_path / "study.yaml"),
        lambda: call("evaluate", source),
        lambda: call("distill", recipe),
        lambda: call("plan", recipe, "--device", "h100"),
        lambda: call("export", source),
        lambda: save_for_others(source, tmp_path / "saved"),
    ):
        with pytest.raises(
            InputError, match=r"runs code on .*: if .*, allow it: .*--allow-code"
        ) as error:
            refused()
        assert "\n" not in str(error.value)
    assert "own_module" not in sys.modules
    call("plan", recipe, "--device", "h100", "--allow-code")
    call("distill", recipe, "--run", tmp_path / "run", "--device", "cpu", "--allow-code")
    assert openeupe.load(tmp_path / "run").name == "test_vit2"  # opening it runs nothing


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("python:own_module", "write it as python:package.module:factory"),
        ("python:own_module:wrong", "returned a int: return an openeupe.Encoder"),
        ("python:own_module:missing", "failed .AttributeError"),
        ("python:no_such_module:make", "failed .ModuleNotFoundError"),
        ("stage:proxy", "names a stage inside a recipe only"),
    ],
)
@pytest.mark.usefixtures("written")
def test_what_cannot_be_made_is_one_line(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        openeupe.load(source, allow_code=True)
    assert "\n" not in str(error.value)


def test_an_encoder_is_a_source(written: dict[str, str]) -> None:
    encoder = openeupe.load(written["folder"])
    assert openeupe.load(encoder) is encoder
    assert load_with_chains(encoder) == (encoder, {})


def test_beside_a_recipe_of_ones_own_a_name_is_still_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`recipe.yaml` in the working directory does not make it a run whose stages are meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text("base: eupe\n")
    (tmp_path / "test_resnet").mkdir()
    assert openeupe.load("untrained:test_resnet").name == "test_resnet"
    assert isinstance(resolver.resolve("test_resnet"), sources.Published)
    assert isinstance(resolver.resolve("raw_pixels"), sources.Published)
