from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openeupe.datasets.classification import ClassFolders, HeldoutFolder, ImageNet
from openeupe.errors import InputError


def images(root: Path, *files: str) -> Path:
    for number, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 9, 3), number, dtype=np.uint8)).save(root / file)
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return images(
        tmp_path / "set",
        *("train/hot_dog/1.png", "train/hot_dog/2.png", "train/BACKGROUND_X/deep/3.png"),
        *("test/hot_dog/4.png", "test/BACKGROUND_X/5.png"),
    )


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    parts = ("train", "val")
    wnids = ("n01443537", "n01440764")
    return images(tmp_path / "in1k", *(f"{p}/{w}/{p}_1.png" for p in parts for w in wnids))


def test_a_folder_of_classes(folder: Path) -> None:
    data = ClassFolders(path=Path("set"))
    train, test = data.open(folder.parent)
    assert train.classes == test.classes == ["BACKGROUND_X", "hot_dog"]
    assert [train.label(i) for i in range(3)] == [0, 1, 1]
    assert [test.name(i) for i in range(2)] == ["BACKGROUND_X/5.png", "hot_dog/4.png"]
    assert test.read(1).getpixel((0, 0)) == (3, 3, 3)
    assert data.titles(folder, test.classes or []) == ["BACKGROUND_X", "hot dog"]


def test_the_fingerprint_is_of_the_content_not_of_the_place(folder: Path, tmp_path: Path) -> None:
    here, _ = ClassFolders(path=folder).open(Path())
    shutil.copytree(folder, tmp_path / "elsewhere")
    there, _ = ClassFolders(path=tmp_path / "elsewhere").open(Path())
    assert here.fingerprint == there.fingerprint
    images(tmp_path / "elsewhere", "train/hot_dog/9.png")
    more, _ = ClassFolders(path=tmp_path / "elsewhere").open(Path())
    assert more.fingerprint != here.fingerprint


def test_names_for_people(folder: Path) -> None:
    names = folder / "names.yaml"
    names.write_text("hot_dog: frankfurter\nBACKGROUND_X: clutter\n")
    data = ClassFolders(path=folder, names=Path("names.yaml"))
    assert data.titles(folder, ["BACKGROUND_X", "hot_dog"]) == ["clutter", "frankfurter"]
    with pytest.raises(InputError, match=r"names.yaml lacks the class bun: add"):
        data.titles(folder, ["bun"])
    names.write_text("- [")
    with pytest.raises(InputError, match="cannot be read as YAML"):
        data.titles(folder, ["bun"])


def test_names_and_classes_stay_as_they_are_written(folder: Path) -> None:
    (folder / "names.yaml").write_text("no: yes\n010: 1_0\n")
    data = ClassFolders(path=folder, names=Path("names.yaml"))
    assert data.titles(folder, ["no", "010"]) == ["yes", "1_0"]


def test_a_class_that_is_named_twice_is_refused(folder: Path) -> None:
    (folder / "names.yaml").write_text("bun: roll\nbun: hare\n")
    data = ClassFolders(path=folder, names=Path("names.yaml"))
    with pytest.raises(InputError, match=r"bun.*twice"):
        data.titles(folder, ["bun"])


def test_imagenet(imagenet: Path) -> None:
    data = ImageNet(path=imagenet)
    train, test = data.open(Path())
    assert train.classes == test.classes == ["n01440764", "n01443537"]
    assert data.titles(Path(), test.classes or [])[0] == "tench, Tinca tinca"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("flat", r"val has images outside class folders, such as x.png: move each"),
        ("no val", r"val is not a folder"),
        ("empty", r"val holds no images"),
        ("class", r"train lacks images of 1 of the classes, such as n02012849"),
        ("foreign", r"val/goldfish is no WordNet id"),
        ("corrupt", r"train_1.png cannot be read as an image: replace the file"),
    ],
)
def test_bad_data_is_one_line(imagenet: Path, change: str, message: str) -> None:
    if change == "flat":
        images(imagenet, "val/x.png")
    elif change in ("no val", "empty"):
        shutil.rmtree(imagenet / "val")
        if change == "empty":
            (imagenet / "val").mkdir()
    elif change == "class":
        images(imagenet, "val/n02012849/1.png")
    elif change == "foreign":
        images(imagenet, "val/goldfish/1.png", "train/goldfish/1.png")
    else:
        (imagenet / "train/n01440764/train_1.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=message) as error:
        ImageNet(path=imagenet).open(Path())
    assert "\n" not in str(error.value)


def test_a_test_class_without_images(folder: Path) -> None:
    (folder / "test/hot_dog/4.png").unlink()
    with pytest.raises(InputError, match=r"test lacks images of 1 of the classes, such as hot_dog"):
        ClassFolders(path=folder).open(Path())


def test_parts_of_the_same_images_are_refused(folder: Path) -> None:
    """Each image would be its own nearest neighbour."""
    shutil.rmtree(folder / "test")
    shutil.copytree(folder / "train", folder / "test")
    for test in ("test", "train"):
        with pytest.raises(InputError, match="train and test are the same 3 images"):
            ClassFolders(path=folder, test=Path(test)).open(Path())


def test_headers_may_be_left_unread(folder: Path) -> None:
    (folder / "test/hot_dog/4.png").write_bytes(b"no image")
    assert len(ClassFolders(path=folder, check=False).open(Path())[1]) == 2


def test_parts_of_a_folder_that_a_recipe_trains_on(tmp_path: Path) -> None:
    names = [f"{('a', 'b')[n % 2]}/{n}.png" for n in range(40)]
    images(tmp_path / "set", *names)
    whole = HeldoutFolder(path=Path("set"), heldout=0.3)
    train, test = whole.open(tmp_path)
    assert train.classes == test.classes == ["a", "b"]
    assert sorted([*map(train.name, range(len(train))), *map(test.name, range(len(test)))]) == (
        sorted(names)
    )
    assert all(test.name(i)[0] == "ab"[test.label(i) or 0] for i in range(len(test)))
    (tmp_path / "set" / train.name(0)).write_bytes(b"broken")
    less, few = whole.model_copy(update={"test_count": 4}).open(tmp_path)
    assert (len(less), len(few)) == (len(train) - 1, 4)
    assert less.name(0) == train.name(1)
    assert less.label(0) == train.label(1)
    assert few.name(0) == test.name(0)
    assert few.identity != test.identity


def test_parts_of_a_folder_without_classes(tmp_path: Path) -> None:
    images(tmp_path / "set", *(f"{n}.png" for n in range(20)))
    data = HeldoutFolder(path=tmp_path / "set", heldout=0.3)
    assert sum(map(len, data.images(Path()))) == 20
    with pytest.raises(InputError, match="outside class folders"):
        data.open(Path())
    for path in (tmp_path / "set").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(InputError, match="none of its images can be read"):
        data.images(Path())
