"""The `example.py` of every target gives the encoder's tokens, not only the right shapes."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openeupe.data.registry_images import registry_images
from openeupe.deployment import export_folder as folders
from openeupe.deployment.targets import TARGETS
from openeupe.encoders import Encoder, create
from openeupe.encoders.engines import Precision
from openeupe.encoders.export_layout import parse_size, read_about

from .exporting import export

# Runs the example as it stands, then stores what it computed.
_RUN = """\
import runpy, sys
import numpy as np
made = runpy.run_path(sys.argv[1])
np.savez("tokens.npz", cls=np.asarray(made["cls"]), patches=np.asarray(made["patches"]))
"""


def example_cosines(folder: Path, encoder: Encoder, work: Path) -> tuple[float, float]:
    """Lowest cosines of class token and patches: the example on a photo, and the encoder on it."""
    photo = sorted(registry_images().rglob("*.jpg"))[0]
    shutil.copy(photo, work / "photo.jpg")
    ran = subprocess.run(
        [sys.executable, "-c", _RUN.replace("sys.argv[1]", repr(str(folder / "example.py"))),
         "photo.jpg"],
        cwd=work, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    about = read_about(folder)
    height, width = parse_size(next(iter(about["files"]))) or (encoder.resolution,) * 2
    image = np.asarray(Image.open(photo).convert("RGB").resize((width, height)))
    with torch.no_grad():
        expected = encoder(torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255)
    shape = f"class token {tuple(expected.cls.shape)} patch grid {tuple(expected.patches.shape)}"
    assert shape in ran.stdout.replace("torch.Size([", "(").replace("])", ")")
    made = np.load(work / "tokens.npz")
    cls, patches = (
        torch.cosine_similarity(torch.from_numpy(made[name]).float(), true, dim=1).min().item()
        for name, true in (("cls", expected.cls), ("patches", expected.patches))
    )
    return cls, patches


@pytest.mark.parametrize("pixels", ["float32", "uint8"])
@pytest.mark.parametrize("target", TARGETS)
def test_the_examples_pixels_lie_row_by_row(
    target: str, pixels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines that ignore strides, AOTInductor's first, would take channels for rows."""
    encoder = create("raw_pixels")
    about = folders.describe(
        encoder, source="raw_pixels", target=target, precision=TARGETS[target].precisions[0],
        pixels=pixels, files={"32x48": "model"},  # type: ignore[arg-type]
    )  # fmt: skip
    imports = TARGETS[target].example.partition("\n\n")[0]
    lines = folders.example(about).replace(imports, "").splitlines()
    end = next(number for number, line in enumerate(lines) if line.startswith("images =")) + 1
    (tmp_path / "example.py").write_text("\n".join(lines[:end]))
    colours = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "photo.png")
    monkeypatch.setattr(sys, "argv", ["example.py", str(tmp_path / "photo.png")])
    images = runpy.run_path(str(tmp_path / "example.py"))["images"]
    assert images.flags.c_contiguous
    assert images.dtype == pixels
    expected = colours.transpose(2, 0, 1)[None] / (255 if pixels == "float32" else 1)
    assert np.allclose(images, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("onnx-fp32", 0.99999),
        ("onnx-fp16", 0.9999),
        ("onnx-int8", 0.98),
        ("openvino-fp32", 0.99999),
        ("openvino-bf16", 0.99),
        ("openvino-int8", 0.98),
    ],
)
def test_the_example_computes_the_encoders_tokens(
    exported: dict[str, Path], vit: Encoder, tmp_path: Path, name: str, limit: float
) -> None:
    cls, patches = example_cosines(exported[name], vit, tmp_path)
    assert cls > limit
    assert patches > limit


@pytest.mark.slow
@pytest.mark.parametrize("pixels", ["float32", "uint8"])
@pytest.mark.parametrize(
    ("target", "precision", "limit"),
    [
        ("aoti", "fp32", 0.99999),
        ("executorch", "fp32", 0.99999),
        ("executorch", "int8", 0.97),
        ("coreml", "fp32", 0.99999),
    ],
)
def test_compiled_targets_examples_compute_the_encoders_tokens(
    vit: Encoder, tmp_path: Path, target: str, precision: Precision, limit: float, pixels: str
) -> None:
    if target != "aoti":
        pytest.importorskip(target.replace("coreml", "coremltools"))
    if not TARGETS[target].runs_here or (target == "aoti" and shutil.which("g++") is None):
        pytest.skip(f"{target} does not run here")
    if target == "coreml" and pixels == "uint8":
        pytest.skip("coreml files take float32")
    export(
        vit, tmp_path / "out", target=target, precision=precision,
        resolution=[(64, 96)], pixels=pixels,  # type: ignore[arg-type]
    )  # fmt: skip
    cls, patches = example_cosines(tmp_path / "out", vit, tmp_path)
    assert cls > limit
    assert patches > limit


@pytest.mark.parametrize("target", TARGETS)
def test_every_targets_example_is_python(target: str) -> None:
    compile(TARGETS[target].example, target, "exec")


@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor compiles C++")
def test_aotinductors_example_computes_the_encoders_tokens(tmp_path: Path) -> None:
    """The smallest program, so that this runs with the quick tests."""
    encoder = create("raw_pixels").eval()
    export(encoder, tmp_path / "out", target="aoti", resolution=[(32, 48)])
    cls, patches = example_cosines(tmp_path / "out", encoder, tmp_path)
    assert min(cls, patches) > 0.99999
