"""`openeupe.distill` and `openeupe.plan`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from openeupe.api import RUNS
from openeupe.config import Overrides
from openeupe.distillation import plan as planning
from openeupe.distillation.check import check_sources
from openeupe.distillation.costs import Plan
from openeupe.distillation.devices import device_gib, device_has_bf16, device_tflops
from openeupe.distillation.given import with_teachers
from openeupe.distillation.recipe import Recipe, load_recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.run_folder import Run
from openeupe.distillation.teacher_cache_choice import with_caches
from openeupe.distributed import named_device
from openeupe.encoders import Encoder
from openeupe.progress import LOGGED, Progress

AnyRecipe = str | Path | Mapping[str, Any] | Recipe
Images = str | Path | Sequence[str | Path]


def distill(
    recipe: AnyRecipe,
    *,
    data: Images | None = None,
    run: str | Path | None = None,
    overrides: Overrides | None = None,
    teachers: Mapping[str, Encoder] | None = None,
    device: str | torch.device | None = None,
    allow_code: bool = False,
    progress: Progress = LOGGED,
) -> Run:
    """Carry out a recipe: train its students, stage by stage.

    Call it again to resume: what is finished is not done again, and what was interrupted continues
    from its last checkpoint, to the same result.

    Example:
        >>> import openeupe
        >>> stage = {
        ...     "teachers": {"expert": {"encoder": "raw_pixels", "resolution": 64}},
        ...     "students": {"small": {"encoder": "test_resnet", "resolution": 64}},
        ...     "steps": 2, "batch_size": 4, "head_hidden": 16, "optimizer": {"lr": 1e-3},
        ...     "statistics": {"iterations": 1},
        ... }
        >>> recipe = {"name": "tiny", "data": "photos", "stages": {"student": stage}}
        >>> run = openeupe.distill(recipe, run="runs/tiny")
        >>> openeupe.load(run.folder).name
        'test_resnet'

    Args:
        recipe: a recipe file, the name of a packaged recipe, the settings of one as a mapping, or a
            `Recipe`.
        data: images to train on in place of the recipe's: one or more folders, tar shards,
            manifests or addresses.
        run: the run folder; default: `runs/NAME`.
        overrides: settings to change, as `{"stages.student.steps": 1000}` or
            `["stages.student.steps=1000"]`.
        teachers: encoders of your own, by the teacher's name. One that the recipe has is replaced
            in each stage; a new one joins the teachers of the first stage. They are identified by
            their tensors: a run continues only with the same ones.
        device: `cpu`, `cuda`, ...; default: a GPU of each process, if there is one.
        allow_code: whether the recipe may run the functions that its `python:` encoders name.
        progress: follows the work; default: the logger `openeupe`.

    Returns:
        The run folder: `openeupe.load(run.folder)` is the last stage's student.

    Raises:
        InputError: in one line, for a mistake in the recipe or the data.
    """
    loaded = _loaded(recipe, data, overrides, teachers, allow_code)
    folder = Path(run) if run is not None else RUNS / loaded.name
    return run_recipe(loaded, folder, device=named_device(device), progress=progress)


def plan(
    recipe: AnyRecipe,
    *,
    data: Images | None = None,
    overrides: Overrides | None = None,
    teachers: Mapping[str, Encoder] | None = None,
    device: str = "h100",
    devices: int = 1,
    efficiency: float = 0.4,
    allow_code: bool = False,
) -> Plan:
    """Compute what each stage of a recipe will cost. Nothing is trained or downloaded.

    Example:
        >>> import openeupe
        >>> costs = openeupe.plan("eupe", device="h100", devices=256)
        >>> [stage.stage for stage in costs.stages]
        ['proxy', 'student', 'finetuned']
        >>> costs.device_hours > 1000
        True

    Args:
        recipe: as `distill` takes it.
        data: as `distill` takes it; images that are not on this machine are not counted.
        overrides: as `distill` takes them.
        teachers: as `distill` takes them.
        device: a100, h100, h200, b200, l4, l40s, rtx4090, or `this` (measured now).
        devices: how many devices share a batch.
        efficiency: the share of the device's matrix peak that is reached.
        allow_code: as `distill` takes it.

    Returns:
        The costs. `print(plan.table())` shows them.

    Raises:
        InputError: in one line, for a recipe that `distill` would refuse.
    """
    loaded = _loaded(recipe, data, overrides, teachers, allow_code)
    gib, bf16 = device_gib(device), device_has_bf16(device)
    tflops = {
        precision: device_tflops(device, efficiency, precision)
        for precision in sorted(planning.precisions(loaded, bf16))
    }
    sources = check_sources(loaded.data, absent=True)
    if len(sources) == len(loaded.data.sources):
        loaded = with_caches(loaded, sum(map(len, sources)))
    stages = planning.plan(loaded, tflops, devices, gib, bf16=bf16)
    return Plan(loaded.name, device, devices, efficiency, tflops, stages)


def _loaded(
    recipe: AnyRecipe,
    data: Images | None,
    overrides: Overrides | None,
    teachers: Mapping[str, Encoder] | None,
    allow_code: bool,
) -> Recipe:
    """The recipe with its changes, checked."""
    if data is not None:
        paths = [str(path) for path in ([data] if isinstance(data, str | Path) else data)]
        if isinstance(overrides, Mapping):
            overrides = {"data": paths, **overrides}
        else:
            overrides = [f"data={json.dumps(paths)}", *(overrides or [])]
    source = recipe.model_dump(exclude_unset=True) if isinstance(recipe, Recipe) else recipe
    loaded = load_recipe(source, overrides, allow_code=allow_code)
    return with_teachers(loaded, teachers) if teachers else loaded
