"""`openeupe.load`: one way in for everything that is an encoder."""

from __future__ import annotations

from pathlib import Path

from openeupe import encoders
from openeupe.distill.run import Run
from openeupe.encoders import Encoder
from openeupe.errors import InputError


def load(source: str | Path) -> Encoder:
    """Load an encoder with its weights, in eval mode.

    Args:
        source: a run folder (its last stage's student), `RUN/STAGE`, `RUN/STAGE/STUDENT`, any
            folder that `openeupe.encoders.save` wrote, one of our names, or a timm name.

    Raises:
        InputError: in one line, if there is no such encoder or it cannot be read.
    """
    path = Path(source)
    if (path / "recipe.yaml").is_file():
        run = Run.open(path)
        return run.student(list(run.recipe.stages)[-1]).encoder.eval()
    if (path.parent / "recipe.yaml").is_file() and not (path / "config.json").is_file():
        run = Run.open(path.parent)
        if path.name not in run.recipe.stages:
            raise InputError(f"{path}: the run's stages are {', '.join(run.recipe.stages)}")
        return run.student(path.name).encoder.eval()
    return encoders.load(source).eval()
