from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from openeupe.datasets.point_files import KeypointSet
from openeupe.datasets.point_tables import PointTable, read_csv, read_deeplabcut
from openeupe.datasets.spair import read_spair
from openeupe.errors import InputError


def picture(path: Path, width: int = 40, height: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path)


def spair_pair(number: int, source: str, target: str, category: str = "cat") -> dict[str, Any]:
    return {
        "src_imname": f"{source}.jpg", "trg_imname": f"{target}.jpg", "category": category,
        "src_imsize": [40, 30, 3], "trg_imsize": [40, 30, 3],
        "src_bndbox": [1, 2, 31, 22], "trg_bndbox": [1, 2, 31, 22],
        "kps_ids": ["0", "7"], "src_kps": [[3, 4], [5, 6]], "trg_kps": [[3, 4], [5, 6]],
    }  # fmt: skip


@pytest.fixture
def spair(tmp_path: Path) -> Path:
    """SPair-71k's layout with three cats and two cows."""
    root = tmp_path / "SPair-71k"
    pairs = [("cat", "a", "b"), ("cat", "b", "c"), ("cow", "d", "e")]
    names = []
    for number, (category, source, target) in enumerate(pairs):
        for name in (source, target):
            picture(root / "JPEGImages" / category / f"{name}.jpg")
        names.append(f"{number:06d}-{source}-{target}:{category}")
        write(root, names[-1], spair_pair(number, source, target, category))
    (root / "Layout" / "large").mkdir(parents=True)
    (root / "Layout" / "large" / "test.txt").write_text("\n".join(names) + "\n")
    return root


def write(root: Path, name: str, pair: dict[str, Any]) -> None:
    folder = root / "PairAnnotation" / "test"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(pair))


def test_spair_as_unpacked(spair: Path) -> None:
    for path in (spair, spair.parent):
        found = read_spair(path)
        assert found.pairs() == [(0, 1, "cat"), (1, 2, "cat"), (3, 4, "cow")]
    assert [found.name(i) for i in range(5)] == [
        f"JPEGImages/{x}.jpg" for x in ("cat/a", "cat/b", "cat/c", "cow/d", "cow/e")
    ]
    assert found.keypoints(1) == {"0": (3.0, 4.0), "7": (5.0, 6.0)}
    assert found.box(0) == (1.0, 2.0, 31.0, 22.0)
    assert found.read(2).size == (40, 30)


def test_the_identity_is_of_images_and_points(spair: Path) -> None:
    before = read_spair(spair)
    assert read_spair(spair).identity == before.identity
    changed = spair_pair(2, "d", "e", "cow") | {"kps_ids": ["0", "8"]}
    write(spair, "000002-d-e:cow", changed)
    after = read_spair(spair)
    assert after.identity != before.identity
    assert after.fingerprint == before.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"src_imsize": [41, 30, 3]}, "has 40x30 pixels, its annotation says 41x30"),
        ({"src_kps": [[3, 4]]}, "is not a pair annotation of SPair-71k"),
        ({"category": "dog"}, "is missing, though the keypoints name it"),
        ({"trg_bndbox": [1, 2, 3]}, "is not a pair annotation of SPair-71k"),
        ({"src_kps": [[3, 4], [500, 6]]}, "outside its 40x30 pixels"),
    ],
)
def test_bad_spair_is_one_clear_line(spair: Path, change: dict[str, Any], message: str) -> None:
    write(spair, "000002-d-e:cow", spair_pair(2, "d", "e", "cow") | change)
    with pytest.raises(InputError, match=message) as error:
        read_spair(spair)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "null", "3", "[" * 20000, '{"category": NaN}'])
def test_damaged_spair_is_one_clear_line(spair: Path, text: str) -> None:
    write(spair, "000002-d-e:cow", spair_pair(2, "d", "e", "cow"))
    (spair / "PairAnnotation" / "test" / "000002-d-e:cow.json").write_text(text)
    with pytest.raises(InputError, match=r"000002-d-e:cow\.json is not a pair annotation"):
        read_spair(spair)


def test_spair_pairs_must_agree_on_an_image(spair: Path) -> None:
    pair = spair_pair(1, "b", "c") | {"src_kps": [[3, 4], [5, 9]]}
    write(spair, "000001-b-c:cat", pair)
    with pytest.raises(InputError, match="not as in other pairs"):
        read_spair(spair)


def test_incomplete_spair(spair: Path, tmp_path: Path) -> None:
    (spair / "PairAnnotation" / "test" / "000001-b-c:cat.json").unlink()
    with pytest.raises(InputError, match=r"holds 2 pairs where test.txt of Layout/large lists 3"):
        read_spair(spair)
    with pytest.raises(InputError, match="holds no pair annotations"):
        read_spair(tmp_path / "elsewhere")


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


def test_an_empty_box_is_refused(spair: Path) -> None:
    file = next((spair / "PairAnnotation" / "test").glob("*.json"))
    pair = json.loads(file.read_text())
    pair["src_bndbox"] = [31, 22, 1, 2]
    file.write_text(json.dumps(pair))
    with pytest.raises(InputError, match=r"src_bndbox .* is empty"):
        read_spair(spair)
