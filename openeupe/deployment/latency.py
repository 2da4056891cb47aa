"""Measure latency, memory and size of encoders and exported files, interleaved."""

from __future__ import annotations

import copy
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from openeupe.deployment.export_folder import LATENCY
from openeupe.deployment.latencies import Row
from openeupe.deployment.worker import Message, Process, matmul_gflop, multiplies_faster
from openeupe.encoders import Encoder, create
from openeupe.encoders.encoder import Arguments
from openeupe.encoders.export_layout import Size, check_contents, parse_size, read_about
from openeupe.files import write_atomically
from openeupe.identity import settings_identity
from openeupe.progress import LOGGED, Progress

_TURN = 0.3  # seconds
_COMPUTES_IN = {"fp32": "fp32", "fp16": "fp32", "bf16": "bf16", "int8": "int8"}


@dataclass(frozen=True)
class Contender:
    """An encoder or exported file to measure.

    label: its name in the table. encoder: name and args, whose eager float32 form is the baseline.
    what: the worker's description of it.
    megabytes: of the (largest) file, or of the weights in float32.
    export: identity of what the exported folder holds.
    """

    label: str
    precision: str
    encoder: tuple[str, Arguments]
    what: Message
    megabytes: float
    sizes: list[Size] = field(default_factory=list)
    folder: Path | None = None
    export: str | None = None


def eager(encoder: Encoder, label: str, precision: str = "fp32") -> Contender:
    """An eager PyTorch encoder; its weights do not matter for speed."""
    described = (encoder.name, encoder.args)
    what = {"kind": "eager", "name": described[0], "args": described[1], "precision": precision}
    size = sum(p.numel() * 4 for p in encoder.parameters()) / 1e6
    return Contender(label, precision, described, what, size)


def exported(folder: Path) -> Contender:
    """An exported folder."""
    about = read_about(folder)
    check_contents(folder, about)
    sizes = [size for key in about["files"] if (size := parse_size(key))]
    label = f"{about['target']} {about['precision']}"
    label += " uint8" if about["pixels"] == "uint8" else ""
    label += "" if sizes else " any size"
    return Contender(
        label=label,
        precision=about["precision"],
        encoder=(about["encoder"]["name"], about["encoder"]["args"]),
        what={"kind": "export", "folder": str(folder)},
        megabytes=max(about["bytes"].values()) / 1e6,
        sizes=sizes,
        folder=folder,
        export=settings_identity(about),
    )


def measure(
    contenders: Sequence[Contender],
    *,
    size: Size | None = None,
    threads: Sequence[int] | None = None,
    rounds: int = 10,
    batch: int = 8,
    progress: Progress = LOGGED,
) -> list[Row]:
    """Measure contenders, interleaved with the eager baselines of their encoders.

    Args:
        size: (height, width); default: that of a fixed file, else the encoder's resolution.
        threads: numbers of threads; default: 1 and all cores.
        rounds: turns of each contender, of about 0.3 s.
        batch: images at once for the throughput.

    Also writes `latency.json` to exported folders.

    Raises:
        InputError: if a contender cannot run at that size or on this machine.
    """
    counts = sorted(set(threads or (1, os.cpu_count() or 1)))
    once = {json.dumps(contender.what): contender for contender in contenders}
    contenders = list(once.values())
    rows: list[Row] = []
    by_folder: dict[Path | None, list[Row]] = {}
    for name, args in _distinct(contenders):
        encoder = create(name, **args).eval()
        own = [c for c in contenders if c.encoder == (name, args)]
        fixed = [s for c in own for s in c.sizes]
        shown = size or (fixed[0] if fixed else (encoder.resolution, encoder.resolution))
        baseline = eager(encoder, "PyTorch fp32")
        own = [baseline, *(c for c in own if c.what != baseline.what)]
        about = (sum(p.numel() for p in encoder.parameters()) / 1e6, gmacs(encoder, shown))
        for row, contender in _in_turns(name, own, shown, counts, rounds, batch, about, progress):
            rows.append(row)
            by_folder.setdefault(contender.folder, []).append(row)
    for contender in contenders:
        if contender.folder is not None:
            mine = [asdict(row) for row in by_folder[contender.folder]]
            content = {"machine": machine(), "export": contender.export, "rows": mine}
            write_atomically(contender.folder / LATENCY, json.dumps(content, indent=2) + "\n")
    return rows


def machine() -> dict[str, object]:
    """The processor and its cores, as this machine names them."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    return {"processor": model, "cores": os.cpu_count(), "torch": torch.__version__}


def gmacs(encoder: Encoder, size: Size) -> float:
    """Billions of multiply-adds for one image."""
    shapes = copy.deepcopy(encoder).eval().to("meta")
    with FlopCounterMode(display=False) as counter:
        shapes(torch.empty(1, 3, *size, device="meta"))
    return counter.get_total_flops() / 2e9


def _distinct(contenders: Sequence[Contender]) -> list[tuple[str, Arguments]]:
    found: list[tuple[str, Arguments]] = []
    for contender in contenders:
        if contender.encoder not in found:
            found.append(contender.encoder)
    return found


def _in_turns(
    name: str,
    contenders: list[Contender],
    size: Size,
    counts: list[int],
    rounds: int,
    batch: int,
    about: tuple[float, float],
    progress: Progress,
) -> list[tuple[Row, Contender]]:
    progress.message(f"{name}: {len(contenders)} contenders start")
    shared = {"size": size, "threads": counts[0]}
    kinds = list(dict.fromkeys(_COMPUTES_IN[contender.precision] for contender in contenders))
    kinds = [kind for kind in kinds if multiplies_faster(kind)]
    everyone = [Process({"kind": "matmul", "precision": kind, **shared}) for kind in kinds]
    try:
        everyone += [Process({**contender.what, **shared}) for contender in contenders]
        for worker in everyone:
            worker.answer()
        series = {}
        for count in counts:
            progress.message(f"{name}: in turns, {count} threads")
            series[count] = _rounds(everyone, count, rounds)
        workers = everyone[len(kinds) :]
        rates = {count: [w.throughput(batch, count) for w in workers] for count in counts}
    finally:
        for worker in everyone:
            worker.close()
    rows: list[tuple[Row, Contender]] = []
    for count in counts:
        best = [min(found.times) for found in series[count][: len(kinds)]]
        peaks = {kind: matmul_gflop() / ms for kind, ms in zip(kinds, best, strict=True)}
        peaks = {kind: rate for kind, rate in peaks.items() if rate >= peaks["fp32"]}
        own = series[count][len(kinds) :]
        found = _rows(name, contenders, size, count, own, rates[count], peaks, about)
        rows += zip(found, contenders, strict=True)
    return rows


@dataclass
class _Series:
    """Measurements of one worker with one number of threads."""

    times: list[float] = field(default_factory=list)
    medians: list[float] = field(default_factory=list)
    memory_mb: float = 0.0


def _rounds(workers: list[Process], threads: int, rounds: int) -> list[_Series]:
    series = [_Series() for _ in workers]
    for _ in range(rounds):
        for worker, own in zip(workers, series, strict=True):
            answer = worker.ask({"seconds": _TURN, "threads": threads})
            own.times += answer["times_ms"]
            own.medians.append(answer["median_ms"])
            own.memory_mb = answer["memory_mb"]
    return series


def _rows(
    name: str,
    contenders: list[Contender],
    size: Size,
    threads: int,
    series: list[_Series],
    rates: list[float],
    peaks: dict[str, float],
    about: tuple[float, float],
) -> list[Row]:
    """Rows of the contenders, the first of which is the baseline.

    peaks: GFLOP/ms of the machine, by precision.
    about: parameters in millions, multiply-adds in billions.
    """
    base = series[0]
    rows = []
    for contender, found, rate in zip(contenders, series, rates, strict=True):
        peak = peaks.get(_COMPUTES_IN[contender.precision])
        pairs = zip(base.medians, found.medians, strict=True)
        rows.append(
            Row(
                label=f"{name} {contender.label}",
                precision=contender.precision,
                size=size,
                threads=threads,
                latency_p50_ms=statistics.median(found.times),
                latency_p90_ms=statistics.quantiles(found.times, n=10)[-1],
                latency_min_ms=min(found.times),
                ratio_median=statistics.median(b / w for b, w in pairs),
                ratio_minimum=min(base.times) / min(found.times),
                images_per_second=rate,
                memory_mb=found.memory_mb,
                megabytes=contender.megabytes,
                parameters_m=about[0],
                gmacs=about[1],
                of_peak=None if peak is None else 2 * about[1] / min(found.times) / peak,
            )
        )
    return rows
