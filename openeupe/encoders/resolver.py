"""Resolve a source string to an encoder, for YAML, commands and Python."""

from __future__ import annotations

import os
from pathlib import Path

from openeupe.encoders.create import create, is_name
from openeupe.encoders.encoder import Encoder
from openeupe.encoders.export_layout import is_export
from openeupe.encoders.hub import HUB
from openeupe.encoders.run_layout import RunFolder, is_run
from openeupe.encoders.sources import (
    Carried,
    Code,
    EarlierStage,
    Export,
    File,
    Folder,
    Given,
    Hub,
    Published,
    RunStudent,
    Source,
    Untrained,
)
from openeupe.errors import InputError

UNTRAINED, STAGE, CODE, GIVEN = "untrained:", "stage:", "python:", "given:"
_PREFIXES = (UNTRAINED, STAGE, CODE, GIVEN, HUB)
_WEIGHTS = (".pt", ".pth", ".safetensors")
_CARRIED = Path(__file__).parent.parent / "models"  # encoder folders that the package carries

Written = str | Path | Encoder


def load(source: Written, *, allow_code: bool = False) -> Encoder:
    """Load an encoder with its weights, in eval mode on the CPU.

    Args:
        source: a run folder (its last stage's student), `RUN/STAGE` or `RUN/STAGE/STUDENT`;
            a folder in OpenEUPE's, timm's or transformers' (DINOv3) layout; a released EUPE file
            (`EUPE-ViT-T.pt`); `hf-hub:OWNER/NAME[@REVISION]` of any of these; what `openeupe
            export` wrote; the name of a model that the package carries; one of our names, or a
            timm name, with its published weights; `untrained:NAME`, with random weights that are
            always the same; or `python:package.module:factory`, a function that returns an
            `Encoder`. An `Encoder` is returned as it is.
        allow_code: whether `python:` may run the function that it names.

    Raises:
        InputError: in one line, if there is no such encoder or it cannot be read.
    """
    return resolve(source, allow_code=allow_code).load()


def random_network(source: Written) -> Encoder:
    """Build a source's architecture with random weights. Torch's own random state is used.

    Raises:
        InputError: as `load`.
    """
    name, args = resolve(source).describe()
    return create(name, **args)


def resolve(source: Written, *, allow_code: bool = False) -> Source:
    """Resolve a source string to a typed source. It may be `stage:NAME` of a recipe.

    Only the names of a run's students are read from files.

    Raises:
        InputError: if it is a path and nothing of an encoder is there, or `python:` without
            `allow_code`.
    """
    if isinstance(source, Encoder):
        return Given(source.name, source)
    text = str(source)
    if text.startswith(UNTRAINED):
        return Untrained(text, text.removeprefix(UNTRAINED))
    if earlier := earlier_stage(text):
        return earlier
    if text.startswith(CODE):
        check_code(text, allow_code)
        return _code(text)
    if text.startswith(GIVEN):
        name = text.removeprefix(GIVEN)
        raise InputError(
            f"{text} is an encoder of a Python program: run it there, by "
            f"openeupe.distill(..., teachers={{{name!r}: encoder}})"
        )
    if text.startswith(HUB):
        return Hub(text)
    path = Path(source)
    if is_export(path):
        return Export(text, path)
    if path.is_file():
        if path.suffix in _WEIGHTS:
            return File(text, path)
        if looks_like_path(text) or path.suffix:
            raise InputError(f"{text} is no weights file: those end in {', '.join(_WEIGHTS)}")
    elif student := _run_student(source):
        return student
    carried = _CARRIED / text
    known = is_name(text) or (not looks_like_path(text) and (carried / "config.json").is_file())
    # A folder that is merely called like a known encoder (`--out resnet18`) is not meant.
    if path.is_dir() and (not known or isinstance(source, Path) or (path / "config.json").exists()):
        return Folder(text, path)
    if known and not isinstance(source, Path):
        return Published(text) if is_name(text) else Carried(text, carried)
    if isinstance(source, Path) or looks_like_path(text) or path.suffix in _WEIGHTS:
        raise InputError(
            f"there is no encoder folder or file {text}: check the path (a repository of the "
            f"Hugging Face hub is {HUB}OWNER/NAME)"
        )
    return Published(text)  # of which `create` knows that it is not one, and what is like it


def earlier_stage(text: str) -> EarlierStage | None:
    """Parse `stage:NAME[/STUDENT]`; None for anything else. No file is read."""
    if not text.startswith(STAGE):
        return None
    stage, _, student = text.removeprefix(STAGE).partition("/")
    return EarlierStage(text, stage, student or None)


def is_published(source: str) -> bool:
    """Whether `source` is the name of published weights, not a folder."""
    return is_name(source) and isinstance(resolve(source), Published)


def holds_encoder(folder: Path) -> bool:
    """Whether a folder is that of an encoder: a run, a stage, an export or saved weights."""
    own = is_export(folder) or (folder / "config.json").is_file()
    return own or is_run(folder) or is_run(folder.parent)


def looks_like_path(text: str) -> bool:
    """Whether a source is written as a path. The disk is not looked at."""
    separated = "/" in text or os.sep in text
    return separated and not text.startswith(_PREFIXES) and not is_name(text)


def check_code(text: str, allow_code: bool) -> None:
    """Refuse `python:` sources unless code may be run.

    Raises:
        InputError: in one line.
    """
    if text.startswith(CODE) and not allow_code:
        raise InputError(
            f"{text} runs code on this machine: if you trust it, allow it: allow_code=True in "
            "Python, --allow-code of distill, plan, evaluate and ablate"
        )


def _code(text: str) -> Code:
    module, _, factory = text.removeprefix(CODE).partition(":")
    if not factory.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise InputError(f"{text}: write it as {CODE}package.module:factory")
    return Code(text, module, factory)


def _run_student(source: str | Path) -> RunStudent | None:
    """A run, or one of its stages: the folder of a student in it is an encoder folder itself."""
    path, text = Path(source), str(source)
    if is_run(path):
        return RunStudent(text, path, path, list(RunFolder.read(path).students)[-1])
    if not is_run(path.parent) or (path / "config.json").is_file():
        return None
    # A plain name is never resolved to a file of the working directory.
    if isinstance(source, str) and not looks_like_path(text) and not path.is_dir():
        return None
    try:
        run = RunFolder.read(path.parent)
        if path.name not in run.students:
            raise InputError(f"{path}: the run's stages are {', '.join(run.students)}")
    except InputError:
        if is_name(text):
            return None
        raise
    return RunStudent(text, path, path.parent, path.name)
