"""What can be told of a set of teachers before anything is trained: two cheap measurements.

Shared: how well a ridge regression says a teacher's frozen tokens from those of all others, on
photos that it has not seen. What is shared need not be taught twice. Agreement: the cosine between
a teacher's gradient in the student and that of all others together, over the first steps. A teacher
that pulls elsewhere costs the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from openeupe.ablate.addresses import address, lineage
from openeupe.ablate.study import ForecastConfig, LoadedStudy
from openeupe.data import Batches
from openeupe.distill.load import load_networks
from openeupe.distill.optimizer import build_optimizer, learning_rate, set_lr
from openeupe.distill.recipe import Recipe
from openeupe.distill.run_folder import Run
from openeupe.distill.stage import Stage, Views
from openeupe.encoders import Encoder, Tokens
from openeupe.files import read_mapping, write_atomically
from openeupe.identity import facts_identity
from openeupe.seeds import derive_seed

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)  # times the mean square of a row
_EXACT = 8  # items up to which every order is tried
_ROWS = 2048  # patch tokens of each part: a regression solves a system of as many equations


def forecast_identity(loaded: LoadedStudy) -> str:
    """Identity of a study's forecast: its settings and those of the stage that it measures."""
    config = loaded.study.forecast
    assert config is not None
    recipe = loaded.seeded(config.recipe, loaded.study.seeds[0])
    stage = config.stage or list(recipe.stages)[-1]
    settings = config.model_dump(include={"student", "images", "batches"})
    return facts_identity(settings, address(recipe, stage))


def forecast_file(out: Path, study: str) -> Path:
    """Where a study's forecast is saved."""
    return out / f"forecast-{study}.json"


def read_forecast(loaded: LoadedStudy, out: Path) -> dict[str, Any] | None:
    """What `forecast` wrote for just this study; None if there is no such thing."""
    content = read_mapping(forecast_file(out, loaded.study.name))
    return content if content.get("of") == forecast_identity(loaded) else None


def forecast(
    config: ForecastConfig, recipe: Recipe, file: Path, device: torch.device, of: str
) -> None:
    """Measure a stage's teachers with its own photos and untrained student; write a JSON file.

    Args:
        of: `forecast_identity`, which is written with it.
    """
    name = config.stage or list(recipe.stages)[-1]
    student = config.student or next(iter(recipe.stages[name].students))
    stage = _stage(lineage(recipe, name, student), name, device)
    batch = min(stage.config.batch_size, config.images)
    steps = -(-config.images // batch)
    iterations = min(stage.config.statistics.iterations, steps)
    stage.measure_statistics(_batches(recipe, stage, batch, iterations, "statistics", device))
    shared = _shared(stage, _batches(recipe, stage, batch, steps, "forecast", device))
    trained = _batches(recipe, stage, batch, config.batches, "train", device)
    cosines, agreement, pull = _gradients(stage, student, trained)
    teachers = list(stage.teachers)
    content = {
        "of": of,
        "photos": steps * batch,
        "steps": config.batches,
        "teachers": {
            t: {**shared[t], "agreement": agreement[i], "pull": pull[i]}
            for i, t in enumerate(teachers)
        },
        "gradient_cosines": {t: dict(zip(teachers, cosines[i], strict=True))
                             for i, t in enumerate(teachers)},
    }  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(content, indent=2))


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


def agreement(
    measured: Mapping[str, Mapping[str, float]],
    worth: Mapping[str, Mapping[str, float]],
    alone: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """How well what was told before agreed with what leaving a teacher out then cost.

    Columns have no common unit: each is centred and divided by its spread over the teachers.

    Args:
        measured: by teacher, what `forecast` wrote.
        worth: by teacher and column, how much better the student was with it than without.
        alone: by teacher and column, how good its frozen tokens are; larger is better.

    Returns:
        `mean_worth` by teacher, and by name of a forecast its Spearman correlation with the worth,
        the p of it, and how many pairs it rests on.
    """
    teachers = list(worth)
    columns = [c for c in worth[teachers[0]] if all(c in worth[t] for t in teachers)]
    scaled = {c: _scaled([worth[t][c] for t in teachers]) for c in columns}
    mean = np.mean([scaled[c] for c in columns], axis=0).tolist()
    own = [1 - (measured[t]["shared_cls"] + measured[t]["shared_patches"]) / 2 for t in teachers]
    guesses = {
        "what the others do not know": (own, mean),
        "gradient agreement": ([measured[t]["agreement"] for t in teachers], mean),
    }
    told = [c for c in columns if all(c in alone.get(t, {}) for t in teachers)]
    if told:
        frozen = [v for c in told for v in _scaled([alone[t][c] for t in teachers])]
        guesses["frozen tokens on the column"] = (frozen, [v for c in told for v in scaled[c]])
    found: dict[str, Any] = {"mean_worth": dict(zip(teachers, mean, strict=True))}
    for name, (guess, outcome) in guesses.items():
        rho, p = spearman(guess, outcome)
        found[name] = {"spearman": rho, "p": p, "pairs": len(guess)}
    return found


def spearman(a: list[float], b: list[float]) -> tuple[float, float]:
    """Rank correlation, and the two-sided p of so much among all (or 20,000 random) orders."""
    first, second = _ranks(a), _ranks(b)
    seen = _correlation(first, second)
    random = np.random.default_rng(0)
    orders: Any = (
        (np.array(order) for order in permutations(range(len(b))))
        if len(b) <= _EXACT
        else (random.permutation(len(b)) for _ in range(20_000))
    )
    hits = [abs(_correlation(first, second[order])) >= abs(seen) - 1e-9 for order in orders]
    return seen, float(np.mean(hits))


def _scaled(values: list[float]) -> list[float]:
    array = np.asarray(values)
    found: list[float] = ((array - array.mean()) / (array.std() or 1.0)).tolist()
    return found


def _ranks(values: list[float]) -> Any:
    """Ranks from 0; ties share their mean."""
    array = np.asarray(values, dtype=float)
    below = (array[None] < array[:, None]).sum(1)
    return below + ((array[None] == array[:, None]).sum(1) - 1) / 2


def _correlation(a: Any, b: Any) -> float:
    a, b = a - a.mean(), b - b.mean()
    length = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / length if length else 0.0


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
    batches = Batches(data, size, stage.config.side, seed, 0, steps, stream)
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
    optimizer = build_optimizer(network, stage.heads[student], config)
    stage.train()
    count = len(stage.teachers)
    cosines, agreement, norms = torch.zeros(count, count), torch.zeros(count), torch.zeros(count)
    for number, images in batches:
        step = number + config.heads_first  # before, the student has no gradient
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
        set_lr(optimizer, learning_rate(step, stage.config.steps, len(images), config))
        optimizer.step()
        optimizer.zero_grad()
    n = max(len(batches), 1)
    return (cosines / n).tolist(), (agreement / n).tolist(), (norms / norms.sum()).tolist()
