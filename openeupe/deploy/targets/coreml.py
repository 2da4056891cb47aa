"""Core ML: Apple's devices. Converted anywhere; run, and so proved, on a Mac only."""

from __future__ import annotations

import platform
from pathlib import Path

import torch
from torch import Tensor

from openeupe.deploy.program import INPUT, OUTPUTS, trace
from openeupe.deploy.quiet import quiet
from openeupe.deploy.targets.target import Job, Precision, Session, Target
from openeupe.encoders import Tokens
from openeupe.errors import InputError


class CoreMl(Target):
    """fp16 stores and computes in halves, as the Neural Engine does. iOS 17 or macOS 14 on."""

    name = "coreml"
    suffix = ".mlpackage"
    precisions: tuple[Precision, ...] = ("fp16", "fp32")
    packages = ("coremltools",)
    runtime = ("coremltools",)
    extra = "coreml"
    batch = 1
    dynamic = False
    runs_here = platform.system() == "Darwin"
    example = """\
import coremltools

model = coremltools.models.MLModel(file)
cls, patches = (model.predict({"images": images})[name] for name in ("cls", "patches"))"""

    def write(self, job: Job, path: Path) -> None:
        if job.pixels == "uint8":
            raise InputError("coreml files take float32 pixels: leave --uint8 out")
        with quiet():
            import coremltools

        program = trace(job.encoder, job.size, pixels=job.pixels, batch=1).run_decompositions({})
        kinds = {"fp16": coremltools.precision.FLOAT16, "fp32": coremltools.precision.FLOAT32}
        with self.compiling(job.encoder):
            model = coremltools.convert(
                program,
                inputs=[coremltools.TensorType(name=INPUT, shape=(1, 3, *(job.size or ())))],
                outputs=[coremltools.TensorType(name=name) for name in OUTPUTS],
                compute_precision=kinds[job.precision],
                minimum_deployment_target=coremltools.target.iOS17,
                skip_model_load=True,
            )
            model.save(str(path))

    def open(self, path: Path, precision: Precision, threads: int, batch: int | None) -> Session:
        if not self.runs_here:
            raise InputError("Core ML files run on a Mac only: copy the folder to one")
        import coremltools

        model = coremltools.models.MLModel(str(path))

        def run(images: Tensor) -> Tokens:
            said = model.predict({INPUT: images.contiguous().numpy()})
            return Tokens(*(torch.from_numpy(said[name]).float() for name in OUTPUTS))

        return run
