"""Data sets with words: images with drawn words, procedural scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from openeupe.config import Config
from openeupe.data.decode import image_size
from openeupe.data.folders import FolderSource
from openeupe.data.string_array import printable
from openeupe.datasets.interfaces import Images, check_apart
from openeupe.datasets.scenes.dataset import Scenes
from openeupe.datasets.scenes.word_images import WordPhotos
from openeupe.datasets.subset import spread
from openeupe.errors import InputError
from openeupe.seeds import derive_seed


class WordFolders(Config):
    """Two folders of different images; words are drawn over them."""

    layout: Literal["folder"] = "folder"
    train: Path = Field(description="Folder of the training images")
    test: Path = Field(description="Folder of the test images")
    train_count: int | None = Field(300, ge=1, description="Evenly spaced; null: all")
    test_count: int | None = Field(150, ge=1, description="Evenly spaced; null: all")
    seed: int = Field(0, description="Which words, fonts and places")

    def open(self, root: Path) -> tuple[WordPhotos, WordPhotos]:
        """(train, test) with words; classes background and text.

        Args:
            root: the folder that relative paths start from.

        Raises:
            InputError: for a missing or empty folder, a folder inside the other, two of the same
                images, and files that are no images.
        """
        train, test = ((root / path.expanduser()).resolve() for path in (self.train, self.test))
        if train in (test, *test.parents) or test in train.parents:
            raise InputError(
                f"text data: train {self.train} and test {self.test} share images: "
                "give two separate folders"
            )
        photos = _Photos(train), _Photos(test)
        check_apart(*photos)
        return _with_words(
            spread(photos[0], self.train_count), spread(photos[1], self.test_count), self.seed
        )


class WordScenes(Config):
    """Procedural objects with words; needs no files."""

    layout: Literal["scenes"] = "scenes"
    train_count: int = Field(300, ge=1, description="Training images")
    test_count: int = Field(150, ge=1, description="Test images")
    seed: int = Field(0, description="Which images, words, fonts and places")

    def open(self, root: Path) -> tuple[WordPhotos, WordPhotos]:
        """(train, test) with words; nothing is read from `root`."""
        return _with_words(
            Scenes(self.train_count, seed=self.seed, split="train", content="object"),
            Scenes(self.test_count, seed=self.seed, split="test", content="object"),
            self.seed,
        )


TextData = Annotated[WordFolders | WordScenes, Field(discriminator="layout")]


def _with_words(train: Images, test: Images, seed: int) -> tuple[WordPhotos, WordPhotos]:
    return (
        WordPhotos(train, seed=derive_seed(seed, "words", "train")),
        WordPhotos(test, seed=derive_seed(seed, "words", "test")),
    )


class _Photos(FolderSource):
    """A folder of images whose headers were checked."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for index in range(len(self)):
            image_size(self.root / self._names[index])

    def name(self, index: int) -> str:
        """The path inside the folder, so that results of two machines can be compared."""
        return printable(self._names[index])
