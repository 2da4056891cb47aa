"""Images with classes, for kNN and zero-shot: folders, ImageNet-1k, procedural scenes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field
from timm.data import ImageNetInfo

from openeupe.config import Config
from openeupe.data.decode import image_size
from openeupe.datasets.image_folder import HeldoutPart, ImageFolder
from openeupe.datasets.interfaces import check_apart
from openeupe.datasets.scenes.dataset import Scenes
from openeupe.errors import InputError
from openeupe.plain_yaml import parse_yaml

_CHECKED: set[tuple[Path, str]] = set()  # checked once for all benchmarks


class _Named(Config):
    """Images with classes and their names."""

    names: Path | None = Field(
        None, description="YAML of class folder: name for people; default: the folder's name"
    )

    def titles(self, root: Path, classes: Sequence[str]) -> list[str]:
        """Names of the `classes`: those of the file `names`, or the default ones.

        Raises:
            InputError: if the file of names cannot be read or lacks a class.
        """
        if self.names is None:
            return [self._usual_title(name) for name in classes]
        path = root / self.names.expanduser()
        try:
            given = parse_yaml(path.read_text(encoding="utf-8"), words=True)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            line = " ".join(str(error).split())
            raise InputError(f"names {path} cannot be read as YAML: {line}") from None
        if not isinstance(given, dict):
            raise InputError(f"names {path} is not a YAML mapping of class: name: correct it")
        given = {str(key): str(name) for key, name in given.items()}
        if lacking := [name for name in classes if name not in given]:
            raise InputError(f"names {path} lacks the class {lacking[0]}: add a line for it")
        return [given[name] for name in classes]

    def _usual_title(self, name: str) -> str:
        """Of a folder. "BACKGROUND_Google" is no phrase, and no better without its underscore."""
        return name if name.isupper() else name.replace("_", " ").strip()


class ClassFolders(_Named):
    """Two folders of class sub-folders, for training and test."""

    layout: Literal["folder"] = "folder"
    path: Path = Field(description="The data set's folder")
    train: Path = Field(Path("train"), description="Inside path")
    test: Path = Field(Path("test"), description="Inside path")
    check: bool = Field(True, description="Read every image's header first")

    def open(self, root: Path) -> tuple[ClassFolder, ClassFolder]:
        """(train, test), with the same classes under the same numbers.

        Args:
            root: the folder that a relative `path` starts from.

        Raises:
            InputError: for a missing or empty folder, images outside class folders, classes that
                the other part lacks, parts that are the same, and files that are no images.
        """
        return _parts(root / self.path.expanduser(), self.train, self.test, self.check)


class ImageNet(_Named):
    """ImageNet-1k as PATH/train/WNID/*.JPEG and PATH/val/WNID/*.JPEG."""

    layout: Literal["imagenet"] = "imagenet"
    path: Path = Field(description="The data set's folder")
    check: bool = Field(
        True, description="Read every image's header first (minutes for 1.28 million)"
    )

    def open(self, root: Path) -> tuple[ClassFolder, ClassFolder]:
        """(train, test) as `ClassFolders.open` has them; a folder that is no WordNet id raises."""
        path = root / self.path.expanduser()
        train, test = _parts(path, Path("train"), Path("val"), check=False)
        known = set(ImageNetInfo().label_names())
        if foreign := [name for name in test.classes or [] if name not in known]:
            raise InputError(
                f"{test.root}/{foreign[0]} is no WordNet id of ImageNet-1k, such as n01440764: "
                "rename the class folders, or use layout folder"
            )
        for part in (train, test) if self.check else ():
            part.check()
        return train, test

    def _usual_title(self, name: str) -> str:
        title: str = ImageNetInfo().label_name_to_description(name)
        return title


class HeldoutFolder(_Named):
    """A folder that a recipe trains on: the images for training, and those held out for test.

    Images that cannot be read are left out, as in training.
    """

    layout: Literal["heldout"] = "heldout"
    path: Path = Field(description="The folder, as in `data.sources` of the recipe")
    heldout: float = Field(gt=0, lt=1, description="As in `data.sources` of the recipe")
    train_count: int | None = Field(
        None, ge=1, description="Images to use at most, evenly spaced  [all]"
    )
    test_count: int | None = Field(None, ge=1, description="The same of the held-out images  [all]")

    def images(self, root: Path) -> tuple[HeldoutPart, HeldoutPart]:
        """(train, test); images need not be in class folders.

        Raises:
            InputError: if the folder is missing, or no image of a part can be read.
        """
        path = root / self.path.expanduser()
        return (
            HeldoutPart(path, self.heldout, "train", self.train_count),
            HeldoutPart(path, self.heldout, "heldout", self.test_count),
        )

    def open(self, root: Path) -> tuple[HeldoutPart, HeldoutPart]:
        """(train, test); an image outside class folders raises."""
        parts = self.images(root)
        if parts[0].classes is None:
            raise InputError(
                f"{parts[0].root} has images outside class folders: move each into a folder of its "
                "class"
            )
        return parts


class ClassScenes(_Named):
    """Procedural objects; needs no files."""

    layout: Literal["scenes"] = "scenes"
    count: int = Field(400, ge=2, description="Images of each part")
    seed: int = Field(0, description="Which images")

    def open(self, root: Path) -> tuple[Scenes, Scenes]:
        """(train, test); nothing is read from `root`."""
        return (
            Scenes(self.count, seed=self.seed, split="train", content="object"),
            Scenes(self.count, seed=self.seed, split="test", content="object"),
        )


ClassData = Annotated[
    ClassFolders | HeldoutFolder | ImageNet | ClassScenes, Field(discriminator="layout")
]


class ClassFolder(ImageFolder):
    """A folder whose first level are its classes.

    Raises:
        InputError: as `FolderSource`, and if an image is outside the class folders.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if self.classes is None:
            loose = next(i for i in range(len(self)) if "/" not in self._names[i])
            raise InputError(
                f"{path} has images outside class folders, such as {self.name(loose)}: move each "
                "into a folder of its class (ImageNet's val comes flat; torchvision and timm "
                "explain how to sort it)"
            )

    def check(self) -> None:
        """Check the header of every image."""
        this = (self.root.resolve(), self.fingerprint)
        if this in _CHECKED:
            return
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(self._check, range(len(self))):
                pass
        _CHECKED.add(this)

    def _check(self, index: int) -> None:
        image_size(self.root / self._names[index])


def _check_classes(train: ClassFolder, test: ClassFolder) -> None:
    ours, theirs = train.classes or [], test.classes or []
    for here, there, source in ((ours, theirs, test), (theirs, ours, train)):
        if missing := sorted(set(here) - set(there)):
            raise InputError(
                f"{source.root} lacks images of {len(missing)} of the classes, such as "
                f"{missing[0]}: train and test need the same class folders"
            )


def _parts(path: Path, train: Path, test: Path, check: bool) -> tuple[ClassFolder, ClassFolder]:
    parts = ClassFolder(path / train), ClassFolder(path / test)
    _check_classes(*parts)
    check_apart(*parts)
    for part in parts if check else ():
        part.check()
    return parts
