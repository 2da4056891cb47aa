"""The released students, against numbers that their authors' own code gave for the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import openeupe
from openeupe.encoders import released
from openeupe.errors import InputError

from .released_layout import CONVNEXT, FILES, VIT, shapes, write

SIZES = ((224, 224), (256, 256), (384, 384), (512, 512), (192, 320))
GOLDEN = Path(__file__).parent / "released_golden.json"


def photo(height: int, width: int) -> Tensor:
    """An image `[1, 3, H, W]` in [0, 1] that any version of any library makes alike."""
    y, x = np.mgrid[0:height, 0:width] / 100.0
    planes = [np.sin((3 + c) * x + c) * np.cos((2 + c) * y) for c in range(3)]
    return torch.from_numpy((0.5 + 0.5 * np.stack(planes)[None]).astype(np.float32))


def chosen(cls: Tensor, patches: Tensor) -> list[float]:
    """A few numbers that stand for tokens `[1, Dc]` and `[1, N, Dp]`."""
    corners = patches[0, [0, patches.shape[1] // 3, -1], :4].flatten()
    means = torch.stack([cls.abs().mean(), patches.abs().mean()])
    return [round(v, 7) for v in torch.cat([cls[0, :6], corners, means]).tolist()]


def _golden_cases() -> list[object]:
    """The two smallest at three sizes; everything with -m slow."""
    quick = [("eupe_vit_t", 224), ("eupe_vit_t", 192), ("eupe_convnext_t", 192)]
    return [
        pytest.param(name, size, marks=[] if (name, size[0]) in quick else pytest.mark.slow)
        for name in FILES
        for size in SIZES
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("released")


@pytest.mark.parametrize(("name", "size"), _golden_cases())
def test_tokens_are_those_of_the_official_code(
    name: str, size: tuple[int, int], folder: Path
) -> None:
    path = folder / FILES[name]
    encoder = openeupe.load(path if path.exists() else write(folder, name))
    assert encoder.name == name
    with torch.no_grad():
        tokens = encoder(photo(*size))
    ours = chosen(tokens.cls, tokens.patches.flatten(2).transpose(1, 2))
    golden = json.loads(GOLDEN.read_text())[f"{name} {size[0]}x{size[1]}"]
    np.testing.assert_allclose(ours, golden, rtol=0, atol=2e-5)


def test_the_student_is_told_by_its_tensors_not_by_its_name(tmp_path: Path) -> None:
    other = write(tmp_path, "eupe_vit_t").rename(tmp_path / "EUPE-ViT-B.pt")
    assert openeupe.load(other).name == "eupe_vit_t"


@pytest.mark.parametrize("name", ["eupe_vit_t", "eupe_convnext_t"])
def test_heads_are_kept(name: str, tmp_path: Path) -> None:
    heads = released.read_heads(write(tmp_path, name))
    width = VIT[name] if name in VIT else CONVNEXT[name][0][-1]
    assert {k: tuple(v.shape) for k, v in heads["cls"].items()} == {
        "0.weight": (24, width),
        "1.weight": (24,),
        "1.bias": (24,),
        "3.weight": (16, 24),
    }
    assert not torch.equal(heads["cls"]["0.weight"], heads["patches"]["0.weight"])
    with pytest.raises(InputError, match="does not hold a class head and a patch head"):
        released.read_heads(write(tmp_path, name, heads=False))


def _changed(tmp_path: Path, **changes: Tensor | None) -> Path:
    path = write(tmp_path, "eupe_vit_t", heads=False)
    weights = torch.load(path, weights_only=True)
    for key, value in changes.items():
        if value is None:
            del weights[key]
        else:
            weights[key] = value
    torch.save(weights, path)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_embed.periods": torch.full((16,), 3.0)}, "not of base 100"),
        ({"blocks.0.attn.qkv.bias_mask": torch.ones(576)}, "blocks.0.attn.qkv.bias is masked"),
        ({"cls_token": torch.zeros(1, 1, 200)}, "width 200 with 12 blocks is none of the six"),
        ({"norm.weight": None}, "cannot be loaded"),
        ({"storage_tokens": None}, "not the weights of a released EUPE student"),
    ],
)
def test_what_differs_from_the_released_files_is_refused(
    changes: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as error:
        openeupe.load(_changed(tmp_path, **changes))
    assert "\n" not in str(error.value)


def test_a_file_that_would_run_code_is_not_opened(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("run",)

    torch.save({"cls_token": Evil()}, tmp_path / "EUPE-ViT-T.pt")
    with pytest.raises(InputError, match="holds tensors only"):
        openeupe.load(tmp_path / "EUPE-ViT-T.pt")


def test_layout_has_the_official_number_of_parameters() -> None:
    counted = shapes("eupe_vit_t")
    buffers = ("periods", "bias_mask")
    total = sum(int(np.prod(s)) for k, s in counted.items() if not k.endswith(buffers))
    assert total == 5_492_160
