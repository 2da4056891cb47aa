"""Benchmarks: evaluation protocols with settings, and their inputs."""

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
from openeupe.evaluation.records import BenchmarkIdentity, Conditions, Domain, EncoderIdentity
from openeupe.identity import encoder_identity, settings_identity
from openeupe.progress import LOGGED, Progress

BenchmarkData = Any  # what a benchmark's `open` returns: another type for each kind


class Benchmark(Config):
    """Base class of all benchmarks; a suite maps names to benchmarks.

    A subclass is in the module of its evaluation, adds `kind: Literal["..."]`, data and settings,
    and defines `open` and `run`.

    fills_several: whether it has several outcomes, named NAME-SUFFIX.
    locates_data: settings that only choose and locate data. They are not part of the
        protocol; `identities` must depend on everything that they change.
    """

    fills_several: ClassVar[bool] = False
    locates_data: ClassVar[frozenset[str]] = frozenset({"data"})

    kind: str
    protocol: str = Field(description="Name and version of the protocol, as knn/eupe-v1")
    domain: Domain

    def identity(self, name: str) -> BenchmarkIdentity:
        """Identity of this benchmark for results; `name`: in the suite."""
        protocol = self.model_dump(mode="json", exclude=set(self.locates_data))
        return BenchmarkIdentity(
            name=name,
            protocol=self.protocol,
            protocol_hash=settings_identity(protocol),
            domain=self.domain,
            settings=self.model_dump(mode="json"),
        )

    def open(self, root: Path) -> BenchmarkData:
        """Open and check the data before any long work.

        Args:
            root: the folder that relative paths of the suite start from (`--data`).

        Raises:
            InputError: in one line that names the file or setting and the fix.
        """
        raise NotImplementedError

    def identities(self, data: BenchmarkData) -> list[str]:
        """Identities of the data that a result depends on.

        Args:
            data: what `open` returned; unless overridden, sets of images with labels.
        """
        return [part.identity for part in data]

    def run(self, data: BenchmarkData, evaluated: EvaluatedEncoder) -> dict[str, Outcome]:
        """Evaluate an encoder on the opened data.

        Returns outcomes by suffix: `{"": outcome}` for one benchmark, and
        `{"exist": ..., "count": ...}` where one evaluation fills several (`NAME-exist`, ...).

        Raises:
            NotApplicable: if the encoder does not support it; the table shows the reason.
        """
        raise NotImplementedError


class NotApplicable(Exception):
    """The encoder does not support a benchmark; tables show the reason."""


class Chain(Protocol):
    """The encoder's class tokens `[B, Dc]` -> the class tokens of an expert `[B, De]`.

    Student head -> proxy statistics -> proxy's head -> the expert's statistics, de-standardized at
    each step (paper C.1); heads and statistics are saved with a student.
    """

    @property
    def identity(self) -> str:
        """Identity of all weights of the chain."""
        ...

    def __call__(self, cls: Tensor) -> Tensor: ...


@dataclass
class EvaluatedEncoder:
    """An encoder to evaluate, with shared features and chains.

    features: computes tokens once per image and view.
    chains: from an expert's encoder name (`efficientnet_lite0`, `pe_core_g`) to the chain of heads
        to it; empty unless it is a distilled student.
    folder: for large intermediate results; None: none are saved.
    """

    encoder: Encoder
    features: Features
    chains: Mapping[str, Chain] = field(default_factory=dict)
    folder: Path | None = None
    progress: Progress = LOGGED

    @property
    def device(self) -> torch.device:
        """The encoder's device."""
        return self.encoder.mean.device

    @cached_property
    def identity(self) -> EncoderIdentity:
        """Identity for results."""
        return identify(self.encoder, self.chains)

    def conditions(self, name: str, benchmark: Benchmark) -> Conditions:
        """Conditions of a result on the benchmark `name`."""
        return Conditions(
            encoder=self.identity,
            precision=self.features.precision,
            benchmark=benchmark.identity(name),
        )


def identify(encoder: Encoder, chains: Mapping[str, Chain]) -> EncoderIdentity:
    """Identity of an encoder and its chains of heads, for results."""
    heads = {expert: chain.identity for expert, chain in sorted(chains.items())}
    return EncoderIdentity(identity=encoder_identity(encoder), heads=heads)
