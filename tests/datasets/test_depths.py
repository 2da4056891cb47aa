"""Folders of depths and NYUv2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openeupe.datasets.depths import DepthFolders, NYUv2
from openeupe.errors import InputError

from .conftest import PART, photo, save


def test_the_identity_covers_the_scale_of_depths(tmp_path: Path) -> None:
    photo(tmp_path / "images/1.jpg")
    save(tmp_path / "labels/1.png", np.full((4, 6), 51))
    metres, feet = (
        DepthFolders(path=tmp_path, train=PART, test=PART, depth_scale=scale).open(Path())[0]
        for scale in (1.0, 3.28)
    )
    assert metres.identity != feet.identity


def nyu(root: Path, *files: str) -> None:
    for number, file in enumerate(files):
        scene, _, name = file.rpartition("/")
        photo(root / scene / f"rgb_{name}.jpg")
        save(root / scene / f"sync_depth_{name}.png", np.full((4, 6), 1500 + number), np.uint16)


def test_nyuv2_as_bts_ships_it(tmp_path: Path) -> None:
    nyu(tmp_path / "sync", "kitchen_1/00001", "den_2/00007")
    nyu(tmp_path / "official_splits/test", "den/00002")
    data = NYUv2(path=tmp_path)
    train, test = data.open(Path("/elsewhere"))
    assert [train.name(i) for i in range(2)] == [
        "sync/den_2/rgb_00007.jpg",
        "sync/kitchen_1/rgb_00001.jpg",
    ]
    np.testing.assert_allclose(train.depth(0), 1.501, rtol=1e-6)
    assert train.depth(0).dtype == np.float32
    assert test.name(0) == "official_splits/test/den/rgb_00002.jpg"
    lines = ["/kitchen_1/rgb_00001.jpg /kitchen_1/sync_depth_00001.png 518.8579", "/x.jpg None 5"]
    (tmp_path / "nyudepthv2_train_files_with_gt.txt").write_text("\n".join(lines))
    listed, _ = data.open(Path())
    assert [listed.name(i) for i in range(len(listed))] == ["sync/kitchen_1/rgb_00001.jpg"]
    (tmp_path / "nyudepthv2_train_files_with_gt.txt").write_text(lines[0].replace("001", "003"))
    with pytest.raises(InputError, match=r"rgb_00003.jpg is missing, but nyudepthv2_train"):
        data.open(Path())


def test_depths_have_a_scale(tmp_path: Path) -> None:
    photo(tmp_path / "images/1.jpg")
    save(tmp_path / "labels/1.png", np.full((4, 6), 51))
    data = DepthFolders(path=tmp_path, train=PART, test=PART, depth_scale=25.5)
    np.testing.assert_allclose(data.open(Path())[0].depth(0), 2.0)
