"""Speed, memory and size of encoders and exported files on this machine, measured in turns."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from openeupe.deploy import folder as folders
from openeupe.deploy.program import Size
from openeupe.deploy.worker import matmul_gflop
from openeupe.encoders import Encoder, create
from openeupe.errors import InputError
from openeupe.files import write_atomically

BENCHMARK = "benchmark.json"
_PEAK = {"fp32": "fp32", "fp16": "fp32", "bf16": "bf16", "int8": "bf16"}  # what they compute in


@dataclass(frozen=True)
class Contender:
    """What is measured.

    label: its name in the table. encoder: name and args, whose eager float32 form is the baseline.
    what: the worker's description of it. megabytes: of the file, or of the weights in float32.
    """

    label: str
    precision: str
    encoder: tuple[str, dict[str, Any]]
    what: dict[str, Any]
    megabytes: float
    sizes: list[Size] = field(default_factory=list)
    folder: Path | None = None


@dataclass(frozen=True)
class Row:
    """Figures of one contender at one number of threads; times of single images, batch 1.

    ratio_median, ratio_minimum: times as fast as the baseline, from rounds in turns.
    memory_mb: growth of the peak resident set while it was loaded and run at batch 1.
    of_peak: share of the machine's matrix-multiply rate, measured in the same run, in the
        precision that it computes in (bf16 for int8).
    """

    label: str
    precision: str
    size: Size
    threads: int
    latency_p50_ms: float
    latency_p90_ms: float
    latency_min_ms: float
    ratio_median: float
    ratio_minimum: float
    images_per_second: float
    memory_mb: float
    megabytes: float
    parameters_m: float
    gmacs: float
    of_peak: float


def eager(encoder: Encoder, label: str, precision: str = "fp32") -> Contender:
    """The PyTorch encoder as it is; its weights do not matter for speed."""
    said = (encoder.name, encoder.args)
    what = {"kind": "eager", "name": said[0], "args": said[1], "precision": precision}
    size = sum(p.numel() * 4 for p in encoder.parameters()) / 1e6
    return Contender(label, precision, said, what, size)


def exported(folder: Path) -> Contender:
    """An exported folder."""
    about = folders.read(folder)
    sizes = [size for key in about["files"] if (size := folders.parse_size(key))]
    return Contender(
        label=f"{about['target']} {about['precision']}",
        precision=about["precision"],
        encoder=(about["encoder"]["name"], about["encoder"]["args"]),
        what={"kind": "export", "folder": str(folder)},
        megabytes=next(iter(about["bytes"].values())) / 1e6,
        sizes=sizes,
        folder=folder,
    )


def benchmark(
    contenders: Sequence[Contender],
    *,
    size: Size | None = None,
    threads: Sequence[int] | None = None,
    rounds: int = 10,
    batch: int = 8,
    console: Console | None = None,
) -> list[Row]:
    """Measure contenders in turns with the eager baselines of their encoders, which are added.

    Args:
        size: (height, width); default: that of a fixed file, else the encoder's resolution.
        threads: numbers of threads; default: 1 and all cores.
        rounds: turns of each contender, of about 0.3 s.
        batch: images at once for the throughput.

    Also leaves `benchmark.json` in exported folders.

    Raises:
        InputError: if a contender cannot run at that size or on this machine.
    """
    console = console or Console(quiet=True)
    counts = list(threads or sorted({1, os.cpu_count() or 1}))
    rows: list[Row] = []
    for name, args in _distinct(contenders):
        encoder = create(name, **args).eval()
        own = [c for c in contenders if c.encoder == (name, args)]
        fixed = [s for c in own for s in c.sizes]
        shown = size or (fixed[0] if fixed else (encoder.resolution, encoder.resolution))
        baseline = eager(encoder, "PyTorch fp32")
        own = [baseline, *(c for c in own if c.what != baseline.what)]
        about = (sum(p.numel() for p in encoder.parameters()) / 1e6, gmacs(encoder, shown))
        for count in counts:
            console.print(f"{name}: {len(own)} contenders in turns, {count} threads")
            rows += _in_turns(name, own, shown, count, rounds, batch, about)
    for contender in contenders:
        if contender.folder is not None:
            label = f"{contender.encoder[0]} {contender.label}"
            mine = [asdict(row) for row in rows if row.label == label]
            content = {"machine": machine(), "rows": mine}
            write_atomically(contender.folder / BENCHMARK, json.dumps(content, indent=2) + "\n")
    return rows


def machine() -> dict[str, Any]:
    """The processor and its cores, as this machine names them."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    return {"processor": model, "cores": os.cpu_count(), "torch": torch.__version__}


def gmacs(encoder: Encoder, size: Size) -> float:
    """Billions of multiply-adds for one image."""
    copy = create(encoder.name, **encoder.args).eval().to("meta")
    with FlopCounterMode(display=False) as counter:
        copy(torch.empty(1, 3, *size, device="meta"))
    return counter.get_total_flops() / 2e9


def _distinct(contenders: Sequence[Contender]) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for contender in contenders:
        if contender.encoder not in found:
            found.append(contender.encoder)
    return found


def _in_turns(
    name: str,
    contenders: list[Contender],
    size: Size,
    threads: int,
    rounds: int,
    batch: int,
    about: tuple[float, float],
) -> list[Row]:
    shared = {"size": size, "threads": threads}
    peaks = {p: _Process({"kind": "matmul", "precision": p, **shared}) for p in ("fp32", "bf16")}
    workers = []
    try:
        workers = [_Process({**c.what, **shared}) for c in contenders]
        everyone = [*peaks.values(), *workers]
        for worker in everyone:
            worker.answer()
        for _ in range(rounds):
            for worker in everyone:
                worker.turn(seconds=0.3)
        memory = [worker.memory_mb for worker in workers]
        rates = [worker.throughput(batch) for worker in workers]
    finally:
        for worker in [*peaks.values(), *workers]:
            worker.close()
    rows = []
    base = workers[0]
    for contender, worker, mb, rate in zip(contenders, workers, memory, rates, strict=True):
        peak = matmul_gflop() / min(peaks[_PEAK[contender.precision]].times)
        pairs = zip(base.medians, worker.medians, strict=True)
        tenths = statistics.quantiles(worker.times, n=10)
        rows.append(
            Row(
                label=f"{name} {contender.label}",
                precision=contender.precision,
                size=size,
                threads=threads,
                latency_p50_ms=statistics.median(worker.times),
                latency_p90_ms=tenths[-1],
                latency_min_ms=min(worker.times),
                ratio_median=statistics.median(b / w for b, w in pairs),
                ratio_minimum=min(base.times) / min(worker.times),
                images_per_second=rate,
                memory_mb=mb,
                megabytes=contender.megabytes,
                parameters_m=about[0],
                gmacs=about[1],
                of_peak=2 * about[1] / min(worker.times) / peak,
            )
        )
    return rows


class _Process:
    """A worker, and what it has answered so far."""

    def __init__(self, what: dict[str, Any]) -> None:
        self.times: list[float] = []
        self.medians: list[float] = []
        self.memory_mb = 0.0
        threads = {"OMP_NUM_THREADS": str(what["threads"]), "MKL_NUM_THREADS": ""}
        environment = {**os.environ, **threads}
        del environment["MKL_NUM_THREADS"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "openeupe.deploy.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.tell(what)  # all start at once; `answer` waits for it

    def tell(self, request: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.tell(request)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise InputError(
                f"a benchmark process ended by itself (exit code {self.process.wait()})"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise InputError(f"cannot be measured: {answer['error']}")
        return answer

    def turn(self, seconds: float) -> None:
        answer = self.ask({"seconds": seconds})
        self.times += answer["times_ms"]
        self.medians.append(answer["median_ms"])
        self.memory_mb = answer["memory_mb"]

    def throughput(self, batch: int) -> float:
        """Images a second at a batch; the best of a few runs."""
        return 1e3 * batch / min(self.ask({"seconds": 0.5, "batch": batch})["times_ms"])

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
