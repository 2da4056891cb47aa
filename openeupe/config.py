"""The manners that every typed setting shares."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A group of settings: unknown keys are errors, and values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
