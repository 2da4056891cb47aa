"""`openeupe.load`: one way in for everything that is an encoder."""

from __future__ import annotations

from pathlib import Path

import torch

from openeupe import encoders
from openeupe.data import derive_seed
from openeupe.deploy.exported import ExportedEncoder, is_export
from openeupe.distill.chain import HeadChain, chains
from openeupe.distill.run import Run
from openeupe.encoders import Encoder
from openeupe.errors import InputError

UNTRAINED = "untrained:"


def load(source: str | Path) -> Encoder:
    """Load an encoder with its weights, in eval mode.

    Args:
        source: a run folder (its last stage's student), `RUN/STAGE`, `RUN/STAGE/STUDENT`, any
            folder that `openeupe.encoders.save` or `openeupe export` wrote, one of our names, or a
            timm name, with its published weights; or `untrained:NAME`, with random weights that
            are always the same.

    Raises:
        InputError: in one line, if there is no such encoder or it cannot be read.
    """
    if str(source).startswith(UNTRAINED):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return encoders.create(str(source).removeprefix(UNTRAINED), pretrained=False).eval()
    if is_export(Path(source)):
        return ExportedEncoder(Path(source)).eval()
    folder = _student_folder(Path(source))
    return encoders.load(source if folder is None else folder).eval()


def load_with_chains(source: str | Path) -> tuple[Encoder, dict[str, HeadChain]]:
    """`load`, and the chains of heads that lead to the experts behind a distilled student.

    The chains go by the experts' encoder names; there are none for anything else than a student.
    """
    if is_export(Path(source)):
        return load(source), {}
    folder = _student_folder(Path(source))
    return load(source), chains(Path(source) if folder is None else folder)


def load_stages(run: Run) -> dict[str, Encoder]:
    """What each stage made: `untrained`, then the students of the finished stages, in eval mode.

    `untrained` is the architecture of the last of them with random weights, a function of the
    recipe's seed. A stage's only student goes by the stage's name, several by STAGE/STUDENT.
    Empty while no stage has ended.
    """
    students = {}
    for stage, config in run.recipe.stages.items():
        if run.finished(stage):
            for name in config.students:
                key = stage if len(config.students) == 1 else f"{stage}/{name}"
                students[key] = encoders.load(run.student_folder(stage, name)).eval()
    if not students:
        return {}
    last = students[list(students)[-1]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(run.recipe.seed, "untrained"))
        untrained = encoders.create(last.name, **last.args).eval()
    return {"untrained": untrained, **students}


def _student_folder(path: Path) -> Path | None:
    """The folder of the student that a run folder or a stage of it stands for; else None."""
    if (path / "recipe.yaml").is_file():
        run = Run.open(path)
        stage = list(run.recipe.stages)[-1]
    elif (path.parent / "recipe.yaml").is_file() and not (path / "config.json").is_file():
        run = Run.open(path.parent)
        stage = path.name
        if stage not in run.recipe.stages:
            raise InputError(f"{path}: the run's stages are {', '.join(run.recipe.stages)}")
    else:
        return None
    return run.student_folder(stage)
