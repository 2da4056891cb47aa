"""Export: write the files, verify them on images, and call only that a success."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openeupe.deployment import export_folder as folders
from openeupe.deployment.config import ExportConfig
from openeupe.deployment.parity import Parity, Proof, as_input, complaint
from openeupe.deployment.sample_images import SampleImages
from openeupe.deployment.targets import TARGETS, Job, Target
from openeupe.encoders import Encoder, check_resolution
from openeupe.encoders.engines import Precision
from openeupe.encoders.export_layout import Size, contents, file_key
from openeupe.encoders.exported import ExportedEncoder
from openeupe.encoders.licences import Licence
from openeupe.errors import InputError
from openeupe.placing import partial_folder, take_place
from openeupe.progress import LOGGED, Progress


class ParityError(Exception):
    """An exported file's tokens differ from the encoder's. It was set aside."""


def export(
    encoder: Encoder,
    folder: Path,
    config: ExportConfig,
    *,
    images: Path | None = None,
    source: str | None = None,
    licences: Mapping[str, Licence] | None = None,
    progress: Progress = LOGGED,
) -> dict[str, Any]:
    """Export `encoder` for a target into `folder`. An earlier export there is replaced.

    Other files in the folder stay. It appears whole, after its files have reached the disk.

    Args:
        images: folder of images for calibration and parity; default: the package registry's.
        source: what the user called the encoder.
        licences: of the published weights it is, or was made from, by name.

    Returns what `export.json` then holds.

    Raises:
        InputError: before any long work, for a combination that cannot be had.
        ParityError: if a file misses its limit; the folder is then saved as `FOLDER.failed`.
    """
    failed_folder = folder.with_name(f"{folder.name}.failed")
    engine, precision = _checked(encoder, config, (folder, failed_folder))
    samples = SampleImages(images, calibrate=precision == "int8")
    with partial_folder(folder, folders.own_files) as part:
        jobs = [
            Job(encoder, size, config.pixels, precision, config.opset)
            for size in config.sizes(encoder.resolution)
        ]
        written = [_write(engine, job, part, samples, progress) for job in jobs]
        about = folders.describe(
            encoder,
            source=source or encoder.name,
            target=config.target,
            precision=precision,
            pixels=config.pixels,
            files={file.key: file.name for file in written},
        )
        about["contents"] = contents(part, config.target, about["files"])
        about["bytes"] = {file.key: file.bytes for file in written}
        about["parity"] = [parity.for_json() for file in written for parity in file.parities]
        about["images"] = samples.counts
        about["notes"] = {file.key: file.notes for file in written if file.notes}
        folders.write(part, about, licences or {})
        failed = [p for file in written for p in file.parities if not p.passed]
        place = failed_folder if failed else folder
        take_place(part, place, folders.own_files)
    if failed:
        raise ParityError(f"parity failed {complaint(failed, precision)}; set aside as {place}")
    return about


def _checked(
    encoder: Encoder, config: ExportConfig, places: tuple[Path, ...]
) -> tuple[Target, Precision]:
    """The target and the precision; what cannot be had is refused."""
    if isinstance(encoder, ExportedEncoder):
        raise InputError(
            f"{encoder.folder} is an export already: give the encoder that it was made from, "
            f"{encoder.about['source']}"
        )
    if config.dynamic and config.resolution:
        raise InputError("dynamic and resolution exclude each other: give one")
    found = _target(config)
    native = (encoder.resolution, encoder.resolution)
    for size in config.sizes(encoder.resolution):
        for length in size or native:
            check_resolution(encoder, length)
    for place in places:
        if not folders.replaceable(place):
            raise InputError(f"{place} is not an export: choose another folder (`out`)")
    return found


def _target(config: ExportConfig) -> tuple[Target, Precision]:
    target, opset = config.target, config.opset
    if target not in TARGETS:
        raise InputError(f"target {target}: use one of {', '.join(TARGETS)}")
    engine = TARGETS[target]
    chosen = config.precision or engine.precisions[0]
    if chosen not in engine.precisions:
        others = [name for name, other in TARGETS.items() if chosen in other.precisions]
        raise InputError(
            f"{target} has no {chosen}: use one of {', '.join(engine.precisions)}"
            + (f", or target {' or '.join(others)}" if others else "")
        )
    if config.dynamic and not engine.dynamic:
        raise InputError(f"{target} files have fixed sizes: give a resolution in place of dynamic")
    if opset is not None and not engine.by_onnx:
        others = [name for name, other in TARGETS.items() if other.by_onnx]
        raise InputError(
            f"opset {opset}: {target} files have none, only {', '.join(others)}: leave it out"
        )
    engine.require(engine.packages)
    return engine, chosen


@dataclass(frozen=True)
class _Written:
    """A file of an export; parities stay empty where it cannot run."""

    key: str
    name: str
    bytes: int
    parities: list[Parity]
    notes: dict[str, Any]


def _write(
    engine: Target, job: Job, part: Path, samples: SampleImages, progress: Progress
) -> _Written:
    """Write one file and check its parity."""
    key = file_key(job.size)
    path = part / f"{'model' if job.size is None else key}{engine.suffix}"
    sizes = _sizes_to_try(job.encoder) if job.size is None else [job.size]
    progress.message(f"{key}: writing {path.name}")
    if job.precision == "int8":
        job.calibration = as_input(samples.calibration(sizes[0]), job.pixels)
        trial = Proof(job.encoder, samples.trial(sizes[0]))
        job.fidelity = lambda file: trial.check(engine, file, job.precision, job.pixels).fidelity
        job.report = lambda line: progress.message(f"{key}: {line}")
    engine.write(job, path)
    parities = []
    if engine.runs_here:
        for size in sizes:
            proof = Proof(job.encoder, samples.proof(size))
            parities.append(proof.check(engine, path, job.precision, job.pixels))
            progress.message(parities[-1].line)
    else:
        note = f"parity NOT CHECKED, {engine.name} does not run on this machine"
        progress.message(f"{key}: {note}")
    return _Written(key, path.name, _bytes(engine.files(path)), parities, job.notes)


def _sizes_to_try(encoder: Encoder) -> list[Size]:
    """Sizes to check a dynamic file at: the native size, a larger and a smaller one, not square."""
    step = encoder.patch_size
    patches = max(encoder.resolution // step, 2)
    return [
        (patches * step, patches * step),
        (patches * step, (patches + max(patches // 2, 1)) * step),
        (max(patches // 2, 1) * step, max(3 * patches // 4, 1) * step),
    ]


def _bytes(files: list[Path]) -> int:
    every = [f for file in files for f in (file.rglob("*") if file.is_dir() else [file])]
    return sum(f.stat().st_size for f in every if f.is_file())
