"""OpenEUPE's folder layout: config.json and model.safetensors, no code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from openeupe.encoders.arguments import RESERVED
from openeupe.encoders.create import create
from openeupe.encoders.encoder import Encoder
from openeupe.encoders.weights import load_strictly
from openeupe.errors import InputError
from openeupe.files import (
    flush,
    flush_folder,
    partial_folder,
    read_mapping,
    vacant,
    write_atomically,
)
from openeupe.version import package_version

FORMAT = 1
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
# All files of a saved encoder; other files in its folder are not changed.
FILES = (
    *("README.md", _CONFIG, "preprocessor_config.json", _WEIGHTS),
    *("heads.safetensors", "statistics.safetensors", "distillation.json"),
)
_FIELDS = ("name", "args", "cls_dim", "patch_dim", "patch_size", "resolution", "mean", "std")


def save(encoder: Encoder, folder: str | Path) -> Path:
    """Save an encoder to `folder`, replacing a previously saved one.

    It is written next to its place, flushed to the disk, and then moved there.

    Raises:
        InputError: if its settings are no JSON, if `folder` holds something else, or if it cannot
            be written.
    """
    folder = Path(folder)
    config = {
        "format": FORMAT,
        "openeupe": package_version(),
        "name": encoder.name,
        "args": encoder.args,
        "cls_dim": encoder.cls_dim,
        "patch_dim": encoder.patch_dim,
        "patch_size": encoder.patch_size,
        "resolution": encoder.resolution,
        "mean": encoder.constants[0],
        "std": encoder.constants[1],
    }
    try:
        text = json.dumps(config, indent=2)
    except TypeError as error:
        raise InputError(
            f"cannot save {encoder.name}: its settings {encoder.args} are not all plain values "
            f"({error}): create it with numbers, strings and lists"
        ) from error
    weights = {
        key: value.detach().cpu().contiguous() for key, value in encoder.state_dict().items()
    }
    with written_whole(folder) as part:
        (part / _CONFIG).write_text(text + "\n", encoding="utf-8")
        save_file(weights, part / _WEIGHTS)
    return folder


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder whose files replace `folder`'s at the end.

    Only files that belong to a saved encoder are replaced.

    Raises:
        InputError: if `folder` holds something else, or it cannot be written.
    """
    if not _replaceable(folder):
        raise InputError(
            f"{folder} holds something else than an encoder that openeupe saved: choose another "
            "folder"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(folder) as part:
            yield part
            flush_folder(part)
            _take_place(part, folder)
    except OSError as error:
        raise InputError(
            f"cannot write the encoder to {folder} ({error.strerror}): free space or choose another"
        ) from error


def load(folder: Path) -> Encoder:
    """Load an encoder that `save` wrote, in eval mode on the CPU.

    Raises:
        InputError: if its files are missing, damaged or not those of an encoder.
    """
    config = read_config(folder)
    encoder = create(config["name"], **config["args"])
    for field in ("cls_dim", "patch_dim", "patch_size"):
        if getattr(encoder, field) != config[field]:
            raise InputError(
                f"{folder / _CONFIG}: {field} is {config[field]}, but {encoder.name} has "
                f"{getattr(encoder, field)}: the file was changed, or made by another version"
            )
    # The saved constant is used even if a later timm has another one.
    encoder.resolution = config["resolution"]
    try:
        encoder.set_constants(config["mean"], config["std"])
    except ValueError as error:
        raise InputError(f"{folder / _CONFIG}: {error}: save the encoder again") from None
    _load_weights(encoder, folder / _WEIGHTS)
    return encoder.eval()


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check config.json: name, args, widths and input constants.

    Raises:
        InputError: if the file is missing, damaged or not an encoder's.
    """
    path = folder / _CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{folder} holds no encoder: {_CONFIG} cannot be read ({error.strerror})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}): save the encoder again") from error
    if isinstance(config, dict) and config.get("unfinished"):
        raise InputError(
            f"{folder} is half written, saving it was interrupted: save the encoder again"
        )
    if not isinstance(config, dict) or "format" not in config:
        raise InputError(f"{path} does not describe an OpenEUPE encoder: give another folder")
    if config["format"] != FORMAT:
        raise InputError(
            f"{path} has format {config['format']}, this version reads {FORMAT}: update openeupe"
        )
    wrong = [field for field in _FIELDS if not _fits(field, config.get(field))]
    if wrong:
        raise InputError(f"{path}: {wrong[0]} is missing or wrong: save the encoder again")
    if taken := sorted(RESERVED & set(config["args"])):
        raise InputError(f"{path}: {taken[0]} cannot be set in args: save the encoder again")
    return config


def _fits(field: str, value: Any) -> bool:
    if field == "name":
        return isinstance(value, str)
    if field == "args":
        return isinstance(value, dict)
    if field in ("mean", "std"):
        numbers = isinstance(value, list) and all(isinstance(x, (int, float)) for x in value)
        return numbers and len(value) == 3
    return type(value) is int and value > 0


def _load_weights(encoder: Encoder, path: Path) -> None:
    try:
        weights = load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: copy the whole encoder folder") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}): copy or save the encoder again") from error
    load_strictly(encoder, weights, path, encoder.name)


def _replaceable(folder: Path) -> bool:
    """Whether the folder is missing, empty, or an encoder that `save` wrote."""
    config = read_mapping(folder / _CONFIG)
    pretrained = config.get("pretrained_cfg")
    timm = isinstance(pretrained, dict) and pretrained.get("tag") == "openeupe"
    return "openeupe" in config or timm or vacant(folder)


def _take_place(part: Path, folder: Path) -> None:
    """Move the files of `part` to `folder`, config.json last; other files stay."""
    if vacant(folder):
        if folder.is_dir():
            folder.rmdir()  # only Windows needs this
        part.rename(folder)
        flush(folder.parent)
        return
    # From here to the last line the folder is marked as unfinished.
    unfinished = {"openeupe": package_version(), "unfinished": True}
    write_atomically(folder / _CONFIG, json.dumps(unfinished))
    for name in FILES:
        if name != _CONFIG and (part / name).exists():
            (part / name).replace(folder / name)
        elif name not in (_CONFIG, "README.md"):  # the rest belongs to the encoder before
            (folder / name).unlink(missing_ok=True)
    flush(folder)
    (part / _CONFIG).replace(folder / _CONFIG)
    flush(folder)
