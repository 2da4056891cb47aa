"""What the scripts share: stages on random weights, and steps timed round by round."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from openeupe.distillation.placement import place
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.stage import Stage
from openeupe.distillation.trainer import Trainer
from openeupe.distributed import Processes
from openeupe.encoders import create
from openeupe.progress import SILENT

Step = Callable[[], Any]


def recipe(
    teachers: Mapping[str, Mapping[str, Any]],
    students: Mapping[str, Mapping[str, Any]],
    resolution: int,
    batch: int,
    precision: str,
    **settings: Any,
) -> Recipe:
    """One stage, called `one`; networks as a recipe writes them, all at `resolution` pixels."""
    folder = Path(tempfile.mkdtemp())
    Image.new("RGB", (8, 8)).save(folder / "unused.png")
    stage = {
        "teachers": {
            k: {"resolution": resolution, "pretrained": False, **t} for k, t in teachers.items()
        },
        "students": {k: {"resolution": resolution, **s} for k, s in students.items()},
        "steps": 1000,
        "batch_size": batch,
        "head_hidden": 3072,
        "optimizer": {"lr": 1e-4},
        "teacher_precision": precision,
        "student_precision": "bf16" if precision == "fp8" else precision,
        **settings,
    }
    data = {"sources": [{"path": str(folder)}]}
    return Recipe.model_validate({"name": "benchmark", "data": data, "stages": {"one": stage}})


def trainer(recipe: Recipe, device: torch.device, teachers: Mapping[str, Any] = {}) -> Trainer:
    """The stage `one` on random weights, placed as a run would place it.

    teachers: networks that are there already. The others are made on the device itself: drawing
    the weights of a large one takes a CPU longer than all its steps take a GPU.
    """
    config = recipe.stages["one"]
    with device:
        made = {
            k: teachers.get(k) or create(t.encoder, **t.args) for k, t in config.teachers.items()
        }
        students = {k: create(s.encoder, **s.args) for k, s in config.students.items()}
        stage = Stage("one", config, made, students, seed=0)
    place(stage, Processes(device))
    stage.train()
    folder = Path(tempfile.mkdtemp())
    return Trainer(stage, recipe.data, folder, Processes(device), SILENT)


def random_images(batch: int, resolution: int, device: torch.device) -> Tensor:
    """uint8 `[batch, 3, S, S]`."""
    return torch.randint(0, 256, (batch, 3, resolution, resolution), device=device).byte()


def running(trainer: Trainer, images: Tensor, cached: dict[str, Tensor] | None = None) -> Step:
    """Steps of a trainer on the same images, with metrics kept on the device."""
    return lambda: trainer.meter.add(trainer.step(images, 0, cached))


def timed(step: Step, device: torch.device, repeat: int = 1) -> tuple[float, float]:
    """Wall and CPU seconds of one call, of `repeat` calls that may overlap on a GPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeat):
        step()
    wait(device)
    return (time.perf_counter() - wall) / repeat, (time.process_time() - cpu) / repeat


def interleaved(
    steps: Mapping[str, Step], device: torch.device, rounds: int, repeat: int = 1, warmup: int = 2
) -> dict[str, list[tuple[float, float]]]:
    """`timed` of every step in every round, by name; warmed up before."""
    for step in steps.values():  # AdamW makes its state, compilers compile
        for _ in range(warmup):
            step()
    wait(device)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(timed(step, device, repeat))
    return times


def medians_ms(pairs: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Median wall and CPU milliseconds."""
    wall, cpu = zip(*pairs, strict=True)
    return statistics.median(wall) * 1e3, statistics.median(cpu) * 1e3


def median_ratio(
    one: list[tuple[float, float]], other: list[tuple[float, float]], device: torch.device
) -> float:
    """Median over rounds of one / other: by the clock on a GPU, else CPU time, which other work
    on the machine disturbs less.
    """
    column = 0 if device.type == "cuda" else 1
    return statistics.median(a[column] / b[column] for a, b in zip(one, other, strict=True))


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def name_of(device: torch.device) -> str:
    """What a table says of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} thread(s)"


class HostReads(TorchDispatchMode):
    """Counts device tensors turned into Python or host values inside the `with` block.

    `.item()`, `float(tensor)` and `if tensor` pass through one operator; `.tolist()`, `.numpy()`
    and `.cpu()` pass by it on a CPU and are counted by name.
    """

    BY_NAME = ("tolist", "numpy", "cpu")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __enter__(self):  # type: ignore[no-untyped-def]
        self.originals = {name: getattr(torch.Tensor, name) for name in self.BY_NAME}
        for name, original in self.originals.items():
            setattr(torch.Tensor, name, self._counted(original))
        return super().__enter__()

    def __exit__(self, *error):  # type: ignore[no-untyped-def]
        for name, original in self.originals.items():
            setattr(torch.Tensor, name, original)
        return super().__exit__(*error)

    def _counted(self, original):  # type: ignore[no-untyped-def]
        def counted(*args, **kwargs):  # type: ignore[no-untyped-def]
            self.count += 1
            return original(*args, **kwargs)

        return counted

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def host_reads(step: Step) -> int:
    """Host reads inside one call."""
    reads = HostReads()
    with reads:
        step()
    return reads.count
