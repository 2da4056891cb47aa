from __future__ import annotations

import subprocess
import sys
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from openeupe.data.decode import BrokenImage, decode, opened

from .conftest import picture


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _pixels(encoded: bytes) -> np.ndarray:
    image = decode(encoded, "it")
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_lossless_kinds_keep_their_pixels(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    expected = np.asarray(picture(1))
    assert np.array_equal(_pixels(_encode(picture(1), kind, **options)), expected)


def test_bytes_and_file_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    picture(1).save(file)
    assert decode(file, "a").tobytes() == decode(file.read_bytes(), "a").tobytes()


def test_gray_has_three_equal_channels() -> None:
    gray = picture(1).convert("L")
    assert np.array_equal(_pixels(_encode(gray, "PNG")), np.asarray(gray)[..., None].repeat(3, 2))


def test_sixteen_bit_gray_is_scaled_by_its_range() -> None:
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        assert _pixels(_encode(Image.fromarray(values), kind))[0, :, 1].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 51.0, 255.0], [0, 51, 255]),
        ([0.0, 0.5, 1.004], [0, 128, 255]),  # resampling overshoots
        ([0.0, 51.0, 260.0], [0, 51, 255]),
        ([0.5, float("inf"), float("nan")], [128, 255, 0]),
    ],
)
def test_float_gray(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert _pixels(_encode(image, "TIFF"))[0, :, 0].tolist() == expected


def test_cmyk_keeps_its_colors() -> None:
    out = _pixels(_encode(picture(1).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(out - np.asarray(picture(1)).astype(int)).mean() < 3


def test_palette() -> None:
    palette = picture(1).quantize(32)
    assert np.array_equal(_pixels(_encode(palette, "PNG")), np.asarray(palette.convert("RGB")))


def test_transparency_lies_over_white() -> None:
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = [0, 255, 128]
    row = _pixels(_encode(Image.fromarray(rgba), "PNG"))[0]
    assert row[0].tolist() == [255, 255, 255]
    assert row[1].tolist() == [200, 0, 0]
    assert abs(row[2] - [227, 127, 127]).max() <= 1
    palette = Image.new("P", (2, 2), 3)
    palette.putpalette([10] * 768)
    assert _pixels(_encode(palette, "PNG", transparency=3)).min() == 255
    gray_alpha = Image.new("LA", (2, 2), (7, 0))
    assert _pixels(_encode(gray_alpha, "PNG")).min() == 255


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: to be turned by 90 degrees clockwise
    upright = picture(1, 48, 40)
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    out = _pixels(_encode(stored, kind, exif=exif))
    assert out.shape == (40, 48, 3)
    assert np.abs(out - np.asarray(upright).astype(int)).mean() < 4


def test_unreadable_exif_is_no_reason_to_drop_an_image() -> None:
    encoded = _encode(picture(1), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert _pixels(encoded).shape == (40, 48, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_truncated_images_are_broken(kind: str) -> None:
    encoded = _encode(picture(1, 200, 200), kind)
    decode(encoded, "whole")
    with pytest.raises(BrokenImage, match="half: cannot be read"):
        decode(encoded[: len(encoded) // 2], "half")


def test_empty_text_and_missing_are_broken(tmp_path: Path) -> None:
    for encoded in (b"", b"<html>not found</html>", tmp_path / "missing.jpg", tmp_path):
        with pytest.raises(BrokenImage, match="it: cannot"):
            decode(encoded, "it")


@pytest.mark.parametrize("limit", [1900, 900])  # Pillow warns above the limit, refuses above twice
def test_bombs_are_broken(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = _encode(picture(1), "PNG")  # 1920 pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(BrokenImage):
        decode(encoded, "bomb")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1920)
    decode(encoded, "no bomb")


def test_large_jpegs_may_be_decoded_smaller() -> None:
    encoded = _encode(picture(1, 800, 600), "JPEG", quality=95)
    full = decode(encoded, "it")
    assert full.size == (800, 600)
    assert decode(encoded, "it", min_resolution=301).size == (800, 600)
    half = decode(encoded, "it", min_resolution=300)
    assert half.size == (400, 300)
    assert decode(encoded, "it", min_resolution=80).size == (200, 150)
    difference = np.asarray(full.reduce(2)).astype(int) - np.asarray(half).astype(int)
    assert np.abs(difference).mean() < 1
    png = _encode(picture(1, 800, 600), "PNG")
    assert decode(png, "it", min_resolution=80).size == (800, 600)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_gray_is_the_luminance_of_the_colours(kind: str) -> None:
    encoded = _encode(picture(1, 400, 300), kind)
    for resolution in (None, 96):
        gray = decode(encoded, "it", resolution, gray=True)
        colours = decode(encoded, "it", resolution).convert("L")
        assert gray.mode == "L"
        assert gray.size == colours.size
        off = np.abs(np.asarray(gray, dtype=int) - np.asarray(colours, dtype=int))
        assert off.mean() < 2


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "LA", "RGBA", "I;16", "F"])
def test_the_largest_images_take_less_than_a_gigabyte(mode: str, tmp_path: Path) -> None:
    """A few kilobytes of zeros become 88 million pixels."""
    file = tmp_path / ("a.tif" if mode == "F" else "a.png")
    Image.new(mode, (9400, 9400)).save(file, compression="tiff_deflate")
    script = (
        "import resource, sys; from pathlib import Path; from openeupe.data.decode import decode;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "decode(Path(sys.argv[1]), 'it');"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 1_000_000  # kilobytes


def test_no_large_image_is_copied_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every copy of a large image between its decoding and the result would be 350 MB."""
    rows: list[int] = []
    convert = Image.Image.convert

    def counted(image: Image.Image, *arguments: Any, **options: Any) -> Image.Image:
        rows.append(image.height)
        return convert(image, *arguments, **options)

    for mode in ("RGBA", "LA", "I;16", "F"):
        encoded = _encode(Image.new(mode, (3000, 3000)), "TIFF" if mode == "F" else "PNG")
        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "convert", counted)
            decode(encoded, "it")
    assert rows
    assert max(rows) < 2000


def test_strips_give_the_same_pixels_as_the_whole() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 65536, (700, 31), dtype=np.uint16)
    gray = _pixels(_encode(Image.fromarray(values), "PNG"))
    assert np.array_equal(gray[..., 0], (values * (255 / 65535)).round())
    rgba = rng.integers(0, 256, (700, 31, 4), dtype=np.uint8)
    whole = Image.alpha_composite(
        Image.new("RGBA", (31, 700), "white"), Image.fromarray(rgba)
    ).convert("RGB")
    assert np.array_equal(_pixels(_encode(Image.fromarray(rgba), "PNG")), np.asarray(whole))


def test_images_that_are_open_at_once_leave_no_trace_in_the_warnings() -> None:
    """Threads decode at the same time, and the filters of warnings belong to all of them."""
    before = list(warnings.filters)
    first, second = (opened(_encode(picture(number), "PNG")) for number in (1, 2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert list(warnings.filters) == before
