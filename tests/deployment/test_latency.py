"""Latencies may not be wrong in who ran, what is counted, and what failed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from openeupe.deployment import latency as measuring
from openeupe.deployment import worker
from openeupe.deployment.worker import Worker
from openeupe.encoders import create
from openeupe.errors import InputError
from openeupe.identity import encoder_identity, settings_identity

from .conftest import small
from .exporting import export


def test_files_are_measured_in_turns_with_their_eager_encoder(exported: dict[str, Path]) -> None:
    folder = exported["onnx-fp32"]
    rows = measuring.measure([measuring.exported(folder)], threads=[1], rounds=2, batch=2)
    base, file = rows
    assert [row.label for row in rows] == ["eupe_vit_t PyTorch fp32", "eupe_vit_t onnx fp32"]
    assert base.ratio_median == base.ratio_minimum == 1
    assert file.size == (64, 96)
    for row in rows:
        assert 0 < row.latency_min_ms <= row.latency_p50_ms <= row.latency_p90_ms
        assert row.of_peak is not None
        assert row.of_peak > 0
        assert row.memory_mb > 0
        assert row.images_per_second > 0
        assert row.parameters_m == pytest.approx(0.6, abs=0.1)
    # The ratio is of times: it agrees with them in direction.
    assert file.ratio_minimum == pytest.approx(base.latency_min_ms / file.latency_min_ms)
    kept = json.loads((folder / "latency.json").read_text())
    assert [row["label"] for row in kept["rows"]] == ["eupe_vit_t onnx fp32"]
    assert kept["machine"]["cores"]


def test_multiply_adds_are_counted() -> None:
    """ResNet-50 at 224 px: 4.09 billion with its classifier's 0.002 left out."""
    encoder = create("resnet50")
    assert measuring.gmacs(encoder, (224, 224)) == pytest.approx(4.09, abs=0.02)
    assert measuring.gmacs(encoder, (448, 224)) == pytest.approx(8.18, abs=0.04)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_worker_times_what_it_was_told(precision: str) -> None:
    threads = torch.get_num_threads()
    encoder = small("resnet10t")
    what = measuring.eager(encoder, "", precision).what
    timed = Worker({**what, "size": (64, 64), "threads": threads})
    answer = timed.measure(seconds=0.0, threads=threads)
    assert len(answer["times_ms"]) == 3
    assert min(answer["times_ms"]) <= answer["median_ms"] <= max(answer["times_ms"])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_the_machines_own_rate_is_measured(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of small matrices: a processor without instructions for a precision takes seconds for others.
    monkeypatch.setattr(worker, "_SIZE", 64)
    what = {"kind": "matmul", "precision": precision, "size": (1, 1), "threads": 1}
    assert Worker(what).measure(seconds=0.0, threads=1)["median_ms"] > 0


class FakeProcess:
    """Answers at once: every run takes 10 ms, a bf16 product `slow` times as long as in fp32."""

    slow = 1.0
    started: ClassVar[list[str]] = []

    def __init__(self, what: dict[str, Any]) -> None:
        self.started.append(f"{what['kind']} {what.get('precision')}")
        self.ms = 10 * (self.slow if what == {**what, "kind": "matmul", "precision": "bf16"} else 1)

    def answer(self) -> dict[str, Any]:
        return {"ready": True}

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"times_ms": [self.ms] * 3, "median_ms": self.ms, "memory_mb": 1.0}

    def throughput(self, batch: int, threads: int) -> float:
        return 1.0

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("small_is_faster", "slow", "of_peak"),
    [(True, 0.5, True), (True, 900.0, False), (False, 900.0, False)],
)
def test_no_share_of_peak_where_the_reference_product_is_slower_than_fp32(
    monkeypatch: pytest.MonkeyPatch, small_is_faster: bool, slow: float, of_peak: bool
) -> None:
    """Without bf16 instructions the product takes 9 s: a peak that everything passes 128 times."""
    monkeypatch.setattr(measuring, "Process", FakeProcess)
    monkeypatch.setattr(
        measuring, "multiplies_faster", lambda precision: precision == "fp32" or small_is_faster
    )
    monkeypatch.setattr(FakeProcess, "started", [])
    monkeypatch.setattr(FakeProcess, "slow", slow)
    contender = measuring.eager(small("resnet10t"), "PyTorch bf16", "bf16")
    base, half = measuring.measure([contender], size=(32, 32), threads=[1], rounds=2)
    assert base.of_peak is not None
    assert base.of_peak > 0
    assert (half.of_peak is not None) == of_peak
    assert ("matmul bf16" in FakeProcess.started) == small_is_faster  # no time is lost


def test_products_that_are_slow_here_are_known_in_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def product(precision: str, size: int) -> Callable[[], object]:
        assert size <= 256
        return lambda: time.sleep({"fp32": 0.004, "bf16": 0.02, "int8": 0.001}[precision])

    monkeypatch.setattr(worker, "_product", product)
    assert worker.multiplies_faster("fp32")
    assert worker.multiplies_faster("int8")
    assert not worker.multiplies_faster("bf16")


def test_a_file_that_cannot_run_here_is_told(exported: dict[str, Path]) -> None:
    contender = measuring.exported(exported["onnx-fp32"])
    with pytest.raises(InputError, match="has no file for 32x32 pixels, only for 64x96"):
        Worker({**contender.what, "size": (32, 32), "threads": 1})


def test_each_export_keeps_its_own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 and uint8, fixed and open sizes: one name, three files."""
    monkeypatch.setattr(measuring, "Process", FakeProcess)
    encoder = small("resnet10t")
    settings = {
        "fixed": {"resolution": [(32, 32)]},
        "bytes": {"resolution": [(32, 32)], "pixels": "uint8"},
        "open": {"dynamic": True},
    }
    for name, more in settings.items():
        export(encoder, tmp_path / name, target="onnx", **more)  # type: ignore[arg-type]
    contenders = [measuring.exported(tmp_path / name) for name in settings]
    again = measuring.exported(tmp_path / "fixed")
    rows = measuring.measure([*contenders, again], size=(32, 32), threads=[1], rounds=2, batch=2)
    assert len(rows) == len({row.label for row in rows}) == 4
    for name in settings:
        kept = json.loads((tmp_path / name / "latency.json").read_text())
        about = json.loads((tmp_path / name / "export.json").read_text())
        assert len(kept["rows"]) == 1
        assert kept["export"] == settings_identity(about)
        assert about["encoder"]["identity"] == encoder_identity(encoder)
