"""A benchmark: one evaluation with all its settings, which turns an encoder into outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from pydantic import Field
from torch import Tensor

from openeupe.config import Config
from openeupe.encoders import Encoder
from openeupe.evaluation.features import Features
from openeupe.evaluation.measure import Outcome
from openeupe.evaluation.results import BenchmarkIdentity, Conditions, Domain, EncoderIdentity
from openeupe.identity import encoder_identity, settings_identity
from openeupe.progress import LOGGED, Progress


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

    def identity(self, name: str) -> BenchmarkIdentity:
        """What a result records of this benchmark, which a suite calls `name`."""
        protocol = self.model_dump(mode="json", exclude=set(self.locates_data))
        return BenchmarkIdentity(
            name=name,
            protocol=self.protocol,
            protocol_hash=settings_identity(protocol),
            domain=self.domain,
            settings=self.model_dump(mode="json"),
        )

    def open(self, root: Path) -> Any:
        """Open and check the data before any long work.

        Args:
            root: the folder that relative paths of the suite start from (`--data`).

        Raises:
            InputError: in one line that names the file or setting and the fix.
        """
        raise NotImplementedError

    def identities(self, data: Any) -> list[str]:
        """Identities of all that a result depends on besides encoder, settings and precision.

        Args:
            data: what `open` returned; unless overridden, sets of images with labels.
        """
        return [part.identity for part in data]

    def run(self, data: Any, evaluated: EvaluatedEncoder) -> dict[str, Outcome]:
        """Evaluate an encoder on the opened data.

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
class EvaluatedEncoder:
    """An encoder that is evaluated, and what its benchmarks share.

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

    @cached_property
    def identity(self) -> EncoderIdentity:
        """What results record of it."""
        return identify(self.encoder, self.chains)

    def conditions(self, name: str, benchmark: Benchmark) -> Conditions:
        """What a result on a benchmark, which the suite calls `name`, depends on."""
        return Conditions(
            encoder=self.identity,
            precision=self.features.precision,
            benchmark=benchmark.identity(name),
        )


def identify(encoder: Encoder, chains: Mapping[str, Chain]) -> EncoderIdentity:
    """What results record of their encoder, the heads that lead to experts included."""
    heads = {expert: chain.identity for expert, chain in sorted(chains.items())}
    return EncoderIdentity(identity=encoder_identity(encoder), heads=heads)
