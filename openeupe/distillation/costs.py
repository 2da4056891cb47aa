"""Costs of a recipe by stage, and their tables."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from openeupe.table import Table


@dataclass(frozen=True)
class EncoderCost:
    """One network of a stage. FLOPs count a multiply-add as two, forward only, per image."""

    name: str
    parameters: int
    gflops: float


@dataclass(frozen=True)
class StageCost:
    """Costs of one stage.

    Images, bytes and hours are of the whole stage, memory of one device.

    gflops_per_image: teacher forwards plus three times the student's forward; four times with
        activation checkpointing.

    sharded: networks that are shared among the devices of a node.
    read_gib: encoded images read; None if a source is not on this machine.
    cached_gib: teacher outputs on disk.
    """

    stage: str
    teachers: list[EncoderCost]
    students: list[EncoderCost]
    heads: list[EncoderCost]
    images: int
    statistics_images: int
    gflops_per_image: float
    sharded: list[str]
    memory_gib: float
    read_gib: float | None
    cached_gib: float
    device_hours: float


@dataclass(frozen=True)
class Plan:
    """Costs of a recipe on given devices.

    Attributes:
        recipe: its name.
        device: the kind of device.
        devices: how many of them share a batch.
        efficiency: the share of a device's matrix peak that is reached.
        tflops: sustained TFLOP/s of a device, by precision.
        stages: costs of each stage.
    """

    recipe: str
    device: str
    devices: int
    efficiency: float
    tflops: dict[str, float]
    stages: list[StageCost]

    @property
    def device_hours(self) -> float:
        """Hours of one device for all stages."""
        return sum(stage.device_hours for stage in self.stages)

    def networks(self) -> Table:
        """Parameters and GFLOPs of each network of each stage."""
        rows = []
        for stage in self.stages:
            kinds = {"teacher": stage.teachers, "student": stage.students, "": stage.heads}
            for kind, networks in kinds.items():
                for one in networks:
                    size = f"{one.parameters / 1e6:,.1f}M"
                    rows.append(
                        [stage.stage, f"{kind} {one.name}".strip(), size, f"{one.gflops:,.2f}"]
                    )
        header = ["stage", "network", "parameters", "GFLOP/image"]
        return Table(header, rows, title=f"recipe {self.recipe}")

    def table(self) -> Table:
        """Images, memory, bytes and hours of each stage, with assumptions as notes."""
        columns = ("images", "GFLOP\nan image", "memory\na device", "read", "cached")
        rows = []
        for cost in self.stages:
            read = "data not here" if cost.read_gib is None else f"{cost.read_gib:,.1f} GiB"
            rows.append(
                [
                    cost.stage,
                    _short(cost.images),
                    f"{cost.gflops_per_image:,.1f}",
                    f"> {cost.memory_gib:,.1f} GiB",
                    read,
                    f"{cost.cached_gib:,.1f} GiB" if cost.cached_gib else "",
                    _hours(cost.device_hours),
                ]
            )
        images = sum(cost.images for cost in self.stages)
        rows.append(["all", _short(images), "", "", "", "", _hours(self.device_hours)])
        return Table(["stage", *columns, "device-\nhours"], rows, notes=self._notes())

    def to_json(self) -> list[dict[str, object]]:
        """The costs of each stage, as `openeupe plan --json` prints them."""
        return [dataclasses.asdict(stage) for stage in self.stages]

    def _notes(self) -> list[str]:
        notes = [
            f"{cost.stage}: shared among the devices of a node: {', '.join(cost.sharded)}"
            for cost in self.stages
            if cost.sharded
        ]
        rates = ", ".join(f"{rate:,.2f} TFLOP/s in {name}" for name, rate in self.tflops.items())
        total = self.device_hours
        return [
            *notes,
            f"{self.device} at {rates} sustained (efficiency {self.efficiency:g}): "
            f"{_hours(total)} device-hours, {_hours(total / self.devices)} hours on "
            f"{self.devices}. A multiply-add counts as two FLOPs. Memory is a lower bound: "
            "weights, AdamW, and what autograd saves, each in its precision; a run takes about a "
            "tenth more.",
        ]


def _short(images: int) -> str:
    return f"{images / 1e6:,.1f}M" if images >= 1e6 else f"{images:,}"


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:,.2f}"
