"""Evaluate encoders one after the other, with shared data per process.

Decoded views and labels are cached in memory, since a study's benchmarks are small.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openeupe.ablation.study import LoadedStudy
from openeupe.data import View
from openeupe.distillation.chain import load_with_chains
from openeupe.encoders.exported import check_precision
from openeupe.evaluation.benchmark import BenchmarkData, EvaluatedEncoder
from openeupe.evaluation.features import Features
from openeupe.evaluation.results import benchmark_names, read_benchmark
from openeupe.evaluation.suite import evaluate
from openeupe.progress import SILENT

_VIEWS: dict[tuple[str, View], Tensor] = {}
_OPENED: dict[tuple[str, str], BenchmarkData] = {}


def evaluate_arm(
    loaded: LoadedStudy, data: Path, source: str, name: str, folder: Path, device: torch.device
) -> bool:
    """Evaluate one encoder on the benchmarks that `folder` lacks. Tables call it `name`.

    Returns whether any was evaluated: what is saved of this encoder and these data is not again.
    """
    encoder, chains = load_with_chains(source, allow_code=True)  # `load_study` has asked
    how = loaded.study.evaluation
    check_precision(encoder, how.precision, "evaluation.precision")
    encoder = encoder.to(device)
    features = Features(
        encoder,
        precision=how.precision,
        batch_size=how.batch_size,
        workers=how.workers,
        progress=SILENT,
        views=_VIEWS,
    )
    before = {name: read_benchmark(folder, name) for name in benchmark_names(folder)}
    benchmarks = {benchmark: loaded.suite.benchmarks[benchmark] for benchmark in loaded.benchmarks}
    results = evaluate(
        loaded.suite.model_copy(update={"benchmarks": benchmarks}),
        EvaluatedEncoder(encoder, features, chains, folder, SILENT),
        folder,
        root=data,
        source=name,
        progress=SILENT,
        opened={benchmark: _opened(loaded, benchmark, data) for benchmark in benchmarks},
    )
    return any(before.get(name) != saved for name, saved in results.benchmarks.items())


def forget() -> None:
    """Drop opened data sets, so that changed files are read again."""
    _OPENED.clear()


def _opened(loaded: LoadedStudy, benchmark: str, data: Path) -> BenchmarkData:
    settings = loaded.suite.benchmarks[benchmark]
    key = (str(data), settings.model_dump_json())
    if key not in _OPENED:
        found: BenchmarkData = settings.open(data)
        if isinstance(found, tuple):
            found = tuple(_LabelsKept(images) for images in found)
        _OPENED[key] = found
    return _OPENED[key]


class _LabelsKept:
    """A set of images with cached labels."""

    def __init__(self, images: Any) -> None:
        self._images = images
        for kind in ("mask", "depth"):
            if hasattr(images, kind):
                setattr(self, kind, lru_cache(maxsize=None)(getattr(images, kind)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._images, name)

    def __len__(self) -> int:
        return len(self._images)
