"""OpenVINO: Intel's engine, which is also quick on AMD processors; runs on Arm, too."""

from __future__ import annotations

import tempfile
from pathlib import Path

from openeupe.deployment.quiet import quiet
from openeupe.deployment.targets.onnx import write_onnx
from openeupe.deployment.targets.target import Job, Target
from openeupe.encoders.engines import OpenVino


class OpenVinoTarget(OpenVino, Target):
    """fp16 and bf16 store halves. bf16 computes in bf16 where the processor can; int8 computes
    what is not quantized in bf16.
    """

    packages = ("openvino", "onnx", "onnxscript")
    by_onnx = True
    example = """\
import openvino

model = openvino.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "INFERENCE"})
cls, patches = model(images).values()"""

    def write(self, job: Job, path: Path) -> None:
        import openvino

        if job.precision == "int8":
            self.require(("nncf",))
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "plain.onnx"
            write_onnx(job, plain)
            with quiet():
                model = openvino.convert_model(plain)
            if job.precision == "int8":
                from openeupe.deployment.quantize import quantize_openvino

                quantize_openvino(job, model, path)
            else:
                # Writes the `.bin` next to it, too.
                openvino.save_model(model, path, compress_to_fp16=job.precision != "fp32")
