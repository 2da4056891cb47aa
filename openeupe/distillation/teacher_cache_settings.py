"""Settings that cached teacher outputs depend on, saved with them and compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from openeupe.data import RepeatedViews, changed, image_sets
from openeupe.distillation.precision import resolve_precision
from openeupe.distillation.run_folder import difference
from openeupe.distillation.stage import Stage
from openeupe.distillation.teacher_cache import SETTINGS, shards_there
from openeupe.encoders import Encoder
from openeupe.errors import InputError
from openeupe.files import read_mapping, write_atomically
from openeupe.identity import facts_identity

Written = dict[str, Any]  # the mapping in the cache's file of settings


def claim(folder: Path, settings: Written, per_shard: int) -> Written:
    """Create a cache's folder, or check an existing one's settings.

    Teachers that only one of the two has are ignored.

    Returns:
        The settings of the cache as they are in its folder.

    Raises:
        InputError: if it was made with other settings.
    """
    path = folder / SETTINGS
    if not path.is_file():
        if shards_there(folder):
            raise InputError(
                f"{folder} has teacher outputs but no {SETTINGS}, as earlier versions wrote it: "
                "delete the folder or choose another"
            )
        folder.mkdir(parents=True, exist_ok=True)
        made = settings | {"per_shard": per_shard}
        write_atomically(path, json.dumps(made, indent=2))
        return made
    found = read_mapping(path)
    if not {"data", "teachers", "per_shard"} <= found.keys():
        raise InputError(f"{path} is damaged: delete {folder} or choose another folder")
    if others := changed(found["data"], settings["data"]):
        raise InputError(
            f"{folder} holds teacher outputs of other images ({others}): put those images back, "
            "delete it or choose another folder"
        )
    shared = [name for name in settings["teachers"] if name in found["teachers"]]
    before, now = (_compared(one, shared) for one in (found, settings))
    if other := difference(before, now):
        raise InputError(
            f"{folder} holds teacher outputs of other settings ({other}): delete it or choose "
            "another folder"
        )
    return found


def add_teachers(folder: Path, found: Written, settings: Written) -> None:
    """Record the teachers that are added to a cache."""
    teachers = settings["teachers"] | found["teachers"]
    if teachers.keys() != found["teachers"].keys():
        write_atomically(folder / SETTINGS, json.dumps({**found, "teachers": teachers}, indent=2))


def cache_settings(
    stage: Stage,
    views: RepeatedViews,
    device: torch.device,
    images: list[dict[str, object]] | None = None,
) -> Written:
    """Settings that the outputs depend on, as plain data. Teachers by their weights.

    Each image's contents are compared when it is trained on (`Batches`); all else is here.

    Args:
        images: `image_sets` of the views' sources, if they were read before.
    """
    config = stage.config
    return {
        "data": images or image_sets(views.sources),
        "kind": config.teacher_cache,
        "views": views.views,
        "seed": views.seed,
        "resolution": views.augment.resolution,
        "reduced_decode": views.min_resolution is not None,
        "augment": views.augment.config.model_dump(mode="json"),
        "teacher_precision": resolve_precision(config.teacher_precision, device),
        "teachers": {name: _teacher(stage, name, shape) for name, shape in shapes(stage).items()},
    }


def shapes(stage: Stage) -> dict[str, tuple[int, int, int]]:
    """Widths of class and patch tokens and number of patches, by teacher."""
    found = {}
    for name, teacher in cast(Mapping[str, Encoder], stage.teachers).items():
        resolution = stage.config.teachers[name].resolution[0]
        grid = resolution // teacher.patch_size
        found[name] = (teacher.cls_dim, teacher.patch_dim, grid * grid)
    return found


def _teacher(stage: Stage, name: str, shape: tuple[int, int, int]) -> Written:
    about: Written = {"shape": list(shape), "identity": stage.identities[name]}
    if stage.config.teacher_cache == "int8":  # standardized, so only valid with these statistics
        measured = stage.statistics[name].state_dict()
        about["statistics"] = facts_identity({k: v.tolist() for k, v in measured.items()})
    return about


def _compared(settings: Written, teachers: list[str]) -> Written:
    left = {k: v for k, v in settings.items() if k not in ("data", "per_shard")}
    return {**left, "teachers": {name: settings["teachers"][name] for name in teachers}}
