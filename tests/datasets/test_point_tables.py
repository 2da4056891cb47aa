"""Tables of keypoints: DeepLabCut's and plain CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openeupe.datasets.point_tables import PointTable, read_csv, read_deeplabcut
from openeupe.errors import InputError

from .conftest import picture


def deeplabcut(root: Path, rows: list[str], head: str = "scorer,bodyparts,coords") -> Path:
    first, second, third = head.split(",")
    table = [f"{first},s,s,s,s", f"{second},nose,nose,tail,tail", f"{third},x,y,x,y", *rows]
    path = root / "CollectedData.csv"
    path.write_text("\n".join(table) + "\n")
    return path


def test_deeplabcut(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / "labeled-data" / f"{name}.png")
    path = deeplabcut(
        tmp_path,
        [
            "labeled-data/b.png,10,10,30,20",
            "labeled-data/a.png,12,11,nan,nan",
            "labeled-data/c.png,,,20,20",
        ],
    )
    found = read_deeplabcut(path, margin=0.1)
    assert [found.name(i) for i in range(3)] == [f"labeled-data/{x}.png" for x in "abc"]
    assert found.keypoints(0) == {"nose": (12.0, 11.0)}
    assert found.keypoints(1) == {"nose": (10.0, 10.0), "tail": (30.0, 20.0)}
    assert found.box(1) == (8.0, 8.0, 32.0, 22.0)
    # Targets need a box, so two points; a and c share none.
    assert found.pairs() == [(0, 1, "all"), (2, 1, "all")]


def test_deeplabcut_with_a_divided_path_and_from_the_project_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / "labeled-data" / "video" / f"{name}.png")
    path = tmp_path / "labeled-data" / "video" / "CollectedData_me.csv"
    path.write_text(
        "scorer,,,s,s,s,s\nbodyparts,,,nose,nose,tail,tail\ncoords,,,x,y,x,y\n"
        "labeled-data,video,a.png,1,2,3,4\nlabeled-data,video,b.png,1,2,3,4\n"
    )
    found = read_deeplabcut(path)
    assert found.pairs() == [(0, 1, "all"), (1, 0, "all")]
    assert found.read(0).size == (40, 30)


@pytest.mark.parametrize(
    ("points", "kinds", "message"),
    [
        ("nose,nose,nose,tail", "x,y,likelihood,x", "needs the columns x, y"),
        ("nose,tail,nose,tail", "x,x,y,y", "needs the columns x, y"),
        ("nose,tail,nose,tail", "x,y,x,y", "needs the columns x, y"),
        ("nose,nose,nose,nose", "x,y,x,y", "point nose comes twice"),
    ],
)
def test_deeplabcut_with_other_columns_is_refused(
    points: str, kinds: str, message: str, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png")
    path = tmp_path / "CollectedData.csv"
    rows = "a.png,1,2,3,4\nb.png,1,2,3,4"
    path.write_text(f"scorer,s,s,s,s\nbodyparts,{points}\ncoords,{kinds}\n{rows}\n")
    with pytest.raises(InputError, match=message):
        read_deeplabcut(path)


def test_csv_with_categories(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        picture(tmp_path / f"{name}.png")
    rows = [f"{i},{k},{x},5,{c}" for i, c in zip("abcd", "xxyy", strict=True)
            for k, x in (("p", 1), ("q", 9))]  # fmt: skip
    path = tmp_path / "points.csv"
    path.write_text("image,keypoint,x,y,category\n" + "\n".join(r.replace(",", ".png,", 1)
                    for r in rows))  # fmt: skip
    found = read_csv(path)
    assert found.pairs() == [(0, 1, "x"), (1, 0, "x"), (2, 3, "y"), (3, 2, "y")]
    settings = PointTable(layout="csv", path=Path("points.csv"))
    assert settings.open(tmp_path).fingerprint == found.fingerprint


def test_pairs_are_drawn_once_and_alike(tmp_path: Path) -> None:
    lines = []
    for number in range(100):
        picture(tmp_path / f"{number:03d}.png")
        lines += [f"{number:03d}.png,p,1,2", f"{number:03d}.png,q,5,6"]
    path = tmp_path / "points.csv"
    path.write_text("image,keypoint,x,y\n" + "\n".join(reversed(lines)))
    drawn = read_csv(path, pairs=5000).pairs()
    assert drawn == read_csv(path, pairs=5000).pairs()
    assert len(set(drawn)) == len(drawn) == 5000
    assert all(a != b for a, b, _ in drawn)
    assert len(read_csv(path, pairs=10**6).pairs()) == 9900


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_deeplabcut, "scorer,s\nindividuals,m\nbodyparts,nose\n", "one animal an image"),
        (read_deeplabcut, "scorer,s,s\nbodyparts,n,n\ncoords,x,y\na.png,1,b\n", "line 4: '1', 'b'"),
        (read_csv, "image,point,x,y\n", "has no column keypoint"),
        (read_csv, "image,keypoint,x,y\na.png,p,1,2\na.png,p,1,2\n", "line 3: point p of a.png"),
        (read_csv, "image,keypoint,x,y\na.png,p,1,\n", "line 2: '1', '' is no point"),
        (read_csv, "image,keypoint,x,y\na.png,p,1\n", "line 2: '1', '' is no point"),
        (read_csv, "image,keypoint,x,y\na.png,p,inf,2\n", "line 2: 'inf', '2' is no point"),
        (read_csv, "image,keypoint,x,y,x\na.png,p,1,2,3\n", "two columns 'x'"),
        (read_csv, "image,keypoint,x,y\na.png,p,1,2\n", "no two images share a visible point"),
        (read_csv, "image,keypoint,x,y\na.png,p,1,2\na.png,q,2,2\nb.png,p,1,2\nb.png,q,3,3\n",
         "b.png is missing"),
    ],
)  # fmt: skip
def test_bad_tables_are_one_clear_line(tmp_path: Path, read: Any, text: str, message: str) -> None:
    picture(tmp_path / "a.png")
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value)
