"""ONNX, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from openeupe.deployment.program import trace
from openeupe.deployment.quiet import quiet
from openeupe.deployment.targets.target import Job, Target
from openeupe.encoders.engines import INPUT, OUTPUTS, OnnxRuntime
from openeupe.encoders.weights import first_line
from openeupe.errors import InputError

OPSET = 20
OPSETS = range(18, 26)  # what torch's exporter writes and ONNX Runtime reads
_LARGE = 1_800_000_000  # bytes; a protobuf file ends at 2 GiB


class OnnxTarget(OnnxRuntime, Target):
    """fp16 stores the matrices in half precision and computes in single."""

    packages = ("onnx", "onnxscript", "onnxruntime")
    by_onnx = True
    example = """\
import onnxruntime

session = onnxruntime.InferenceSession(file)
cls, patches = session.run(None, {"images": images})"""

    def write(self, job: Job, path: Path) -> None:
        if job.precision == "int8":
            from openeupe.deployment.quantize import quantize_onnx

            plain = path.with_name("plain.onnx")
            write_onnx(job, plain)
            try:
                quantize_onnx(job, plain, path)
            finally:
                plain.unlink()
            return
        write_onnx(job, path)
        if job.precision == "fp16":
            store_halves(path)


def write_onnx(job: Job, path: Path) -> None:
    """Write the float32 program. Weights above protobuf's 2 GiB are in a second file.

    Raises:
        InputError: for an unsupported opset or operator.
    """
    opset = OPSET if job.opset is None else job.opset
    if opset not in OPSETS:
        raise InputError(
            f"opset {opset} cannot be written: use {OPSETS.start} to {OPSETS.stop - 1}"
        )
    program = trace(job.encoder, job.size, pixels=job.pixels)
    size = sum(p.numel() * p.element_size() for p in job.encoder.parameters())
    try:
        with quiet():
            exported: Any = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                verbose=False,
            )
            exported.save(path, external_data=size > _LARGE)
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(
            f"{job.encoder.name} cannot be written as ONNX opset {opset} "
            f"({first_line(error)}): try another opset or target"
        ) from error


def store_halves(path: Path) -> None:
    """Store an ONNX file's matrices as float16. Engines fold the casts to float32 on loading.

    Vectors (biases, norms) stay float32: they are small and most sensitive.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        values, name = numpy_helper.to_array(tensor), tensor.name
        if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            continue
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    large = path.with_name(f"{path.name}.data").exists()
    onnx.save(model, path, save_as_external_data=large, location=f"{path.name}.data")
