import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from openeupe.data import View

SIZES = [(300, 200), (200, 300), (224, 224), (97, 513)]
VIEWS = [
    View(224, 224),
    View(224, 224, short=256),
    View(96, 160),
    View(224, 160, "squash"),
    View(224, 224, "pad"),
    View(96, 160, "pad"),
]


def dotted(size: tuple[int, int], x: int, y: int) -> Image.Image:
    """Black, with a white square around (x, y)."""
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), (x - 6, y - 6, x + 7, y + 7))
    return image


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_placement_says_where_a_point_goes(size: tuple[int, int], view: View) -> None:
    x, y = size[0] // 2 + 5, size[1] // 2 - 5
    pixels = view.image(dotted(size, x, y)).float().mean(dim=0)
    assert pixels.shape == (view.height, view.width)
    rows, columns = torch.meshgrid(
        torch.arange(view.height) + 0.5, torch.arange(view.width) + 0.5, indexing="ij"
    )
    found = [float((pixels * axis).sum() / pixels.sum()) for axis in (columns, rows)]
    sx, sy, dx, dy = view.placement(size)
    assert found[0] == pytest.approx((x + 0.5) * sx + dx, abs=0.6)
    assert found[1] == pytest.approx((y + 0.5) * sy + dy, abs=0.6)


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_labels_lie_where_the_image_lies(view: View) -> None:
    mask = np.zeros((200, 300), np.uint8)
    mask[60:140, 90:200] = 1
    image = Image.fromarray(mask * 255).convert("RGB")
    laid = view.mask(mask)
    inside = laid != 255
    bright = view.image(image)[0] > 127
    assert (bright[inside] == (laid[inside] == 1)).float().mean() > 0.98
    depth = view.depth(mask.astype(np.float32) * 2.5)
    assert set(depth.unique().tolist()) == {0.0, 2.5}
    assert ((depth == 2.5) == (laid == 1)).all()


def test_pad_fills_with_nothing() -> None:
    view = View(100, 100, "pad")
    white = Image.new("RGB", (200, 100), "white")
    assert view.image(white).float().mean() == pytest.approx(255 / 2)
    assert (view.mask(np.ones((100, 200), np.uint8)) == 255).float().mean() == 0.5


def test_the_crop_of_the_knn_protocol() -> None:
    """Short side 256, centre 224: what the official transform shows."""
    photo = np.random.default_rng(0).integers(0, 255, (333, 500, 3), dtype=np.uint8)
    image = Image.fromarray(photo)
    official = v2.Compose([v2.Resize(256, v2.InterpolationMode.BICUBIC), v2.CenterCrop(224)])
    expected = v2.functional.pil_to_tensor(official(image))
    assert torch.equal(View(224, 224, short=256).image(image), expected)
