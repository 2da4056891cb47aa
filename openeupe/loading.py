"""`openeupe.load`: one way in for everything that is an encoder."""

from __future__ import annotations

from pathlib import Path

from openeupe import encoders
from openeupe.deploy.exported import ExportedEncoder, is_export
from openeupe.distill.adapter_heads import TeacherHeads
from openeupe.distill.chain import HeadChain, chains
from openeupe.distill.run_folder import Run, check_student
from openeupe.distill.student import Widths
from openeupe.encoders import Encoder, released
from openeupe.encoders.weights import read_weights
from openeupe.errors import InputError
from openeupe.seeds import derive_seed, seeded

UNTRAINED = "untrained:"


def load(source: str | Path) -> Encoder:
    """Load an encoder with its weights, in eval mode.

    Args:
        source: a run folder (its last stage's student), `RUN/STAGE` or `RUN/STAGE/STUDENT`;
            a folder in OpenEUPE's, timm's or transformers' (DINOv3) layout; a released EUPE file
            (`EUPE-ViT-T.pt`); `hf-hub:OWNER/NAME` of any of these; what `openeupe export` wrote;
            one of our names, or a timm name, with its published weights; or `untrained:NAME`,
            with random weights that are always the same.

    Raises:
        InputError: in one line, if there is no such encoder or it cannot be read.
    """
    if str(source).startswith(UNTRAINED):
        with seeded(0):
            return encoders.create(str(source).removeprefix(UNTRAINED), pretrained=False).eval()
    if is_export(Path(source)):
        return ExportedEncoder(Path(source)).eval()
    folder = student_folder(Path(source))
    if folder is None:
        check_student(Path(source))
    return encoders.load(source if folder is None else folder).eval()


def load_with_chains(source: str | Path) -> tuple[Encoder, dict[str, HeadChain]]:
    """`load`, and the chains of heads that lead to the experts behind a distilled student.

    The chains go by the experts' encoder names; there are none for anything else than a student.
    """
    if is_export(Path(source)):
        return load(source), {}
    folder = student_folder(Path(source))
    return load(source), chains(Path(source) if folder is None else folder)


def check_precision(encoder: Encoder, precision: str, option: str) -> None:
    """Refuse a precision that would have no effect: an exported file has its own.

    Raises:
        InputError: naming the option.
    """
    if precision != "fp32" and isinstance(encoder, ExportedEncoder):
        raise InputError(f"{option}: {encoder.folder} computes as it was exported: leave it out")


def load_stages(run: Run) -> dict[str, Encoder]:
    """What each stage made: `untrained`, then the students of the finished stages, in eval mode.

    `untrained` is the architecture of the last of them with random weights, a function of the
    recipe's seed. A stage's only student goes by the stage's name, several by STAGE/STUDENT.
    Students that diverged are left out. Empty while no stage has ended.
    """
    students = {}
    for stage, config in run.recipe.stages.items():
        if not run.finished(stage):
            continue
        for name in config.students:
            if name not in run.dropped(stage):
                key = stage if len(config.students) == 1 else f"{stage}/{name}"
                students[key] = encoders.load(run.student_folder(stage, name)).eval()
    if not students:
        return {}
    last = students[list(students)[-1]]
    with seeded(derive_seed(run.recipe.seed, "untrained")):
        untrained = encoders.create(last.name, **last.args).eval()
    return {"untrained": untrained, **students}


def load_heads(source: str | Path) -> dict[str, TeacherHeads]:
    """The adapter heads that lie beside an encoder, by teacher, in eval mode.

    Args:
        source: a distilled student, a folder that `openeupe save` wrote from one, or a released
            EUPE file, whose teacher is the `proxy`. The proxy's statistics and its own heads are
            not published, so that a released file alone cannot do zero-shot classification.

    Raises:
        InputError: if there are no heads, or they are damaged.
    """
    path = student_folder(Path(source)) or Path(source)
    check_student(path)
    if path.is_file():
        parts = released.read_heads(path)
        state = {f"proxy.{kind}.{k}": v for kind, head in parts.items() for k, v in head.items()}
    else:
        state = read_weights(path / "heads.safetensors", f"heads of {source}")
    heads = {}
    for teacher in dict.fromkeys(key.split(".")[0] for key in state):
        try:
            shapes = [[state[f"{teacher}.{kind}.{layer}.weight"].shape for layer in (0, 3)]
                      for kind in ("cls", "patches")]  # fmt: skip
            ours, theirs = (Widths(*(s[i][j] for s in shapes)) for i, j in ((0, 1), (1, 0)))
            heads[teacher] = TeacherHeads(ours, theirs, shapes[0][0][0]).eval()
            part = {k.removeprefix(f"{teacher}."): v for k, v in state.items()
                    if k.startswith(f"{teacher}.")}  # fmt: skip
            heads[teacher].load_state_dict(part)
        except (KeyError, IndexError, RuntimeError) as error:
            raise InputError(f"{path}: the heads for {teacher} are damaged ({error!r})") from None
    return heads


def student_folder(path: Path) -> Path | None:
    """The folder of the student that a run folder or a stage of it stands for; else None."""
    if path.is_file():
        return None
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
