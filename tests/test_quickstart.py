"""The quickstart with real experts and photos, cut down to a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import openeupe
from openeupe.api import quickstart as api
from openeupe.data import FolderSource
from openeupe.data.registry_images import REGISTRY_IMAGES, registry_images
from openeupe.distillation.recipe import load_recipe
from openeupe.errors import InputError
from openeupe.evaluation.results import Results
from openeupe.evaluation.suite import load_suite
from openeupe.report.gather import gather

from .conftest import QUICK, QUICK_SUITE, Quickstart

EXPERTS = ("semantic", "boundaries", "text")
STUDENTS = ("proxy", "student", "finetuned")


def test_the_registrys_photos_are_all_there_and_both_parts_have_some() -> None:
    folder = registry_images()
    assert len(FolderSource(folder)) == len(REGISTRY_IMAGES) == 33
    heldout = FolderSource(folder, heldout=0.2, part="heldout")
    assert 4 <= len(heldout) <= 10
    for source in (heldout, FolderSource(folder, heldout=0.2)):
        assert all(min(source.read(i).size) >= 100 for i in range(len(source)))


def test_the_suite_is_that_of_the_recipe() -> None:
    """The command fills in the recipe's values: the packaged suite has the same ones."""
    suite, recipe = load_suite("quickstart"), load_recipe("quickstart")
    assert api._suite(recipe, torch.device("cpu"), with_classes=True) == suite


def place(run: Path, name: str) -> Path:
    folder = run / name if name in STUDENTS else run / "references" / name
    return folder / "evaluations" / "quickstart"


def test_on_the_registrys_photos(quickstart: Quickstart) -> None:
    for word in (*EXPERTS, *STUDENTS, "untrained", "R2", "Next:", "report.html"):
        assert word in quickstart.output
    results = {
        name: Results.open(place(quickstart.folder, name))
        for name in (*EXPERTS, "untrained", *STUDENTS)
    }
    kinds = [f"fidelity-{expert}-{kind}" for expert in EXPERTS for kind in ("cls", "patches")]
    for name, one in results.items():
        assert list(one.benchmarks) == kinds  # these photos have no classes
        metrics = ["r2@64"] if name in EXPERTS else ["r2@64", "r2@96"]
        assert list(one.benchmarks[kinds[0]].metrics) == metrics

    def r2(name: str, kind: str) -> float:
        return results[name].benchmarks[f"fidelity-{kind}"].metrics["r2@64"].value or 0.0

    assert r2("text", "text-patches") > 0.8  # an expert predicts itself
    # The proxy starts as the semantic expert, so it predicts it far better than random weights.
    assert r2("proxy", "semantic-patches") > r2("untrained", "semantic-patches") + 0.1
    shown = gather(quickstart.folder).evaluations
    labels = [one.label for one in shown if one.suite == "quickstart"]
    assert labels == ["boundaries", "semantic", "text", "untrained", *STUDENTS]
    page = quickstart.folder / "report.html"
    assert 2e5 < page.stat().st_size < 5e6
    assert "Fidelity to the experts" in page.read_text()


def test_on_ones_own_photos_in_class_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fidelity = {"train_crops": 12, "test_crops": 4}
    monkeypatch.setattr(api, "_SUITE", QUICK_SUITE | {"benchmarks": {"fidelity": fidelity}})
    monkeypatch.setattr("openeupe.report.seen._LARGEST_RESOLUTION", 64)
    for i, path in enumerate(sorted(registry_images().iterdir())):
        folder = tmp_path / "mine" / ("even", "odd")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("RGB").resize((96, 72)).save(folder / f"{path.stem}.jpg")
    (folder / "damaged.jpg").write_bytes(b"no image")  # left out, as in training
    how = {"run": tmp_path / "run", "overrides": QUICK, "device": "cpu"}
    done = openeupe.quickstart(tmp_path / "mine", **how)
    assert list(done.results) == [*EXPERTS, "untrained", *STUDENTS]
    fidelity_table, knn_table = done.tables()
    assert [row[0] for row in knn_table.rows] == list(done.results)
    assert {tuple(row[:2]) for row in fidelity_table.rows} == {
        *((name, "64") for name in done.results),
        *((name, "96") for name in ("untrained", *STUDENTS)),
    }
    assert done.page.is_file()
    with monkeypatch.context() as patch:  # all is there: nothing is measured again
        patch.setattr("openeupe.evaluation.knn.Knn.run", None)
        patch.setattr("openeupe.evaluation.fidelity.Fidelity.run", None)
        again = openeupe.quickstart(tmp_path / "mine", **how)
    assert [str(table) for table in again.tables()] == [str(table) for table in done.tables()]


def test_a_missing_folder_is_told() -> None:
    with pytest.raises(InputError, match="images: nowhere is no folder"):
        openeupe.quickstart("nowhere")
