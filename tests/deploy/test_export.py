"""Files that are proved, files that are refused, and what lies beside them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import openeupe
from openeupe.deploy import fold
from openeupe.deploy.export import ParityError, export
from openeupe.deploy.targets.onnx import OnnxRuntime
from openeupe.encoders import Encoder
from openeupe.errors import InputError

from .conftest import small


def about(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "export.json").read_text())
    return read


@pytest.mark.parametrize("name", ["onnx-fp32", "openvino-fp32"])
def test_float32_files_are_proved_to_1e_4(exported: dict[str, Path], name: str) -> None:
    (parity,) = about(exported[name])["parity"]
    assert parity["passed"]
    for kind in ("cls", "patches"):
        assert parity[kind]["worst"] > 0.99999
        assert 0 < parity[kind]["relative_error"] < 1e-4  # 0 would mean that nothing was compared


def test_smaller_precisions_are_smaller_and_near(exported: dict[str, Path]) -> None:
    sizes = {name: about(folder)["bytes"]["64x96"] for name, folder in exported.items()}
    assert sizes["onnx-int8"] < 0.5 * sizes["onnx-fp32"]
    assert sizes["openvino-int8"] < 0.4 * sizes["openvino-fp32"]
    assert sizes["onnx-fp16"] < 0.6 * sizes["onnx-fp32"]
    for name in ("onnx-int8", "openvino-int8"):
        said = about(exported[name])
        assert said["parity"][0]["cls"]["mean"] > 0.99
        assert said["notes"]["64x96"]["method"]


def test_an_export_is_an_encoder_again(
    exported: dict[str, Path], vit: Encoder, tmp_path: Path
) -> None:
    images = torch.rand(3, 3, 64, 96)
    with torch.no_grad():
        expected = vit(images)
    for name, folder in exported.items():
        encoder = openeupe.load(folder)
        tokens = encoder(images)
        assert tokens.cls.shape == (3, vit.cls_dim)
        likeness = torch.cosine_similarity(tokens.patches, expected.patches).mean()
        assert likeness > (0.99 if "int8" in name else 0.999)
    assert openeupe.load(exported["onnx-fp32"]).args != openeupe.load(exported["onnx-fp16"]).args
    with pytest.raises(InputError, match="is an export already: give the encoder"):
        export(encoder, tmp_path / "again", target="onnx")
    with pytest.raises(InputError, match="has no file for 96x96 pixels, only for 64x96"):
        encoder(torch.rand(1, 3, 96, 96))


@pytest.mark.parametrize("name", ["onnx-fp32", "openvino-int8"])
def test_the_example_runs_anywhere(exported: dict[str, Path], name: str, tmp_path: Path) -> None:
    Image.radial_gradient("L").save(tmp_path / "photo.png")
    program = exported[name] / "example.py"
    assert len([x for x in program.read_text().splitlines() if x.strip()]) <= 14
    ran = subprocess.run(
        [sys.executable, str(program), "photo.png"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout == "class token (1, 192) patch grid (1, 192, 4, 6)\n"
    told = (exported[name] / "LICENCE.txt").read_text()
    assert "- eupe_vit_t: fair-noncommercial-research-license; noncommercial research only" in told


def test_one_dynamic_file_is_proved_at_three_sizes(vit: Encoder, tmp_path: Path) -> None:
    said = export(vit, tmp_path / "free", target="onnx", dynamic=True, pixels="uint8")
    assert [p["size"] for p in said["parity"]] == ["256x256", "256x384", "128x192"]
    encoder = openeupe.load(tmp_path / "free")
    images = torch.randint(0, 256, (1, 3, 48, 80)) / 255
    with torch.no_grad():
        assert torch.allclose(encoder(images).cls, vit(images).cls, atol=1e-4)


def test_a_failed_parity_is_no_success(
    vit: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trap itself: timm's rotary embedding in a dynamic file."""
    monkeypatch.setattr(fold, "free_rope", lambda network: None)
    with pytest.raises(ParityError, match="parity failed at 256x256"):
        export(vit, tmp_path / "wrong", target="onnx", dynamic=True)
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.failed"]


def test_wrong_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, other = small("resnet10t"), small("resnet10t")
    torch.nn.init.normal_(other.trunk.conv1[0].weight)  # type: ignore[union-attr,index,arg-type]
    write = OnnxRuntime.write
    monkeypatch.setattr(
        OnnxRuntime, "write", lambda self, job, path: write(self, replace(job, encoder=other), path)
    )
    with pytest.raises(ParityError, match=r"parity failed at 64x64: cls cosine .* set aside"):
        export(encoder, tmp_path / "wrong", target="onnx", sizes=[(64, 64)])
    assert not (tmp_path / "wrong").exists()
    assert not about(tmp_path / "wrong.failed")["parity"][0]["passed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "tflite"}, "--to tflite: use one of onnx, openvino"),
        ({"target": "onnx", "precision": "bf16"}, "onnx has no bf16: .*--to openvino"),
        ({"target": "onnx", "opset": 9}, "--opset 9 cannot be written: use 18 to 25"),
        ({"target": "aoti", "opset": 20}, "--opset 20: aoti files have none, only onnx, openvino"),
        ({"target": "executorch", "opset": 20}, "--opset 20: executorch files have none"),
        ({"target": "coreml", "opset": 20}, "--opset 20: coreml files have none"),
        ({"target": "onnx", "sizes": [(50, 64)]}, "resolution 50 does not fit"),
        ({"target": "onnx", "images": Path("/no/such")}, "/no/such is not a folder"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    vit: Encoder, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        export(vit, tmp_path / "out", **{"sizes": [(64, 64)], **arguments})
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_too_few_photos_and_missing_extras_are_told(
    vit: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.radial_gradient("L").save(tmp_path / "photos" / f"{number}.png")
    with pytest.raises(InputError, match="3 readable images, but proof and calibration need 12"):
        export(vit, tmp_path / "out", target="onnx", precision="int8", images=tmp_path / "photos")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'openeupe\[openvino\]'"):
        export(vit, tmp_path / "out", target="openvino")


def test_other_folders_are_not_overwritten(vit: Encoder, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="holds something else than an export"):
        export(vit, tmp_path / "mine", target="onnx", sizes=[(64, 64)])


def test_a_damaged_export_is_told(exported: dict[str, Path], tmp_path: Path) -> None:
    said = about(exported["onnx-fp32"])
    (tmp_path / "export.json").write_text(json.dumps(said))
    with pytest.raises(InputError, match=r"64x96.onnx is missing"):
        openeupe.load(tmp_path)
    (tmp_path / "export.json").write_text(json.dumps({**said, "format": 99}))
    with pytest.raises(InputError, match="another version"):
        openeupe.load(tmp_path)
    (tmp_path / "export.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        openeupe.load(tmp_path)
