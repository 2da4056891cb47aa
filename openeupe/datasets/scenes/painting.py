"""Render a procedural scene: image, mask and depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from openeupe.datasets.scenes.lettering import lettered, warped
from openeupe.datasets.scenes.shapes import Points
from openeupe.datasets.scenes.staging import CAMERA_HEIGHT_M, FOCAL, Room, Sign, Stage, Thing
from openeupe.datasets.scenes.textures import Floats, mix

NEAREST_M, FARTHEST_M = 0.5, 10.0


@dataclass(frozen=True)
class Picture:
    """rgb: uint8 `[S, S, 3]`. owner: int16 `[S, S]`, place in the stage's things, -1: none.

    depth: float32 `[S, S]` metres.
    """

    rgb: NDArray[np.uint8]
    owner: NDArray[np.int16]
    depth: NDArray[np.float32]


def paint(stage: Stage, resolution: int, rng: np.random.Generator) -> Picture:
    """Draw the stage, far things first; `rng` makes the sensor's noise."""
    canvas, depth = _backdrop(stage.room, resolution)
    owner = np.full((resolution, resolution), -1, np.int16)
    for thing in stage.things:
        _shadow(canvas, thing, stage.room, resolution)
    for place, thing in enumerate(stage.things):
        sign = stage.sign if thing.kind == "sign" else None
        _stand(canvas, depth, owner, place, thing, sign, resolution)
    gain, right, down = stage.room.light
    across = np.linspace(-0.5, 0.5, resolution, dtype=np.float32)
    light = np.float32(gain) * (1 + np.float32(right) * across)[None]
    light = light * (1 + np.float32(down) * across)[:, None]
    canvas *= light[..., None] * np.array(stage.room.tint, np.float32)
    canvas += rng.standard_normal((resolution, resolution, 1), np.float32) * np.float32(
        stage.room.noise
    )
    rgb = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    return Picture(rgb, owner, np.clip(depth, NEAREST_M, FARTHEST_M))


def _backdrop(room: Room, resolution: int) -> tuple[Floats, Floats]:
    """Colours `[S, S, 3]` and metres `[S, S]` of the empty room."""
    centre = (np.arange(resolution, dtype=np.float32) + np.float32(0.5)) / resolution
    below = centre - np.float32(room.horizon)  # slope of the ray under the horizon
    foot = int(np.searchsorted(below, FOCAL * CAMERA_HEIGHT_M / room.wall_m))
    depth = np.full(resolution, room.wall_m, np.float32)
    depth[foot:] = FOCAL * CAMERA_HEIGHT_M / below[foot:]
    canvas = np.empty((resolution, resolution, 3), np.float32)
    across = ((centre - 0.5) / FOCAL)[None]

    texture, first, second = room.wall
    wall = texture(across * room.wall_m, (below[:foot] * room.wall_m)[:, None])
    canvas[:foot] = mix(first, second, wall)

    texture, first, second = room.floor
    z = depth[foot:, None]
    share = texture(across * z, z + np.zeros_like(across))
    cycles_per_pixel = texture.cycles * z**2 / (FOCAL * CAMERA_HEIGHT_M * resolution)
    sharp = np.clip(1.5 - 3 * cycles_per_pixel, 0, 1)  # far repeats blend, they do not alias
    share = np.float32(0.5) + sharp * (share - np.float32(0.5))
    canvas[foot:] = mix(first, second, share)
    canvas[foot : foot + 2] *= 0.6  # the edge between wall and floor
    return canvas, np.repeat(depth[:, None], resolution, axis=1)


def _shadow(canvas: Floats, thing: Thing, room: Room, resolution: int) -> None:
    """Darken the floor where the thing touches it."""
    x0, _, x1, _ = thing.box
    x, y = (x0 + x1) / 2 * resolution, room.row(thing.depth_m) * resolution
    wide = max((x1 - x0) * resolution * 0.5, 3.0)
    high = max(wide * 0.22, 2.0)
    left, right = (int(np.clip(v, 0, resolution)) for v in (x - 2 * wide, x + 2 * wide + 1))
    top, bottom = (int(np.clip(v, 0, resolution)) for v in (y - 2 * high, y + 2 * high + 1))
    if left >= right or top >= bottom:
        return
    across = ((np.arange(left, right, dtype=np.float32) - x) / wide) ** 2
    down = ((np.arange(top, bottom, dtype=np.float32) - y) / high) ** 2
    canvas[top:bottom, left:right] *= (1 - 0.55 * np.exp(-across - down[:, None]))[..., None]


def _stand(
    canvas: Floats,
    depth: Floats,
    owner: NDArray[np.int16],
    place: int,
    thing: Thing,
    sign: Sign | None,
    resolution: int,
) -> None:
    """Paint a thing over the background, and enter it in depth and owner."""
    x0, y0, x1, y1 = thing.outline.box()
    left, top = max(int(x0 * resolution) - 1, 0), max(int(y0 * resolution) - 1, 0)
    right, bottom = (
        min(int(x1 * resolution) + 2, resolution),
        min(int(y1 * resolution) + 2, resolution),
    )
    if left >= right or top >= bottom:
        return
    frame = (left, top, right - left, bottom - top)
    stencil = _filled(thing.outline.parts, thing.outline.holes, frame, resolution)
    alpha = np.asarray(stencil, np.float32) / 255

    size = max(x1 - x0, y1 - y0)
    x = (np.arange(left, right, dtype=np.float32) / resolution - x0) / size
    y = (np.arange(top, bottom, dtype=np.float32) / resolution - y0) / size
    colour = mix(*thing.tones, thing.texture(x[None], y[:, None]))
    if thing.outline.marks:
        marks = np.asarray(_filled(thing.outline.marks, (), frame, resolution), np.float32) / 255
        colour += marks[..., None] * (90 if sum(thing.tones[0]) < 200 else -0.55 * colour)
    if sign is not None:
        ink = np.asarray(_word(sign, frame, resolution), np.float32) / 255
        colour += ink[..., None] * (np.array(sign.ink, np.float32) - colour)
    else:  # rounded edges, lit from the upper left
        soft = np.asarray(stencil.filter(ImageFilter.BoxBlur(2)), np.float32)
        relief = np.zeros_like(soft)
        relief[1:, 1:] = soft[1:, 1:] - soft[:-1, :-1]
        colour *= (1 + relief * np.float32(0.004))[..., None]

    area = (slice(top, bottom), slice(left, right))
    canvas[area] += alpha[..., None] * (colour - canvas[area])
    solid = alpha >= 0.5
    depth[area][solid] = thing.depth_m
    owner[area][solid] = place


def _filled(
    parts: tuple[Points, ...],
    holes: tuple[Points, ...],
    frame: tuple[int, int, int, int],
    resolution: int,
    finer: int = 3,
) -> Image.Image:
    """Cover of each pixel of `frame` (left, top, width, height) by the polygons, mode L."""
    left, top, width, height = frame
    image = Image.new("L", (width * finer, height * finer))
    draw = ImageDraw.Draw(image)
    corner = np.array([left, top], np.float32)
    for polygons, fill in ((parts, 255), (holes, 0)):
        for polygon in polygons:
            # A pixel's centre, not its corner, is where Pillow looks.
            draw.polygon(
                ((polygon * resolution - corner) * finer - 0.5).ravel().tolist(), fill=fill
            )
    return image.reduce(finer)


def _word(sign: Sign, frame: tuple[int, int, int, int], resolution: int) -> Image.Image:
    left, top, width, height = frame
    lines = np.linalg.norm(sign.word[3] - sign.word[0]) * resolution
    image = lettered(sign.text, sign.font, max(8, int(lines * 2)))
    return warped(image, sign.word * resolution - (left, top), (width, height))
