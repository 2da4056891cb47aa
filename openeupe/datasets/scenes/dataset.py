"""Procedural scenes with ground truth for every benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openeupe.datasets.questions import Question, with_article
from openeupe.datasets.scenes.lettering import WORDS, cased
from openeupe.datasets.scenes.painting import Picture, paint
from openeupe.datasets.scenes.shapes import POINTS, SHAPES
from openeupe.datasets.scenes.staging import COLOURS, Stage, Thing, stage_object, stage_scene
from openeupe.identity import facts_identity
from openeupe.seeds import derive_seed, shuffled

VERSION = 1  # to be raised whenever any picture or answer changes

Split = Literal["train", "test"]
Content = Literal["object", "scene"]

CLASSES = tuple(SHAPES)
HELD_OUT = frozenset(
    (shape, tuple(COLOURS)[(3 * number + number // 8) % len(COLOURS)])
    for number, shape in enumerate(CLASSES)
)


SCENE_PAIRS = 100  # of a class, for matching
RELATIONS = ("left of", "right of", "closer than", "farther away than")


class Scenes:
    """Rendered shapes in a room, as a function of (seed, split, index).

    content "object": one large main object of a class, in any colours, half hidden by clutter of
    no class: for classification, segmentation, depth and correspondence. content "scene": three
    to six objects in named colours and a sign with a word, and questions about them. The pairs
    (shape, colour) of `HELD_OUT` occur in no scene of the split "train", nor in its questions.

    Args:
        count: number of images. A longer set begins with the same images as a shorter one.
        seed: which images.
        split: "train" and "test" share no image.
        resolution: height and width in pixels; the layout is the same at every resolution.

    Attributes:
        classes: the shapes' names; `label` counts in them.
        mask_classes: what `mask` counts in: "background" (also clutter), the shapes, "sign".

    Raises:
        ValueError: if count is below 1 or resolution below 32, and by `label`, `pairs` and
            `questions` of the wrong content.
    """

    def __init__(
        self,
        count: int,
        *,
        seed: int = 0,
        split: Split = "train",
        resolution: int = 224,
        content: Content = "scene",
    ) -> None:
        if count < 1 or resolution < 32:
            raise ValueError(
                "scenes need a count of at least 1 and a resolution of at least 32 pixels"
            )
        self.count, self.seed, self.split = count, seed, split
        self.resolution, self.content = resolution, content
        self.classes = list(CLASSES)
        self.mask_classes = ["background", *CLASSES, "sign"]

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """Such as "scene-test-00012"."""
        return f"{self.content}-{self.split}-{index:05d}"

    @property
    def fingerprint(self) -> str:
        """Identity of the generator's version and all settings."""
        return facts_identity(
            VERSION, self.count, self.seed, self.split, self.resolution, self.content
        )

    @property
    def identity(self) -> str:
        """The same, since all labels follow from it."""
        return self.fingerprint

    def read(self, index: int) -> Image.Image:
        """RGB image `index`."""
        return Image.fromarray(self._picture(index).rgb)

    def label(self, index: int) -> int:
        """Class of the main object, each equally often; for content "object" only."""
        if self.content == "scene":
            raise ValueError('labels are of main objects: make the scenes with content="object"')
        return _balanced(len(CLASSES), self.seed, self.split, "label", index)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """`[S, S]` uint8, counting in `mask_classes`: what is seen at each pixel."""
        things = self.stage(index).things
        values = [0, *(_mask_value(thing.kind) for thing in things)]
        return np.array(values, np.uint8)[self._picture(index).owner + 1]

    def depth(self, index: int) -> NDArray[np.float32]:
        """`[S, S]` float32 metres in 0.5..10, along the camera's axis."""
        return self._picture(index).depth.copy()

    def keypoints(self, index: int) -> dict[str, tuple[float, float]]:
        """Named points (x, y), in pixels, of the main object: those in sight."""
        stage, owner = self.stage(index), self._picture(index).owner
        main = stage.things[stage.main]
        found = {}
        for name, (x, y) in zip(
            POINTS[main.kind], main.outline.points * self.resolution, strict=True
        ):
            inside = 0 <= x < self.resolution and 0 <= y < self.resolution
            if inside and owner[int(y), int(x)] == stage.main:
                found[name] = (float(x), float(y))
        return found

    def box(self, index: int) -> tuple[float, float, float, float]:
        """The main object's box (x0, y0, x1, y1) in pixels, hidden parts included."""
        stage = self.stage(index)
        x0, y0, x1, y1 = (
            float(np.clip(v, 0, 1)) * self.resolution for v in stage.things[stage.main].box
        )
        return x0, y0, x1, y1

    def pairs(self, per_class: int = SCENE_PAIRS) -> list[tuple[int, int, str]]:
        """Up to `per_class` ordered pairs of images of one class. For content "object"."""
        if self.content == "scene":
            raise ValueError('pairs are of main objects: make the scenes with content="object"')
        members: dict[int, list[int]] = {}
        for index in range(self.count):
            members.setdefault(self.label(index), []).append(index)
        found = []
        for label, inside in sorted(members.items()):
            total = len(inside) * (len(inside) - 1)
            if total == 0:
                continue
            key = derive_seed(self.seed, self.split, "pairs", label)
            for number in shuffled(np.arange(min(per_class, total)), total, key):
                source, target = divmod(int(number), len(inside) - 1)
                target += target >= source  # never itself
                found.append((inside[source], inside[target], CLASSES[label]))
        return found

    def questions(self) -> list[Question]:
        """About six for each image of content "scene": one of each ability.

        Questions are drawn before the scene and independently of the answer, so that their words
        contain no information about the answer.
        """
        if self.content == "object":
            raise ValueError('questions are about scenes: make them with content="scene"')
        return [question for index in range(self.count) for question in self._asked(index)]

    def stage(self, index: int) -> Stage:
        """The scene: ground truth of image and answers."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return _stage(self.seed, self.split, self.content, index)

    def _picture(self, index: int) -> Picture:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return _picture(self.seed, self.split, self.content, index, self.resolution)

    def _asked(self, index: int) -> Iterator[Question]:
        plan = _Plan(self.seed, self.split, index)
        stage = self.stage(index)
        shape, colour = plan.combination
        yield Question(
            index,
            f"is there {with_article(f'{colour} {shape}')}?",
            ("yes" if plan.exists else "no",),
            "exist",
        )
        yield Question(
            index, f"how many {plural_shape(plan.counted)} are there?", (str(plan.number),), "count"
        )
        asked, answer = plan.objects[plan.rng("attribute").integers(2)]
        yield Question(index, f"what colour is the {asked}?", (answer,), "attribute")
        yield from self._spatial(plan, stage)
        yield Question(index, "what does the sign say?", (plan.word,), "read")
        yield plan.choice(stage)

    def _spatial(self, plan: _Plan, stage: Stage) -> Iterator[Question]:
        """Left or right of, nearer or farther than: where the two differ clearly."""
        kinds = [thing.kind for thing in stage.things]
        first, second = (stage.things[kinds.index(shape)] for shape, _ in plan.objects[:2])
        truth = bool(_balanced(2, self.seed, self.split, "spatial", plan.index))
        words = RELATIONS[:2] if plan.rng("spatial").random() < 0.6 else RELATIONS[2:]
        word = words[plan.rng("relation").integers(2)]
        holds = relation(first, word, second)
        if holds is None:
            return
        # The order of the names makes the answer, so that each order is as likely with either.
        if holds != truth:
            first, second = second, first
        text = f"is the {first.kind} {word} the {second.kind}?"
        yield Question(plan.index, text, ("yes" if truth else "no",), "spatial")


class _Plan:
    """Contents of a scene and its questions, without the layout.

    combination: the (shape, colour) that is asked for. objects: what the scene holds; the first
    two are the only ones of their shapes. counted, number: there are so many of that shape.
    """

    def __init__(self, seed: int, split: Split, index: int) -> None:
        self.key, self.index = (seed, split), index
        rng = self.rng("plan")
        shapes = [CLASSES[k] for k in rng.permutation(len(CLASSES))]
        asked, other, self.counted, *rest = shapes
        self.exists = bool(_balanced(2, seed, split, "exist", index))
        self.number = _balanced(5, seed, split, "count", index)
        self.word = WORDS[rng.integers(len(WORDS))]
        while True:  # colours that are allowed for whatever they are put on
            asked_colour, wrong = self._colour(rng, asked), self._colour(rng, asked)
            if asked_colour != wrong:
                break
        self.combination = (asked, asked_colour)
        if self.exists:
            self.objects = [(asked, asked_colour), (other, self._colour(rng, other))]
        else:  # both the shape and the colour are there, but not together, where allowed
            swapped = asked_colour if self._allowed(other, asked_colour) else wrong
            self.objects = [(asked, wrong), (other, swapped)]
        for _ in range(self.number):
            self.objects.append((self.counted, self._colour(rng, self.counted)))
        self.absent = rest
        while len(self.objects) < 3 or (len(self.objects) < 6 and rng.random() < 0.3):
            filler, *self.absent = self.absent
            self.objects.append((filler, self._colour(rng, filler)))

    def rng(self, what: str) -> np.random.Generator:
        return np.random.default_rng(derive_seed(*self.key, "scene", self.index, what))

    def choice(self, stage: Stage) -> Question:
        """Multiple choice: one of four shapes is there, or one of four words is on the sign."""
        rng = self.rng("choose")
        right = _balanced(4, *self.key, "choose", self.index)
        if rng.random() < 0.5:
            text, answer = "which of these is in the picture?", self.objects[rng.integers(2)][0]
            wrong = list(self.absent)
        else:
            text, answer = "which word is on the sign?", self.word
            wrong = [word for word in WORDS if word != answer]
        choices = [wrong[k] for k in rng.permutation(len(wrong))[:3]]
        choices.insert(right, answer)
        return Question(self.index, text, ("ABCD"[right],), "choose", tuple(choices))

    def _allowed(self, shape: str, colour: str) -> bool:
        return self.key[1] == "test" or (shape, colour) not in HELD_OUT

    def _colour(self, rng: np.random.Generator, shape: str) -> str:
        names = [name for name in COLOURS if self._allowed(shape, name)]
        return names[rng.integers(len(names))]


def relation(first: Thing, words: str, second: Thing) -> bool | None:
    """Whether `first` is `words` (of `RELATIONS`) `second`; None: too similar."""
    if words in RELATIONS[:2]:
        apart, least = second.middle[0] - first.middle[0], 0.1
    else:
        apart, least = float(np.log(second.depth_m / first.depth_m)), 0.25
    if abs(apart) <= least:
        return None
    return (apart > 0) == (words in (RELATIONS[0], RELATIONS[2]))


@lru_cache(maxsize=2048)
def _stage(seed: int, split: Split, content: Content, index: int) -> Stage:
    rng = np.random.default_rng(derive_seed(seed, split, content, index, "stage"))
    if content == "object":
        return stage_object(rng, CLASSES[_balanced(len(CLASSES), seed, split, "label", index)])
    plan = _Plan(seed, split, index)
    return stage_scene(rng, plan.objects, cased(plan.word, rng))


@lru_cache(maxsize=8)
def _picture(seed: int, split: Split, content: Content, index: int, resolution: int) -> Picture:
    rng = np.random.default_rng(derive_seed(seed, split, content, index, "noise"))
    return paint(_stage(seed, split, content, index), resolution, rng)


def _balanced(kinds: int, seed: int, split: str, what: str, index: int) -> int:
    """A number below `kinds`: random, but each once in any block of `kinds` images."""
    block, place = divmod(index, kinds)
    key = derive_seed(seed, split, what, block)
    return int(np.random.default_rng(key).permutation(kinds)[place])


def _mask_value(kind: str) -> int:
    if kind == "clutter":
        return 0
    return 1 + len(CLASSES) if kind == "sign" else 1 + CLASSES.index(kind)


def plural_shape(shape: str) -> str:
    """Such as "stars"."""
    return {"fish": "fish", "cross": "crosses"}.get(shape, f"{shape}s")
