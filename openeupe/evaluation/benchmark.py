"""A benchmark: one evaluation with all its settings, which turns an encoder into outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from openeupe.config import Config
from openeupe.encoders import Encoder
from openeupe.evaluation.features import Features
from openeupe.evaluation.measure import Outcome
from openeupe.identity import settings_identity
from openeupe.progress import LOGGED, Progress

Domain = Literal["image", "language", "dense", "text"]


class Benchmark(Config):
    """Base of every evaluation's settings; a suite is a mapping of names to these.

    A subclass lies beside its evaluation, adds `kind: Literal["..."]`, its data and its numbers,
    and defines `open` and `run`.

    fills_several: whether its outcomes are called NAME-SUFFIX.
    locates_data: settings that only say which data, and where they are. They are no part of the
        protocol; `identities` must depend on everything that they change.
    """

    fills_several: ClassVar[bool] = False
    locates_data: ClassVar[frozenset[str]] = frozenset({"data"})

    kind: str
    protocol: str = Field(description="Name and version of the protocol, as knn/eupe-v1")
    domain: Domain

    def protocol_identity(self) -> str:
        """Identity of all numbers of the protocol: every setting but for the data."""
        settings = self.model_dump(mode="json", exclude=set(self.locates_data))
        return settings_identity(settings)

    def open(self, root: Path) -> Any:
        """Open and check the data before any long work.

        Args:
            root: the folder that relative paths of the suite start from (`--data`).

        Raises:
            InputError: in one line that names the file or setting and the mend.
        """
        raise NotImplementedError

    def identities(self, data: Any) -> list[str]:
        """Identities of all that a result depends on besides encoder, settings and precision.

        Args:
            data: what `open` returned; unless overridden, sets of images with labels.
        """
        return [part.identity for part in data]

    def run(self, data: Any, judged: Judged) -> dict[str, Outcome]:
        """Judge an encoder on the opened data.

        Returns outcomes by suffix: `{"": outcome}` for one benchmark, and
        `{"exist": ..., "count": ...}` where one evaluation fills several (`NAME-exist`, ...).

        Raises:
            NotApplicable: if this encoder cannot have this benchmark; the table then says why.
        """
        raise NotImplementedError


class NotApplicable(Exception):
    """A benchmark that an encoder cannot have, with the reason the table prints."""


class Chain(Protocol):
    """The encoder's class tokens `[B, Dc]` -> the class tokens of an expert `[B, De]`.

    Student head -> proxy statistics -> proxy's head -> the expert's statistics, de-standardized at
    each step (paper C.1); heads and statistics lie beside a student.
    """

    @property
    def identity(self) -> str:
        """Identity of every weight on the way."""
        ...

    def __call__(self, cls: Tensor) -> Tensor: ...


@dataclass
class Judged:
    """An encoder under judgement, and what evaluations share.

    features: computes tokens once per image and view.
    chains: from an expert's encoder name (`efficientnet_lite0`, `pe_core_g`) to the chain of heads
        that leads there; empty for anything but a distilled student.
    folder: where an evaluation may keep large intermediate results; None: nowhere.
    """

    encoder: Encoder
    features: Features
    chains: Mapping[str, Chain] = field(default_factory=dict)
    folder: Path | None = None
    progress: Progress = LOGGED

    @property
    def device(self) -> torch.device:
        """Where the encoder lies."""
        return self.encoder.mean.device
