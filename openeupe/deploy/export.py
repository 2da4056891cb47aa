"""Export: write the files, prove them on photos, and call only that a success."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from openeupe.data import BrokenImage, FolderSource, View
from openeupe.data.photos import registry_photos
from openeupe.deploy import folder as folders
from openeupe.deploy.parity import Parity, as_input, check, complaint
from openeupe.deploy.program import Pixels, Size, size_name
from openeupe.deploy.targets import TARGETS, Job, Precision, Session, Target
from openeupe.encoders import Encoder, check_side
from openeupe.errors import InputError

PHOTOS = 8  # that parity is proved on; calibration never sees them
CALIBRATION = 64  # at most


class ParityError(Exception):
    """A file that does not say what the encoder says; it was set aside."""


def export(
    encoder: Encoder,
    folder: Path,
    *,
    target: str,
    precision: Precision | None = None,
    sizes: Sequence[Size] | None = None,
    dynamic: bool = False,
    pixels: Pixels = "float32",
    images: Path | None = None,
    opset: int = 20,
    source: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write `encoder` for a target into `folder`, replacing an export that lies there.

    Args:
        target: a name of `openeupe.deploy.targets.TARGETS`.
        precision: by default the target's first.
        sizes: (height, width) of each file; default: the encoder's resolution.
        dynamic: one file that takes any multiple of the patch size instead.
        pixels: what the file takes: float32 in [0, 1] or uint8.
        images: folder of photos for calibration and parity; default: the package registry's.
        source: what the user called the encoder.

    Returns what `export.json` then holds.

    Raises:
        InputError: before any long work, for a combination that cannot be had.
        ParityError: if a file misses its limit; the folder is then kept as `FOLDER.failed`.
    """
    console = console or Console(quiet=True)
    engine, precision = _checked(target, precision, dynamic)
    native = (encoder.resolution, encoder.resolution)
    wanted: list[Size | None] = [None] if dynamic else list(sizes or [native])
    for size in wanted:
        for side in size or native:
            check_side(encoder, side)
    if folder.exists() and not (folder / folders.ABOUT).is_file():
        raise InputError(f"{folder} holds something else than an export: choose another --out")
    photos = Photos(images, PHOTOS + (CALIBRATION if precision == "int8" else 0))

    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        part.chmod(0o755)
        files, parities, notes = {}, [], {}
        for size in wanted:
            key = folders.file_key(size)
            path = part / f"{'model' if size is None else key}{engine.suffix}"
            tried = _sizes_to_try(encoder) if size is None else [size]
            proofs = {s: photos.at(s)[:PHOTOS] for s in tried}
            console.print(f"{key}: writing {path.name}", highlight=False)
            job = Job(encoder, size, pixels, precision, opset)
            if precision == "int8":
                seen = photos.at(tried[0])[PHOTOS:]
                job.calibration = as_input(seen, pixels)
                job.fidelity = _fidelity(encoder, engine, job, {tried[0]: seen[:PHOTOS]})
            engine.write(job, path)
            files[key] = path.name
            if engine.runs_here:
                parities += _prove(encoder, engine, path, job, proofs, console)
            else:
                console.print(f"{key}: parity NOT CHECKED, {target} does not run on this machine")
            if job.notes:
                notes[key] = job.notes
        about = folders.describe(
            encoder,
            source=source or encoder.name,
            target=target,
            precision=precision,
            pixels=pixels,
            files=files,
        )
        about["bytes"] = {k: _bytes(engine.files(part / name)) for k, name in files.items()}
        about["parity"] = [parity.said() for parity in parities]
        about["photos"] = photos.said
        about["notes"] = notes
        folders.write(part, about)
        failed = [parity for parity in parities if not parity.passed]
        place = folder.with_name(f"{folder.name}.failed") if failed else folder
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if failed:
        raise ParityError(f"parity failed {complaint(failed, precision)}; set aside as {place}")
    return about


def _checked(target: str, precision: Precision | None, dynamic: bool) -> tuple[Target, Precision]:
    if target not in TARGETS:
        raise InputError(f"--to {target}: use one of {', '.join(TARGETS)}")
    engine = TARGETS[target]
    chosen = precision or engine.precisions[0]
    if chosen not in engine.precisions:
        others = [name for name, other in TARGETS.items() if chosen in other.precisions]
        raise InputError(
            f"{target} has no {chosen}: use one of {', '.join(engine.precisions)}"
            + (f", or --to {' or '.join(others)}" if others else "")
        )
    if dynamic and not engine.dynamic:
        raise InputError(f"{target} files have fixed sizes: give --resolution, not --dynamic")
    engine.require(engine.packages)
    return engine, chosen


class Photos:
    """Photos for proof and calibration, as uint8 `[N, 3, H, W]` of any size.

    Raises:
        InputError: for a folder that is missing or holds too few readable images.
    """

    def __init__(self, folder: Path | None, wanted: int) -> None:
        source = FolderSource(folder or registry_photos())
        # Spread over the folder: neighbours by name are often alike.
        order = torch.linspace(0, len(source) - 1, min(wanted, len(source))).round().long()
        self.images = []
        for index in order.unique().tolist():
            try:
                self.images.append(source.read(index))
            except BrokenImage:
                continue
        least = 2 if wanted <= PHOTOS else PHOTOS + 4
        if len(self.images) < least:
            raise InputError(
                f"--images {folder}: {len(self.images)} readable images, but proof"
                f"{' and calibration' * (wanted > PHOTOS)} need {least} at least: add some"
            )
        # Proof and calibration interleave, so that both see every part of the folder.
        step = max(len(self.images) // PHOTOS, 1)
        proof = self.images[::step][:PHOTOS]
        self.images = proof + [i for i in self.images if not any(i is p for p in proof)]
        self.said = {
            "from": "package registry" if folder is None else str(folder),
            "proof": min(PHOTOS, len(self.images)),
            "calibration": max(len(self.images) - PHOTOS, 0),
        }

    def at(self, size: Size) -> Tensor:
        view = View(*size)
        return torch.stack([view.image(image) for image in self.images])


def _sizes_to_try(encoder: Encoder) -> list[Size]:
    """Where a dynamic file is proved: the native size, a larger and a smaller one, not square."""
    step = encoder.patch_size
    patches = max(encoder.resolution // step, 2)
    return [
        (patches * step, patches * step),
        (patches * step, (patches + max(patches // 2, 1)) * step),
        (max(patches // 2, 1) * step, max(3 * patches // 4, 1) * step),
    ]


def _prove(
    encoder: Encoder,
    engine: Target,
    path: Path,
    job: Job,
    photos: dict[Size, Tensor],
    console: Console,
) -> list[Parity]:
    session = engine.open(path, job.precision, torch.get_num_threads(), engine.batch)

    def opened(size: Size) -> tuple[Session, int | None]:
        return session, engine.batch

    found = check(opened, encoder, photos, job.precision, job.pixels)
    for parity in found:
        console.print(
            f"{size_name(parity.size)}: cosine cls {parity.cls.mean:.6f} "
            f"(worst {parity.cls.worst:.6f}), patches {parity.patches.mean:.6f} "
            f"(worst {parity.patches.worst:.6f}), largest error "
            f"{max(parity.cls.relative_error, parity.patches.relative_error):.1e}: "
            + ("passed" if parity.passed else "FAILED")
            + (f" ({parity.error})" if parity.error else ""),
            soft_wrap=True,
            highlight=False,
        )
    return found


def _fidelity(
    encoder: Encoder, engine: Target, job: Job, photos: dict[Size, Tensor]
) -> Callable[[Path], float]:
    def measure(path: Path) -> float:
        found = _prove(encoder, engine, path, job, photos, Console(quiet=True))
        return min(min(p.cls.mean, p.patches.mean) for p in found)

    return measure


def _bytes(files: list[Path]) -> int:
    every = [f for file in files for f in (file.rglob("*") if file.is_dir() else [file])]
    return sum(f.stat().st_size for f in every if f.is_file())
