"""What the training step adds to its networks, and how near it comes to the device's limit.

    python -m speed.step [--batch 16 32] [--compile none all] [--rounds 12] [--device cpu]

In one process, interleaved round by round, on the same networks, images and threads:

  whole     `Trainer.step`: resize, teacher, standardization, student, heads, loss, backward,
            clipping, AdamW, metrics kept on the device
  networks  teacher forward, student and heads forward and backward (from fixed gradients), AdamW

A row for each batch size and way to compile: medians, the median ratio whole / networks (target:
at most 1.05), the FLOPs that `plan` counts over the time of the whole step, their share of the
largest matrix product's rate measured here, the allocator's peak, and the number of host reads
(device tensors turned into Python numbers) inside a step (target: 0).
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from openeupe.distillation.devices import device_tflops
from openeupe.distillation.fp8 import Float8Linear, teachers_to_fp8
from openeupe.distillation.plan import plan
from openeupe.distillation.precision import autocast
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.trainer import Trainer
from openeupe.encoders import Encoder, create
from speed import stages


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[16])
    parser.add_argument(
        "--compile", nargs="+", default=["none"], choices=["none", "teachers", "all"]
    )
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--repeat", type=int, default=1, help="steps a round, which may overlap")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--teacher", default="vit_small_patch16_224")
    parser.add_argument("--student", default="vit_tiny_patch16_224")
    parser.add_argument("--hidden", type=int, default=3072)
    parser.add_argument(
        "--precision", default="fp32", choices=["fp32", "bf16", "fp8"], help="fp8: of the teacher"
    )
    return parser


def main() -> None:
    given = options().parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    device = torch.device(given.device)
    peak = device_tflops("this", 1.0)
    print(f"{given.teacher} -> {given.student}, {given.resolution} px, {given.precision}")
    print(f"{stages.name_of(device)}, matrix peak {peak:.3g} TFLOP/s; {given.rounds} rounds")
    print("batch compile  whole ms networks ms  ratio  TFLOP/s  of peak    GiB  host reads")
    with device:
        teacher = create(given.teacher)
    for how in given.compile:  # in this order: a layer that is compiled stays so
        for batch in given.batch:
            try:
                row(given, how, batch, teacher, peak)
            except torch.OutOfMemoryError:
                print(f"{batch:5} {how:8} out of memory", flush=True)


def row(given: argparse.Namespace, how: str, batch: int, teacher: Encoder, peak: float) -> None:
    """Measure and print."""
    device = torch.device(given.device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    recipe = one_to_one(given, batch, compile=how)
    trainer = stages.trainer(recipe, device, {"teacher": teacher})
    images = stages.random_images(batch, given.resolution, device)
    if given.precision == "fp8" and not any(isinstance(m, Float8Linear) for m in teacher.modules()):
        teachers_to_fp8(trainer.stage, images[:2])
    whole = stages.running(trainer, images)
    steps = {"whole": whole, "networks": networks_alone(trainer, images)}
    times = stages.interleaved(steps, device, given.rounds, given.repeat)
    (whole_ms, _), (networks_ms, _) = (stages.medians_ms(times[name]) for name in steps)
    ratio = stages.median_ratio(times["whole"], times["networks"], device)
    tflops = plan(recipe, 1.0)[0].gflops_per_image * batch / whole_ms
    gib = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    reads = stages.host_reads(whole)
    print(
        f"{batch:5} {how:8} {whole_ms:8.1f} {networks_ms:11.1f} {ratio:6.3f} {tflops:8.3g} "
        f"{tflops / peak:8.1%} {gib:6.1f} {reads:11d}",
        flush=True,
    )


def one_to_one(given: argparse.Namespace, batch: int, **settings: Any) -> Recipe:
    """One teacher, one student."""
    return stages.recipe(
        {"teacher": {"encoder": given.teacher}},
        {"student": {"encoder": given.student}},
        given.resolution,
        batch,
        given.precision,
        **{"head_hidden": given.hidden, **settings},
    )


def networks_alone(trainer: Trainer, images: Tensor) -> stages.Step:
    """The same networks and optimizer with nothing between them."""
    student = student_alone(trainer, images, clip=False)
    pixels = images.float() / 255

    def run() -> None:
        with torch.no_grad(), autocast(trainer.config.teacher_precision, pixels.device):
            trainer.stage.teachers["teacher"](pixels)
        student()

    return run


def student_alone(trainer: Trainer, images: Tensor, clip: bool = True) -> stages.Step:
    """Student and heads forward and backward from fixed gradients, clipping, AdamW."""
    stage, learner = trainer.stage, trainer.students.learners["student"]
    student, heads = stage.students["student"], stage.heads["student"]["teacher"]  # type: ignore[index]
    pixels = images.float() / 255

    def outputs() -> Any:
        with autocast(trainer.config.student_precision, pixels.device):
            return heads(student(pixels))

    with torch.no_grad():
        gradients = [torch.randn_like(t) * 1e-6 for t in outputs()]

    def run() -> None:
        torch.autograd.backward(list(outputs()), gradients)
        if clip:
            torch.nn.utils.clip_grad_norm_(learner.parameters, 3.0)
        for optimizer in learner.optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return run


if __name__ == "__main__":
    main()
