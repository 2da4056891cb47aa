"""SPair-71k as it is unpacked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openeupe.datasets.spair import read_spair
from openeupe.errors import InputError

from .conftest import picture


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
        ({"src_imsize": [41, 30, 3]}, "has 40x30 pixels, its annotation has 41x30"),
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


def test_an_empty_box_is_refused(spair: Path) -> None:
    file = next((spair / "PairAnnotation" / "test").glob("*.json"))
    pair = json.loads(file.read_text())
    pair["src_bndbox"] = [31, 22, 1, 2]
    file.write_text(json.dumps(pair))
    with pytest.raises(InputError, match=r"src_bndbox .* is empty"):
        read_spair(spair)
