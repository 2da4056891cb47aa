"""What a file of results must hold before anything is drawn or compared from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from openeupe.errors import InputError
from openeupe.plain_json import read_json

AGAIN = "delete it and evaluate again"
_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Saved(BaseModel):
    """Fields that we read; a newer version may have written others, too."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Figure(_Saved):
    value: _Number | None
    low: _Number | None
    high: _Number | None
    training_std: _Number | None = None
    samples: int
    metric: Literal["mean", "class_mean", "class_sum", "f1", "class_f1", "best_f"]
    scale: _Number
    unit: str
    higher_is_better: bool


class _Column(_Saved):
    protocol: str
    protocol_hash: str
    domain: Literal["image", "language", "text", "dense"]
    data: list[str]
    settings: dict[str, Any]
    missing: str | None = None
    headline: str | None = None
    figures: dict[str, _Figure] = {}
    floors: dict[str, _Number | None] = {}
    details: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if "headline" in self.model_fields_set:
            if self.headline not in self.figures:
                raise ValueError(f"headline {self.headline!r} is not among the figures")
            if not {"floors", "details"} <= self.model_fields_set:
                raise ValueError("floors or details are missing")
        elif self.missing is None:
            raise ValueError("there is neither a headline nor a reason why it is missing")
        return self


class _Config(_Saved):
    model: str
    suite: str = ""


class _Results(_Saved):
    config: _Config
    columns: dict[str, _Column]


def read_column(path: Path) -> dict[str, Any]:
    """What is saved of one column.

    Raises:
        InputError: naming the file and the field that is missing or wrong.
    """
    return _checked(path, _Column)


def read_results(path: Path) -> dict[str, Any]:
    """What `results.json` holds.

    Raises:
        InputError: naming the file and the field that is missing or wrong.
    """
    return _checked(path, _Results)


def _checked(path: Path, model: type[_Saved]) -> dict[str, Any]:
    content: dict[str, Any] = read_json(path, AGAIN)
    try:
        model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        told = f"{field}: {first['msg']}" if field else first["msg"]
        raise InputError(f"{path} is damaged ({told}): {AGAIN}") from None
    return content
