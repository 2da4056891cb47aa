"""Who teaches a student most in ten CPU minutes? Ours, lightly-train and timm on equal terms.

    python -m speed.race measure --peers PYTHON --data FOLDER --out RACE
    python -m speed.race run     --peers PYTHON --data FOLDER --out RACE [--seeds 0 1 2]
    python -m speed.race score   --suite SUITE.yaml --root DATA --out RACE

PYTHON is the interpreter of an environment with lightly-train 0.18 and timm 1.0.31. All contenders
get the same teacher (`dinov2_s_focus` at 126 px), the same images, the same first weights of the
student and the same batch, in fp32 on one thread. `measure` finds each contender's processor
seconds per image and what it spends once (statistics, cached teacher outputs); do it on a quiet
machine. `run` then gives each contender the images that its budget buys, so that runs may go side
by side. `score` evaluates every student and compares ours with each peer, paired by image.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import openeupe
from openeupe.encoders import create, load, save
from openeupe.encoders.backbone import TimmEncoder
from openeupe.seeds import seeded

TEACHER, TEACHER_RESOLUTION = "dinov2_s_focus", 126
RESOLUTION, BATCH = 128, 32
STUDENTS: dict[str, dict[str, Any]] = {
    "resnet10t": {},
    "vit_tiny_patch16_224": {"patch_size": 14, "img_size": 126},
    "mobilenetv3_small_100": {},
}


@dataclass(frozen=True)
class Contender:
    """One way to train: whose, at which learning rate, or by which of our recipes."""

    who: str
    lr: float | None = None
    recipe: str = "short"
    overrides: dict[str, Any] = field(default_factory=dict)


# lightly-train multiplies its rate by sqrt(batch / 1536): 1e-2 trains with 1.4e-3.
CONTENDERS = {
    # What `teacher_cache: auto` decides for ten minutes; `measure` draws too few images for it.
    "ours": Contender(
        "ours",
        overrides={"stages.student.teacher_cache": "bf16", "stages.student.views": 1},
    ),
    "lightly-train": Contender("lightly-train"),
    "lightly-train 1e-2": Contender("lightly-train", 1e-2),
    "timm": Contender("timm"),
    "timm 3e-3": Contender("timm", 3e-3),
}


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["measure", "run", "score", "ours"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--peers", help="Python of the peers' environment")
    parser.add_argument("--data", type=Path, help="folder of training images")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--students", nargs="*", default=list(STUDENTS))
    parser.add_argument("--contenders", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--suite", default="mini")
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--job", type=Path, help="of our own child process")
    return parser


def main() -> None:
    given = options().parse_args()
    torch.set_num_threads(1)
    if given.task == "ours":
        ours(json.loads(given.job.read_text()))
    elif given.task == "score":
        score(given)
    else:
        for student in given.students:
            for name in given.contenders:
                if given.task == "measure":
                    measure(given, student, name)
                else:
                    for seed in given.seeds:
                        compete(given, student, name, seed)


def measure(given: argparse.Namespace, student: str, name: str) -> None:
    """Processor seconds of a short and a longer run: what an image costs, and the start."""
    few, many = (cost(given, student, name, steps) for steps in (6, 18))
    image_s = (many["cpu_s"] - few["cpu_s"]) / (many["images"] - few["images"])
    found = {"image_s": image_s, "start_s": max(few["cpu_s"] - image_s * few["images"], 0.0)}
    (given.out / f"speed-{student}-{name}.json").write_text(json.dumps(found))
    print(f"{student:24}{name:22}{1e3 * image_s:8.1f} ms an image{found['start_s']:8.1f} s once")


def cost(given: argparse.Namespace, student: str, name: str, steps: int) -> dict[str, float]:
    """Carry out a run that is only measured."""
    folder = given.out / "measured" / f"{student}-{name}-{steps}"
    return carried_out(given, student, name, 0, steps, folder)


def compete(given: argparse.Namespace, student: str, name: str, seed: int) -> None:
    """The run that the budget buys; one that is there is not repeated."""
    folder = given.out / f"{given.minutes:g}" / student / name / str(seed)
    if (folder / "student" / "config.json").is_file():
        return
    speed = json.loads((given.out / f"speed-{student}-{name}.json").read_text())
    steps = int((60 * given.minutes - speed["start_s"]) / (speed["image_s"] * BATCH))
    found = carried_out(given, student, name, seed, steps, folder)
    finish(student, seed, folder)
    print(f"{student:24}{name:22}seed {seed}: {found['images']} images, {found['cpu_s']:.0f} s")


def finish(student: str, seed: int, folder: Path) -> None:
    """Save a contender's weights as an encoder, the same way for all of them."""
    encoder = first_weights(student, seed)
    encoder.trunk.load_state_dict(torch.load(folder / "student.pt", weights_only=True))
    save(encoder.eval(), folder / "student")


def carried_out(
    given: argparse.Namespace, student: str, name: str, seed: int, steps: int, folder: Path
) -> dict[str, float]:
    """One run in a process of its own; what it cost."""
    contender = CONTENDERS[name]
    folder.mkdir(parents=True, exist_ok=True)
    job = {
        "data": str(given.data.resolve()),
        "teacher": str(_teacher(given.out)),
        "teacher_name": TEACHER,
        "teacher_resolution": TEACHER_RESOLUTION,
        "student": student,
        "student_args": STUDENTS[student],
        "weights": str(_first(given.out, student, seed)),
        "resolution": RESOLUTION,
        "batch": BATCH,
        "steps": steps,
        "lr": contender.lr,
        "recipe": contender.recipe,
        "overrides": contender.overrides,
        "seed": seed,
        "out": str(folder.resolve()),
    }
    (folder / "job.json").write_text(json.dumps(job))
    if contender.who == "ours":
        command = [sys.executable, "-m", "speed.race", "ours", "--out", str(folder), "--job"]
    else:
        script = Path(__file__).with_name("race_peers.py")
        command = [str(given.peers), str(script), contender.who]
    with (folder / "log.txt").open("w") as log:
        subprocess.run([*command, str(folder / "job.json")], check=True, stdout=log, stderr=log)
    found: dict[str, float] = json.loads((folder / "cost.json").read_text())
    return found


def ours(job: dict[str, Any]) -> None:
    """`openeupe.distill`, from the race's first weights."""
    out, size = Path(job["out"]), job["resolution"]
    encoder = first_weights(job["student"], job["seed"])
    save(encoder, out / "first")
    start = time.process_time()
    stage = "stages.student"
    run = openeupe.distill(
        job["recipe"],
        data=job["data"],
        run=out / "run",
        overrides={
            "seed": job["seed"],
            "budget": None,
            f"{stage}.teachers.teacher.encoder": job["teacher_name"],
            f"{stage}.teachers.teacher.resolution": job["teacher_resolution"],
            f"{stage}.students.student.encoder": str(out / "first"),
            f"{stage}.students.student.resolution": size,
            f"{stage}.batch_size": job["batch"],
            f"{stage}.steps": job["steps"],
            **job["overrides"],
        },
        device="cpu",
    )
    seconds = time.process_time() - start
    student = load(run.folder)
    assert isinstance(student, TimmEncoder)
    torch.save(student.trunk.state_dict(), out / "student.pt")
    images = job["steps"] * job["batch"]
    (out / "cost.json").write_text(json.dumps({"cpu_s": round(seconds, 2), "images": images}))


def first_weights(student: str, seed: int) -> TimmEncoder:
    """The student before training, the same for all contenders."""
    with seeded(seed):
        encoder = create(student, resolution=RESOLUTION, **STUDENTS[student])
    assert isinstance(encoder, TimmEncoder)
    return encoder


def score(given: argparse.Namespace) -> None:
    """Evaluate every student that is there, and print the comparisons."""
    root = given.out / f"{given.minutes:g}"
    for student in given.students:
        runs = {
            name: sorted((root / student / name).glob("*/student"))
            for name in given.contenders
            if (root / student / name).is_dir()
        }
        for name, folders in runs.items():
            for folder in folders:
                results = openeupe.evaluate(folder, suite=given.suite, data=given.root)
                scores = {k: r.score.value for k, r in results.benchmarks.items() if r.score}
                cells = (f"{one} {value:.4g}" for one, value in scores.items())
                print(f"{student:24}{name:22}{folder.parent.name:4}{'  '.join(cells)}", flush=True)


def _teacher(out: Path) -> Path:
    path = out.resolve() / "teacher.pt"
    if not path.is_file():
        teacher: Any = load(TEACHER)
        torch.save(teacher.trunk.state_dict(), path)
    return path


def _first(out: Path, student: str, seed: int) -> Path:
    path = out.resolve() / f"first-{student}-{seed}.pt"
    if not path.is_file():
        torch.save(first_weights(student, seed).trunk.state_dict(), path)
    return path


if __name__ == "__main__":
    main()
