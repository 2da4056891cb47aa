"""What the training step adds to its networks.

    python -m benchmarks.step [--batch 16] [--rounds 12] [--threads N] [--device cpu]

In one process, interleaved round by round, on the same networks, images and threads:

  whole     `Trainer.step`: resize, teacher, standardization, student, heads, loss, backward,
            clipping, AdamW, metrics kept on the device
  networks  teacher forward, student and heads forward and backward (from fixed gradients), AdamW

Prints the median and smallest ratio whole / networks, and the number of host reads (device
tensors turned into Python numbers) inside a step. Target: at most 1.05, and 0.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode

from openeupe.distill.parallel import Processes
from openeupe.distill.recipe import Recipe
from openeupe.distill.stage import Stage, autocast
from openeupe.distill.trainer import Trainer
from openeupe.encoders import create


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


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--teacher", default="vit_small_patch16_224")
    parser.add_argument("--student", default="vit_tiny_patch16_224")
    parser.add_argument("--hidden", type=int, default=3072)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    return parser


def main() -> None:
    arguments = options().parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    trainer = build(arguments, device)
    shape = (arguments.batch, 3, arguments.side, arguments.side)
    images = torch.randint(0, 256, shape, device=device).byte()
    floor = networks_alone(trainer, images)

    def whole() -> None:
        trainer.meter.add(trainer.step(images, 0))

    for _ in range(2):
        whole()
        floor()
    pairs = [(timed(whole, device), timed(floor, device)) for _ in range(arguments.rounds)]
    ratios = [a / b for a, b in pairs]
    reads = HostReads()
    with reads:
        whole()
    fastest = min(a for a, _ in pairs) / min(b for _, b in pairs)
    cuda = device.type == "cuda"
    where = torch.cuda.get_device_name() if cuda else f"{arguments.threads} threads"
    nets = f"{arguments.teacher} -> {arguments.student}"
    whole_ms, floor_ms = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
    ratio = statistics.median(ratios)
    print(f"{nets}, batch {arguments.batch}, {arguments.side} px")
    print(f"{arguments.precision}, {device} ({where}), {arguments.rounds} interleaved rounds")
    print(f"whole step      {whole_ms:8.1f} ms (median)")
    print(f"networks alone  {floor_ms:8.1f} ms (median)")
    print(f"ratio           {ratio:8.3f} (median), {fastest:.3f} (of the minima)")
    print(f"host reads      {reads.count:8d}")


def build(arguments: argparse.Namespace, device: torch.device) -> Trainer:
    """A one-teacher stage on random weights."""
    folder = Path(tempfile.mkdtemp())
    Image.new("RGB", (8, 8)).save(folder / "unused.png")
    teacher = {"encoder": arguments.teacher, "resolution": arguments.side, "pretrained": False}
    student = {"encoder": arguments.student, "resolution": arguments.side}
    stage = {
        "teachers": {"teacher": teacher},
        "students": {"student": student},
        "steps": 1000,
        "batch_size": arguments.batch,
        "head_hidden": arguments.hidden,
        "optimizer": {"lr": 1e-4},
        "teacher_precision": arguments.precision,
        "student_precision": arguments.precision,
    }
    data = {"sources": [{"path": str(folder)}]}
    recipe = Recipe.model_validate({"name": "step", "data": data, "stages": {"one": stage}})
    built = Stage(
        "one",
        recipe.stages["one"],
        {"teacher": create(arguments.teacher)},
        {"student": create(arguments.student)},
        seed=0,
    ).to(device)
    built.train()
    return Trainer(built, recipe.data, folder, Processes(device), Console(quiet=True))


def networks_alone(trainer: Trainer, images: torch.Tensor):  # type: ignore[no-untyped-def]
    """The same networks and optimizer with nothing between them."""
    stage = trainer.stage
    teacher, student = stage.teachers["teacher"], stage.students["student"]
    heads = stage.heads["student"]["teacher"]  # type: ignore[index]
    pixels = images.float() / 255
    optimizer = trainer.family.learners["student"].optimizer
    with torch.no_grad():
        gradients = [torch.randn_like(t) * 1e-6 for t in heads(student(pixels))]

    def run() -> None:
        with torch.no_grad(), autocast(trainer.config.teacher_precision, pixels.device):
            teacher(pixels)
        with autocast(trainer.config.student_precision, pixels.device):
            outputs = heads(student(pixels))
        torch.autograd.backward(
            list(outputs), [g.to(o.dtype) for g, o in zip(gradients, outputs, strict=True)]
        )
        optimizer.step()
        optimizer.zero_grad()

    return run


def timed(run, device: torch.device) -> float:  # type: ignore[no-untyped-def]
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
