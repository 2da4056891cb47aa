"""The quickstart with real experts and photos, cut down to a few steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from openeupe.data import FolderSource
from openeupe.data.photos import REGISTRY_PHOTOS, registry_photos
from openeupe.quickstart import run_quickstart

FEW_STEPS = [
    f"stages.{stage}.{key}"
    for stage in ("proxy", "student", "finetuned")
    for key in ("steps=2", "batch_size=4", "statistics.iterations=1", "optimizer.warmup_steps=0")
]


def test_the_registrys_photos_are_all_there_and_both_parts_have_some() -> None:
    folder = registry_photos()
    assert len(FolderSource(folder)) == len(REGISTRY_PHOTOS) == 33
    heldout = FolderSource(folder, heldout=0.2, part="heldout")
    assert 4 <= len(heldout) <= 10
    for source in (heldout, FolderSource(folder, heldout=0.2)):
        assert all(min(source.read(i).size) >= 100 for i in range(len(source)))


@pytest.fixture(scope="module")
def few_views() -> None:
    """Fewer crops for the readouts; what is tested is the path, not the figures."""
    import openeupe.quickstart as quickstart

    quickstart._VIEWS = {"train": 40, "heldout": 12}


@pytest.mark.usefixtures("few_views")
def test_on_the_registrys_photos(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as file:
        console = Console(file=file, width=200)
        results = run_quickstart(None, tmp_path / "run", FEW_STEPS, torch.device("cpu"), console)
    told = (tmp_path / "out").read_text()
    for word in ("semantic", "boundaries", "text", "untrained", "finetuned", "R2", "Next:"):
        assert word in told
    rows = {(r["encoder"], r["resolution"]): r["r2"] for r in results["fidelity"]}
    encoders = ("proxy", "student", "finetuned", "untrained")
    assert set(rows) == {(e, s) for e in encoders for s in (128, 192, 256)}
    # The proxy starts as the semantic expert, so it predicts it far better than random weights.
    proxy, untrained = rows["proxy", 128], rows["untrained", 128]
    assert proxy["semantic"]["patches"] > untrained["semantic"]["patches"] + 0.1
    assert json.loads((tmp_path / "run" / "results.json").read_text())["fidelity"]
    assert Image.open(tmp_path / "run" / "pca.png").width > 600
    assert results["knn"] == {}  # these photos have no classes


@pytest.mark.usefixtures("few_views")
def test_on_ones_own_photos_in_class_folders(tmp_path: Path) -> None:
    photos = registry_photos()
    for i, path in enumerate(sorted(photos.iterdir())):
        folder = tmp_path / "mine" / ("even", "odd")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("RGB").resize((96, 72)).save(folder / f"{path.stem}.jpg")
    console = Console(quiet=True)
    results = run_quickstart(
        tmp_path / "mine", tmp_path / "run", FEW_STEPS, torch.device("cpu"), console
    )
    assert set(results["knn"]) >= {"semantic", "proxy", "finetuned", "untrained"}
    assert all(0 <= a <= 1 for a in results["knn"].values())
