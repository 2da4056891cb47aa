"""int8 by post-training quantization, with layers left out where they break the tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from openeupe.deploy.program import INPUT
from openeupe.deploy.targets.onnx import quiet
from openeupe.deploy.targets.target import Job

_PARTS = 8  # consecutive groups of layers that are left out together


def quantize_onnx(job: Job, plain: Path, path: Path) -> None:
    """Static int8 (QDQ) of `plain` for ONNX Runtime.

    Of a network with attention only matrix products are quantized: with every operator, the class
    token of a small ViT falls to cosine 0.82. Convolutional networks: convolutions, too. Where the
    limit is missed, eighths of the layers are left out, each time the one that helps most.
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

        def write(left_out: Sequence[str]) -> None:
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

        left_out = leave_out(layers, write, lambda: job.fidelity(path), job.limit)
    finally:
        prepared.unlink(missing_ok=True)
    job.notes |= {
        "method": f"ONNX Runtime static QDQ, per channel, {' + '.join(kinds)}",
        "layers": len(layers),
        "left_in_float": left_out,
    }


def leave_out(
    layers: Sequence[str],
    write: Callable[[Sequence[str]], None],
    fidelity: Callable[[], float],
    limit: float,
) -> list[str]:
    """Quantize with as many layers as the limit allows; returns those left in float.

    The last `write` is the one that counts. Gives up (leaving the best try) when all are left out.
    """
    left_out: list[str] = []
    write(left_out)
    if fidelity() >= limit:
        return left_out
    size = max(-(-len(layers) // _PARTS), 1)
    parts = [list(layers[start : start + size]) for start in range(0, len(layers), size)]
    while len(parts) > 1:
        tries = []
        for number, part in enumerate(parts):
            write([*left_out, *part])
            tries.append((fidelity(), number))
        best, number = max(tries)
        left_out += parts.pop(number)
        if best >= limit:
            break
    write(left_out)
    return left_out


def quantize_openvino(job: Job, model: Any, path: Path) -> None:
    """int8 for OpenVINO by NNCF, written to `path`.

    First NNCF's preset for transformers (SmoothQuant, asymmetric activations), which serves
    ConvNeXt better, too; then the one for convolutional networks; the nearer one is kept. Where
    both miss the limit, NNCF's accuracy control gives layers back to float until it is met.
    """
    import nncf

    from openeupe.deploy.targets.openvino import save

    assert job.calibration is not None
    images = [image[None].numpy() for image in job.calibration]
    data = nncf.Dataset(images)
    presets: dict[str, dict[str, Any]] = {
        "transformer": {"model_type": nncf.ModelType.TRANSFORMER},
        "convolutional": {"preset": nncf.QuantizationPreset.MIXED},
    }
    tried: dict[str, float] = {}
    for name, settings in presets.items():
        with quiet():
            int8 = nncf.quantize(model.clone(), data, subset_size=len(images), **settings)
        save(int8, path, halves=True)
        tried[name] = job.fidelity(path)
        if tried[name] >= job.limit:
            job.notes |= {"method": f"NNCF, {name} preset", "tried": tried}
            return

    best = max(tried, key=lambda name: tried[name])
    with quiet():
        int8 = _with_accuracy_control(job, model, data, presets[best], len(images))
    save(int8, path, halves=True)
    job.notes |= {"method": f"NNCF, {best} preset, accuracy control", "tried": tried}


def _with_accuracy_control(
    job: Job, model: Any, data: Any, settings: dict[str, Any], count: int
) -> Any:
    """Layers back to float until the tokens' cosine to the float model's meets the limit."""
    import nncf
    import openvino

    from openeupe.deploy.targets.openvino import INFERENCE

    assert job.calibration is not None
    images = [image[None].numpy() for image in job.calibration[:8]]
    device = {"INFERENCE_PRECISION_HINT": INFERENCE["fp32"]}
    plain = openvino.compile_model(model, "CPU", device)
    expected = [[np.array(out) for out in plain(image).values()] for image in images]

    def validate(compiled: Any, numbers: Iterable[int]) -> tuple[float, list[float]]:
        cosines = []
        for number in numbers:
            said = list(compiled(images[number]).values())
            pairs = zip(expected[number], said, strict=True)
            cosines.append(min(_cosine(true, other) for true, other in pairs))
        return float(np.mean(cosines)), cosines

    return nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=data,
        validation_dataset=nncf.Dataset(list(range(len(images)))),
        validation_fn=validate,
        max_drop=1 - (job.limit + 0.002),
        subset_size=count,
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            ranking_subset_size=4, num_ranking_workers=1
        ),
        **settings,
    )


def _cosine(true: Any, said: Any) -> float:
    a, b = (x.reshape(x.shape[0], x.shape[1], -1).astype(np.float64) for x in (true, said))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / np.maximum(norms, 1e-30)).mean())


class _Reader:
    """Calibration photos, one at a time, as ONNX Runtime's quantizer asks for them."""

    def __init__(self, images: Tensor | None) -> None:
        assert images is not None
        self.left = iter(images.split(1))

    def get_next(self) -> dict[str, Any] | None:
        image = next(self.left, None)
        return None if image is None else {INPUT: image.numpy()}
