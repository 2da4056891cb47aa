"""How encoders are evaluated."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from openeupe.config import Config
from openeupe.evaluation.features import Precision
from openeupe.limits import BATCH, WORKERS


def _names(value: Any) -> Any:
    """Names from `knn,depth`."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


class EvaluationConfig(Config):
    """How an encoder's tokens are computed."""

    precision: Precision = Field("fp32", description="of the encoder; bf16 is autocast")
    batch_size: int = Field(32, ge=1, le=BATCH, description="images a forward pass")
    workers: int = Field(2, ge=1, le=WORKERS, description="threads that read images")


class EvaluateConfig(EvaluationConfig):
    """How an encoder is evaluated, and on which benchmarks of the suite."""

    only: Annotated[tuple[str, ...], BeforeValidator(_names)] | None = Field(
        None, description="some of the benchmarks, as `knn,depth`  [all]"
    )
