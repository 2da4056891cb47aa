"""Six students behind one teacher pass against six runs of one student each.

    python -m speed.students [--batch 8] [--rounds 5] [--device cpu] [--paper]

The shapes are scaled down so that the teacher's cost stands to the students' as the proxy's to the
paper's six: 0.99 TFLOP an image for the teacher's forward, 0.4 for all students' forwards and
backwards together; `--paper` takes those themselves, for a GPU. The FLOPs that the shapes really
have are printed. Rounds are interleaved in one process; the figure is the median of the ratios
(six runs) / (one pass).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import torch

from openeupe.distillation.plan import plan
from openeupe.distillation.recipe import Recipe
from openeupe.encoders import create
from speed import stages

RESOLUTION = 128
TEACHER: dict[str, Any] = {
    "encoder": "vit_small_patch16_224",
    "args": {"depth": 22, "embed_dim": 512, "num_heads": 8},
}
# Three transformers and three ConvNets, each in three sizes, as the family is.
STUDENTS: dict[str, dict[str, Any]] = {
    "vit_t": {"encoder": "vit_tiny_patch16_224", "args": {"depth": 4, "embed_dim": 96}},
    "vit_s": {"encoder": "vit_tiny_patch16_224", "args": {"depth": 6, "embed_dim": 144}},
    "vit_b": {"encoder": "vit_tiny_patch16_224", "args": {"depth": 8, "embed_dim": 192}},
    "net_t": {"encoder": "convnext_atto", "args": {"dims": (16, 32, 64, 128)}},
    "net_s": {"encoder": "convnext_atto", "args": {"dims": (24, 48, 96, 192)}},
    "net_b": {"encoder": "convnext_atto", "args": {"dims": (32, 64, 128, 256)}},
}
PAPER = [f"eupe_{kind}_{size}" for kind in ("vit", "convnext") for size in "tsb"]


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--paper", action="store_true", help="the proxy and the paper's six")
    return parser


def main() -> None:
    given = options().parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    students = {n: {"encoder": n} for n in PAPER} if given.paper else STUDENTS
    teacher = {"encoder": "eupe_proxy"} if given.paper else TEACHER
    resolution = 256 if given.paper else RESOLUTION

    def recipe(names: Iterable[str]) -> Recipe:
        some = {name: students[name] for name in names}
        hidden = 3072 if given.paper else 128
        return stages.recipe(
            {"teacher": teacher}, some, resolution, given.batch, given.precision, head_hidden=hidden
        )

    cost = plan(recipe(students), 1.0)[0]
    teacher_gflops = sum(t.gflops for t in cost.teachers)
    students_gflops = cost.gflops_per_image - teacher_gflops
    share = teacher_gflops / students_gflops
    print(
        f"GFLOP an image: teacher {teacher_gflops:.2f}, students {students_gflops:.2f}: {share:.2f}"
    )
    by_flops = (6 * teacher_gflops + students_gflops) / (teacher_gflops + students_gflops)
    print(f"(the paper's: {0.99 / 0.4:.2f}); by FLOPs alone {by_flops:.2f} x")
    with device:
        network = {"teacher": create(teacher["encoder"], **teacher.get("args", {}))}
    images = stages.random_images(given.batch, resolution, device)
    family = stages.running(stages.trainer(recipe(students), device, network), images)
    alone = [
        stages.running(stages.trainer(recipe([name]), device, network), images) for name in students
    ]

    def six_runs() -> None:
        for one in alone:
            one()

    steps = {"six": six_runs, "one": family}
    times = stages.interleaved(steps, device, given.rounds)
    for column, name in enumerate(("wall", "CPU")):
        six, one = (stages.medians_ms(times[k])[column] for k in steps)
        print(f"{name:4} time: six runs {six:8.1f} ms, one pass {one:8.1f} ms: {six / one:.2f} x")
    print(f"median ratio {stages.median_ratio(times['six'], times['one'], device):.2f} x", end="")
    print(f" on {stages.name_of(device)}")


if __name__ == "__main__":
    main()
