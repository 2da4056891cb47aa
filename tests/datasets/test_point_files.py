"""Images with keypoints are checked before the work."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from openeupe.datasets.point_files import KeypointSet
from openeupe.datasets.point_tables import read_csv
from openeupe.errors import InputError

from .conftest import picture


def test_a_damaged_image_is_found_before_the_work(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"b.png cannot be read as an image"):
        KeypointSet(tmp_path, ["a.png", "b.png"], [{}, {}], [(0, 0, 1, 1)] * 2, [(0, 1, "all")])


def test_points_are_checked_against_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying: 40 x 30, seen 30 x 40
    for name in "ab":
        Image.new("RGB", (40, 30)).save(tmp_path / f"{name}.jpg", exif=exif)
    rows = [f"{name}.jpg,{point}" for name in "ab" for point in ("nose,5,38", "tail,25,2")]
    table = tmp_path / "points.csv"
    table.write_text("\n".join(["image,keypoint,x,y", *rows]))
    found = read_csv(table)
    assert found.read(0).size == (30, 40)
    table.write_text(table.read_text().replace("5,38", "38,5"))
    with pytest.raises(InputError, match="outside its 30x40 pixels"):
        read_csv(table)
