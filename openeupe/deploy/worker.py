"""One contender of a benchmark in a process of its own: python -m openeupe.deploy.worker.

A process each makes memory measurable and keeps the engines' threads apart. Requests and answers
are lines of JSON: first what to run, then how often.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from openeupe.deploy import folder as folders
from openeupe.deploy.program import size_name
from openeupe.deploy.targets import TARGETS
from openeupe.encoders import create
from openeupe.errors import InputError

_SIDE = 1536  # of the matrices whose product is the machine's measured peak


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
                answer: dict[str, Any] = {"ready": True}
            else:
                answer = work.measure(**request)
        except Exception as error:  # the parent tells it, whatever it is
            answer = {"error": " ".join(f"{error}".split())[:300] or type(error).__name__}
        print(json.dumps(answer), file=answers, flush=True)


class Worker:
    """What runs, on inputs of one size.

    Args:
        what: `{"kind": "eager", "name", "args", "precision"}`, `{"kind": "export", "folder"}`, or
            `{"kind": "matmul", "precision"}`; beside it `size` and `threads`.
    """

    def __init__(self, what: dict[str, Any]) -> None:
        torch.set_num_threads(what["threads"])
        self.what = what
        self.before = _peak_memory()
        self._runs: dict[int, Callable[[], object]] = {}
        self.run(1)()

    def measure(self, seconds: float, batch: int = 1) -> dict[str, Any]:
        """Milliseconds of single runs, at least three, for about `seconds`; and peak memory."""
        run = self.run(batch)
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

    def run(self, batch: int) -> Callable[[], object]:
        """A call without arguments that does the work once."""
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
        about = folders.read(folder)
        target = TARGETS[about["target"]]
        if not target.runs_here:
            raise InputError(f"{folder}: {target.name} files do not run on this machine")
        target.require(target.runtime)
        files = about["files"]
        file = files.get("any") or files.get(size_name(self.what["size"]))
        if file is None:
            raise InputError(
                f"{folder} has no file for {size_name(self.what['size'])}, only {', '.join(files)}"
            )
        step = target.batch or batch
        session = target.open(folder / file, about["precision"], self.what["threads"], step)
        images = self._images(batch)
        if about["pixels"] == "uint8":
            images = (images * 255).byte()
        parts = images.split(step)

        def run() -> None:
            for part in parts:
                session(part)

        return run

    def _matmul(self, batch: int) -> Callable[[], object]:
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[self.what["precision"]]
        a, b = (torch.randn(_SIDE, _SIDE).to(kind) for _ in range(2))
        return lambda: a @ b


def matmul_gflop() -> float:
    """Of the product that the kind "matmul" times."""
    return 2 * _SIDE**3 / 1e9


def _peak_memory() -> int:
    """Bytes of the largest resident set so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
