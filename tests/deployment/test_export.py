"""Files that are proved, files that are refused, and what lies beside them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import openeupe
from openeupe.deployment import fold
from openeupe.deployment import latency as measuring
from openeupe.deployment.export import ParityError
from openeupe.deployment.targets.onnx import OnnxTarget
from openeupe.encoders import Encoder, create
from openeupe.errors import InputError

from ..conftest import call
from .conftest import small
from .exporting import export


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


def test_evaluate_refuses_a_precision_that_an_export_does_not_have(
    exported: dict[str, Path],
) -> None:
    with pytest.raises(InputError, match=r"precision.*has the precision that it was"):
        call("evaluate", exported["onnx-fp32"], "--precision", "bf16", "--only", "knn")


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
    write = OnnxTarget.write
    monkeypatch.setattr(
        OnnxTarget, "write", lambda self, job, path: write(self, replace(job, encoder=other), path)
    )
    with pytest.raises(ParityError, match=r"parity failed at 64x64: cls cosine .* set aside"):
        export(encoder, tmp_path / "wrong", target="onnx", resolution=[(64, 64)])
    assert not (tmp_path / "wrong").exists()
    assert not about(tmp_path / "wrong.failed")["parity"][0]["passed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "tflite"}, "target tflite: use one of onnx, openvino"),
        ({"target": "onnx", "precision": "bf16"}, "onnx has no bf16: .*target openvino"),
        ({"target": "onnx", "opset": 9}, "opset 9 cannot be written: use 18 to 25"),
        ({"target": "aoti", "opset": 20}, "opset 20: aoti files have none, only onnx, openvino"),
        ({"target": "executorch", "opset": 20}, "opset 20: executorch files have none"),
        ({"target": "coreml", "opset": 20}, "opset 20: coreml files have none"),
        ({"target": "onnx", "resolution": [(50, 64)]}, "resolution 50 does not fit"),
        ({"target": "onnx", "dynamic": True}, "exclude each other"),
        ({"target": "onnx", "images": Path("/no/such")}, "/no/such is not a folder"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    vit: Encoder, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        export(vit, tmp_path / "out", **{"resolution": [(64, 64)], **arguments})
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_too_few_images_and_missing_extras_are_told(
    vit: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.radial_gradient("L").save(tmp_path / "photos" / f"{number}.png")
    with pytest.raises(InputError, match="3 readable images, but parity and calibration need 12"):
        export(vit, tmp_path / "out", target="onnx", precision="int8", images=tmp_path / "photos")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'openeupe\[openvino\]'"):
        export(vit, tmp_path / "out", target="openvino")


@pytest.mark.parametrize("name", ["mine", "mine.failed"])
@pytest.mark.parametrize("content", ["export.json", "notes.txt"])
def test_other_folders_are_not_overwritten(
    vit: Encoder, tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / content).write_text('{"from": "another program"}')
    with pytest.raises(InputError, match=f"{name} is not an export"):
        export(vit, tmp_path / "mine", target="onnx", resolution=[(64, 64)])
    assert (tmp_path / name / content).is_file()


def test_an_export_replaces_its_own_files_and_no_others(tmp_path: Path) -> None:
    encoder, out = create("raw_pixels"), tmp_path / "out"
    export(encoder, out, target="onnx", resolution=[(64, 64)])
    (out / "latency.json").write_text("{}")  # of the files that are replaced
    (out / "evaluations").mkdir()
    export(encoder, out, target="onnx", resolution=[(32, 32)])
    names = {path.name for path in out.iterdir()}
    assert names == {"32x32.onnx", "export.json", "example.py", "LICENCE.txt", "evaluations"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target", ["onnx"]),
        ("precision", "bf16"),
        ("pixels", "float64"),
        ("pixels", []),
        ("files", {}),
        ("files", []),
        ("files", {"64x96": 3}),
        ("files", {"64x96": "../64x96.onnx"}),
        ("files", {"64x96": ".."}),
        ("files", {"64": "64x96.onnx"}),
        ("files", {"0x96": "64x96.onnx"}),
        ("encoder", []),
        ("encoder.patch_size", 0),
        ("encoder.args", "x"),
        ("encoder.name", None),
        ("encoder.cls_dim", "192"),
        ("bytes", {}),
        ("bytes", {"64x96": "x"}),
        ("parity", None),
        ("source", 1),
    ],
)
def test_a_damaged_description_is_one_line(
    exported: dict[str, Path], tmp_path: Path, field: str, value: Any
) -> None:
    said = about(exported["onnx-fp32"])
    group, _, inner = field.partition(".")
    said[group] = {**said[group], inner: value} if inner else value
    (tmp_path / "export.json").write_text(json.dumps(said))
    (tmp_path / "64x96.onnx").write_bytes(b"")
    for read in (openeupe.load, measuring.exported):
        with pytest.raises(InputError, match=rf"export.json.*{field.split('.')[0]}"):
            read(tmp_path)


@pytest.mark.parametrize("content", ["[" * 100_000, "\xff", "[]", "null", '{"format": 1}'])
def test_a_description_that_is_none_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "export.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"export\.json") as error:
        openeupe.load(tmp_path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("name", ["onnx-fp32", "openvino-fp32"])
@pytest.mark.parametrize("digests", [True, False])
def test_a_damaged_file_is_one_line(
    exported: dict[str, Path], tmp_path: Path, name: str, digests: bool
) -> None:
    """Nothing is compared with itself, either, where the digest was taken out."""
    shutil.copytree(exported[name], tmp_path / "copy")
    (file,) = about(tmp_path / "copy")["files"].values()
    (tmp_path / "copy" / file).write_bytes(b"\0" * 5000)
    if not digests:
        said = about(tmp_path / "copy")
        del said["contents"]
        (tmp_path / "copy" / "export.json").write_text(json.dumps(said))
    message = "differ from what was exported" if digests else r"export.json.*contents"
    with pytest.raises(InputError, match=message) as error:
        openeupe.load(tmp_path / "copy")(torch.rand(1, 3, 64, 96))
    assert "\n" not in str(error.value)
    assert "export the encoder again" in str(error.value)


def test_zeroed_weights_are_found(exported: dict[str, Path], tmp_path: Path) -> None:
    """Such a file opens, and gives wrong tokens."""
    shutil.copytree(exported["openvino-fp32"], tmp_path / "copy")
    weights = tmp_path / "copy" / "64x96.bin"
    content = bytearray(weights.read_bytes())
    content[1000:5000] = bytes(4000)
    weights.write_bytes(content)
    with pytest.raises(InputError, match="differ from what was exported"):
        openeupe.load(tmp_path / "copy")
    with pytest.raises(InputError, match="differ from what was exported"):
        measuring.exported(tmp_path / "copy")


def test_tokens_of_other_widths_than_described_are_told(
    exported: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(exported["onnx-fp32"], tmp_path / "copy")
    said = about(tmp_path / "copy")
    said["encoder"]["cls_dim"] = 7
    (tmp_path / "copy" / "export.json").write_text(json.dumps(said))
    with pytest.raises(InputError, match=r"gives .*192.* instead of .*7"):
        openeupe.load(tmp_path / "copy")(torch.rand(1, 3, 64, 96))


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
