"""Encoders as files for devices, and how fast they are here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openeupe.api import EXPORTS
from openeupe.config import check_settings
from openeupe.deployment import export as exporting
from openeupe.deployment import latency as measuring
from openeupe.deployment.config import ExportConfig, read_sizes
from openeupe.deployment.latencies import Latencies
from openeupe.deployment.targets import TARGETS
from openeupe.encoders import Encoder, resolve
from openeupe.encoders.resolver import Written
from openeupe.encoders.sources import Export
from openeupe.errors import InputError
from openeupe.files import folder_name, read_mapping
from openeupe.limits import BATCH, STEPS
from openeupe.progress import LOGGED, Progress
from openeupe.share.origin import origin


@dataclass(frozen=True)
class Exported:
    """An exported folder; `openeupe.load(exported.folder)` runs its files.

    Attributes:
        folder: where its files, `export.json`, `example.py` and `LICENCE.txt` are.
        about: what `export.json` contains: files, shapes, parity with the encoder, images.
    """

    folder: Path
    about: dict[str, Any]

    @property
    def files(self) -> list[Path]:
        """The files, one for each size."""
        return [self.folder / name for name in self.about["files"].values()]

    @property
    def megabytes(self) -> float:
        """Size of all files."""
        return float(sum(self.about["bytes"].values())) / 1e6


def export(
    encoder: Written,
    to: str = "onnx",
    out: str | Path | None = None,
    *,
    images: str | Path | None = None,
    progress: Progress = LOGGED,
    **settings: Any,
) -> Exported:
    """Export an encoder to a target format and verify its tokens.

    Example:
        >>> import openeupe
        >>> made = openeupe.export("raw_pixels", to="onnx", out="app", images="photos")
        >>> [file.name for file in made.files]
        ['224x224.onnx']
        >>> openeupe.load(made.folder).name
        'raw_pixels (onnx fp32)'

    Args:
        encoder: any that `openeupe.load` takes.
        to: onnx, openvino, executorch, aoti or coreml.
        out: folder to write; default: `exports/NAME-TARGET-PRECISION`.
        images: folder of images for calibration and parity; default: the package registry's.
        progress: follows the work; default: the logger `openeupe`.
        **settings: those of `ExportConfig`, such as `precision="int8"`, `resolution=256`,
            `dynamic=True` or `pixels="uint8"`.

    Returns:
        The folder and what it contains.

    Raises:
        InputError: in one line, for a combination that cannot be had.
        ParityError: if a file's tokens are too far from the encoder's; it is then in `OUT.failed`.
    """
    config = check_settings(ExportConfig, "export", "", {"target": to, **settings})
    loaded = resolve(encoder).load()
    name = loaded.name if isinstance(encoder, Encoder) else str(encoder)
    folder = Path(out) if out is not None else _default_folder(name, config)
    about = exporting.export(
        loaded,
        folder,
        config,
        images=None if images is None else Path(images),
        source=name,
        licences=origin(encoder, loaded).experts,
        progress=progress,
    )
    return Exported(folder, about)


def latency(
    encoders: Written | Sequence[Written],
    *,
    resolution: int | str | tuple[int, int] | None = None,
    threads: int | Sequence[int] | None = None,
    rounds: int = 10,
    batch: int = 8,
    progress: Progress = LOGGED,
) -> Latencies:
    """Measure latency, throughput, memory and size here, interleaved with eager PyTorch.

    Example:
        >>> import openeupe
        >>> found = openeupe.latency("raw_pixels", threads=1, rounds=2, batch=2)
        >>> [row.label for row in found.rows]
        ['raw_pixels PyTorch fp32']

    Args:
        encoders: one or more, as `openeupe.load` takes them; exported folders among them.
        resolution: 256, `"512x384"` or (512, 384), height first; default: a file's, or the
            encoder's own.
        threads: numbers of threads; default: 1 and all cores.
        rounds: turns of each contender, of about 0.3 s.
        batch: images at once, for the throughput.
        progress: follows the work; default: the logger `openeupe`.

    Returns:
        The measurements; `print(latencies.table())` shows them. Exported folders keep their rows in
        `latency.json`.

    Raises:
        InputError: in one line, if a contender cannot run at that size or on this machine.
    """
    given = [encoders] if isinstance(encoders, str | Path | Encoder) else encoders
    counts = [threads] if isinstance(threads, int) else threads
    for option, value, least, most in (
        ("rounds", rounds, 2, STEPS),
        ("batch", batch, 1, BATCH),
        *(("threads", count, 1, STEPS) for count in counts or ()),
    ):
        if not least <= value <= most:
            raise InputError(f"{option} {value}: use {least} to {most}")
    wanted = [resolution] if isinstance(resolution, tuple) else read_sizes(resolution)
    if wanted and len(wanted) > 1:
        raise InputError(f"resolution {resolution}: measure one size at a time")
    contenders = [
        measuring.exported(source.path)
        if isinstance(source, Export)
        else measuring.eager(source.load(), "PyTorch fp32")
        for source in map(resolve, given)
    ]
    rows = measuring.measure(
        contenders,
        size=wanted[0] if wanted else None,
        threads=counts,
        rounds=rounds,
        batch=batch,
        progress=progress,
    )
    return Latencies(measuring.machine(), rows)


def _default_folder(name: str, config: ExportConfig) -> Path:
    """Where an encoder is exported to if no place is given.

    Raises:
        InputError: if the export of an encoder with a similar name is there.
    """
    target = TARGETS.get(config.target)
    precision = config.precision or (target.precisions[0] if target else "fp32")
    short = folder_name(name.rstrip("/")).strip("._") or folder_name(Path(name).resolve().name)
    folder = EXPORTS / f"{short}-{config.target}-{precision}"
    before = read_mapping(folder / "export.json").get("source")
    if isinstance(before, str) and before.rstrip("/") != name.rstrip("/"):
        raise InputError(f"{folder} holds the export of {before}: choose another folder (`out`)")
    return folder
