"""The files that `openeupe look` writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from openeupe.data.registry_images import registry_images
from openeupe.encoders import create
from openeupe.errors import InputError
from openeupe.visualization.images import named_image, patch_tokens, read_images

from ..conftest import Quickstart, call

ENCODERS = ("untrained:resnet10t", "raw_pixels")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name, size in (("astronaut", (160, 160)), ("coffee", (180, 120))):
        Image.open(registry_images() / f"{name}.png").resize(size).save(folder / f"{name}.png")
    return folder


def look(*arguments: object) -> str:
    return call("look", *arguments, "--device", "cpu")


def test_every_picture_and_the_same_bytes_twice(images: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        output = look(*ENCODERS, images, "--resolution", 128, "--out", tmp_path / folder)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == [
        "components_astronaut.png",
        "components_coffee.png",
        "matches.png",
        "norms.png",
        "pca.png",
        "similarity.png",
    ]
    for name in files:
        assert f"wrote {tmp_path / 'two' / name}" in output
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        assert Image.open(tmp_path / "one" / name).width > 600
    assert "raw_pixels, coffee: " in output
    assert "% of variance, coherence " in output


def test_settings_change_the_picture(images: Path, tmp_path: Path) -> None:
    Image.radial_gradient("L").point(lambda v: 255 - v).save(tmp_path / "mask.png")
    pictures = set()
    for number, extra in enumerate(
        [
            [],
            ["--axes", "batch"],
            ["--axes", images],
            ["--mask", "first"],
            ["--mask", tmp_path / "mask.png"],
            ["--range", "whiten"],
            ["--no-align"],
            ["--upsampling", "bilinear"],
        ]
    ):
        out = tmp_path / str(number)
        look(*ENCODERS, images, "--resolution", 96, "--only", "pca", "--out", out, *extra)
        assert [path.name for path in out.iterdir()] == ["pca.png"]
        pictures.add((out / "pca.png").read_bytes())
    assert len(pictures) == 8


def test_a_run_gets_a_strip_of_its_stages(
    quickstart: Quickstart, images: Path, tmp_path: Path
) -> None:
    image = images / "astronaut.png"
    out = ["--resolution", 96, "--only", "stages", "--out", tmp_path]
    output = look(quickstart.folder, image, *out)
    assert [path.name for path in tmp_path.iterdir()] == ["stages_quickstart.png"]
    assert "wrote" in output
    image = Image.open(tmp_path / "stages_quickstart.png")
    assert image.height > 4 * 2.3 * 120  # untrained, proxy, student, finetuned


def test_images_of_one_name_are_told_apart(images: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    Image.new("RGB", (50, 50)).save(tmp_path / "other" / "coffee.jpg")
    found = read_images([images, tmp_path / "other"], 64)
    assert [image.name for image in found] == ["astronaut", "coffee", "coffee-2"]
    assert len(read_images([images, tmp_path / "other"], 64, limit=2)) == 2


def test_numbered_images_overwrite_no_other(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    names = ["a.png", "sub/a.png", "a-2.png", "sub/A.jpg"]
    for name in names:
        Image.new("RGB", (64, 64)).save(tmp_path / name)
    images = read_images([tmp_path / name for name in names], 64)
    assert len({image.name.casefold() for image in images}) == 4
    look("raw_pixels", *(tmp_path / name for name in names), "--only", "components",
         "--out", tmp_path / "out")  # fmt: skip
    assert len(list((tmp_path / "out").glob("components_*.png"))) == 4


def test_runs_of_one_folder_name_get_a_strip_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openeupe.api.look import _stages

    for folder in ("one", "two"):
        (tmp_path / folder / "run").mkdir(parents=True)
        (tmp_path / folder / "run" / "recipe.yaml").touch()
    monkeypatch.setattr("openeupe.distillation.run_folder.Run.open", lambda folder: folder)
    monkeypatch.setattr("openeupe.api.look.load_stages", lambda _: {})
    names = [tmp_path / folder / "run" for folder in ("one", "two")]
    assert list(_stages(names, torch.device("cpu"))) == ["run", "run-2"]


def test_an_image_is_seen_whole_at_any_shape() -> None:
    image = named_image(Image.new("RGB", (1000, 333)), "wide", 512)
    assert image.pixels.size == (512, 170)
    assert patch_tokens(create("raw_pixels"), image).shape[-2:] == (11, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["raw_pixels"], "there is no image"),
        (["{images}"], "there is no encoder"),
        (["raw_pixels", "nowhere.png"], "nowhere.png: no such image"),
        (["raw_pixelz", "{images}"], "did you mean raw_pixels"),
        (["raw_pixels", "{images}", "--only", "pcb"], "only pcb: the pictures are pca,"),
        (["raw_pixels", "{images}/coffee.png", "--only", "matches"], "give another one"),
        (
            ["raw_pixels", "{images}", "--only", "pca,stages"],
            "only stages: they are drawn of a",
        ),
        (
            ["raw_pixels", "{images}", "--axes", "moon"],
            "axes moon: use image, batch, or a folder",
        ),
        (["raw_pixels", "{images}", "--mask", "moon"], "mask moon: cannot be read"),
        (["raw_pixels", "{images}", "--patch", "3"], "patch 3: give X,Y between 0 and 1"),
    ],
)
def test_mistakes_are_named(images: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        look(*(a.replace("{images}", str(images)) for a in arguments))
