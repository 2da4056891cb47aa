"""Accuracy against images and CPU minutes while a recipe runs: which student learns fastest?

    python -m experiments.student_curve RECIPE TRAIN TEST --run FOLDER [key=value ...]

TRAIN and TEST are folders with one sub-folder a class. TRAIN is distilled from (labels unused) and
is the kNN's memory; TEST is asked. Every expert, and each stage's student at about twelve points,
gets a kNN accuracy (k = 10, cosine, on class tokens of centre crops at the recipe's resolution).
CPU minutes are this process's own, evaluation left out. Writes FOLDER/curve.json and prints a line
per point.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openeupe.data import View
from openeupe.datasets.classification import ClassFolder
from openeupe.distillation.recipe import load_recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.stage import Stage
from openeupe.encoders import Encoder, create
from openeupe.evaluation.features import Features
from openeupe.evaluation.knn import class_labels, knn_predictions
from openeupe.seeds import derive_seed


class Knn:
    """Views of both folders, kept, so that each evaluation is only forwards."""

    def __init__(self, train: Path, test: Path, resolution: int) -> None:
        self.train, self.test = ClassFolder(train), ClassFolder(test)
        self.view, self.views = View(resolution, resolution), dict[tuple[str, View], Tensor]()

    def __call__(self, encoder: Encoder) -> float:
        features = Features(encoder, batch_size=64, views=self.views)
        train, test = (features.cls(part, self.view) for part in (self.train, self.test))
        found = knn_predictions(train, class_labels(self.train), test, [10])[10]
        return float((found == class_labels(self.test)).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--points", type=int, default=12, help="evaluations a stage")
    parser.add_argument("--no-experts", action="store_true")
    arguments = parser.parse_intermixed_args()
    source = f"data.sources.0={json.dumps({'path': str(arguments.train), 'heldout': 0})}"
    recipe = load_recipe(arguments.recipe, [source, *arguments.overrides])
    first = next(iter(recipe.stages.values()))
    knn = Knn(arguments.train, arguments.test, first.largest_resolution)
    rows: list[dict[str, Any]] = []
    evaluation_s = 0.0

    def add(name: str, encoder: Encoder, **more: Any) -> None:
        nonlocal evaluation_s
        start = time.process_time()
        row = {
            "encoder": name,
            "resolution": first.largest_resolution,
            "knn": round(knn(encoder), 4),
            **more,
        }
        evaluation_s += time.process_time() - start
        rows.append(row)
        print(json.dumps(row), flush=True)

    if not arguments.no_experts:
        for name, teacher in first.teachers.items():
            if not teacher.earlier:
                expert = create(teacher.encoder, pretrained=teacher.pretrained, **teacher.args)
                add(f"expert {name}", expert)
    for stage in recipe.stages.values():
        for name, student in stage.students.items():
            if not student.earlier:
                torch.manual_seed(derive_seed(recipe.seed, "untrained"))
                add(f"untrained {name}", create(student.encoder, **student.args))
    start, evaluation_s = time.process_time(), 0.0

    def on_log(stage: Stage, record: dict[str, float]) -> None:
        steps = stage.config.steps
        logs = max(steps // stage.config.log_every // arguments.points, 1)
        if record["step"] != steps and record["step"] // stage.config.log_every % logs:
            return
        minutes = (time.process_time() - start - evaluation_s) / 60
        for name, student in stage.students.items():
            add(
                f"{stage.name} {name}",
                student,  # type: ignore[arg-type]
                images=int(record["images"]),
                cpu_minutes=round(minutes, 2),
                images_per_s=round(record["images_per_s"], 1),
            )

    run_recipe(recipe, arguments.run, on_log=on_log)
    (arguments.run / "curve.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
