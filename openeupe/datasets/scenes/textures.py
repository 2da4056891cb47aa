"""Procedural textures: patterns as functions of position, between two colours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tone = tuple[float, float, float]  # RGB in [0, 255]
Floats = NDArray[np.floating[Any]]

KINDS = ("plain", "stripes", "checks", "dots", "noise", "marble", "bricks")


@dataclass(frozen=True)
class Texture:
    """A pattern in the plane. cycles: its repeats per unit of the coordinates."""

    kind: str
    cycles: float
    turn: float  # radians
    shift: tuple[float, float]

    @staticmethod
    def draw(rng: np.random.Generator, cycles: tuple[float, float]) -> Texture:
        """A random pattern. Its number of cycles is log-uniform in the range `cycles`."""
        low, high = np.log(cycles[0]), np.log(cycles[1])
        return Texture(
            kind=KINDS[rng.integers(len(KINDS))],
            cycles=float(np.exp(rng.uniform(low, high))),
            turn=float(rng.uniform(0, np.pi)),
            shift=(float(rng.uniform(0, 50)), float(rng.uniform(0, 50))),
        )

    def __call__(self, x: Floats, y: Floats) -> Floats:
        """Share of the second tone, in [0, 1], at coordinates that broadcast together."""
        cos, sin = self.cycles * np.cos(self.turn), self.cycles * np.sin(self.turn)
        u = x * np.float32(cos) - y * np.float32(sin) + np.float32(self.shift[0])
        v = x * np.float32(sin) + y * np.float32(cos) + np.float32(self.shift[1])
        if self.kind == "plain":
            return 0.35 * _noise(u, v)
        if self.kind == "stripes":
            return (0.5 + 0.5 * np.clip(3 * _wave(u), -1, 1)).astype(np.float32)
        if self.kind == "checks":
            return (0.5 + 0.5 * np.clip(6 * _wave(u) * _wave(v), -1, 1)).astype(np.float32)
        if self.kind == "dots":
            r = (u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2
            return np.clip((0.1 - r) * 20, 0, 1).astype(np.float32)
        if self.kind == "noise":
            return _noise(u, v)
        if self.kind == "marble":
            return (0.5 + 0.5 * _wave(u + 1.5 * _noise(v, u))).astype(np.float32)
        row = np.floor(v * 2)
        across, down = (u + 0.5 * (row % 2)) % 1, (v * 2) % 1
        joint = np.minimum(np.minimum(across, 1 - across) * 2, np.minimum(down, 1 - down))
        return np.clip(1 - joint * 8, 0, 1).astype(np.float32)


def mix(first: Tone, second: Tone, share: Floats) -> Floats:
    """`[..., 3]` colours between two tones; `share` `[...]` is that of the second."""
    start, end = np.array(first, np.float32), np.array(second, np.float32)
    return start + share[..., None] * (end - start)


def _wave(u: Floats) -> Floats:
    return np.asarray(np.sin(u * np.float32(2 * np.pi)), np.float32)


def _noise(u: Floats, v: Floats) -> Floats:
    """Cloudy noise in [0, 1] with period 4 in u and v."""
    tile = _tile()
    size = len(tile)
    rows = (v * (size / 4)).astype(np.int32) & (size - 1)
    columns = (u * (size / 4)).astype(np.int32) & (size - 1)
    return tile[rows, columns]


@cache
def _tile(size: int = 256) -> Floats:
    """Periodic 1/f noise `[size, size]`, scaled to [0, 1]. One for all, seen at random places."""
    rng = np.random.default_rng(7)
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    spectrum /= np.maximum(np.hypot(fy, fx), 2.5 / size) ** 1.4
    spectrum[0, 0] = 0
    values = np.fft.irfft2(spectrum, s=(size, size))
    return np.clip(0.5 + values / (5 * values.std()), 0, 1).astype(np.float32)
