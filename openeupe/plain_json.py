"""Read untrusted or damaged JSON and NumPy files safely."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from openeupe.errors import InputError
from openeupe.limits import JSON_BYTES


def parse_json(text: str | bytes) -> Any:
    """Parse strict JSON text, without `NaN` and `Infinity`.

    Raises:
        ValueError: for invalid text.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON number")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_json(path: Path, fix: str) -> Any:
    """The plain value of a JSON file.

    Args:
        fix: what to do about a damaged one, as "evaluate again".

    Raises:
        InputError: naming the file and the fix.
    """
    try:
        if path.stat().st_size > JSON_BYTES:
            raise ValueError(f"it has more than {JSON_BYTES} bytes")
        return parse_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {fix}") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): {fix}") from None


class Saved(BaseModel):
    """Fields of a file; unknown fields are allowed."""

    model_config = ConfigDict(extra="allow", strict=True)


Model = TypeVar("Model", bound=Saved)


def read_model(path: Path, model: type[Model], fix: str, version: int | None = None) -> Model:
    """A JSON file as a typed object.

    Args:
        version: what the field `format` has to be; a file without it has format 1.

    Raises:
        InputError: naming the file, the field that is missing or wrong, and the fix.
    """
    content = read_json(path, fix)
    if version is not None and isinstance(content, dict) and content.get("format", 1) != version:
        raise InputError(
            f"{path} has format {content.get('format', 1)}, this version reads {version}: {fix}"
        )
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        problem = f"{field}: {first['msg']}" if field else first["msg"]
        raise InputError(f"{path} is damaged ({problem}): {fix}") from None


def read_checked(path: Path, model: type[Saved], fix: str) -> dict[str, Any]:
    """Read a JSON mapping with the fields of `model`. It is checked as by `read_model`."""
    return read_model(path, model, fix).model_dump(exclude_unset=True)


def read_arrays(path: Path, fix: str) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` file; nothing is unpickled.

    Raises:
        InputError: naming the file and the fix.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > JSON_BYTES:
                raise ValueError(f"it unpacks to more than {JSON_BYTES} bytes")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # the readers of zip and npy raise nearly anything
        raise InputError(f"{path} is damaged ({error}): {fix}") from None
