"""AOTInductor: PyTorch's own compiler, for servers that have PyTorch's libraries."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from openeupe.deployment.program import trace
from openeupe.deployment.targets.target import Job, Target
from openeupe.encoders.engines import AotInductor
from openeupe.errors import InputError

# Else the compiled loops keep the number of threads that the process had which wrote them.
_CONFIGS = {"cpp.dynamic_threads": True}


class AotiTarget(AotInductor, Target):
    """Machine code for the processor it is written on. Writing needs a C++ compiler."""

    example = """\
import torch

model = torch._inductor.aoti_load_package(file)
cls, patches = model(torch.from_numpy(images))"""

    def write(self, job: Job, path: Path) -> None:
        if not any(shutil.which(compiler) for compiler in ("g++", "clang++", "c++")):
            raise InputError("aoti needs a C++ compiler: install g++")
        program = trace(job.encoder, job.size, pixels=job.pixels)
        with self.compiling(job.encoder):
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs=_CONFIGS
            )
