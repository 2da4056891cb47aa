"""OpenVINO: Intel's engine, which is also quick on AMD processors; runs on Arm, too."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openeupe.deploy.quiet import quiet
from openeupe.deploy.targets.onnx import write_onnx
from openeupe.deploy.targets.target import Job, Precision, Session, Target
from openeupe.encoders import Tokens

# What the engine computes in. Left to itself it takes bf16 wherever the processor has it.
INFERENCE = {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "bf16"}


class OpenVino(Target):
    """fp16 and bf16 store halves; bf16 computes in bf16 where the processor can; int8 computes
    what is not quantized in bf16.
    """

    name = "openvino"
    suffix = ".xml"
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
    packages = ("openvino", "onnx", "onnxscript")
    runtime = ("openvino",)
    extra = "openvino"
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
                from openeupe.deploy.quantize import quantize_openvino

                quantize_openvino(job, model, path)
            else:
                # Writes the `.bin` beside it, too.
                openvino.save_model(model, path, compress_to_fp16=job.precision != "fp32")

    def open(self, path: Path, precision: Precision, threads: int, batch: int | None) -> Session:
        import openvino

        model = openvino.Core().read_model(path)
        if batch is not None:
            shape = model.input().get_partial_shape()
            shape[0] = batch
            model.reshape(shape)
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": INFERENCE[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

        def run(images: Tensor) -> Tokens:
            request.infer([images.numpy()])
            cls, patches = (request.get_output_tensor(i).data.copy() for i in range(2))
            return Tokens(torch.from_numpy(cls).float(), torch.from_numpy(patches).float())

        return run

    def files(self, path: Path) -> list[Path]:
        return [path, path.with_suffix(".bin")]
