from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from openeupe.datasets.dense import DenseScenes, PartFolders
from openeupe.datasets.depths import DepthFolders, NYUv2
from openeupe.datasets.masks import ADE20K, MaskFolders
from openeupe.errors import InputError

PART = PartFolders(images=Path("images"), labels=Path("labels"))


def save(file: Path, values: object, dtype: object = np.uint8) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype=dtype)).save(file)
    return file


def photo(file: Path, size: tuple[int, int] = (6, 4)) -> Path:
    return save(file, np.full((size[1], size[0], 3), 90))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images with masks of the values 0, 3, 7 and 255, and one image without a mask."""
    for name, value in (("b/2", 3), ("a", 7)):
        photo(tmp_path / f"images/{name}.jpg")
        mask = np.zeros((4, 6))
        mask[0, :2] = value, 255
        save(tmp_path / f"labels/{name}.png", mask)
    photo(tmp_path / "images/c.jpg")
    return tmp_path


def masks(path: Path, **settings: object) -> MaskFolders:
    return MaskFolders(path=path, train=PART, test=PART, **settings)  # type: ignore[arg-type]


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


def test_the_identity_covers_the_scale_of_depths(tmp_path: Path) -> None:
    photo(tmp_path / "images/1.jpg")
    save(tmp_path / "labels/1.png", np.full((4, 6), 51))
    metres, feet = (
        DepthFolders(path=tmp_path, train=PART, test=PART, depth_scale=scale).open(Path())[0]
        for scale in (1.0, 3.28)
    )
    assert metres.identity != feet.identity


def test_zero_may_be_no_class(folder: Path) -> None:
    names = tuple("ABCDEFG")
    train, _ = masks(folder, classes=names, zero_is_ignore=True).open(folder)
    assert train.classes == list(names)
    assert train.mask(0)[0].tolist() == [6, 255, 255, 255, 255, 255]
    assert train.mask(1)[0, 0] == 2


def test_palettes_and_16_bits_are_numbers(folder: Path) -> None:
    indexed = Image.open(folder / "labels/a.png").convert("L")
    indexed.putpalette([5] * 768)
    indexed.save(folder / "labels/a.png")
    save(folder / "labels/b/2.png", np.full((4, 6), 700), np.uint16)
    (folder / "names.yaml").write_text("{700: far, 7: cat, 0: ground}")
    train, _ = masks(folder, names="names.yaml").open(folder)
    assert train.mask(0)[0].tolist() == [1, 255, 0, 0, 0, 0]
    assert (train.mask(1) == 2).all()


def test_masks_of_one_bit_are_numbers_and_fractions_are_refused(folder: Path) -> None:
    half = np.arange(24).reshape(4, 6) % 2 > 0
    save(folder / "labels/a.png", half, bool)
    save(folder / "labels/b/2.png", half, bool)
    train, _ = masks(folder, classes=2).open(folder)
    np.testing.assert_array_equal(train.mask(0), half)
    (folder / "labels/a.png").unlink()
    save(folder / "labels/a.tif", np.full((4, 6), 0.5), np.float32)
    with pytest.raises(InputError, match=r"a.tif is no mask: its values must be whole numbers"):
        masks(folder, classes=2).open(folder)


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


def test_scenes_need_no_files() -> None:
    train, test = DenseScenes(count=3, test_count=2, resolution=64).open(Path("/nowhere"))
    assert (len(train), len(test)) == (3, 2)
    assert train.classes[0] == "background"
    assert train.mask(0).shape == (64, 64)
    assert 0.5 <= train.depth(2).min() < train.depth(2).max() <= 10


def test_bad_data_is_one_clear_line(folder: Path) -> None:
    good = masks(folder, classes=8, ignore=(3,))

    def complains(data: MaskFolders, about: str) -> None:
        with pytest.raises(InputError, match=about) as caught:
            data.open(folder)
        assert "\n" not in str(caught.value)

    complains(good.model_copy(update={"path": Path("no")}), "no is not a folder")
    complains(masks(folder, classes=7, ignore=(3,)), r"a.png has the value 7, which is no class")
    complains(masks(folder, names="a.yaml"), "names .*a.yaml is not a YAML mapping")
    part = PART.model_copy(update={"labels": Path("masks")})
    complains(
        MaskFolders(path=folder, train=PART, test=part, classes=9),
        "masks is not a folder: it should hold masks",
    )
    (folder / "masks").mkdir()
    complains(
        MaskFolders(path=folder, train=PART, test=part, classes=9),
        "masks holds no masks",
    )
    save(folder / "labels/d.png", np.zeros((4, 6)))
    complains(good, r"d.png has no image d\.\*")
    photo(folder / "images/d.jpg", (4, 6))
    complains(good, r"labels/d.png is 6 x 4, its image 4 x 6")
    photo(folder / "labels/d.png")
    complains(good, "d.png is a colour picture")
    (folder / "labels/d.png").write_bytes(b"\x89PNG")
    complains(good, "d.png cannot be read as a mask")
    whole = (folder / "labels/a.png").read_bytes()
    (folder / "labels/d.png").write_bytes(whole[: whole.index(b"IDAT") + 6])
    complains(good, "d.png cannot be read as a mask")
    (folder / "labels/d.png").unlink()
    (folder / "images/a.jpg").write_text("no image")
    complains(good, "a.jpg cannot be read as an image: replace the file")
    good.model_copy(update={"check": False}).open(folder)
    photo(folder / "images/a.png")
    complains(good, r"a.png and a.jpg have one name")


def test_an_images_turn_counts_for_its_size(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 6)).save(folder / "images/a.jpg", exif=exif)
    train, _ = masks(folder, classes=8).open(folder)
    assert train.read(0).size == (6, 4)


def test_either_classes_or_names_are_needed(folder: Path) -> None:
    for settings in ({}, {"classes": 3, "names": "names.yaml"}):
        with pytest.raises(ValidationError, match="either classes or names"):
            masks(folder, **settings)
