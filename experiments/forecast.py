"""What two cheap measurements predict about a set of teachers before anything is trained.

    python -m experiments.forecast STUDY SETTINGS OUT [--data DATA]

Shared: how well a ridge regression predicts a teacher's frozen tokens from those of all others, on
images that it has not seen. What is shared need not be distilled twice. Agreement: the cosine
between a teacher's gradient in the student and that of all others together, over the first steps. A
teacher with another direction costs the others.

SETTINGS is a YAML file as experiments/claim_forecast.yaml, OUT the study's folder. Where the study
is finished there (`openeupe ablate STUDY --out OUT`), the measurements are correlated with what
leaving each teacher out cost. Prints tables and writes OUT/forecast-STUDY.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from experiments.forecast_agreement import compared, table
from openeupe.ablation.addresses import lineage
from openeupe.ablation.inputs import rooted
from openeupe.ablation.report import results_file
from openeupe.ablation.study import LoadedStudy, load_study
from openeupe.config import Config, check_settings, read_settings
from openeupe.data import Batches
from openeupe.distillation.load import load_networks
from openeupe.distillation.optimizer import build_optimizers, learning_rate, set_lr
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run_folder import Run
from openeupe.distillation.stage import Stage, Views
from openeupe.encoders import Encoder, Tokens
from openeupe.errors import InputError
from openeupe.files import read_mapping, write_atomically
from openeupe.seeds import derive_seed, seed_draws, unchanged_draws

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)  # times the mean square of a row
_ROWS = 2048  # patch tokens of each part: a regression solves a system of as many equations


class ForecastConfig(Config):
    """Which stage of a study is measured, and the arms that show what its teachers are worth."""

    recipe: str
    stage: str | None = Field(None, description="default: the recipe's last")
    student: str | None = None
    full: str | None = Field(None, description="the arm that was trained with all of them")
    without: dict[str, str] = Field(
        {}, description="teacher: the arm that was trained without it, for the correlation"
    )
    alone: dict[str, str] = Field({}, description="teacher: the arm that is its frozen encoder")
    images: int = Field(256, ge=8, description="of the recipe's own")
    batches: int = Field(16, ge=1, description="steps of which gradients are compared")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study")
    parser.add_argument("settings", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=Path())
    options = parser.parse_args()
    loaded = load_study(options.study)
    config = load_config(options.settings, loaded)
    content = measure(config, rooted(seeded(config, loaded), options.data))
    results = read_mapping(results_file(options.out, loaded.study.name))
    if results and config.full:
        content |= compared(
            content["teachers"], results["arms"], config.full, config.without, config.alone
        )
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"forecast-{loaded.study.name}.json"
    write_atomically(file, json.dumps(content, indent=2))
    print(table(content))


def load_config(file: Path, loaded: LoadedStudy) -> ForecastConfig:
    """Read the settings and check them against the study.

    Raises:
        InputError: for unknown names, and for a stage with an earlier stage's student as teacher.
    """
    raw = read_settings("forecast", file, None)
    config = check_settings(ForecastConfig, "forecast", str(file), raw)
    _known("recipe", [config.recipe], loaded.recipes)
    stages = loaded.recipes[config.recipe].stages
    name = config.stage or list(stages)[-1]
    _known("stage", [name], stages)
    _known("student", [config.student] if config.student else [], stages[name].students)
    arms = [*config.without.values(), *config.alone.values()]
    _known("arms", [*arms, *([config.full] if config.full else [])], loaded.study.arms)
    _known("teachers", [*config.without, *config.alone], stages[name].teachers)
    for teacher, encoder in stages[name].teachers.items():
        if encoder.earlier:
            raise InputError(
                f"{file}: stage: teacher {teacher} is an earlier stage's student, and a forecast "
                "trains nothing: name a stage of experts"
            )
    return config


def seeded(config: ForecastConfig, loaded: LoadedStudy) -> Recipe:
    """The study's recipe with its first seed."""
    return loaded.seeded(config.recipe, loaded.study.seeds[0])


def measure(
    config: ForecastConfig, recipe: Recipe, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """Measure a stage's teachers with its own images and untrained student."""
    device = torch.device(device)
    name = config.stage or list(recipe.stages)[-1]
    student = config.student or next(iter(recipe.stages[name].students))
    stage = _stage(lineage(recipe, name, student), name, device)
    batch = min(stage.config.batch_size, config.images)
    steps = -(-config.images // batch)
    iterations = min(stage.config.statistics.iterations, steps)
    stage.measure_statistics(_batches(recipe, stage, batch, iterations, "statistics", device))
    shared = _shared(stage, _batches(recipe, stage, batch, steps, "forecast", device))
    trained = _batches(recipe, stage, batch, config.batches, "train", device)
    with unchanged_draws(device):
        cosines, agreement, pull = _gradients(stage, student, trained)
    teachers = list(stage.teachers)
    return {
        "images": steps * batch,
        "steps": config.batches,
        "teachers": {
            t: {**shared[t], "agreement": agreement[i], "pull": pull[i]}
            for i, t in enumerate(teachers)
        },
        "gradient_cosines": {t: dict(zip(teachers, cosines[i], strict=True))
                             for i, t in enumerate(teachers)},
    }  # fmt: skip


def explained(known: Tensor, wanted: Tensor) -> float:
    """Share of the variance of `wanted [3n, d]` that a ridge regression on `known [3n, k]` tells.

    The first third fits, the second chooses the penalty, the last judges; float64, in its dual
    form. Below 0: worse than the mean.
    """
    fit, choose, judge = (x.double() for x in known.chunk(3))
    truth, chosen, judged = (y.double() for y in wanted.chunk(3))
    centre, mean = fit.mean(0), truth.mean(0)
    fit, choose, judge = fit - centre, choose - centre, judge - centre
    gram = fit @ fit.T
    scale = gram.diagonal().mean().clamp(min=1e-12) * len(fit) / 100
    identity = torch.eye(len(fit), dtype=gram.dtype, device=gram.device)

    def told(penalty: float, rows: Tensor, truth_there: Tensor) -> float:
        weights = torch.linalg.solve(gram + penalty * scale * identity, truth - mean)
        wrong = (rows @ fit.T @ weights + mean - truth_there).square().sum()
        return float(1 - wrong / (truth_there - mean).square().sum().clamp(min=1e-12))

    best = max(_PENALTIES, key=lambda penalty: told(penalty, choose, chosen))
    return told(best, judge, judged)


def _known(field: str, names: list[str], known: Any) -> None:
    for name in names:
        if name not in known:
            raise InputError(f"{field}: there is no {name!r}: use one of {', '.join(known)}")


def _stage(recipe: Recipe, name: str, device: torch.device) -> Stage:
    run, config = Run(Path(), recipe), recipe.stages[name]
    teachers = load_networks(run, name, "teachers", config.teachers)
    students = load_networks(run, name, "students", config.students)
    return Stage(name, config, teachers, students, recipe.seed).to(device)


def _batches(
    recipe: Recipe, stage: Stage, size: int, steps: int, stream: str, device: torch.device
) -> list[tuple[int, Tensor]]:
    """The photos that training would see; `workers` are left out, for there are few."""
    data = recipe.data.model_copy(update={"workers": 0})
    seed = derive_seed(stage.seed, stage.name)
    batches = Batches(data, size, stage.config.largest_resolution, seed, 0, steps, stream)
    return [(batch.step, batch.images.to(device)) for batch in batches]


def _shared(stage: Stage, batches: list[tuple[int, Tensor]]) -> dict[str, dict[str, float]]:
    seen: dict[str, list[Tokens]] = {name: [] for name in stage.teachers}
    for step, images in batches:
        for name, tokens in stage.targets(Views(images), step).items():
            seen[name].append(tokens)
    grid = min(tokens[0].patches.shape[-1] for tokens in seen.values())
    cls = {t: torch.cat([one.cls for one in tokens]) for t, tokens in seen.items()}
    patches = {}
    for name, every in seen.items():
        maps = torch.cat([F.adaptive_avg_pool2d(one.patches, grid) for one in every])
        rows = maps.permute(0, 2, 3, 1).flatten(0, 2)  # photo by photo: thirds share no photo
        places = torch.linspace(0, len(rows) - 1, min(3 * _ROWS, len(rows)), device=rows.device)
        patches[name] = rows[places.long()]
    return {
        name: {f"shared_{kind}": explained(_others(tokens, name), tokens[name])
               for kind, tokens in (("cls", cls), ("patches", patches))}
        for name in stage.teachers
    }  # fmt: skip


def _others(tokens: dict[str, Tensor], name: str) -> Tensor:
    """All others side by side, each scaled to the same mean square: width is no weight."""
    parts = [t / t.square().sum(1).mean().sqrt() for key, t in tokens.items() if key != name]
    return torch.cat(parts, dim=1) if parts else torch.zeros_like(tokens[name][:, :1])


def _gradients(
    stage: Stage, student: str, batches: list[tuple[int, Tensor]]
) -> tuple[list[list[float]], list[float], list[float]]:
    """Cosines between the teachers' gradients, of each with all others', and mean norms' shares."""
    network = cast(Encoder, stage.students[student])
    weights = [p for p in network.parameters() if p.requires_grad]
    config = stage.config.optimizer_of(student)
    batch_size = stage.config.batch_size
    optimizers = build_optimizers(network, stage.heads[student], config, batch_size)
    stage.train()
    count = len(stage.teachers)
    cosines, agreement, norms = torch.zeros(count, count), torch.zeros(count), torch.zeros(count)
    for number, images in batches:
        step = number + config.freeze_backbone_steps  # before, the student has no gradient
        seed_draws(derive_seed(stage.seed, stage.name, step, student), images.device)
        views = Views(images)
        losses = stage.losses(student, views, stage.targets(views, step), step)
        pulls = []
        for teacher in stage.teachers:
            one = stage.total({teacher: losses[teacher]})
            grads = torch.autograd.grad(one, weights, retain_graph=True, allow_unused=True)
            pulls.append(torch.cat([torch.zeros_like(w).flatten() if g is None else g.flatten()
                                    for w, g in zip(weights, grads, strict=True)]))  # fmt: skip
        each = torch.stack(pulls).float()
        rest = each.sum(0) - each
        cosines += (F.normalize(each, dim=1) @ F.normalize(each, dim=1).T).cpu()
        agreement += F.cosine_similarity(each, rest, dim=1).cpu()
        norms += each.norm(dim=1).cpu()
        stage.total(losses).backward()
        for optimizer in optimizers:
            set_lr(optimizer, learning_rate(step, stage.config.steps, len(images), config))
            optimizer.step()
            optimizer.zero_grad()
    n = max(len(batches), 1)
    return (cosines / n).tolist(), (agreement / n).tolist(), (norms / norms.sum()).tolist()


if __name__ == "__main__":
    main()
