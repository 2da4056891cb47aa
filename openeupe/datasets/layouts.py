"""Settings of evaluation data that its layout does not read are refused, not ignored."""

from __future__ import annotations

from typing import Any, TypeVar

from openeupe.config import Config

Data = TypeVar("Data", bound=Config)


def only_read(data: Data, **layouts: str) -> Data:
    """The settings themselves, if their layout reads every one that was changed.

    Args:
        data: has a `layout`; `check`, where it has that, is of all layouts.
        layouts: for each layout the names of the settings that it reads.

    Raises:
        ValueError: naming a setting that would have no effect.
    """
    given: Any = data
    read = {"layout", "check", *layouts[given.layout].split()}
    for name, field in type(data).model_fields.items():
        if name not in read and getattr(data, name) != field.default:
            raise ValueError(f"layout {given.layout} does not read {name}: leave it out")
    return data
