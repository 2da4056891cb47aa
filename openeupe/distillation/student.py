"""Finished students: encoder, adapter heads and teacher statistics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from openeupe import encoders
from openeupe.distillation.adapter_heads import TeacherHeads
from openeupe.distillation.saved import StudentInfo, read_info
from openeupe.distillation.standardize import Standardizer
from openeupe.encoders import Encoder, Tokens, released, resolve
from openeupe.encoders.openeupe_folder import written_whole
from openeupe.encoders.run_layout import check_student
from openeupe.encoders.sources import File
from openeupe.encoders.weights import first_line, read_weights
from openeupe.errors import InputError

_HEADS = "heads.safetensors"
_STATISTICS = "statistics.safetensors"
DISTILLATION = "distillation.json"


@dataclass
class DistilledStudent:
    """A student with its adapter heads and teacher statistics.

    heads, statistics: by teacher name. info: as in `distillation.json`.
    """

    encoder: Encoder
    heads: dict[str, TeacherHeads]
    statistics: dict[str, Standardizer]
    info: StudentInfo

    def predict(self, tokens: Tokens, teacher: str) -> Tokens:
        """Predict the teacher's standardized tokens from the student's."""
        return self.heads[teacher](tokens)


def save_student(
    folder: Path,
    student: Encoder,
    heads: Mapping[str, nn.Module],
    statistics: Mapping[str, nn.Module],
    info: StudentInfo,
) -> None:
    """Save the encoder folder with heads and statistics, flushed to the disk."""
    with written_whole(folder) as part:
        encoders.save(student, part)
        save_file(_flat(heads), part / _HEADS)
        save_file(_flat(statistics), part / _STATISTICS)
        (part / DISTILLATION).write_text(json.dumps(info.model_dump(), indent=2), encoding="utf-8")


def student_files(folder: Path) -> list[Path]:
    """Files of a finished student."""
    names = ("config.json", "model.safetensors", _HEADS, _STATISTICS, DISTILLATION)
    return [folder / name for name in names]


def load_student(folder: Path) -> DistilledStudent:
    """Read what `save_student` wrote."""
    encoder = encoders.load(folder)
    try:
        info = read_info(folder / DISTILLATION)
        heads_state, statistics_state = load_file(folder / _HEADS), load_file(folder / _STATISTICS)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder} is not a student that a stage finished: {error}") from None
    heads: dict[str, TeacherHeads] = {}
    statistics: dict[str, Standardizer] = {}
    try:
        for name, widths in info.teachers.items():
            teacher = Widths(widths.cls_dim, widths.patch_dim)
            heads[name] = TeacherHeads(encoder, teacher, info.head_hidden).eval()
            heads[name].load_state_dict(_part(heads_state, name))
            statistics[name] = Standardizer(teacher)
            statistics[name].load_state_dict(_part(statistics_state, name))
    except RuntimeError as error:
        raise InputError(
            f"{folder}: {_HEADS} and {_STATISTICS} do not fit {DISTILLATION} "
            f"({first_line(error)}): copy the student again"
        ) from None
    return DistilledStudent(encoder, heads, statistics, info)


def load_heads(source: str | Path) -> dict[str, TeacherHeads]:
    """Load the adapter heads of an encoder, by teacher, in eval mode.

    Args:
        source: a distilled student, a folder that `openeupe save` wrote from one, or a released
            EUPE file, whose teacher is the `proxy`. The proxy's statistics and its own heads are
            not published, so that a released file alone cannot do zero-shot classification.

    Raises:
        InputError: if there are no heads, or they are damaged.
    """
    resolved = resolve(source)
    path = resolved.path if isinstance(resolved, File) else resolved.folder()
    if path is None:
        raise InputError(
            f"{source} has no adapter heads: give a run, a student, or a released file"
        )
    check_student(path)
    if path.is_file():
        parts = released.read_heads(path)
        state = {f"proxy.{kind}.{k}": v for kind, head in parts.items() for k, v in head.items()}
    else:
        state = read_weights(path / _HEADS, f"heads of {source}")
    heads = {}
    for teacher in dict.fromkeys(key.split(".")[0] for key in state):
        try:
            shapes = [[state[f"{teacher}.{kind}.{layer}.weight"].shape for layer in (0, 3)]
                      for kind in ("cls", "patches")]  # fmt: skip
            ours, theirs = (Widths(*(s[i][j] for s in shapes)) for i, j in ((0, 1), (1, 0)))
            heads[teacher] = TeacherHeads(ours, theirs, shapes[0][0][0]).eval()
            heads[teacher].load_state_dict(_part(state, teacher))
        except (KeyError, IndexError, RuntimeError) as error:
            raise InputError(f"{path}: the heads for {teacher} are damaged ({error!r})") from None
    return heads


@dataclass
class Widths:
    """Token widths of a teacher that is not loaded."""

    cls_dim: int
    patch_dim: int


def _flat(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }


def _part(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
