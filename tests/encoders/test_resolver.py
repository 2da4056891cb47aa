from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import openeupe
from openeupe.distillation.chain import load_with_chains
from openeupe.distillation.run_folder import Run
from openeupe.encoders import save
from openeupe.errors import InputError

from ..conftest import Quickstart


def test_a_saved_encoder_comes_back_the_same(tmp_path: Path) -> None:
    encoder = openeupe.create("eupe_vit_t", depth=2).eval()
    save(encoder, tmp_path / "encoder")
    images = torch.rand(2, 3, 48, 64)
    loaded = openeupe.load(tmp_path / "encoder")
    assert torch.equal(loaded(images).patches, encoder(images).patches)


def test_a_stage_of_a_run_is_named_by_its_folder(quickstart: Quickstart) -> None:
    assert openeupe.load(quickstart.folder / "proxy").name == "efficientnet_lite0"
    final = openeupe.load(str(quickstart.folder))
    assert final.name == openeupe.load(quickstart.folder / "finetuned").name
    with pytest.raises(InputError, match="the run's stages are proxy, student, finetuned"):
        openeupe.load(quickstart.folder / "stage9")


def test_a_run_that_has_not_ended_says_so(quickstart: Quickstart, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text((quickstart.folder / "recipe.yaml").read_text())
    with pytest.raises(InputError, match="stage finetuned has not ended"):
        openeupe.load(tmp_path)


@pytest.mark.parametrize("source", ["no/such/folder", "eupe_vit_q"])
def test_what_is_not_there_is_one_line(source: str) -> None:
    with pytest.raises(InputError) as error:
        openeupe.load(source)
    assert "\n" not in str(error.value)


def test_untrained_weights_are_always_the_same() -> None:
    first, again = (openeupe.load("untrained:resnet10t").state_dict() for _ in range(2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not openeupe.load("untrained:resnet10t").training
    with pytest.raises(InputError, match="no encoder is called 'eupe_vit_q'"):
        openeupe.load("untrained:eupe_vit_q")


def test_chains_of_a_run_lead_to_its_experts(quickstart: Quickstart) -> None:
    encoder, chains = load_with_chains(quickstart.folder)
    assert set(chains) == {"efficientnet_lite0", "hed", "craft"}
    assert chains["efficientnet_lite0"](torch.randn(2, encoder.cls_dim)).shape == (2, 1280)


def test_a_damaged_student_is_refused_however_it_is_named(
    quickstart: Quickstart, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(quickstart.folder, run)
    stages = list(Run.open(run).recipe.stages)
    student = next(path.parent for path in (run / stages[-1]).glob("*/heads.safetensors"))
    earlier = next((run / stages[0]).glob("*/heads.safetensors"))
    for file in (student / "heads.safetensors", earlier):
        whole = file.read_bytes()
        file.write_bytes(whole[:-64] + bytes(64))
        with pytest.raises(InputError, match=r"heads\.safetensors is damaged"):
            load_with_chains(student)
        file.write_bytes(whole)
    load_with_chains(student)


def test_the_package_tells_its_version_and_has_no_other_names() -> None:
    assert openeupe.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="nothing"):
        _ = openeupe.nothing
