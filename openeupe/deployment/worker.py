"""Worker process that measures one contender.

Started as python -m openeupe.deployment.worker.

A process each makes memory measurable and keeps the engines' threads apart. Requests and answers
are lines of JSON: first what to run, then how long and with how many threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from openeupe.encoders import create
from openeupe.encoders.engines import ENGINES
from openeupe.encoders.export_layout import file_for, read_about
from openeupe.encoders.weights import first_line
from openeupe.errors import InputError

Message = dict[str, Any]  # a line of JSON between the processes

_SIZE = 1536  # of the matrices whose product measures the machine's peak
_SMALL_SIZE = 256  # of those that show whether it is worth measuring


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # engines that print must not disturb the answers
    work: Worker | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if work is None:
                work = Worker(request)
                answer: Message = {"ready": True}
            else:
                answer = work.measure(**request)
        except Exception as error:  # the parent reports it
            answer = {"error": first_line(error)}
        print(json.dumps(answer), file=answers, flush=True)


class Worker:
    """The network or file to run, on inputs of one size.

    Args:
        what: `{"kind": "eager", "name", "args", "precision"}`, `{"kind": "export", "folder"}`, or
            `{"kind": "matmul", "precision"}`; with `size` and initial `threads`.
    """

    def __init__(self, what: Message) -> None:
        self.what = what
        _forget_peak()
        self.before = _peak_memory()
        self.threads = 0
        self._runs: dict[int, Callable[[], object]] = {}
        self.run(1, what["threads"])()

    def measure(self, seconds: float, threads: int, batch: int = 1) -> Message:
        """Milliseconds of single runs and peak memory. At least three runs, for about `seconds`."""
        run = self.run(batch, threads)
        run()  # the caches are another contender's
        times: list[float] = []
        end = time.perf_counter() + seconds
        while len(times) < 3 or (time.perf_counter() < end and len(times) < 1000):
            started = time.perf_counter()
            run()
            times.append(1e3 * (time.perf_counter() - started))
        return {
            "times_ms": times,
            "median_ms": statistics.median(times),
            "memory_mb": (_peak_memory() - self.before) / 1e6,
        }

    def run(self, batch: int, threads: int) -> Callable[[], object]:
        """A call without arguments that does the work once."""
        if threads != self.threads:
            torch.set_num_threads(threads)
            self.threads = threads
            self._runs.clear()  # engines fix their threads when they open a file
        if batch not in self._runs:
            self._runs[batch] = getattr(self, f"_{self.what['kind']}")(batch)
        return self._runs[batch]

    def _images(self, batch: int) -> torch.Tensor:
        torch.manual_seed(0)
        return torch.rand(batch, 3, *self.what["size"])

    def _eager(self, batch: int) -> Callable[[], object]:
        encoder = create(self.what["name"], **self.what["args"]).eval()
        images = self._images(batch)
        half = self.what["precision"] == "bf16"

        def run() -> None:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                encoder(images)

        return run

    def _export(self, batch: int) -> Callable[[], object]:
        folder = Path(self.what["folder"])
        about = read_about(folder)
        engine = ENGINES[about["target"]]
        if not engine.runs_here:
            raise InputError(f"{folder}: {engine.name} files do not run on this machine")
        engine.require(engine.runtime)
        file = file_for(folder, about, self.what["size"])
        step = engine.batch or batch
        session = engine.open(folder / file, about["precision"], self.threads, step)
        images = self._images(batch)
        if about["pixels"] == "uint8":
            images = (images * 255).byte()
        parts = images.split(step)

        def run() -> None:
            for part in parts:
                session(part)

        return run

    def _matmul(self, batch: int) -> Callable[[], object]:
        return _product(self.what["precision"], _SIZE)


class Process:
    """Client of a worker process.

    Raises:
        InputError: if the worker cannot do a request.
    """

    def __init__(self, what: Message) -> None:
        # Limits of this process are not the worker's, which is given its number of threads.
        limits = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {key: value for key, value in os.environ.items() if key not in limits}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "openeupe.deployment.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.send(what)  # workers start in parallel; `answer` waits

    def send(self, request: Message) -> None:
        """Send a request without waiting."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def ask(self, request: Message) -> Message:
        """Send a request and wait for its answer."""
        self.send(request)
        return self.answer()

    def answer(self) -> Message:
        """Wait for the answer to the last request."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise InputError(
                f"a measuring process ended unexpectedly (exit code {self.process.wait()})"
            )
        answer: Message = json.loads(line)
        if "error" in answer:
            raise InputError(f"cannot be measured: {answer['error']}")
        return answer

    def throughput(self, batch: int, threads: int) -> float:
        """Images a second at a batch; the best of a few runs."""
        answer = self.ask({"seconds": 0.5, "threads": threads, "batch": batch})
        return 1e3 * batch / min(answer["times_ms"])

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def _product(precision: str, size: int) -> Callable[[], object]:
    """A call that multiplies two square matrices."""
    if precision == "int8":
        c, d = (torch.randint(-128, 128, (size, size), dtype=torch.int8) for _ in range(2))
        return lambda: torch._int_mm(c, d)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    a, b = (torch.randn(size, size).to(kind) for _ in range(2))
    return lambda: a @ b


def multiplies_faster(precision: str) -> bool:
    """Whether small matrix products are faster in a precision than in float32.

    Processors without its instructions take seconds for the large product: that is no peak.
    """
    if precision == "fp32":
        return True
    best = []
    for kind in (precision, "fp32"):
        run = _product(kind, _SMALL_SIZE)
        run()
        times = []
        for _ in range(3):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        best.append(min(times))
    return best[0] < best[1]


def matmul_gflop() -> float:
    """Of the product that the kind "matmul" times."""
    return 2 * _SIZE**3 / 1e9


def _forget_peak() -> None:
    """Reset the peak memory on Linux, which importing raises."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory() -> int:
    """Peak resident set in bytes, since the last reset if the system has one."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
