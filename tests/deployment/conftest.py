"""Small encoders with weights that matter, and one in every format."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from openeupe.deployment.targets import Job, onnx, openvino
from openeupe.encoders import Encoder, create
from openeupe.encoders.licences import licence_of

from .exporting import export

SMALL = {
    "eupe_vit_t": {"depth": 1},
    "eupe_convnext_t": {"depths": [1, 1, 1, 1], "dims": [16, 32, 64, 128]},
    "resnet10t": {"channels": [16, 16, 32, 32], "stem_width": 8},
}


def small(name: str) -> Encoder:
    """A shallow encoder whose layer scales are not near zero, as after training."""
    torch.manual_seed(0)
    encoder = create(name, **SMALL[name]).eval()
    for key, parameter in encoder.named_parameters():
        if "gamma" in key:
            parameter.data.uniform_(-0.5, 0.5)
    return encoder


@pytest.fixture(scope="session")
def vit() -> Encoder:
    return small("eupe_vit_t")


@pytest.fixture(scope="session")
def convnext() -> Encoder:
    return small("eupe_convnext_t")


@pytest.fixture(scope="session")
def exported(vit: Encoder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small ViT in each format, at 64 x 96 pixels; all begin with the same ONNX program."""
    folder = tmp_path_factory.mktemp("exports")
    program = folder / "program.onnx"
    write = onnx.write_onnx

    def write_once(job: Job, path: Path) -> None:
        if not program.exists():
            write(job, program)
        shutil.copy(program, path)

    made = {}
    with pytest.MonkeyPatch.context() as patch:
        for module in (onnx, openvino):
            patch.setattr(module, "write_onnx", write_once)
        for target, precision in [
            ("onnx", "fp32"), ("onnx", "fp16"), ("onnx", "int8"),
            ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"),
        ]:  # fmt: skip
            path = folder / f"{target}-{precision}"
            export(
                vit,
                path,
                target=target,
                precision=precision,
                resolution=[(64, 96)],  # type: ignore[arg-type]
                licences={"eupe_vit_t": licence_of("eupe_vit_t")},
            )
            made[path.name] = path
    return made
