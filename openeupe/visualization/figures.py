"""Reproducible figures drawn with matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from openeupe.visualization.colours import Coloured
from openeupe.visualization.images import NamedImage
from openeupe.visualization.similarity import matches, patch_at, similarity

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

_PANEL, _GAP = 2.3, 0.1  # inches
_TITLE_PT, _NAME_PT, _SMALL_PT = 9.0, 9.0, 7.5
_DPI = 120
# Okabe and Ito's palette, safe for colour-blind readers.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")


def side_by_side(
    images: Sequence[NamedImage],
    coloured: Mapping[str, Sequence[Coloured]],
    title: str,
    upsampling: str = "nearest",
) -> Figure:
    """A row per image: the image, then each encoder's colours, variance and coherence."""
    sheet = _Sheet(["image", *coloured], [_shape(p) for p in images], title, upsampling, lines=2)
    for row, image in enumerate(images):
        sheet.original(row, 0, image)
        for column, name in enumerate(coloured, start=1):
            one = coloured[name][row]
            sheet.image(row, column, one.rgb.numpy(), f"{variance(one)}\n{extent(one)}")
    return sheet.figure


def components(
    image: NamedImage,
    coloured: Mapping[str, Coloured],
    title: str,
    count: int = 8,
    upsampling: str = "nearest",
) -> Figure:
    """A row per encoder: image, colours, then components 1 to `count` as grey maps."""
    heads = ["image", "1-3 as colours", *(f"component {i + 1}" for i in range(count))]
    sheet = _Sheet(heads, [_shape(image)] * len(coloured), title, upsampling, lines=1)
    for row, (name, one) in enumerate(coloured.items()):
        sheet.original(row, 0, image, name)
        sheet.image(row, 1, one.rgb.numpy(), extent(one))
        for i in range(count):
            share = f"{100 * float(one.explained[i]):.1f} % of the variance"
            sheet.image(row, 2 + i, one.components[i].numpy(), share, cmap="gray")
    return sheet.figure


def norms(
    images: Sequence[NamedImage],
    tokens: Mapping[str, Sequence[Tensor]],
    upsampling: str = "nearest",
) -> Figure:
    """Lengths of the patch tokens: an outlier is a bright spot far above the median."""
    title = (
        "Length of each patch token, from 0 (dark) to the longest of the picture (bright). "
        "Outliers: longer than the median + 5 scaled MAD"
    )
    sheet = _Sheet(["image", *tokens], [_shape(p) for p in images], title, upsampling, lines=2)
    for row, image in enumerate(images):
        sheet.original(row, 0, image)
        for column, name in enumerate(tokens, start=1):
            length = tokens[name][row].norm(dim=0)
            middle = length.median()
            spread = 1.4826 * (length - middle).abs().median()
            outliers = int((length > middle + 5 * spread).sum())
            text = f"median {float(middle):.3g}, longest {float(length.max()):.3g}"
            few = f"{outliers} of {length.numel()} outliers"
            sheet.image(row, column, length.numpy(), f"{text}\n{few}", cmap="cividis", low=0.0)
    return sheet.figure


def similarities(
    images: Sequence[NamedImage],
    tokens: Mapping[str, Sequence[Tensor]],
    at: tuple[float, float],
    upsampling: str = "nearest",
) -> Figure:
    """Cosine similarity to one patch of the first image, in all images."""
    title = (
        f"Cosine similarity to the patch marked in {images[0].name}; each picture from its "
        "lowest value (dark) to its highest (bright)"
    )
    sheet = _Sheet(["image", *tokens], [_shape(p) for p in images], title, upsampling, lines=1)
    for row, image in enumerate(images):
        sheet.original(row, 0, image)
        for column, name in enumerate(tokens, start=1):
            y, x = patch_at(tokens[name][0], *at)
            values = similarity(tokens[name][row], tokens[name][0][:, y, x])
            text = f"{float(values.min()):.2f} to {float(values.max()):.2f}"
            sheet.image(row, column, values.numpy(), text, cmap="viridis")
            if row == 0:
                sheet.mark(row, column, x + 0.5, y + 0.5)
    width, height = images[0].pixels.size
    sheet.mark(0, 0, at[0] * width, at[1] * height)
    return sheet.figure


def match_lines(
    images: Sequence[NamedImage], tokens: Mapping[str, Sequence[Tensor]], count: int = 12
) -> Figure:
    """A row per encoder: lines between the best matching patches of the first two images."""
    from matplotlib.patches import ConnectionPatch

    first, second = images[:2]
    title = (
        f"The best {count} pairs of mutual nearest patches of two images; "
        "only one pair is taken from a neighbourhood"
    )
    shape = max(_shape(first), _shape(second))
    heads = [first.name, second.name]
    sheet = _Sheet(heads, [shape] * len(tokens), title, None, lines=1, panel=3.6)
    for row, (name, (one, other)) in enumerate(tokens.items()):
        found = matches(one, other, count)
        likeness = [match.similarity for match in found]
        text = f"{len(found)} pairs, cosine {min(likeness, default=0):.2f} to "
        sheet.original(row, 0, first, f"{name}: {text}{max(likeness, default=0):.2f}")
        sheet.original(row, 1, second, "")
        left, right = sheet.axes[row]
        for i, match in enumerate(found):
            ends = [
                (x * p.pixels.width, y * p.pixels.height)
                for (x, y), p in ((match.source, first), (match.target, second))
            ]
            colour = PALETTE[i % 6]
            line = ConnectionPatch(
                ends[0], ends[1], "data", "data", axesA=left, axesB=right, color=colour, lw=1.2
            )
            sheet.figure.add_artist(line)
            for axis, end in zip((left, right), ends, strict=True):
                axis.plot(*end, "o", ms=5, mfc=colour, mec="white", mew=0.8)
    return sheet.figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG without date or version. The same figure gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
    return path


def variance(one: Coloured) -> str:
    """The shares of variance of the three components of a picture."""
    return " + ".join(f"{100 * float(e):.0f}" for e in one.explained[:3]) + " % of variance"


def extent(one: Coloured) -> str:
    """Spatial coherence of a picture's tokens, and their grid, columns by rows."""
    return f"coherence {one.coherence:.2f}, {one.rgb.shape[1]} x {one.rgb.shape[0]} patches"


def _shape(image: NamedImage) -> float:
    return image.pixels.height / image.pixels.width


class _Sheet:
    """A grid of panels, laid out in inches. Panels have one width, rows their own height.

    Drawn without pyplot (no global state, no display) and without matplotlib's layout engines,
    which take longer than everything else.
    """

    def __init__(
        self,
        columns: Sequence[str],
        shapes: Sequence[float],
        title: str,
        upsampling: str | None,
        *,
        lines: int,
        panel: float = _PANEL,
    ) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.upsampling, self.panel = upsampling, panel
        stated = f"{title}. Upsampling {upsampling}." if upsampling else f"{title}."
        width = len(columns) * (panel + _GAP) + _GAP
        written = textwrap.wrap(stated, max(30, int(width * 14)))
        head = 0.12 + 0.17 * len(written) + 0.28
        foot = 0.08 + 0.15 * lines  # the caption under each panel
        heights = [min(max(panel * shape, 0.4), 3 * panel) for shape in shapes]
        height = head + sum(heights) + (foot + 0.06) * len(heights) + 0.04
        self.figure = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(self.figure)
        self.axes: list[list[Any]] = []
        top = height - head
        for row_height in heights:
            self.axes.append(
                [
                    self.figure.add_axes(
                        (
                            (_GAP + i * (panel + _GAP)) / width,
                            (top - row_height) / height,
                            panel / width,
                            row_height / height,
                        )
                    )
                    for i in range(len(columns))
                ]
            )
            top -= row_height + foot + 0.06
        for axis in (axis for row in self.axes for axis in row):
            axis.set_axis_off()
        self.figure.text(
            _GAP / width,
            1 - 0.1 / height,
            "\n".join(written),
            fontsize=_TITLE_PT,
            va="top",
            linespacing=1.3,
            parse_math=False,  # a name such as `$x$.jpg` is no formula
        )
        for axis, name in zip(self.axes[0], columns, strict=True):
            axis.set_title(self._short(name, _NAME_PT), fontsize=_NAME_PT, pad=4, parse_math=False)

    def original(self, row: int, column: int, image: NamedImage, text: str | None = None) -> None:
        self.axes[row][column].imshow(np.asarray(image.pixels))
        self._caption(row, column, image.name if text is None else text)

    def image(
        self,
        row: int,
        column: int,
        values: Any,
        text: str,
        cmap: str | None = None,
        low: float | None = None,
    ) -> None:
        axis = self.axes[row][column]
        axis.imshow(values, cmap=cmap, vmin=low, interpolation=self.upsampling, aspect="auto")
        self._caption(row, column, text)

    def mark(self, row: int, column: int, x: float, y: float) -> None:
        """A cross that shows on light and on dark. `x`, `y` in pixels of the picture's edges."""
        axis = self.axes[row][column]
        for colour, width in (("white", 3.5), ("#D55E00", 1.8)):
            axis.plot(x - 0.5, y - 0.5, "+", ms=11, mec=colour, mew=width)

    def _caption(self, row: int, column: int, text: str) -> None:
        lines = [self._short(line, _SMALL_PT) for line in text.splitlines()]
        self.axes[row][column].text(
            0.5,
            0,
            "\n".join(lines),
            transform=self.axes[row][column].transAxes + _points_down(self.figure, 4),
            ha="center",
            va="top",
            fontsize=_SMALL_PT,
            linespacing=1.25,
            parse_math=False,
        )

    def _short(self, text: str, size: float) -> str:
        """Shorten a name in the middle to fit a panel."""
        room = int(self.panel * 72 / (size * 0.56))
        if len(text) <= room:
            return text
        tail = (room - 1) * 2 // 3
        return f"{text[: room - 1 - tail]}…{text[-tail:]}"


def _points_down(figure: Figure, points: float) -> Transform:
    from matplotlib.transforms import ScaledTranslation

    return ScaledTranslation(0, -points / 72, figure.dpi_scale_trans)
