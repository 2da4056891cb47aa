"""Demo page to compare encoders on uploaded images."""

# No `from __future__ import annotations`: gradio reads the type of `event` at run time.

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from openeupe.encoders import Encoder
from openeupe.errors import InputError
from openeupe.visualization.colours import Colouring, colour
from openeupe.visualization.figures import variance
from openeupe.visualization.images import named_image, patch_tokens
from openeupe.visualization.similarity import patch_at, similarity

Shown = tuple[Image.Image, str]  # a picture and its caption
_SHOWN = 512  # pixels of a picture's long side
_GALLERY: Any = {"columns": 3, "object_fit": "contain", "height": "auto"}


def build(encoders: Mapping[str, Encoder], resolution: int) -> Any:
    """The demo as gradio Blocks, not yet launched.

    Args:
        encoders: by the names the page shows.
        resolution: long side of images in pixels.

    Raises:
        InputError: if gradio is not installed.
    """
    try:
        import gradio
    except ImportError:
        raise InputError("demo needs gradio: pip install 'openeupe[demo]'") from None

    def see(image: Image.Image | None, names: list[str]) -> tuple[dict[str, Tensor], list[Shown]]:
        if image is None or not names:
            return {}, []
        small = named_image(image.convert("RGB"), "image", resolution)
        tokens = {name: patch_tokens(encoders[name], small) for name in encoders if name in names}
        return tokens, colours(tokens, small.pixels.size)

    def point(
        event: gradio.SelectData, image: Image.Image | None, tokens: dict[str, Tensor]
    ) -> tuple[list[Shown], str]:
        if image is None or not tokens:
            return [], "Choose an image and encoders first."
        x, y = event.index[0] / image.width, event.index[1] / image.height
        return maps(tokens, (x, y), image.size), f"Similarity to the patch at {x:.0%}, {y:.0%}."

    with gradio.Blocks(title="OpenEUPE", analytics_enabled=False) as blocks:
        gradio.Markdown(
            "# What encoders see\nUpload an image; then click into it to see similar "
            "patches. Colours: first three principal components, aligned with the first encoder's."
        )
        tokens = gradio.State({})
        with gradio.Row():
            image = gradio.Image(type="pil", label="Image", sources=["upload", "clipboard"])
            names = gradio.CheckboxGroup(
                list(encoders), value=list(encoders), label="Encoders", elem_id="encoders"
            )
        seen = gradio.Gallery(label="Colours", elem_id="colours", **_GALLERY)
        caption = gradio.Markdown("Click into the image.", elem_id="caption")
        similar = gradio.Gallery(label="Similarity to the patch", elem_id="similar", **_GALLERY)
        for changed in (image.change, names.change):
            changed(see, [image, names], [tokens, seen])
        image.select(point, [image, tokens], [similar, caption])
    return blocks


def colours(tokens: Mapping[str, Tensor], size: tuple[int, int]) -> list[tuple[Image.Image, str]]:
    """(picture, caption) of each encoder: components 1 to 3 as colours."""
    coloured = colour({name: [patches] for name, patches in tokens.items()}, Colouring())
    return [
        (_enlarged(one.rgb.numpy(), size), f"{name}: {variance(one)}")
        for name, (one,) in coloured.items()
    ]


def maps(
    tokens: Mapping[str, Tensor], at: tuple[float, float], size: tuple[int, int]
) -> list[tuple[Image.Image, str]]:
    """(picture, caption) of each encoder: cosine similarity to the patch at a place.

    Args:
        at: in shares of the image's width and height.
        size: width and height of the image, for its shape.
    """
    from matplotlib import colormaps

    shown = []
    for name, patches in tokens.items():
        row, column = patch_at(patches, *at)
        values = similarity(patches, patches[:, row, column]).numpy()
        low, high = float(values.min()), float(values.max())
        rgb = colormaps["viridis"]((values - low) / max(high - low, 1e-12))[..., :3]
        shown.append((_enlarged(rgb, size), f"{name}: cosine {low:.2f} to {high:.2f}"))
    return shown


def _enlarged(rgb: Any, size: tuple[int, int]) -> Image.Image:
    scale = _SHOWN / max(size)
    shape = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    pixels = Image.fromarray((np.asarray(rgb) * 255).round().astype(np.uint8))
    return pixels.resize(shape, Image.Resampling.NEAREST)
