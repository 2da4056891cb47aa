"""Write an exported folder: description, example and licences."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from openeupe.deployment.targets import TARGETS
from openeupe.encoders import Encoder
from openeupe.encoders.engines import INFERENCE, INPUT
from openeupe.encoders.export_layout import ABOUT, FORMAT, Pixels, named_files, parse_size
from openeupe.encoders.licences import Licence
from openeupe.errors import InputError
from openeupe.files import read_mapping, vacant
from openeupe.identity import encoder_identity
from openeupe.version import package_version

LATENCY = "latency.json"

_EXAMPLE = '''\
"""Tokens of an image: python example.py IMAGE"""
import sys
from pathlib import Path

import numpy as np
{imports}
from PIL import Image

file = str(Path(__file__).with_name("{file}"))
image = Image.open(sys.argv[1]).convert("RGB").resize(({width}, {height}))
# Contiguous, because not every engine looks at strides.
images = np.ascontiguousarray(np.asarray(image, np.{pixels}).transpose(2, 0, 1)[None]{scale})
{run}
print("class token", cls.shape, "patch grid", patches.shape)
'''

_LICENCE = """\
Code: OpenEUPE, Apache-2.0.
Weights: those of {name}, taken from {source}. Exporting changes nothing about their licence.
"""
_MADE_FROM = """
Published weights that they are, or were made from, and what follows from their licences
(a reading aid, no legal advice):
"""


def describe(
    encoder: Encoder,
    *,
    source: str,
    target: str,
    precision: str,
    pixels: Pixels,
    files: dict[str, str],
) -> dict[str, Any]:
    """Contents of `export.json` without parity."""
    scale = "RGB in [0, 1]" if pixels == "float32" else "RGB in 0..255"
    cls, patches = encoder.cls_dim, encoder.patch_dim
    return {
        "format": FORMAT,
        "openeupe": package_version(),
        "source": source,
        "encoder": {
            "name": encoder.name,
            "args": encoder.args,
            "identity": encoder_identity(encoder),
            "cls_dim": cls,
            "patch_dim": patches,
            "patch_size": encoder.patch_size,
            "resolution": encoder.resolution,
        },
        "target": target,
        "precision": precision,
        "pixels": pixels,
        "input": {
            INPUT: f"[batch, 3, height, width] {pixels}, contiguous, {scale}, not normalized"
        },
        "outputs": {
            "cls": f"[batch, {cls}] float32, the class token (or pooled token)",
            "patches": f"[batch, {patches}, height/{encoder.patch_size}, "
            f"width/{encoder.patch_size}] float32, the patch tokens on their grid",
        },
        "files": files,
    }


def write(folder: Path, about: dict[str, Any], licences: Mapping[str, Licence]) -> None:
    """Write `export.json`, `example.py` and `LICENCE.txt`.

    Args:
        licences: of the published weights that the files hold or were made from, by name.
    """
    about["licences"] = {name: licence.name for name, licence in licences.items()}
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    (folder / "example.py").write_text(example(about), encoding="utf-8")
    note = _LICENCE.format(name=about["encoder"]["name"], source=about["source"])
    if licences:
        lines = [
            f"- {name}: {licence.name}; {licence.follows}.\n" for name, licence in licences.items()
        ]
        note += _MADE_FROM + "".join(lines)
    (folder / "LICENCE.txt").write_text(note, encoding="utf-8")


def own_files(folder: Path) -> set[str]:
    """Files of an export, which the next export may delete."""
    own = {ABOUT, LATENCY, "example.py", "LICENCE.txt"}
    with suppress(InputError):
        target, names = named_files(folder)
        if target in TARGETS:
            own |= {file.name for name in names for file in TARGETS[target].files(folder / name)}
    return own


def replaceable(folder: Path) -> bool:
    """Whether a folder is missing, empty or an export."""
    return vacant(folder) or "openeupe" in read_mapping(folder / ABOUT)


def example(about: dict[str, Any]) -> str:
    """Example program that runs the first file on an image."""
    size, file = next(iter(about["files"].items()))
    native = about["encoder"]["resolution"]
    height, width = parse_size(size) or (native, native)
    inference = INFERENCE.get(about["precision"], "f32")
    lines = TARGETS[about["target"]].example.replace('INFERENCE"', f'{inference}"')
    imports, _, run = lines.partition("\n\n")
    return _EXAMPLE.format(
        imports=imports,
        file=file,
        height=height,
        width=width,
        pixels=about["pixels"],
        scale=" / np.float32(255)" if about["pixels"] == "float32" else "",
        run=run,
    )
