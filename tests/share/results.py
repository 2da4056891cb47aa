"""Results as `openeupe evaluate` writes them, without an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from openeupe.evaluation.measure import Outcome, mean_measure
from openeupe.evaluation.records import (
    BenchmarkIdentity,
    BenchmarkResult,
    Conditions,
    EncoderIdentity,
    EvaluationInfo,
)
from openeupe.evaluation.results_writer import gather, save_benchmark


def write_results(folder: Path, encoder: EncoderIdentity) -> None:
    """`FOLDER/mini`: 41.25 % on `knn`, and `other`, which the encoder cannot have."""
    mini = folder / "mini"
    hits = mean_measure(
        [str(i) for i in range(400)], (np.arange(400) < 165).astype(float), scale=100, unit="%"
    )
    outcomes: dict[str, Outcome | str] = {
        "knn": Outcome("top1@10", {"top1@10": hits}),
        "other": "left",
    }
    for name, outcome in outcomes.items():
        benchmark = BenchmarkIdentity(
            name=name, protocol="knn/mini-v1", protocol_hash="0", domain="image", settings={}
        )
        conditions = Conditions(encoder=encoder, precision="fp32", benchmark=benchmark)
        result = BenchmarkResult.of(
            name, outcome, conditions, data=["0"], outcomes=[name], seconds=1.0
        )
        save_benchmark(mini, result, None if isinstance(outcome, str) else outcome)
    info = EvaluationInfo(
        model="mine",
        model_args={},
        parameters=1,
        encoder=encoder.identity,
        precision="fp32",
        device="cpu",
        suite="mini",
    )
    gather(mini, list(outcomes), info)
