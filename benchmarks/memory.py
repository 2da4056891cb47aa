"""What `plan` says of memory and time, against a run.

    python -m benchmarks.memory [--batch 16] [--checkpoint] [--accumulate 2] [--device cpu]

Three steps of one stage in a process of its own. Memory: on a GPU the allocator's peak; on a CPU
what the process grew by over its imports, at its peak. Time: the share of the device's measured
matrix peak that the fastest step reaches, which is the efficiency that `plan` asks for.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console

from openeupe.distill.devices import device_tflops
from openeupe.distill.parallel import Processes
from openeupe.distill.placement import place
from openeupe.distill.plan import plan
from openeupe.distill.recipe import Recipe
from openeupe.distill.stage import Stage
from openeupe.distill.trainer import Trainer
from openeupe.encoders import create


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--teacher", default="vit_small_patch16_224")
    parser.add_argument("--student", default="vit_small_patch16_224")
    parser.add_argument("--hidden", type=int, default=1536)
    parser.add_argument("--checkpoint", action="store_true", help="checkpoint activations")
    parser.add_argument("--accumulate", type=int, default=1)
    return parser


def main() -> None:
    given = options().parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    before = used(device)
    stage, trainer = build(given, device)
    shape = (given.batch, 3, given.side, given.side)
    images = torch.randint(0, 256, shape, device=device).byte()
    times = []
    for step in range(3):
        start = time.perf_counter()
        trainer.meter.add(trainer.step(images, step))
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    measured = (used(device) - before) / 2**30
    cost = plan(trainer_recipe(given), 1.0)[0]
    tflops = cost.gflops_per_image * given.batch / min(times) / 1e3
    error = cost.memory_gib / measured - 1
    print(f"memory: {cost.memory_gib:.2f} GiB planned, {measured:.2f} measured: {error:+.0%}")
    peak = device_tflops("this", 1.0)
    print(f"time: {min(times) * 1e3:.0f} ms a step, {tflops:.3f} of {peak:.3f} TFLOP/s: ", end="")
    print(f"efficiency {tflops / peak:.2f} ({stage.name})")


def used(device: torch.device) -> int:
    """Bytes at the peak so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def trainer_recipe(given: argparse.Namespace) -> Recipe:
    """One teacher, one student, float32."""
    folder = Path(tempfile.mkdtemp())
    Image.new("RGB", (8, 8)).save(folder / "unused.png")
    student = {"encoder": given.student, "resolution": given.side}
    stage = {
        "teachers": {"teacher": {**student, "encoder": given.teacher, "pretrained": False}},
        "students": {"student": {**student, "checkpoint_activations": given.checkpoint}},
        "steps": 1000,
        "batch_size": given.batch,
        "accumulate": given.accumulate,
        "head_hidden": given.hidden,
        "optimizer": {"lr": 1e-4},
        "teacher_precision": "fp32",
        "student_precision": "fp32",
    }
    data = {"sources": [{"path": str(folder)}]}
    return Recipe.model_validate({"name": "memory", "data": data, "stages": {"one": stage}})


def build(given: argparse.Namespace, device: torch.device) -> tuple[Stage, Trainer]:
    """The stage on its device, and its trainer."""
    recipe = trainer_recipe(given)
    config = recipe.stages["one"]
    teachers, students = ({"teacher": create(given.teacher)}, {"student": create(given.student)})
    stage = Stage("one", config, teachers, students, seed=0)
    place(stage, Processes(device))
    stage.train()
    folder = Path(tempfile.mkdtemp())
    return stage, Trainer(stage, recipe.data, folder, Processes(device), Console(quiet=True))


if __name__ == "__main__":
    main()
