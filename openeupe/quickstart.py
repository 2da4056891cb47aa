"""Quickstart: train the three stages on real experts and images, then evaluate."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openeupe.data import Augment, AugmentConfig, BrokenImage, FolderSource, Source, open_source
from openeupe.data.registry_images import registry_photos
from openeupe.distillation.load import load_member
from openeupe.distillation.precision import autocast
from openeupe.distillation.recipe import load_recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.run_folder import Run, load_stages
from openeupe.distributed import one_device
from openeupe.encoders import Encoder, Tokens
from openeupe.errors import InputError
from openeupe.evaluation.features import center_views, encode
from openeupe.evaluation.fidelity import fidelity
from openeupe.evaluation.knn import knn_accuracy
from openeupe.files import strict_json, write_atomically
from openeupe.progress import LOGGED, Progress
from openeupe.report.belonging import Belonging
from openeupe.report.page import write_report
from openeupe.report.seen import Seen, photo_resolution, source_photos
from openeupe.seeds import derive_seed
from openeupe.visualization.figures import save, side_by_side
from openeupe.visualization.images import patch_tokens

_VIEWS = {"train": 288, "heldout": 96}  # crops for the readouts: fitted on, scored on
_KNN_IMAGES = 2000  # of each part, so that a large folder takes minutes


def run_quickstart(
    images: Path | None,
    folder: Path,
    overrides: list[str],
    device: str | torch.device | None,
    progress: Progress = LOGGED,
) -> dict[str, Any]:
    """Run the packaged `quickstart` recipe, then measure and show its students.

    Args:
        images: a folder of images; None takes the package registry's.
        folder: run folder; a second call resumes it.

    Returns the contents of `results.json`.
    """
    started = time.perf_counter()
    if images is None:
        images = registry_photos()
    elif not images.is_dir():
        raise InputError(f"--images {images}: no such folder")
    source = f"data.sources.0.path={json.dumps(str(images.resolve()))}"
    recipe = load_recipe("quickstart", [source, *overrides])
    parts: dict[str, Source] = {
        part: open_source(recipe.data.sources[0], part) for part in ("train", "heldout")
    }
    progress.message(
        f"{len(parts['train'])} photos to learn from, {len(parts['heldout'])} held out: {images}"
    )
    on = one_device(device)
    run = run_recipe(recipe, folder, device=on, progress=progress)
    results, seen = _measure(run, parts, on, progress)
    results["minutes"] = round((time.perf_counter() - started) / 60, 2)
    write_atomically(folder / "results.json", strict_json(results))
    with progress.task("writing the report", 1):
        write_report(folder, seen)
    return results


def _measure(
    run: Run, parts: dict[str, Source], device: torch.device, progress: Progress
) -> tuple[dict[str, Any], Seen]:
    """Fidelity to the experts, kNN accuracy if there are classes, and pictures."""
    stages = list(run.recipe.stages)
    first, last = run.recipe.stages[stages[0]], run.recipe.stages[stages[-1]]
    resolution = last.largest_resolution
    statistics = run.student(stages[0]).statistics
    views = {part: _crops(source, _VIEWS[part], resolution) for part, source in parts.items()}
    groups = views["train"][1]
    experts = {name: load_member(t, t.pretrained).to(device) for name, t in first.teachers.items()}

    def look(name: str, encoder: Encoder, at: int) -> dict[str, Tokens]:
        # In their training precision: these experts take most of the time on a CPU.
        precision = first.teacher_precision if name in experts else "fp32"
        found = {}
        title = f"{name} looks at {at} px"
        with progress.task(title, len(views)) as task, autocast(precision, device):
            for part, (crops, _) in views.items():
                found[part] = encode(encoder, crops, at)
                task.advance()
        return found

    seen = {k: look(k, e, first.teachers[k].resolution[0]) for k, e in experts.items()}
    targets = {
        part: {name: statistics[name](tokens[part]) for name, tokens in seen.items()}
        for part in views
    }
    encoders = {name: encoder.to(device) for name, encoder in load_stages(run).items()}
    resolutions = next(iter(last.students.values())).resolution
    rows = []
    for name, at in [
        *((k, first.teachers[k].resolution[0]) for k in experts),
        *((k, s) for k in encoders for s in resolutions),
    ]:
        tokens = seen[name] if name in experts else look(name, encoders[name], at)
        train, heldout = targets["train"], targets["heldout"]
        r2 = fidelity(tokens["train"], train, tokens["heldout"], heldout, groups)
        rows.append({"encoder": name, "resolution": at, "r2": r2})
    results: dict[str, Any] = {
        "fidelity": rows,
        "encoders": Belonging(run).students,
        "photos": {k: len(v) for k, v in parts.items()},
    }
    seen_photos = _look(run, parts["heldout"], experts, encoders)
    everyone = {
        **{k: (e, first.teachers[k].resolution[0]) for k, e in experts.items()},
        **{k: (e, resolutions[0]) for k, e in encoders.items()},
    }
    results["knn"] = _knn(everyone, parts, progress)
    return results, seen_photos


def _crops(source: Source, count: int, resolution: int) -> tuple[Tensor, Tensor]:
    """About `count` crops of the readable images in turn, and the image of each crop."""
    augment = Augment(AugmentConfig(jitter=0, blur=0, solarize=0), resolution)
    views, photos = [], []
    each = max(1, round(count / len(source)))
    for index in _spread(source, count):
        try:
            image = source.read(index)
        except BrokenImage:
            continue
        for crop in range(each):
            views.append(augment(image, derive_seed("quickstart crops", index, crop)))
            photos.append(index)
    if not views:
        raise InputError(f"no image can be read, beginning with {source.name(0)}")
    return torch.stack(views), torch.tensor(photos)


def _spread(source: Source, limit: int) -> range:
    """At most `limit` evenly spaced indices, so that all classes are covered."""
    return range(0, len(source), max(1, -(-len(source) // limit)))


def _look(
    run: Run, source: Source, experts: dict[str, Encoder], encoders: dict[str, Encoder]
) -> Seen:
    """Draw the PCA colours of held-out images into `pca.png`; return them for the report."""
    photos = source_photos(source, photo_resolution(run))
    tokens = {
        name: [patch_tokens(encoder, photo) for photo in photos]
        for name, encoder in (experts | encoders).items()
    }
    seen = Seen(photos, tokens, list(encoders))
    save(side_by_side(photos, seen.coloured, seen.caption), run.folder / "pca.png")
    return seen


def _knn(
    encoders: dict[str, tuple[Encoder, int]], parts: dict[str, Source], progress: Progress
) -> dict[str, float]:
    """kNN accuracy on the held-out images, if they are in class sub-folders."""
    train, heldout = parts["train"], parts["heldout"]
    if not (isinstance(train, FolderSource) and isinstance(heldout, FolderSource)):
        return {}
    if not train.classes or len(train.classes) < 2:
        return {}
    accuracy = {}
    for name, (encoder, resolution) in encoders.items():
        with progress.task(f"kNN: {name}", 2) as task:
            features, labels = {}, {}
            for part, source in (("train", train), ("heldout", heldout)):
                views, kept = center_views(source, _spread(source, _KNN_IMAGES), resolution)
                features[part] = encode(encoder, views).cls
                labels[part] = torch.tensor([source.label(i) for i in kept])
                task.advance()
            accuracy[name] = knn_accuracy(
                features["train"], labels["train"], features["heldout"], labels["heldout"]
            )
    return accuracy
