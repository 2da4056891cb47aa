"""Questions about objects and their counts, answered from bounding boxes."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from openeupe.data.decode import decode, image_size
from openeupe.data.folders import FolderSource
from openeupe.data.string_array import printable
from openeupe.datasets.questions import Question, with_article
from openeupe.errors import InputError
from openeupe.identity import facts_identity
from openeupe.plain_yaml import parse_yaml
from openeupe.seeds import derive_seed

_IRREGULAR = {"person": "people", "knife": "knives", "mouse": "mice"}
_SAME = {"sheep", "skis", "scissors", "broccoli"}


class BoxQuestions:
    """Images with YOLO boxes and questions of POPE's kind and about counts.

    exist: for each image, classes that are present and as many that are absent; of the latter every
    second one is drawn at random, the others are the most popular classes of the set that this
    image lacks (POPE's splits "random" and "popular"). count: of each present class, if there
    are at most `most` of it. Answers are correct if the boxes are complete.

    Args:
        images: folder of the images, at any depth.
        boxes: folder with a text file for each image, named like it: lines of
            `class x y width height`, the last four in shares of the image. An image without a file
            has no objects. Two images that differ only in the ending may not share a file.
        names: YAML file with `names`: a list, or a mapping from numbers, of the classes.
        asked: existence questions that are answered yes, at most, for each image; as many no.
        seed: of what is drawn.

    Raises:
        InputError: if something is missing, or a line or a class number is invalid.
    """

    def __init__(
        self,
        images: Path,
        boxes: Path,
        names: Path,
        *,
        asked: int = 3,
        most: int = 5,
        seed: int = 0,
    ) -> None:
        self._source = FolderSource(images)
        self.root, self.asked, self.most, self.seed = images, asked, most, seed
        self.classes = _class_names(names)
        if not boxes.is_dir():
            raise InputError(f"boxes {boxes} is not a folder: check the path")
        self._files = [
            (boxes / self._relative(i)).with_suffix(".txt") for i in range(len(self._source))
        ]
        self._check_shared()
        self._boxes = [_read_boxes(file, len(self.classes)) for file in self._files]
        if not any(len(found) for found in self._boxes):
            raise InputError(
                f"boxes {boxes}: no file belongs to an image of {images}, such as "
                f"{self._files[0].name}: check the paths"
            )

    def __len__(self) -> int:
        return len(self._source)

    def name(self, index: int) -> str:
        """The path inside the folder of images."""
        return printable(self._relative(index))

    def read(self, index: int) -> Image.Image:
        """RGB image `index`. Raises `BrokenImage`."""
        file = self.root / self._relative(index)
        return decode(file, printable(str(file)))

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the images, by names and contents."""
        return self._source.fingerprint

    @property
    def identity(self) -> str:
        """Identity of images, boxes, class names and questions."""
        boxes = [found.tolist() for found in self._boxes]
        asked = (self.asked, self.most, self.seed)
        return facts_identity(self.fingerprint, self.classes, boxes, asked)

    def check(self) -> None:
        """Check the header of every image."""
        for index in range(len(self)):
            image_size(self.root / self._relative(index))

    def boxes(self, index: int) -> NDArray[np.float64]:
        """`[K, 5]`: class, and x, y of the middle, width, height in shares of the image."""
        return self._boxes[index]

    def questions(self) -> list[Question]:
        """Questions of each image: present and absent classes, and counts."""
        popular = Counter(int(number) for found in self._boxes for number in np.unique(found[:, 0]))
        ranked = sorted(range(len(self.classes)), key=lambda k: (-popular[k], k))
        return [q for index in range(len(self)) for q in self._asked(index, ranked)]

    def _asked(self, index: int, ranked: list[int]) -> list[Question]:
        # Draws go by the image's name. Its place and the set's most popular classes count, too:
        # images that are added can change which class that is missing is asked about.
        rng = np.random.default_rng(derive_seed(self.seed, "boxes", self.name(index)))
        counts = Counter(int(number) for number in self._boxes[index][:, 0])
        present = [list(counts)[k] for k in rng.permutation(len(counts))]
        there = present[: self.asked]
        absent = [k for k in ranked if k not in counts]
        random = [absent[k] for k in rng.permutation(len(absent))]
        missing: list[int] = []
        while len(missing) < min(len(there), len(absent)):
            pool = random if (len(missing) + index) % 2 else absent
            missing.append(next(k for k in pool if k not in missing))
        found = [
            Question(
                index, f"is there {with_article(self.classes[k])} in the image?", (a,), "exist"
            )
            for kinds, a in ((there[: len(missing)], "yes"), (missing, "no"))
            for k in kinds
        ]
        for k in present:
            if counts[k] <= self.most:
                text = f"how many {plural(self.classes[k])} are in the image?"
                found.append(Question(index, text, (str(counts[k]),), "count"))
        return found

    def _check_shared(self) -> None:
        """Refuse two images whose names differ only in the ending."""
        first: dict[Path, int] = {}
        for index, file in enumerate(self._files):
            other = first.setdefault(file, index)
            if other != index and file.is_file():
                raise InputError(
                    f"{self.name(other)} and {self.name(index)} share the file of boxes "
                    f"{printable(str(file))}: rename one of the images"
                )

    def _relative(self, index: int) -> str:
        return self._source.relative(index)


def plural(name: str) -> str:
    """The plural of a COCO class's name."""
    first, space, last = name.rpartition(" ")
    if last in _SAME:
        return name
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = f"{last[:-1]}ies"
    else:
        last += "s"
    return first + space + last


def _class_names(file: Path) -> list[str]:
    try:
        raw: Any = parse_yaml(file.read_text(encoding="utf-8"), words=True)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"names {file} cannot be read as YAML: {line}") from None
    names = raw.get("names") if isinstance(raw, dict) else None
    if isinstance(names, dict) and set(names) == {str(k) for k in range(len(names))}:
        names = [names[str(k)] for k in range(len(names))]
    if not isinstance(names, list) or not names:
        raise InputError(f"names {file} has no list `names` of classes, numbered from 0: add it")
    return [str(name) for name in names]


def _read_boxes(file: Path, classes: int) -> NDArray[np.float64]:
    if not file.is_file():
        return np.zeros((0, 5))
    rows = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = [float(value) for value in line.split()]
        except ValueError:
            row = []
        if len(row) != 5 or not np.isfinite(row).all() or row[0] not in range(classes):
            raise InputError(
                f"{file}: line {number} is not `class x y width height` with a class below "
                f"{classes}: correct it"
            )
        rows.append(row)
    return np.array(rows).reshape(-1, 5)
