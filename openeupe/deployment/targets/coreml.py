"""Core ML: Apple's devices. Converted anywhere; run and verified on a Mac only."""

from __future__ import annotations

from pathlib import Path

from openeupe.deployment.program import trace
from openeupe.deployment.quiet import quiet
from openeupe.deployment.targets.target import Job, Target
from openeupe.encoders.engines import INPUT, OUTPUTS, CoreMl
from openeupe.errors import InputError


class CoreMlTarget(CoreMl, Target):
    """fp16 stores and computes in halves, as the Neural Engine does. iOS 17 or macOS 14 on."""

    packages = ("coremltools",)
    dynamic = False
    example = """\
import coremltools

model = coremltools.models.MLModel(file)
cls, patches = (model.predict({"images": images})[name] for name in ("cls", "patches"))"""

    def write(self, job: Job, path: Path) -> None:
        if job.pixels == "uint8":
            raise InputError("coreml files take float32 pixels: leave uint8 out")
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
