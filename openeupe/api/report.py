"""The page of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from openeupe.api import EXPORTS
from openeupe.distributed import one_device
from openeupe.progress import LOGGED, Progress
from openeupe.report.page import write_report as write_page
from openeupe.report.seen import see


def write_report(
    run: str | Path,
    out: str | Path | None = None,
    *,
    images: Sequence[str | Path] = (),
    also: Sequence[str] = (),
    results: Sequence[str | Path] = (),
    device: str | torch.device | None = None,
    progress: Progress = LOGGED,
) -> Path:
    """Write the report of a run as one self-contained HTML page.

    Example:
        >>> import openeupe
        >>> openeupe.write_report("runs/mine", images=["photos"]).name
        'report.html'

    Args:
        run: a run folder, finished or not.
        out: the page's file; default: `RUN/report.html`.
        images: files or folders, in place of held-out images of the recipe.
        also: further encoders to show, as `openeupe.load` takes them.
        results: results folders of further encoders.
        device: of the encoders; default: the GPU if there is one.
        progress: follows the work; default: the logger `openeupe`.

    Returns:
        The page's file.

    Raises:
        InputError: in one line, for a folder that is not a run, or a missing image.
    """
    seen = see(
        Path(run),
        images=[Path(path) for path in images],
        also=also,
        device=one_device(device),
        progress=progress,
    )
    page = None if out is None else Path(out)
    return write_page(Path(run), seen, page, [Path(path) for path in results], EXPORTS)
