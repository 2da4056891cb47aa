"""Post-training int8 quantization; layers that break the tokens are left out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from openeupe.deployment.quiet import quiet
from openeupe.deployment.targets.target import Job
from openeupe.encoders.engines import INPUT

_PARTS = 8  # consecutive groups of layers that are left out together


def quantize_onnx(job: Job, plain: Path, path: Path) -> None:
    """Static int8 (QDQ) of `plain` for ONNX Runtime.

    Of a network with attention only matrix products are quantized: with every operator, the class
    token of a small ViT falls to cosine 0.82. Convolutional networks: convolutions, too. Where the
    limit is missed, eighths of the layers are left out.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = plain.with_name("prepared.onnx")
    try:
        with quiet():
            quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared, load_external_data=False).graph
        kinds = ["MatMul", "Gemm"]
        if not any(node.op_type in ("Softmax", "Attention") for node in graph.node):
            kinds.append("Conv")
        layers = [node.name for node in graph.node if node.op_type in kinds]

        def write(left_out: Sequence[str]) -> float:
            with quiet():
                quantize_static(
                    prepared,
                    path,
                    _Reader(job.calibration),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=kinds,
                    nodes_to_exclude=list(left_out),
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod.MinMax,
                )
            return _fidelity(job, path, left_out)

        left_out = [] if write([]) >= job.limit else leave_out(layers, write, job.limit)
    finally:
        prepared.unlink(missing_ok=True)
    job.notes |= {
        "method": f"ONNX Runtime static QDQ, per channel, {' + '.join(kinds)}",
        "layers": len(layers),
        "left_in_float": left_out,
    }


def leave_out(
    layers: Sequence[str], write: Callable[[Sequence[str]], float], limit: float
) -> list[str]:
    """Leave out parts of the layers until the limit is met. Returns those left out.

    Args:
        write: quantizes all but the given layers and returns the file's fidelity; its last call
            is the result.

    The first part that suffices is taken; if none does, the one that helps most, and the search
    continues. It stops when one part of the layers is left; the file then misses its limit.
    """
    left_out: list[str] = []
    size = max(-(-len(layers) // _PARTS), 1)
    parts = [list(layers[start : start + size]) for start in range(0, len(layers), size)]
    while len(parts) > 1:
        tries = []
        for number, part in enumerate(parts):
            tries.append((write([*left_out, *part]), number))
            if tries[-1][0] >= limit:
                return [*left_out, *part]
        left_out += parts.pop(max(tries)[1])
    write(left_out)
    return left_out


def quantize_openvino(job: Job, model: Any, path: Path) -> None:
    """int8 for OpenVINO by NNCF, written to `path`.

    First NNCF's preset for transformers (SmoothQuant, asymmetric activations), which serves
    ConvNeXt better, too; then the one for convolutional networks. Where both miss the limit,
    layers are left out of the nearer one as for ONNX.
    """
    import nncf
    import openvino

    assert job.calibration is not None
    images = [image[None].numpy() for image in job.calibration]
    data = nncf.Dataset(images)
    presets: dict[str, dict[str, Any]] = {
        "transformer": {"model_type": nncf.ModelType.TRANSFORMER},
        "convolutional": {"preset": nncf.QuantizationPreset.MIXED},
    }

    def write(preset: str, left_out: Sequence[str] = ()) -> float:
        with quiet():
            int8 = nncf.quantize(
                model.clone(),
                data,
                subset_size=len(images),
                ignored_scope=nncf.IgnoredScope(names=list(left_out), validate=False),
                **presets[preset],
            )
        openvino.save_model(int8, path, compress_to_fp16=True)
        return _fidelity(job, path, left_out)

    tried: dict[str, float] = {}
    left_out: list[str] = []
    kinds = ("Convolution", "GroupConvolution", "MatMul")
    layers = [
        op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() in kinds
    ]
    for preset in presets:
        tried[preset] = write(preset)
        if tried[preset] >= job.limit:
            break
    best = max(tried, key=lambda name: tried[name])
    if tried[best] < job.limit:
        left_out = leave_out(layers, functools.partial(write, best), job.limit)
    job.notes |= {
        "method": f"NNCF, {best} preset",
        "layers": len(layers),
        "left_in_float": left_out,
        "tried": tried,
    }


def _fidelity(job: Job, path: Path, left_out: Sequence[str]) -> float:
    fidelity = job.fidelity(path)
    job.report(
        f"int8, {len(left_out)} layers left in float: lower mean cosine {fidelity:.4f} on "
        f"trial, {job.limit} wanted"
    )
    return fidelity


class _Reader:
    """Calibration images for ONNX Runtime's quantizer, one at a time."""

    def __init__(self, images: Tensor | None) -> None:
        assert images is not None
        self.left = iter(images.split(1))

    def get_next(self) -> dict[str, Any] | None:
        image = next(self.left, None)
        return None if image is None else {INPUT: image.numpy()}
