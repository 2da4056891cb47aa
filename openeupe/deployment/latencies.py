"""Latencies of encoders and exported files, and the table of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from openeupe.encoders.export_layout import Size, size_name
from openeupe.table import Table

_NOTE = (
    "{processor}. Batch 1 but for images/s. x eager: medians of rounds in turns; of peak: share of "
    "the matrix-multiply rate measured in the same run, in the precision that is computed in; "
    "empty where that is no faster than fp32 here."
)


@dataclass(frozen=True)
class Row:
    """Results of one contender at one number of threads. Times at batch size 1.

    ratio_median, ratio_minimum: times as fast as the baseline, from rounds in turns.
    memory_mb: growth of the peak resident set while it was loaded and run at batch 1, with this
        and smaller numbers of threads.
    of_peak: share of the machine's matrix-multiply rate, measured in the same run, in the
        precision that its matrices are multiplied in. None where the machine does not multiply
        faster in it than in float32.
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
    of_peak: float | None


@dataclass(frozen=True)
class Latencies:
    """What was measured on one machine.

    Attributes:
        machine: its processor, number of cores and torch.
        rows: results of each contender and number of threads.
    """

    machine: dict[str, Any]
    rows: list[Row]

    def table(self) -> Table:
        """A row for each contender and number of threads."""
        columns = ("ms p50", "p90", "x eager", "by min", "images/s", "memory MB", "of peak")
        rows = [
            [
                row.label, size_name(row.size), f"{row.threads}", f"{row.latency_p50_ms:.1f}",
                f"{row.latency_p90_ms:.1f}", f"{row.ratio_median:.2f}", f"{row.ratio_minimum:.2f}",
                f"{row.images_per_second:.1f}", f"{row.memory_mb:.0f}",
                "" if row.of_peak is None else f"{row.of_peak:.0%}",
                f"{row.megabytes:.1f}", f"{row.parameters_m:.1f}", f"{row.gmacs:.2f}",
            ]
            for row in self.rows
        ]  # fmt: skip
        header = ["contender", "size", "threads", *columns, "file MB", "M params", "GMACs"]
        return Table(header, rows, notes=[_NOTE.format(**self.machine)])

    def to_json(self) -> dict[str, object]:
        """Machine and rows, as `openeupe latency --json` prints them."""
        return {"machine": self.machine, "rows": [asdict(row) for row in self.rows]}
