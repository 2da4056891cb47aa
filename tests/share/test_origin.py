"""Where an encoder comes from: nothing that is unknown is left out of its licences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from openeupe import encoders
from openeupe.encoders import Encoder
from openeupe.evaluation.benchmark import identify
from openeupe.share.card import card_licence
from openeupe.share.origin import Origin, origin
from tests.share.results import write_results

STAGE = {
    "teachers": {"net": {"encoder": "resnet10t", "resolution": 32}},
    "students": {"net": {"encoder": "test_resnet", "resolution": 32}},
    "steps": 1,
    "batch_size": 1,
    "head_hidden": 8,
    "optimizer": {"lr": 0.001},
}


@pytest.fixture
def encoder() -> Encoder:
    return encoders.create("test_resnet")


def student(folder: Path, stage: str, teachers: dict[str, str]) -> Path:
    """A finished student, as far as its origin is concerned."""
    made = folder / stage / "net"
    made.mkdir(parents=True)
    info = {
        "run": "mine",
        "stage": stage,
        "seed": 0,
        "steps": 1,
        "images": 1,
        "head_hidden": 8,
        "teachers": {k: {"encoder": v, "cls_dim": 8, "patch_dim": 8} for k, v in teachers.items()},
    }
    (made / "distillation.json").write_text(json.dumps(info))
    return made


def recipe(folder: Path, stages: dict[str, Any], name: str = "mine") -> None:
    content = {
        "format": 2,
        "name": name,
        "data": {"sources": [{"path": "images"}]},
        "stages": stages,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))


def test_a_teacher_whose_origin_is_not_here_is_unknown(tmp_path: Path, encoder: Encoder) -> None:
    made = student(tmp_path, "student", {"b": "efficientnet_lite0", "proxy": "stage:proxy"})
    found = origin(str(made), encoder)
    assert list(found.experts) == ["efficientnet_lite0", "stage:proxy"]
    assert found.experts["stage:proxy"].name == "unknown"
    assert card_licence(found, None) == ("other", "see-the-teachers")
    only_open = Origin(experts={"efficientnet_lite0": found.experts["efficientnet_lite0"]})
    assert card_licence(only_open, None) == ("apache-2.0", None)


@pytest.mark.parametrize("teachers", [{}, {"net": "efficientnet_lite0"}])
def test_a_folder_that_was_saved_before_keeps_the_licence_of_its_card(
    tmp_path: Path, encoder: Encoder, teachers: dict[str, str]
) -> None:
    """The weights that it started from may be under a stricter one than its teachers."""
    made = student(tmp_path, "student", teachers)
    if not teachers:
        (made / "distillation.json").unlink()
    card = "---\nlicense: other\nlicense_name: fair-noncommercial-research-license\n---\n"
    (made / "README.md").write_text(card)
    found = origin(str(made), encoder)
    assert card_licence(found, None) == ("other", "fair-noncommercial-research-license")


def test_a_folder_of_others_without_a_card_is_unknown(tmp_path: Path, encoder: Encoder) -> None:
    made = encoders.save(encoder, tmp_path / "net")
    assert origin(str(made), encoder).experts["net"].name == "unknown"


def test_a_recipe_that_lies_around_by_chance_is_not_its_own(
    tmp_path: Path, encoder: Encoder
) -> None:
    made = student(tmp_path, "student", {"net": "resnet10t"})
    recipe(tmp_path, {"student": STAGE}, name="another")
    assert origin(str(made), encoder).recipe is None
    recipe(tmp_path, {"student": STAGE})
    assert origin(str(made), encoder).recipe is not None


def test_the_weights_that_a_student_starts_from_have_a_licence_too(
    tmp_path: Path, encoder: Encoder
) -> None:
    first = student(tmp_path, "first", {"net": "resnet10t"})
    last = student(tmp_path, "last", {"net": "resnet10t"})
    start = {"encoder": "efficientnet_lite0", "resolution": 32, "pretrained": True}
    goes_on = {"encoder": "stage:first", "resolution": 32}
    recipe(
        tmp_path,
        {
            "first": {**STAGE, "students": {"net": start}},
            "last": {**STAGE, "students": {"net": goes_on}},
        },
    )
    for made in (first, last):
        assert set(origin(str(made), encoder).experts) == {"resnet10t", "efficientnet_lite0"}


def test_a_copied_student_keeps_the_licence_of_the_weights_that_it_started_from(
    tmp_path: Path, encoder: Encoder
) -> None:
    """Without its run and without a card, `distillation.json` is all that is left."""
    made = student(tmp_path, "student", {"net": "efficientnet_lite0"})
    info = json.loads((made / "distillation.json").read_text())
    info["start"] = {"encoder": "hed"}
    (made / "distillation.json").write_text(json.dumps(info))
    assert list(origin(str(made), encoder).experts) == ["efficientnet_lite0", "hed"]


def test_results_of_a_name_lie_where_the_caller_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoders.create("raw_pixels").eval()
    write_results(tmp_path / "evaluations" / "raw_pixels", identify(encoder, {}))
    monkeypatch.chdir(tmp_path)
    assert origin("raw_pixels", encoder).results == []
    assert len(origin("raw_pixels", encoder, Path("evaluations")).results) == 1
