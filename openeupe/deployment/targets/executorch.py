"""ExecuTorch with XNNPACK: phones and other small devices; runs on this machine, too."""

from __future__ import annotations

from pathlib import Path

import torch

from openeupe.deployment.program import trace
from openeupe.deployment.quiet import quiet
from openeupe.deployment.targets.target import Job, Target
from openeupe.encoders.engines import ExecuTorch
from openeupe.errors import InputError


class ExecuTorchTarget(ExecuTorch, Target):
    """Fixed sizes and a batch of one: XNNPACK supports one dynamic dimension at most.

    int8 quantizes linear layers with ranges taken at run time: with fixed ranges the tokens of
    transformers are unstable (cosine 0.6 to 0.99).
    """

    packages = ("executorch",)
    dynamic = False
    example = """\
import torch
from executorch.runtime import Runtime

forward = Runtime.get().load_program(file).load_method("forward")
cls, patches = forward.execute([torch.from_numpy(images)])"""

    def write(self, job: Job, path: Path) -> None:
        with quiet():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
                XnnpackPartitioner,
            )
            from executorch.exir import to_edge_transform_and_lower

        program = trace(job.encoder, job.size, pixels=job.pixels, batch=1)
        with self.compiling(job.encoder), torch.no_grad():
            if job.precision == "int8":
                program = _quantized(job, program)
            partitioner = [XnnpackPartitioner()]
            lowered = to_edge_transform_and_lower(program, partitioner=partitioner)
            path.write_bytes(lowered.to_executorch().buffer)


def _quantized(job: Job, program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer()
    quantizer.set_module_type(
        torch.nn.Linear, get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    )
    quantizer.set_operator_type(
        torch.ops.aten.linear.default,
        get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True),
    )
    module = program.module(check_guards=False)
    if not any(node.target == torch.ops.aten.linear.default for node in module.graph.nodes):
        raise InputError(
            f"{job.encoder.name} has no linear layers, which executorch's int8 quantizes: "
            "use target onnx or openvino"
        )
    assert job.calibration is not None
    prepared = prepare_pt2e(module, quantizer)
    prepared(job.calibration[:1])
    job.notes["method"] = "XNNPACK, linear layers, ranges at run time, per channel"
    return torch.export.export(convert_pt2e(prepared), (job.calibration[:1],), strict=False)
