"""One way in for every form in which an encoder is kept: by name, in a file, a folder or a hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openeupe.encoders import openeupe_folder as own_folder
from openeupe.encoders import released, timm_folder, transformers_folder
from openeupe.encoders.contract import Encoder
from openeupe.encoders.create import create, is_name
from openeupe.encoders.hub import HUB, download
from openeupe.errors import InputError

_WEIGHTS = (".pt", ".pth", ".safetensors")
_CARRIED = Path(__file__).parent.parent / "models"  # encoder folders that the package carries


def is_stored(source: str | Path) -> bool:
    """Whether `source` is a file, a folder or a hub repository rather than a name."""
    here = _is_folder(source) or _is_weights(Path(source))
    return here or str(source).startswith(HUB) or _carried(source) is not None


def is_published(source: str) -> bool:
    """Whether `source` is a name that stands for published weights."""
    return is_name(source) and not is_stored(source)


def _is_weights(path: Path) -> bool:
    return path.suffix in _WEIGHTS and path.is_file()


def _is_folder(source: str | Path) -> bool:
    """Whether it is a folder of an encoder, not merely one called like it (`--out resnet18`)."""
    path = Path(source)
    if not path.is_dir() or isinstance(source, Path) or (path / "config.json").exists():
        return path.is_dir()
    return not is_name(source) and _carried(source) is None


def _carried(source: str | Path) -> Path | None:
    """The folder of an encoder that the package carries, by its name."""
    folder = _CARRIED / source
    plain = isinstance(source, str) and "/" not in source
    return folder if plain and (folder / "config.json").is_file() else None


def load(source: str | Path) -> Encoder:
    """Load an encoder with its weights, on the CPU and in eval mode.

    Args:
        source: a folder in OpenEUPE's, timm's or transformers' layout; a released EUPE file;
            `hf-hub:OWNER/NAME[@REVISION]` of any of these; or a name, with its published weights.

    Raises:
        InputError: if there is no such thing, or it is damaged or not that of an encoder.
    """
    path = _path(source)
    if path is None:
        return create(str(source), pretrained=True).eval()
    if path.is_file():
        return create(released.architecture(path), pretrained=path).eval()
    config, layout = _layout(path)
    return (own_folder.load(path) if layout is None else layout.load(path, config)).eval()


def describe(source: str | Path) -> tuple[str, dict[str, Any]]:
    """Name and arguments that `create` makes a stored encoder's architecture from.

    Raises:
        InputError: as `load`, as far as it can be told without the weights.
    """
    path = _path(source)
    if path is None:
        return str(source), {}
    if path.is_file():
        return released.architecture(path), {}
    config, layout = _layout(path)
    if layout is None:
        own = own_folder.read_config(path)
        return own["name"], own["args"]
    found: tuple[str, dict[str, Any]] = layout.describe(path, config)
    return found


def _path(source: str | Path) -> Path | None:
    """Where a stored encoder lies, fetched if need be; None for a name."""
    if str(source).startswith(HUB):
        return download(str(source))
    path = Path(source)
    if _is_folder(source) or _is_weights(path):
        return path
    if folder := _carried(source):
        return folder
    if path.is_file() and ("/" in str(source) or path.suffix):
        raise InputError(f"{source} is no weights file: those end in {', '.join(_WEIGHTS)}")
    if isinstance(source, Path) or "/" in source or path.suffix in _WEIGHTS:
        raise InputError(
            f"there is no encoder folder or file {source}: check the path (a repository of the "
            f"Hugging Face hub is {HUB}OWNER/NAME)"
        )
    return None


def _layout(folder: Path) -> tuple[dict[str, Any], Any]:
    """A folder's config, and the module that reads it; None where it is our own layout."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}, None  # which will say what is wrong
    if isinstance(config, dict) and "format" not in config:
        if "architecture" in config:
            return config, timm_folder
        if "model_type" in config:
            return config, transformers_folder
    return {}, None
