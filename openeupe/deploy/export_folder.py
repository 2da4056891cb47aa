"""An exported encoder as a folder: the file, what it is, an example, and whose weights it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from openeupe.deploy.program import INPUT, Pixels, Size, size_name
from openeupe.deploy.saved import named_files, read_about
from openeupe.deploy.targets import TARGETS
from openeupe.deploy.targets.openvino import INFERENCE
from openeupe.encoders import Encoder
from openeupe.encoders.licences import Licence
from openeupe.errors import InputError
from openeupe.files import read_mapping, vacant
from openeupe.identity import encoder_identity, files_identity

FORMAT = 1
ABOUT = "export.json"
LATENCY = "latency.json"

_EXAMPLE = '''\
"""The tokens of a photo: python example.py PHOTO"""
import sys
from pathlib import Path

import numpy as np
{imports}
from PIL import Image

file = str(Path(__file__).with_name("{file}"))
photo = Image.open(sys.argv[1]).convert("RGB").resize(({width}, {height}))
# Contiguous, because not every engine looks at strides.
images = np.ascontiguousarray(np.asarray(photo, np.{pixels}).transpose(2, 0, 1)[None]{scale})
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
    """What `export.json` says before parity is known."""
    from openeupe import __version__

    scale = "RGB in [0, 1]" if pixels == "float32" else "RGB in 0..255"
    cls, patches = encoder.cls_dim, encoder.patch_dim
    return {
        "format": FORMAT,
        "openeupe": __version__,
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
    """Write `export.json`, `example.py` and `LICENCE.txt` beside the files.

    Args:
        licences: of the published weights that the files hold or were made from, by name.
    """
    about["licences"] = {name: licence.name for name, licence in licences.items()}
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    (folder / "example.py").write_text(example(about), encoding="utf-8")
    note = _LICENCE.format(name=about["encoder"]["name"], source=about["source"])
    if licences:
        lines = [f"- {name}: {said.name}; {said.follows}.\n" for name, said in licences.items()]
        note += _MADE_FROM + "".join(lines)
    (folder / "LICENCE.txt").write_text(note, encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """What `export.json` holds.

    Raises:
        InputError: if it is missing, damaged, or of another version.
    """
    path = folder / ABOUT
    about = read_about(path)
    if about.get("format") != FORMAT or about["target"] not in TARGETS:
        raise InputError(f"{path} was made by another version: update openeupe, or export again")
    if about["precision"] not in TARGETS[about["target"]].precisions:
        raise InputError(f"{path}: precision is missing or wrong: export the encoder again")
    for name in about["files"].values():
        if not (folder / name).exists():
            raise InputError(f"{folder / name} is missing: copy the whole exported folder")
    return about


def contents(folder: Path, target: str, files: Mapping[str, str]) -> str:
    """Identity of the exported files' bytes."""
    every = [part for name in files.values() for part in TARGETS[target].files(folder / name)]
    inner = [sorted(part.rglob("*")) if part.is_dir() else [part] for part in every]
    return files_identity(folder, [file for files in inner for file in files if file.is_file()])


def check_contents(folder: Path, about: Mapping[str, Any]) -> str:
    """Identity of the files, which must be those that were exported and proved.

    Raises:
        InputError: if they are damaged or incomplete.
    """
    found = contents(folder, about["target"], about["files"])
    if found != about["contents"]:
        raise InputError(
            f"{folder}: files differ from what was exported ({', '.join(about['files'].values())}):"
            " copy the whole folder, or export the encoder again"
        )
    return found


def own_files(folder: Path) -> set[str]:
    """Names in an exported folder that the next export may delete: all that we wrote there."""
    own = {ABOUT, LATENCY, "example.py", "LICENCE.txt"}
    with suppress(InputError):
        target, names = named_files(folder / ABOUT)
        if target in TARGETS:
            own |= {file.name for name in names for file in TARGETS[target].files(folder / name)}
    return own


def replaceable(folder: Path) -> bool:
    """Whether an export may be written here: nothing is there, or an export is."""
    return vacant(folder) or "openeupe" in read_mapping(folder / ABOUT)


def example(about: dict[str, Any]) -> str:
    """A program of a few lines that runs the first file on a photo."""
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


def file_key(size: Size | None) -> str:
    """How `files` calls a size; "any" where height and width are open."""
    return "any" if size is None else size_name(size)


def parse_size(key: str) -> Size | None:
    """The reverse of `file_key`."""
    if key == "any":
        return None
    height, width = key.split("x")
    return int(height), int(width)
