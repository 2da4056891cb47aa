"""Six students behind one teacher pass against six runs of one student each.

    python -m benchmarks.family [--batch 8] [--rounds 5] [--device cpu]

The shapes are scaled down so that the teacher's cost stands to the students' as the proxy's to the
paper's six: 0.99 TFLOP an image for the teacher's forward, 0.4 for all students' forwards and
backwards together. The FLOPs that these shapes really have are printed. Rounds are interleaved in
one process; the figure is the median of the ratios (six runs) / (one pass).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console

from benchmarks.peers import timed
from openeupe.distill.parallel import Processes
from openeupe.distill.plan import plan
from openeupe.distill.recipe import Recipe
from openeupe.distill.stage import Stage
from openeupe.distill.trainer import Trainer
from openeupe.encoders import create

SIDE = 128
TEACHER = ("vit_small_patch16_224", {"depth": 22, "embed_dim": 512, "num_heads": 8})
# Three transformers and three ConvNets, each in three sizes, as the family is.
STUDENTS = {
    "vit_t": ("vit_tiny_patch16_224", {"depth": 4, "embed_dim": 96}),
    "vit_s": ("vit_tiny_patch16_224", {"depth": 6, "embed_dim": 144}),
    "vit_b": ("vit_tiny_patch16_224", {"depth": 8, "embed_dim": 192}),
    "net_t": ("convnext_atto", {"dims": (16, 32, 64, 128)}),
    "net_s": ("convnext_atto", {"dims": (24, 48, 96, 192)}),
    "net_b": ("convnext_atto", {"dims": (32, 64, 128, 256)}),
}


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    return parser


def main() -> None:
    given = options().parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    recipe = make_recipe(given.batch, list(STUDENTS))
    cost = plan(recipe, 1.0)[0]
    teacher = sum(t.gflops for t in cost.teachers)
    students = cost.gflops_per_image - teacher
    print(
        f"GFLOP an image: teacher {teacher:.2f}, students {students:.2f}: {teacher / students:.2f}"
    )
    print(f"(the paper's: {0.99 / 0.4:.2f}); by FLOPs alone {ratio(teacher, students):.2f} x")
    family = trainer(recipe, device)
    alone = [trainer(make_recipe(given.batch, [name]), device) for name in STUDENTS]
    images = torch.randint(0, 256, (given.batch, 3, SIDE, SIDE), device=device).byte()

    def one_pass() -> None:
        family.meter.add(family.step(images, 0))

    def six_runs() -> None:
        for one in alone:
            one.meter.add(one.step(images, 0))

    for _ in range(2):
        one_pass()
        six_runs()
    pairs = [(timed(six_runs, device), timed(one_pass, device)) for _ in range(given.rounds)]
    for column, name in enumerate(("wall", "CPU")):
        six, one = (statistics.median(p[i][column] for p in pairs) * 1e3 for i in (0, 1))
        ratios = statistics.median(a[column] / b[column] for a, b in pairs)
        print(f"{name:4} time: six runs {six:8.1f} ms, one pass {one:8.1f} ms: {ratios:.2f} x")


def ratio(teacher: float, students: float) -> float:
    """Six runs over one pass, if nothing but FLOPs counted."""
    return (6 * teacher + students) / (teacher + students)


def make_recipe(batch: int, students: list[str]) -> Recipe:
    """A stage of one teacher and the students named."""
    folder = Path(tempfile.mkdtemp())
    Image.new("RGB", (8, 8)).save(folder / "unused.png")
    name, args = TEACHER
    stage = {
        "teachers": {
            "teacher": {"encoder": name, "args": args, "resolution": SIDE, "pretrained": False}
        },
        "students": {
            k: {"encoder": STUDENTS[k][0], "args": STUDENTS[k][1], "resolution": SIDE}
            for k in students
        },
        "steps": 1000,
        "batch_size": batch,
        "head_hidden": 128,
        "optimizer": {"lr": 1e-4},
        "teacher_precision": "fp32",
        "student_precision": "fp32",
    }
    data = {"sources": [{"path": str(folder)}]}
    return Recipe.model_validate({"name": "family", "data": data, "stages": {"one": stage}})


def trainer(recipe: Recipe, device: torch.device) -> Trainer:
    """The stage on random weights."""
    config = recipe.stages["one"]
    teachers = {k: create(t.encoder, **t.args) for k, t in config.teachers.items()}
    students = {k: create(s.encoder, **s.args) for k, s in config.students.items()}
    stage = Stage("one", config, teachers, students, seed=0).to(device)
    stage.train()
    folder = Path(tempfile.mkdtemp())
    return Trainer(stage, recipe.data, folder, Processes(device), Console(quiet=True))


if __name__ == "__main__":
    main()
