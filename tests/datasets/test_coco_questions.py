"""Questions from boxes: true, balanced, and clear about bad files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openeupe.datasets.coco_questions import BoxQuestions, plural
from openeupe.datasets.question_data import BoxedPhotos, symbols
from openeupe.datasets.questions import with_article
from openeupe.datasets.scenes.dataset import Scenes
from openeupe.errors import InputError

CLASSES = ["person", "dog", "cat", "bus", "apple", "knife", "sheep", "wine glass"]


def write(folder: Path, part: str = "train2017", count: int = 12) -> BoxedPhotos:
    rng = np.random.default_rng(0)
    for kind in ("images", "boxes"):
        (folder / kind / part).mkdir(parents=True)
    for k in range(count):
        pixels = rng.integers(0, 255, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / part / f"{k:03}.png")
        classes = [0, *rng.choice(8, 3)] if k else []  # the first has nothing at all
        rows = [f"{c} {rng.random()} {rng.random()} 0.1 0.2" for c in classes]
        if k:
            (folder / "boxes" / part / f"{k:03}.txt").write_text("\n".join(rows) + "\n")
    names = "names:\n" + "".join(f"  {k}: {name}\n" for k, name in enumerate(CLASSES))
    (folder / "object_detection.yaml").write_text(names)
    return BoxedPhotos(path=folder, train=part, test=part)


def opened(folder: Path) -> BoxQuestions:
    _, train = write(folder).open(folder)
    assert isinstance(train, BoxQuestions)
    return train


def test_answers_are_true_and_existence_is_balanced(tmp_path: Path) -> None:
    images = opened(tmp_path)
    questions = images.questions()
    assert {q.ability for q in questions} == {"exist", "count"}
    for index in range(len(images)):
        truth = Counter(CLASSES[int(number)] for number in images.boxes(index)[:, 0])
        here = [q for q in questions if q.image == index]
        exist = Counter(q.answers[0] for q in here if q.ability == "exist")
        assert exist["yes"] == exist["no"] == min(len(truth), 3)
        assert len({q.text for q in here}) == len(here)
        for name in CLASSES:
            for q in here:
                if q.text == f"is there {with_article(name)} in the image?":
                    assert q.answers == ("yes" if truth[name] else "no",)
                if q.text == f"how many {plural(name)} are in the image?":
                    assert q.answers == (str(truth[name]),)
        counted = [q for q in here if q.ability == "count"]
        assert len(counted) == len(truth)


def test_negatives_are_random_and_popular(tmp_path: Path) -> None:
    images = opened(tmp_path)
    # Everybody's class is absent from the empty image alone, which is asked nothing.
    asked = Counter(q.text for q in images.questions() if q.answers == ("no",))
    assert "is there a person in the image?" not in asked
    assert len(asked) >= 4


def test_questions_are_the_same_each_time_and_differ_by_seed(tmp_path: Path) -> None:
    data = write(tmp_path)
    first, second = (data.open(tmp_path)[0].questions() for _ in range(2))
    assert first == second
    other = data.model_copy(update={"seed": 1}).open(tmp_path)[0]
    assert other.questions() != first
    assert other.identity != data.open(tmp_path)[0].identity


def test_images_that_share_a_file_of_boxes_are_refused(tmp_path: Path) -> None:
    """`001.jpg` would get the boxes of `001.png`."""
    data = write(tmp_path)
    pixels = np.zeros((20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images/train2017/000.jpg")
    data.open(tmp_path)  # neither of the two has objects
    Image.fromarray(pixels).save(tmp_path / "images/train2017/001.jpg")
    with pytest.raises(
        InputError, match=r"001\.jpg and 001\.png share the file of boxes .*001\.txt"
    ):
        data.open(tmp_path)


def test_the_identity_covers_the_names_of_the_classes(tmp_path: Path) -> None:
    data = write(tmp_path)
    before = data.open(tmp_path)[1]
    names = tmp_path / "object_detection.yaml"
    names.write_text(names.read_text().replace("dog", "fox"))
    after = data.open(tmp_path)[1]
    assert after.identity != before.identity
    assert after.fingerprint == before.fingerprint  # the images' tokens serve both


def test_boxes_in_several_folders_have_an_identity(tmp_path: Path) -> None:
    data = write(tmp_path)
    for kind, ending in (("images", "png"), ("boxes", "txt")):
        deeper = tmp_path / kind / "train2017/more"
        deeper.mkdir()
        (tmp_path / kind / f"train2017/001.{ending}").rename(deeper / f"001.{ending}")
    assert len(data.open(tmp_path)[1].identity) == 16


@pytest.mark.parametrize(
    ("name", "many"),
    [("person", "people"), ("bus", "buses"), ("knife", "knives"), ("sheep", "sheep"),
     ("wine glass", "wine glasses"), ("couch", "couches"), ("toy", "toys"), ("city", "cities"),
     ("teddy bear", "teddy bears")],
)  # fmt: skip
def test_plurals(name: str, many: str) -> None:
    assert plural(name) == many


@pytest.mark.parametrize(
    "line",
    ["8 0.1 0.1 0.1 0.1", "1 0.1 0.1", "dog 0 0 1 1", "0.5 0 0 1 1", "nan 0 0 1 1", "inf 0 0 1 1",
     "0 nan 0 1 1", "\udcff 0 0 1 1"],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    data = write(tmp_path)
    (tmp_path / "boxes/train2017/003.txt").write_bytes(
        f"0 0.1 0.1 0.1 0.1\n{line}\n".encode("utf-8", "surrogateescape")
    )
    with pytest.raises(InputError, match=r"003\.txt: line 2"):
        data.open(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    data = write(tmp_path)
    with pytest.raises(InputError, match="val2017"):
        data.model_copy(update={"test": "val2017"}).open(tmp_path)
    with pytest.raises(InputError, match="none"):
        data.model_copy(update={"names": Path("none.yaml")}).open(tmp_path)
    (tmp_path / "images/train2017/002.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"002\.png cannot be read"):
        data.open(tmp_path)
    for file in (tmp_path / "boxes/train2017").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="no file belongs to an image"):
        data.open(tmp_path)


def test_the_truth_stands_in_the_cell_of_each_middle(tmp_path: Path) -> None:
    images = opened(tmp_path)
    truth = symbols(images, 4)
    assert truth.shape == (12, 8, 4, 4)
    for index in range(12):
        boxes = images.boxes(index)
        assert truth[index].sum() == len(boxes)
        for number, x, y, _, _ in boxes:
            assert truth[index, int(number), int(y * 4), int(x * 4)] >= 1


def test_the_truth_of_scenes_answers_their_questions() -> None:
    scenes = Scenes(6, resolution=64)
    truth = symbols(scenes, 7)
    shapes = len(scenes.classes)
    for question in scenes.questions():
        if question.ability == "count":
            name = question.text.removeprefix("how many ").removesuffix(" are there?")
            number = max(truth[question.image, k].sum() for k, shape in enumerate(scenes.classes)
                         if shape[:3] == name[:3])  # fmt: skip
            assert str(int(number)) == question.answers[0]
    assert truth[:, :shapes].sum() == sum(
        thing.kind in scenes.classes for k in range(6) for thing in scenes.stage(k).things
    )
