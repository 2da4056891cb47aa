"""Flat shapes with names and named points, and their poses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]  # [N, 2]: x to the right, y down


@dataclass(frozen=True)
class Outline:
    """What is drawn: polygons `[N, 2]`, all in one frame (a template's, or pixels).

    parts: filled, one over the other. holes: cut out of them. marks: painted in a darker tone
    (an eye, a door), so that a shape has an inside. points: named points of the shape, `[K, 2]`,
    a little inside of it.
    """

    parts: tuple[Points, ...]
    holes: tuple[Points, ...] = ()
    marks: tuple[Points, ...] = ()
    points: Points = field(default_factory=lambda: np.zeros((0, 2), np.float32))

    def moved(self, scale: float, x: float, y: float) -> Outline:
        """Every point times `scale`, then shifted by (x, y)."""
        shift = np.array([x, y], np.float32)
        return self._mapped(lambda points: points * np.float32(scale) + shift)

    def posed(self, pose: Pose) -> Outline:
        """Every point as `pose` shows it."""
        return self._mapped(pose.apply)

    def box(self) -> tuple[float, float, float, float]:
        """Extent (x0, y0, x1, y1) of the parts."""
        every = np.concatenate(self.parts)
        (x0, y0), (x1, y1) = every.min(axis=0), every.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)

    def _mapped(self, change: Callable[[Points], Points]) -> Outline:
        parts, holes, marks = (
            tuple(change(polygon) for polygon in group)
            for group in (self.parts, self.holes, self.marks)
        )
        return Outline(parts, holes, marks, change(self.points))


@dataclass(frozen=True)
class Pose:
    """Mirror, mild bending, perspective, shear and turn of a template. Strengths are shares."""

    mirror: bool
    turn: float  # radians
    stretch: float  # width over height, 1: as in the template
    shear: float
    taper: tuple[float, float]
    bend: tuple[float, float]
    phase: tuple[float, float]

    @staticmethod
    def draw(rng: np.random.Generator, turn: float = 0.45, bend: float = 0.07) -> Pose:
        """A random pose, turned by at most `turn` radians either way."""
        u = rng.uniform(-1, 1, 9)
        return Pose(
            mirror=bool(u[0] < 0),
            turn=float(turn * u[1]),
            stretch=float(np.exp(0.25 * u[2])),
            shear=float(0.2 * u[3]),
            taper=(float(0.16 * u[4]), float(0.16 * u[5])),
            bend=(float(bend * u[6]), float(bend * u[7])),
            phase=(float(np.pi * u[8]), float(np.pi * u[8] + 2)),
        )

    def apply(self, points: Points) -> Points:
        """Where `points` of the template are seen, in the template's units."""
        x, y = points[:, 0], points[:, 1]
        bent_x = x + self.bend[0] * np.sin(2 * y + self.phase[0])
        bent_y = y + self.bend[1] * np.sin(2 * x + self.phase[1])
        x = bent_x * (1 + self.taper[0] * bent_y) * self.stretch * (-1 if self.mirror else 1)
        y = bent_y * (1 + self.taper[1] * bent_x)
        x = x + self.shear * y
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return np.stack((cos * x - sin * y, sin * x + cos * y), axis=1).astype(np.float32)


def blob(rng: np.random.Generator) -> Outline:
    """Clutter of no class: a wavy blob, a crooked polygon or a bar."""
    kind = rng.integers(3)
    if kind == 0:
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        radius = 1 + sum(
            rng.uniform(-0.35, 0.35) / n * np.cos(n * angle + rng.uniform(0, 6)) for n in (2, 3, 5)
        )
    elif kind == 1:
        angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(4, 8))))
        radius = rng.uniform(0.6, 1.1, len(angle))
    else:
        angle = np.array([0.15, np.pi - 0.15, np.pi + 0.15, -0.15])
        radius = np.full(4, 1.3)
    polygon = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1)
    return Outline((polygon.astype(np.float32),))


def _polygon(*corners: tuple[float, float]) -> Points:
    """A closed polygon with points along its edges, so that bending bends them."""
    start = np.array(corners, np.float32)
    end = np.roll(start, -1, axis=0)
    steps = np.linspace(0, 1, 6, endpoint=False, dtype=np.float32)[:, None]
    return np.concatenate([a + (b - a) * steps for a, b in zip(start, end, strict=True)])


def _ellipse(x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 1) -> Points:
    """Points on an arc from `start` to `stop` turns, clockwise from the right."""
    angle = np.linspace(start, stop, 40) * (2 * np.pi)
    return np.stack((x + rx * np.cos(angle), y + ry * np.sin(angle)), axis=1).astype(np.float32)


def _around(radius: float, turns: NDArray[np.float64]) -> list[tuple[float, float]]:
    return [
        (float(radius * np.sin(2 * np.pi * t)), float(-radius * np.cos(2 * np.pi * t)))
        for t in turns
    ]


def _star() -> tuple[Outline, list[str]]:
    tips, valleys = _around(1, np.arange(5) / 5), _around(0.42, np.arange(5) / 5 + 0.1)
    corners = [corner for pair in zip(tips, valleys, strict=True) for corner in pair]
    points = [*_around(0.8, np.arange(5) / 5), (0.0, 0.0)]
    names = ["top tip", "right tip", "lower right tip", "lower left tip", "left tip", "centre"]
    return Outline((_polygon(*corners),), points=_array(points)), names


def _ring() -> tuple[Outline, list[str]]:
    gem = _polygon((-0.25, -1), (0.25, -1), (0.42, -0.78), (0, -0.35), (-0.42, -0.78))
    band, hole = _ellipse(0, 0.3, 0.7, 0.7), _ellipse(0, 0.3, 0.46, 0.46)
    points = [(0, -0.7), (0.58, 0.3), (0, 0.88), (-0.58, 0.3)]
    return (
        Outline(
            (band, gem), (hole,), (gem * np.float32(0.8) + _array([(0, -0.14)]),), _array(points)
        ),
        ["gem", "right side", "bottom", "left side"],
    )


def _cross() -> tuple[Outline, list[str]]:
    a, b = 0.3, 1.0
    corners = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b)]
    corners += [(-a, a), (-b, a), (-b, -a), (-a, -a)]
    points = [(0, -0.88), (0.88, 0), (0, 0.88), (-0.88, 0), (0, 0)]
    return Outline((_polygon(*corners),), points=_array(points)), [
        "top end", "right end", "bottom end", "left end", "centre",
    ]  # fmt: skip


def _arrow() -> tuple[Outline, list[str]]:
    corners = [(-1, -0.22), (0.2, -0.22), (0.2, -0.7), (1, 0), (0.2, 0.7), (0.2, 0.22), (-1, 0.22)]
    points = [(0.85, 0), (0.27, -0.52), (0.27, 0.52), (-0.9, 0)]
    return Outline((_polygon(*corners),), points=_array(points)), [
        "tip", "upper barb", "lower barb", "tail",
    ]  # fmt: skip


def _moon() -> tuple[Outline, list[str]]:
    outer = _ellipse(0, 0, 1, 1, 0.14, 0.86)
    inner = _ellipse(0.42, 0, 0.79, 0.79, 0.73, 0.27)
    points = [(0.42, -0.83), (-0.67, 0), (0.42, 0.83)]
    return Outline((np.concatenate((outer, inner)),), points=_array(points)), [
        "upper horn", "back", "lower horn",
    ]  # fmt: skip


def _heart() -> tuple[Outline, list[str]]:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    points = [(0, 0.85), (-0.5, -0.55), (0.5, -0.55), (0, -0.18)]
    return Outline((np.stack((x, y), 1).astype(np.float32),), points=_array(points)), [
        "bottom tip", "left lobe", "right lobe", "notch",
    ]  # fmt: skip


def _fish() -> tuple[Outline, list[str]]:
    body = _ellipse(0.2, 0, 0.8, 0.48)
    tail = _polygon((-0.45, 0), (-1, -0.5), (-0.85, 0), (-1, 0.5))
    fin = _polygon((-0.15, -0.38), (0.1, -0.75), (0.45, -0.4))
    eye = _ellipse(0.62, -0.12, 0.1, 0.1)
    points = [(0.92, 0), (0.62, -0.12), (0.1, -0.63), (-0.9, -0.38), (-0.9, 0.38)]
    return Outline((body, tail, fin), marks=(eye,), points=_array(points)), [
        "mouth", "eye", "fin", "upper tail", "lower tail",
    ]  # fmt: skip


def _tree() -> tuple[Outline, list[str]]:
    tiers = [
        _polygon(
            (0, -1 + 0.42 * k),
            (0.4 + 0.15 * k, -0.4 + 0.42 * k),
            (-0.4 - 0.15 * k, -0.4 + 0.42 * k),
        )
        for k in range(3)
    ]
    trunk = _polygon((-0.14, 0.4), (0.14, 0.4), (0.14, 1), (-0.14, 1))
    points = [(0, -0.85), (0.55, 0.38), (-0.55, 0.38), (0, 0.9)]
    return Outline((trunk, *tiers), marks=(trunk[_below(trunk, 0.44)],), points=_array(points)), [
        "top", "right branch", "left branch", "foot",
    ]  # fmt: skip


def _house() -> tuple[Outline, list[str]]:
    walls = _polygon((-0.75, -0.15), (0.75, -0.15), (0.75, 1), (-0.75, 1))
    roof = _polygon((-1, -0.1), (0, -0.95), (1, -0.1))
    chimney = _polygon((0.42, -0.95), (0.68, -0.95), (0.68, -0.2), (0.42, -0.2))
    door = _polygon((-0.5, 0.35), (-0.1, 0.35), (-0.1, 1), (-0.5, 1))
    window = _polygon((0.15, 0.15), (0.55, 0.15), (0.55, 0.5), (0.15, 0.5))
    points = [(0, -0.82), (-0.85, -0.16), (0.85, -0.16), (-0.3, 0.65), (0.35, 0.32), (0.55, -0.88)]
    return Outline((walls, roof, chimney), marks=(door, window), points=_array(points)), [
        "roof top", "left eave", "right eave", "door", "window", "chimney",
    ]  # fmt: skip


def _key() -> tuple[Outline, list[str]]:
    bow, hole = _ellipse(0, -0.58, 0.42, 0.42), _ellipse(0, -0.58, 0.2, 0.2)
    shaft = _polygon((-0.1, -0.25), (0.1, -0.25), (0.1, 1), (-0.1, 1))
    teeth = [
        _polygon((0.05, y), (0.45, y), (0.45, y + 0.16), (0.05, y + 0.16)) for y in (0.5, 0.82)
    ]
    points = [(0, -0.9), (0, 0.1), (0, 0.92), (0.38, 0.9), (0.38, 0.58)]
    return Outline((bow, shaft, *teeth), (hole,), points=_array(points)), [
        "bow", "shaft", "end", "lower tooth", "upper tooth",
    ]  # fmt: skip


def _mushroom() -> tuple[Outline, list[str]]:
    cap = _ellipse(0, 0, 0.95, 0.9, 0.5, 1)
    stem = _polygon((-0.22, -0.05), (0.22, -0.05), (0.32, 0.85), (-0.32, 0.85))
    spots = tuple(
        _ellipse(x, y, 0.13, 0.13) for x, y in ((-0.45, -0.3), (0.05, -0.55), (0.5, -0.25))
    )
    points = [(0, -0.8), (-0.8, -0.1), (0.8, -0.1), (0, 0.75)]
    return Outline((cap, stem), marks=spots, points=_array(points)), [
        "cap top", "cap left", "cap right", "foot",
    ]  # fmt: skip


def _flower() -> tuple[Outline, list[str]]:
    petals = [_ellipse(x, y - 0.42, 0.26, 0.26) for x, y in _around(0.38, np.arange(6) / 6)]
    stem = _polygon((-0.06, -0.1), (0.06, -0.1), (0.06, 1), (-0.06, 1))
    leaf = _polygon((0.02, 0.75), (0.3, 0.35), (0.62, 0.3), (0.45, 0.62))
    heart = _ellipse(0, -0.42, 0.2, 0.2)
    points = [(0, -0.42), (0, -0.95), (0, 0.94), (0.5, 0.4)]
    return Outline((stem, leaf, *petals, heart), marks=(heart,), points=_array(points)), [
        "centre", "top petal", "foot", "leaf",
    ]  # fmt: skip


def _below(polygon: Points, y: float) -> NDArray[np.bool_]:
    return polygon[:, 1] > y


def _array(points: Sequence[tuple[float, float]]) -> Points:
    return np.array(points, np.float32)


_MADE = {
    "star": _star(),
    "ring": _ring(),
    "cross": _cross(),
    "arrow": _arrow(),
    "moon": _moon(),
    "heart": _heart(),
    "fish": _fish(),
    "tree": _tree(),
    "house": _house(),
    "key": _key(),
    "mushroom": _mushroom(),
    "flower": _flower(),
}
SHAPES: dict[str, Outline] = {name: outline for name, (outline, _) in _MADE.items()}
POINTS: dict[str, tuple[str, ...]] = {name: tuple(points) for name, (_, points) in _MADE.items()}
