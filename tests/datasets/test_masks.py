"""Folders of masks and ADE20K: which value is which class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from openeupe.datasets.masks import ADE20K
from openeupe.errors import InputError

from .conftest import masks, photo, save


def test_a_folder_counts_its_classes_without_the_ignored(folder: Path) -> None:
    train, test = masks(Path("."), classes=8, ignore=(3,)).open(folder)
    assert [train.name(i) for i in range(len(train))] == ["images/a.jpg", "images/b/2.jpg"]
    assert train.classes == ["0", "1", "2", "4", "5", "6", "7"]
    assert train.mask(0)[0].tolist() == [6, 255, 0, 0, 0, 0]
    assert train.mask(1)[0].tolist() == [255, 255, 0, 0, 0, 0]
    assert train.mask(0).dtype == np.uint8
    assert train.read(0).size == (6, 4)
    assert train.fingerprint == test.fingerprint


def test_a_value_that_is_named_twice_is_refused(folder: Path) -> None:
    (folder / "names.yaml").write_text("{0: none, 7: cat, 07: dog}")
    with pytest.raises(InputError, match="twice"):
        masks(folder, names="names.yaml").open(folder)


def test_names_may_have_gaps(folder: Path) -> None:
    (folder / "names.yaml").write_text("path: x\nclasses:\n  0: none\n  7: cat\n  3: dog\n")
    train, _ = masks(folder, names="names.yaml", ignore=(0,)).open(folder)
    assert train.classes == ["dog", "cat"]
    assert train.mask(0)[0].tolist() == [1, 255, 255, 255, 255, 255]
    assert train.mask(1)[0].tolist() == [0, 255, 255, 255, 255, 255]


def test_the_identity_covers_masks_and_what_their_values_mean(folder: Path) -> None:
    (folder / "names.yaml").write_text("{0: none, 7: cat, 3: dog}")
    data = masks(folder, names="names.yaml")

    def opened() -> tuple[str, str]:
        train, _ = data.open(folder)
        return train.identity, train.fingerprint

    found = [opened(), opened()]
    (folder / "names.yaml").write_text("{0: none, 7: dog, 3: cat}")
    found.append(opened())
    mask = np.zeros((4, 6))
    mask[1, :2] = 7, 255  # the same values elsewhere
    save(folder / "labels/a.png", mask)
    found.append(opened())
    assert found[0] == found[1]
    assert len({identity for identity, _ in found}) == 3
    assert len({fingerprint for _, fingerprint in found}) == 1


def test_zero_may_be_no_class(folder: Path) -> None:
    names = tuple("ABCDEFG")
    train, _ = masks(folder, classes=names, zero_is_ignore=True).open(folder)
    assert train.classes == list(names)
    assert train.mask(0)[0].tolist() == [6, 255, 255, 255, 255, 255]
    assert train.mask(1)[0, 0] == 2


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    root = tmp_path / "ADEChallengeData2016"
    for part in ("training", "validation"):
        photo(root / f"images/{part}/ADE_1.jpg", (3, 1))
        save(root / f"annotations/{part}/ADE_1.png", [[0, 1, 150]])
    return tmp_path


def test_ade20k_counts_from_one(ade: Path) -> None:
    data = ADE20K(path=Path("."))
    train, _ = data.open(ade)
    assert train.mask(0).tolist() == [[255, 0, 149]]
    assert train.classes[:2] == ["1", "2"]
    assert train.name(0) == "images/training/ADE_1.jpg"
    rows = [
        "Idx\tRatio\tTrain\tVal\tStuff\tName",
        *(f"{k}\t.1\t1\t1\t0\tn{k}, x" for k in range(1, 151)),
    ]
    (ade / "ADEChallengeData2016/objectInfo150.txt").write_text("\n".join(rows))
    inside = ADE20K(path=ade / "ADEChallengeData2016")
    assert inside.open(Path("/elsewhere"))[1].classes[148:] == ["n149", "n150"]


def test_either_classes_or_names_are_needed(folder: Path) -> None:
    for settings in ({}, {"classes": 3, "names": "names.yaml"}):
        with pytest.raises(ValidationError, match="either classes or names"):
            masks(folder, **settings)
