"""Read and check `distillation.json` of a finished student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from openeupe.limits import WIDTH
from openeupe.plain_json import Saved, read_model

_Width = Annotated[int, Field(gt=0, le=WIDTH)]


class _Record(Saved):
    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class TeacherInfo(_Record):
    """A teacher of a student. identity: of its weights. Older files lack what may be None."""

    encoder: str
    args: Mapping[str, object] = Field({})
    pretrained: bool | None = None
    cls_dim: _Width
    patch_dim: _Width
    identity: str | None = None
    resolution: Sequence[int] = ()


class StartInfo(_Record):
    """The encoder that a student started from."""

    encoder: str


class StudentInfo(_Record):
    """How a student was made. images: that it saw. teachers: by name."""

    run: str
    stage: str
    seed: int
    steps: int
    images: int
    head_hidden: _Width
    teachers: Mapping[str, TeacherInfo]
    precision: Mapping[str, str] = Field({})
    device: str = ""
    processes: int = 1
    versions: Mapping[str, str] = Field({})
    start: StartInfo | None = None

    def of(self, teachers: Sequence[str], start: str | None) -> StudentInfo:
        """A copy with some of the teachers and the starting encoder."""
        own = {name: self.teachers[name] for name in teachers}
        started = StartInfo(encoder=start) if start else None
        return self.model_copy(update={"teachers": own, "start": started})


def read_info(path: Path) -> StudentInfo:
    """Read `distillation.json`: teachers and their widths, stage, seed, steps, versions.

    Raises:
        InputError: naming the file and the field that is missing or wrong.
    """
    return read_model(path, StudentInfo, "copy the student again")
