"""Where a stage's numbers go: summed on the device, then JSONL and TensorBoard."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openeupe.distillation.track import Tracker
from openeupe.files import write_atomically
from openeupe.plain_json import parse_json


class Meter:
    """Means of named scalars since the last `flush`, summed on their device.

    Reading a device tensor stalls the host, so nothing is read until `flush`, which reads one
    stacked tensor.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sums: Tensor | None = None
        self.count = 0

    def add(self, values: dict[str, Tensor]) -> None:
        """Take one step's scalars in."""
        self.names = list(values)
        stacked = torch.stack([v.detach().float() for v in values.values()])
        self.sums = stacked if self.sums is None else self.sums + stacked
        self.count += 1

    def flush(self) -> dict[str, float]:
        """Means by name, and a fresh start. The only host read of a training loop."""
        if self.sums is None:
            return {}
        means = dict(zip(self.names, (self.sums / self.count).tolist(), strict=True))
        self.sums, self.count = None, 0
        return means


class MetricsLog:
    """`metrics.jsonl` and tracker of one stage. A resumed stage drops what it will redo."""

    def __init__(
        self,
        folder: Path,
        first_step: int,
        tracker: Tracker,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.path = folder / "metrics.jsonl"
        if self.path.exists():
            kept = [r for r in read_metrics(self.path, report) if r["step"] <= first_step]
            write_atomically(self.path, "".join(json.dumps(r) + "\n" for r in kept))
        self.file = self.path.open("a", encoding="utf-8")
        self.tracker = tracker

    def write(self, record: Mapping[str, float]) -> None:
        """Append one record; `record["step"]` counts finished steps."""
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        scalars = {k: v for k, v in record.items() if isinstance(v, int | float) and k != "step"}
        self.tracker.log(scalars, int(record["step"]))

    def flush(self) -> None:
        """Wait until all records are on the disk."""
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close both."""
        self.file.close()
        self.tracker.close()


def read_metrics(
    path: Path, report: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Records of a `metrics.jsonl`, without its damaged lines.

    Args:
        report: called with a line that names the damaged ones. A last line that was cut by
            a kill is expected, and not named.
    """
    lines = path.read_bytes().splitlines()
    records, damaged = [], []
    for number, line in enumerate(lines, 1):
        try:
            record = parse_json(line)
        except ValueError:
            record = None
        if isinstance(record, dict) and type(record.get("step")) is int:
            records.append(record)
        elif number < len(lines):
            damaged.append(str(number))
    if damaged:
        report(f"{path} is damaged in line {', '.join(damaged[:5])}: left out, the others are used")
    return records
