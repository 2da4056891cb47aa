"""The quickstart with real experts and photos, cut down to a few steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import openeupe.quickstart as module
from openeupe.data import FolderSource
from openeupe.data.registry_images import REGISTRY_PHOTOS, registry_photos

from .conftest import QUICK, Quickstart


def test_the_registrys_photos_are_all_there_and_both_parts_have_some() -> None:
    folder = registry_photos()
    assert len(FolderSource(folder)) == len(REGISTRY_PHOTOS) == 33
    heldout = FolderSource(folder, heldout=0.2, part="heldout")
    assert 4 <= len(heldout) <= 10
    for source in (heldout, FolderSource(folder, heldout=0.2)):
        assert all(min(source.read(i).size) >= 100 for i in range(len(source)))


def test_a_limit_takes_images_from_the_whole_of_a_folder() -> None:
    everything: Any = range(5001)  # only its length is asked
    some = module._spread(everything, 2000)
    assert len(some) <= 2000
    assert some[-1] >= 4998
    assert list(module._spread(everything[:26], 288)) == list(range(26))


def test_on_the_registrys_photos(quickstart: Quickstart) -> None:
    for word in ("semantic", "boundaries", "text", "untrained", "finetuned", "R2", "Next:"):
        assert word in quickstart.output
    rows = {(r["encoder"], r["resolution"]): r["r2"] for r in quickstart.results["fidelity"]}
    encoders = ("proxy", "student", "finetuned", "untrained")
    experts = {("semantic", 64), ("boundaries", 64), ("text", 64)}
    assert set(rows) == experts | {(e, s) for e in encoders for s in (64, 96)}
    assert rows["text", 64]["text"]["patches"] > 0.8  # an expert predicts itself
    # The proxy starts as the semantic expert, so it predicts it far better than random weights.
    proxy, untrained = rows["proxy", 64], rows["untrained", 64]
    assert proxy["semantic"]["patches"] > untrained["semantic"]["patches"] + 0.1
    saved = json.loads((quickstart.folder / "results.json").read_text())
    assert saved["fidelity"] == quickstart.results["fidelity"]
    assert Image.open(quickstart.folder / "pca.png").width > 600
    assert 2e5 < (quickstart.folder / "report.html").stat().st_size < 5e6
    assert "report.html" in quickstart.output
    assert quickstart.results["knn"] == {}  # these photos have no classes


def test_on_ones_own_photos_in_class_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_VIEWS", {"train": 12, "heldout": 4})
    monkeypatch.setattr("openeupe.report.seen._LARGEST_RESOLUTION", 64)
    for i, path in enumerate(sorted(registry_photos().iterdir())):
        folder = tmp_path / "mine" / ("even", "odd")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("RGB").resize((96, 72)).save(folder / f"{path.stem}.jpg")
    results = module.run_quickstart(tmp_path / "mine", tmp_path / "run", QUICK, torch.device("cpu"))
    assert set(results["knn"]) >= {"semantic", "proxy", "finetuned", "untrained"}
    assert all(0 <= a <= 1 for a in results["knn"].values())
