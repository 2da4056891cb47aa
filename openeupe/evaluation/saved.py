"""What a file of results must hold before anything is drawn or compared from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from openeupe.plain_json import Saved, read_checked

AGAIN = "delete it and evaluate again"
FORMAT = 3  # of results; 1 and 2 have other names of settings
_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Figure(Saved):
    value: _Number | None
    low: _Number | None
    high: _Number | None
    training_std: _Number | None = None
    samples: int
    metric: Literal["mean", "class_mean", "class_sum", "f1", "class_f1", "best_f"]
    scale: _Number
    unit: str
    higher_is_better: bool


class _Benchmark(Saved):
    protocol: str
    protocol_hash: str
    domain: Literal["image", "language", "text", "dense"]
    data: list[str]
    settings: dict[str, Any]
    missing: str | None = None
    headline: str | None = None
    figures: dict[str, _Figure] = Field({})
    floors: dict[str, _Number | None] = Field({})
    details: dict[str, Any] = Field({})
    samples_digest: str | None = None

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


class _Config(Saved):
    model: str
    suite: str = ""


class _Results(Saved):
    config: _Config
    benchmarks: dict[str, _Benchmark]


def read_benchmark(path: Path) -> dict[str, Any]:
    """What is saved of one benchmark.

    Raises:
        InputError: naming the file and the field that is missing or wrong.
    """
    return read_checked(path, _Benchmark, AGAIN, FORMAT)


def read_results(path: Path) -> dict[str, Any]:
    """What `results.json` holds.

    Raises:
        InputError: naming the file and the field that is missing or wrong.
    """
    return read_checked(path, _Results, AGAIN, FORMAT)
