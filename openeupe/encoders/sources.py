"""Typed sources of encoders; `resolver` makes them from strings."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openeupe.encoders import openeupe_folder as own_folder
from openeupe.encoders import released, timm_folder, transformers_folder
from openeupe.encoders.create import create
from openeupe.encoders.encoder import Arguments, Encoder
from openeupe.encoders.export_layout import Size, file_for, read_about
from openeupe.encoders.exported import ExportedEncoder
from openeupe.encoders.hub import download
from openeupe.encoders.run_layout import RunFolder, check_student
from openeupe.encoders.weights import first_line
from openeupe.errors import InputError
from openeupe.seeds import seeded


@dataclass(frozen=True)
class Source:
    """Interface of all sources.

    Attributes:
        text: the source as the user wrote it.
    """

    text: str

    @property
    def brings_weights(self) -> bool:
        """Whether it always has its own weights, independent of `pretrained`."""
        return True

    def describe(self) -> tuple[str, Arguments]:
        """Name and arguments that `create` makes the architecture from.

        Raises:
            InputError: as `load`, without reading weights.
        """
        raise NotImplementedError

    def load(self) -> Encoder:
        """The encoder with its weights, on the CPU and in eval mode.

        Raises:
            InputError: in one line, if there is no such encoder or it cannot be read.
        """
        raise NotImplementedError

    def folder(self) -> Path | None:
        """Folder with the encoder's files; None if it has none."""
        return None

    def results_folder(self) -> Path | None:
        """Folder in which results are saved. None if the source is not a folder."""
        return None


class Published(Source):
    """One of our names or a timm name, with the published weights."""

    @property
    def brings_weights(self) -> bool:
        return False

    def describe(self) -> tuple[str, Arguments]:
        return self.text, {}

    def load(self) -> Encoder:
        return create(self.text, pretrained=True).eval()


@dataclass(frozen=True)
class Untrained(Source):
    """`untrained:NAME`: random weights that are always the same."""

    name: str

    def describe(self) -> tuple[str, Arguments]:
        return self.name, {}

    def load(self) -> Encoder:
        with seeded(0):
            return create(self.name).eval()


class _Stored(Source):
    """An encoder in a folder, or in one released file."""

    def place(self) -> Path:
        """That folder or file, fetched if need be."""
        raise NotImplementedError

    def describe(self) -> tuple[str, Arguments]:
        place = self.place()
        if place.is_file():
            return released.architecture(place), {}
        config, layout = _layout(place)
        if layout is None:
            own = own_folder.read_config(place)
            return own["name"], own["args"]
        found: tuple[str, Arguments] = layout.describe(place, config)
        return found

    def load(self) -> Encoder:
        place = self.place()
        if place.is_file():
            return create(released.architecture(place), pretrained=place).eval()
        config, layout = _layout(place)
        return (own_folder.load(place) if layout is None else layout.load(place, config)).eval()


@dataclass(frozen=True)
class File(_Stored):
    """A weights file that the paper's authors released."""

    path: Path

    def place(self) -> Path:
        return self.path


@dataclass(frozen=True)
class Folder(_Stored):
    """A folder in OpenEUPE's, timm's or transformers' layout, such as `RUN/STAGE/STUDENT`."""

    path: Path

    def place(self) -> Path:
        return self.path

    def load(self) -> Encoder:
        check_student(self.path)
        return super().load()

    def folder(self) -> Path | None:
        return self.path

    def results_folder(self) -> Path | None:
        return self.path


@dataclass(frozen=True)
class Carried(_Stored):
    """A bundled model, by its name."""

    path: Path

    def place(self) -> Path:
        return self.path

    def folder(self) -> Path | None:
        return self.path


class Hub(_Stored):
    """`hf-hub:OWNER/NAME[@REVISION]`."""

    def place(self) -> Path:
        return download(self.text)


@dataclass(frozen=True)
class RunStudent(_Stored):
    """The only student of a run's stage: `RUN/STAGE`, or `RUN` for the last stage.

    Attributes:
        path: what was named, the run or the stage.
        run: folder of the run.
        stage: name of the stage.
    """

    path: Path
    run: Path
    stage: str

    def place(self) -> Path:
        return RunFolder.read(self.run).student_folder(self.stage)

    def folder(self) -> Path | None:
        return self.place()

    def results_folder(self) -> Path | None:
        return self.path


@dataclass(frozen=True)
class Export(Source):
    """A folder that `openeupe export` wrote; its files are run, never trained."""

    path: Path

    def describe(self) -> tuple[str, Arguments]:
        was = read_about(self.path)["encoder"]
        return was["name"], was["args"]

    def load(self) -> Encoder:
        return ExportedEncoder(self.path).eval()

    def check_size(self, size: Size) -> None:
        """Raise `InputError` unless a file takes images of that size. `size` is (height, width)."""
        file_for(self.path, read_about(self.path), size)

    def results_folder(self) -> Path | None:
        return self.path


@dataclass(frozen=True)
class EarlierStage(Source):
    """`stage:NAME[/STUDENT]`: a student of an earlier stage of the recipe that names it."""

    stage: str
    student: str | None

    def describe(self) -> tuple[str, Arguments]:
        raise self._refusal()

    def load(self) -> Encoder:
        raise self._refusal()

    def _refusal(self) -> InputError:
        return InputError(
            f"{self.text} names a stage inside a recipe only: for a finished one give RUN/STAGE"
        )


@dataclass(frozen=True)
class Code(Source):
    """`python:package.module:factory`: a function of the user's that makes an `Encoder`."""

    module: str
    factory: str

    def describe(self) -> tuple[str, Arguments]:
        encoder = self.load()
        return encoder.name, encoder.args

    def load(self, **args: Any) -> Encoder:
        try:
            encoder = getattr(importlib.import_module(self.module), self.factory)(**args)
        except Exception as error:  # it is the user's own code
            raise InputError(
                f"{self.text} failed ({type(error).__name__}: {first_line(error)}): the module "
                "must be installed or on PYTHONPATH"
            ) from error
        if not isinstance(encoder, Encoder):
            raise InputError(
                f"{self.text} returned a {type(encoder).__name__}: return an openeupe.Encoder"
            )
        return encoder.eval()


@dataclass(frozen=True)
class Given(Source):
    """An encoder that is already in memory."""

    encoder: Encoder

    def describe(self) -> tuple[str, Arguments]:
        return self.encoder.name, self.encoder.args

    def load(self) -> Encoder:
        return self.encoder


def _layout(folder: Path) -> tuple[Arguments, Any]:
    """A folder's config and the module that reads it. None for OpenEUPE's layout."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}, None  # whose reader names what is wrong
    if isinstance(config, dict) and "format" not in config:
        if "architecture" in config:
            return config, timm_folder
        if "model_type" in config:
            return config, transformers_folder
    return {}, None
