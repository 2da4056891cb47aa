"""Layout of a procedural scene: room, objects and camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openeupe.datasets.scenes.lettering import FONTS, Quad, quad
from openeupe.datasets.scenes.shapes import SHAPES, Outline, Pose, blob
from openeupe.datasets.scenes.textures import Texture, Tone

Box = tuple[float, float, float, float]

CAMERA_HEIGHT_M = 1.0  # fixed, like the focal length, so that metres follow from one image
FOCAL = 1.0  # focal length over the picture's width: 53 degrees of view
COLOURS: dict[str, Tone] = {
    "red": (205, 35, 40),
    "orange": (243, 128, 20),
    "yellow": (243, 215, 40),
    "green": (40, 150, 55),
    "blue": (40, 85, 210),
    "purple": (135, 50, 170),
    "white": (240, 240, 236),
    "black": (28, 28, 32),
}


@dataclass(frozen=True)
class Room:
    """Floor and wall of a scene.

    horizon: row of the horizon, share of the picture's height. wall_m: depth of the wall.
    """

    horizon: float
    wall_m: float
    floor: tuple[Texture, Tone, Tone]
    wall: tuple[Texture, Tone, Tone]
    light: tuple[float, float, float]  # gain, and its change to the right and down
    tint: Tone  # gain of red, green, blue
    noise: float  # standard deviation of the sensor's noise, gray levels

    @staticmethod
    def draw(rng: np.random.Generator) -> Room:
        """A random room, of which the camera sees floor and wall."""
        return Room(
            horizon=float(rng.uniform(0.2, 0.45)),
            wall_m=float(rng.uniform(3.5, 9)),
            floor=(Texture.draw(rng, (0.5, 3)), *_tones(rng)),
            wall=(Texture.draw(rng, (0.3, 3)), *_tones(rng)),
            light=(
                float(rng.uniform(0.7, 1.1)),
                float(rng.uniform(-0.5, 0.5)),
                float(rng.uniform(-0.3, 0.3)),
            ),
            tint=tuple(rng.uniform(0.92, 1.08, 3)),
            noise=float(rng.uniform(1, 7)),
        )

    def row(self, depth_m: float) -> float:
        """Row (share of the picture's height) at which this depth touches the floor."""
        return self.horizon + FOCAL * CAMERA_HEIGHT_M / depth_m

    @property
    def nearest_m(self) -> float:
        """Depth of the floor at the picture's lower edge."""
        return FOCAL * CAMERA_HEIGHT_M / (0.99 - self.horizon)


@dataclass(frozen=True)
class Thing:
    """Something flat that stands upright on the floor.

    kind: a shape's name, "sign" or "clutter". colour: its name, or "" if it has none.
    outline, box: in shares of the picture's size.
    """

    kind: str
    colour: str
    depth_m: float
    outline: Outline
    box: Box
    texture: Texture
    tones: tuple[Tone, Tone]

    @property
    def middle(self) -> tuple[float, float]:
        """(x, y) of the box's middle, in shares of the picture's size."""
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2


@dataclass(frozen=True)
class Sign:
    """The lettering of a sign. plate, word: corners in shares of the picture's size."""

    text: str
    font: str
    plate: Quad
    word: Quad
    ink: Tone


@dataclass(frozen=True)
class Stage:
    """A scene: things from far to near. main: the place in `things` of the object in question."""

    room: Room
    things: tuple[Thing, ...]
    main: int
    sign: Sign | None = None


def stage_object(rng: np.random.Generator, shape: str) -> Stage:
    """One main object of any colours, with clutter before and behind it."""
    room = Room.draw(rng)
    near = room.nearest_m
    depth = float(rng.uniform(max(near, 1.3), max(near, 1.3) * 1.7))
    size = rng.uniform(0.38, 0.62)
    outline = SHAPES[shape].posed(Pose.draw(rng))
    main = _thing(rng, room, shape, "", outline, depth, size, rng.uniform(0.3, 0.7))
    things = [main]
    for _ in range(rng.integers(2, 6)):
        far = float(rng.uniform(min(depth * 1.15, room.wall_m), room.wall_m))
        things.append(_clutter(rng, room, far, rng.uniform(0.12, 0.4), rng.uniform()))
    x0, _, x1, _ = main.box
    for _ in range(rng.integers(0, 3)):  # these hide a part of the main object, at its edges
        before = float(rng.uniform(0.8, 0.97) * depth)
        edge = (x0, x1)[rng.integers(2)] + rng.uniform(-0.05, 0.05)
        things.append(_clutter(rng, room, before, rng.uniform(0.1, 0.26), edge))
    return _sorted(room, things)


def stage_scene(
    rng: np.random.Generator, wanted: Sequence[tuple[str, str]], text: str | None
) -> Stage:
    """A sign and things of the `wanted` (shape, colour) pairs. The first one is the main object.

    Where there is room, nothing hides more than a third of another's box, or a tenth of the sign.
    """
    room = Room.draw(rng)
    things: list[Thing] = []
    sign = None
    if text is not None:
        depth = _depth(rng, room)
        made = _sign(rng, room, text, depth)
        things.append(made[0])
        sign = made[1]
    first = len(things)
    for shape, colour in wanted:
        things.append(_placed(rng, room, shape, colour, things))
    return _sorted(room, things, first if wanted else 0, sign)


def _sorted(room: Room, things: list[Thing], main: int = 0, sign: Sign | None = None) -> Stage:
    order = sorted(range(len(things)), key=lambda k: -things[k].depth_m)
    return Stage(room, tuple(things[k] for k in order), order.index(main), sign)


def _depth(rng: np.random.Generator, room: Room) -> float:
    low, high = np.log(max(room.nearest_m, 1.2)), np.log(room.wall_m - 0.2)
    return float(np.exp(rng.uniform(low, high)))


def _placed(
    rng: np.random.Generator, room: Room, shape: str, colour: str, others: list[Thing]
) -> Thing:
    """Place a thing so that it and the others are visible. Else the best place tried."""
    outline = SHAPES[shape].posed(Pose.draw(rng))
    best, least = (room.wall_m, 0.1, 0.5), np.inf
    for trial in range(60):
        depth = _depth(rng, room)
        height_m = rng.uniform(0.45, 0.95) * 0.98**trial
        size = float(np.clip(FOCAL * height_m / depth, 0.12, 0.42))
        x = rng.uniform(0.08, 0.92)
        scale, shift = _fit(outline, room, depth, size, x)
        x0, y0, x1, y1 = (scale * v + shift[k % 2] for k, v in enumerate(outline.box()))
        outside = max(0.0, -x0, x1 - 1, -y0)
        cost = sum(_hidden(depth, (x0, y0, x1, y1), other) for other in others)
        cost += 10 * outside if outside > 0.02 else 0
        if cost < least:
            best, least = (depth, size, x), cost
        if least < 0.3:
            break
    return _thing(rng, room, shape, colour, outline, *best)


def _hidden(depth_m: float, box: Box, other: Thing) -> float:
    """Share of the farther one's box that the nearer one's covers. A sign wants all of it seen."""
    nearer = depth_m < other.depth_m
    (x0, y0, x1, y1), (u0, v0, u1, v1) = (box, other.box) if nearer else (other.box, box)
    width, height = min(x1, u1) - max(x0, u0), min(y1, v1) - max(y0, v0)
    if width <= 0 or height <= 0:
        return 0.0
    share = width * height / ((u1 - u0) * (v1 - v0))
    return share * (4 if nearer and other.kind == "sign" else 1)


def _thing(
    rng: np.random.Generator,
    room: Room,
    kind: str,
    colour: str,
    outline: Outline,
    depth_m: float,
    size: float,
    x: float,
) -> Thing:
    """`outline`, about `size` (share of the picture's) large, that stands at (`x`, `depth_m`)."""
    scale, shift = _fit(outline, room, depth_m, size, x)
    outline = outline.moved(scale, *shift)
    tones = _shades(rng, COLOURS[colour]) if colour else _tones(rng)
    return Thing(kind, colour, depth_m, outline, outline.box(), Texture.draw(rng, (2, 5)), tones)


def _fit(
    outline: Outline, room: Room, depth_m: float, size: float, x: float
) -> tuple[float, tuple[float, float]]:
    """Scale and shift that put an outline's middle at `x` and its lowest point on the floor."""
    x0, y0, x1, y1 = outline.box()
    scale = size / float(np.sqrt((x1 - x0) * (y1 - y0)))
    return scale, (x - scale * (x0 + x1) / 2, room.row(depth_m) - scale * y1)


def _clutter(rng: np.random.Generator, room: Room, depth_m: float, size: float, x: float) -> Thing:
    outline = blob(rng).posed(Pose.draw(rng, turn=3.1))
    return _thing(rng, room, "clutter", "", outline, depth_m, size, x)


def _sign(rng: np.random.Generator, room: Room, text: str, depth_m: float) -> tuple[Thing, Sign]:
    """A plate on a pole with `text` on it. Letters are 0.045 to 0.12 of the picture high."""
    letters = rng.uniform(0.045, 0.12)
    word_width = min(letters * 0.62 * len(text), 0.6)
    turn, lean = rng.uniform(-0.35, 0.35), rng.uniform(-0.18, 0.18, (4, 2))
    padding = rng.uniform(0.35, 0.9)
    plate_size = (word_width + padding * letters, letters * (1 + padding))
    word = quad(word_width, letters, turn, lean)
    plate = quad(*plate_size, turn, lean)
    reach = np.abs(plate).max(axis=0)
    ground = room.row(depth_m)
    top, bottom = reach[1] + 0.01, max(ground - reach[1] - 0.02, reach[1] + 0.02)
    centre = np.array([rng.uniform(reach[0], 1 - reach[0]), rng.uniform(top, bottom)])
    plate, word = plate + centre, word + centre
    half = 0.012
    pole = [(-half, 0.0), (half, 0.0), (half, ground - centre[1]), (-half, ground - centre[1])]
    parts = (np.array(pole) + centre, plate)
    outline = Outline(tuple(part.astype(np.float32) for part in parts))
    light, dark = rng.uniform(150, 255, 3), rng.uniform(0, 80, 3)
    ground_tone, ink = (light, dark) if rng.random() < 0.5 else (dark, light)
    strength = rng.uniform(0.4, 1)
    ink = ground_tone + strength * (ink - ground_tone)
    second = np.clip(ground_tone + rng.uniform(-45, 45, 3), 0, 255)
    (x0, y0), (x1, y1) = plate.min(axis=0), plate.max(axis=0)
    thing = Thing(
        kind="sign",
        colour="",
        depth_m=depth_m,
        outline=outline,
        box=(float(x0), float(y0), float(x1), float(y1)),
        texture=Texture.draw(rng, (2, 5)),
        tones=(_tone(ground_tone), _tone(second)),
    )
    return thing, Sign(text, FONTS[rng.integers(len(FONTS))], plate, word, _tone(ink))


def _tones(rng: np.random.Generator) -> tuple[Tone, Tone]:
    """Two random colours, from equal to far apart."""
    first = rng.uniform(20, 240, 3)
    second = first + rng.uniform(0.15, 1) * (rng.uniform(20, 240, 3) - first)
    return _tone(first), _tone(second)


def _shades(rng: np.random.Generator, colour: Tone) -> tuple[Tone, Tone]:
    """Two shades that both go by the colour's name."""
    first = np.clip(np.array(colour) + rng.uniform(-14, 14, 3), 0, 255)
    black, white = sum(colour) < 120, sum(colour) > 650
    if black:
        second = first + rng.uniform(10, 38)
    elif white:
        second = first * rng.uniform(0.8, 0.95)
    else:
        second = first * rng.uniform(0.68, 0.9)
    return _tone(first), _tone(second)


def _tone(values: NDArray[np.float64]) -> Tone:
    red, green, blue = (float(v) for v in values)
    return red, green, blue
