"""Engines besides ONNX Runtime and OpenVINO, each where it is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import openeupe
from openeupe.deployment.targets import TARGETS
from openeupe.encoders import Encoder
from openeupe.encoders.engines import Precision
from openeupe.errors import InputError

from .conftest import small
from .exporting import export


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_executorch_runs_one_image_of_a_fixed_size(
    vit: Encoder, tmp_path: Path, precision: Precision
) -> None:
    pytest.importorskip("executorch")
    said = export(
        vit, tmp_path / "pte", target="executorch", precision=precision, resolution=[(64, 96)]
    )
    assert said["parity"][0]["passed"]
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected = vit(images).cls
    got = openeupe.load(tmp_path / "pte")(images).cls
    assert torch.cosine_similarity(expected, got).min() > 0.98


@pytest.mark.slow
def test_executorch_calls_nothing_int8_that_stays_float(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    encoder, sizes = small("resnet10t"), [(64, 64)]
    with pytest.raises(InputError, match="has no linear layers, which executorch's int8"):
        export(encoder, tmp_path / "pte", target="executorch", precision="int8", resolution=sizes)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor compiles C++")
@pytest.mark.parametrize("dynamic", [False, True])
def test_aotinductor_compiles(vit: Encoder, tmp_path: Path, dynamic: bool) -> None:
    sizes = None if dynamic else [(64, 96)]
    said = export(vit, tmp_path / "pt2", target="aoti", resolution=sizes, dynamic=dynamic)
    assert all(parity["passed"] for parity in said["parity"])
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = vit(images).patches
    assert torch.allclose(openeupe.load(tmp_path / "pt2")(images).patches, expected, atol=1e-3)


@pytest.mark.slow
def test_core_ml_is_converted_and_says_that_it_is_not_proved(vit: Encoder, tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    said = export(vit, tmp_path / "ml", target="coreml", resolution=[(64, 96)])
    assert list((tmp_path / "ml" / "64x96.mlpackage").iterdir())
    if TARGETS["coreml"].runs_here:
        assert said["parity"][0]["passed"]
        return
    assert said["parity"] == []
    with pytest.raises(InputError, match="run on a Mac only"):
        openeupe.load(tmp_path / "ml")(torch.rand(1, 3, 64, 96))


@pytest.mark.parametrize("target", ["executorch", "coreml"])
def test_targets_of_fixed_sizes_say_so(
    vit: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    with pytest.raises(InputError, match="files have fixed sizes: give a resolution"):
        export(vit, tmp_path / "out", target=target, dynamic=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"pip install 'openeupe\[{target}\]'"):
        export(vit, tmp_path / "out", target=target)
