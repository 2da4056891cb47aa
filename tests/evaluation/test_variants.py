"""Every protocol's learning rates, to the last bit: scores depend on them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openeupe.evaluation.boundaries import Boundaries
from openeupe.evaluation.depth import CachedDepth, OnlineDepth
from openeupe.evaluation.segmentation import CachedSegmentation, OnlineSegmentation
from openeupe.evaluation.text_regions import TextRegions
from openeupe.evaluation.vlm.training import Alignment, Lesson

SCENES = {"layout": "scenes"}
TEXT = TextRegions.model_validate({"data": SCENES})
LESSON = Lesson(train="all", lr=3e-3, batch_size=16)
# (step, rate), recorded from the schedules that each protocol had of its own before.
CELLS = [
    (0, "0x1.ed7291499b871p-15"), (1, "0x1.e89c1c69836a2p-14"), (25, "0x1.895dff6da8b06p-10"),
    (49, "0x1.7a191e8a5c954p-9"), (50, "0x1.89374bc6a7efap-9"), (51, "0x1.893611c7b00aap-9"),
    (250, "0x1.cd7f4b3d93d1ep-10"), (499, "0x1.39fef7e4f7cf5p-25"),
]  # fmt: skip
RATES = {
    "cached segmentation": [
        (0, "0x1.5240152401524p-12"), (1, "0x1.4ccb6fa36ca7ap-11"), (15, "0x1.48055ed2ea923p-8"),
        (29, "0x1.3338a7d8b3c7cp-7"), (30, "0x1.47ae147ae147bp-7"), (31, "0x1.47ab3da4899e7p-7"),
        (150, "0x1.8094beb350845p-8"), (299, "0x1.6b6b2bd4a666bp-22"),
    ],
    "without a warm-up": [
        (0, "0x1.47ae147ae147bp-7"), (1, "0x1.4218e7d35ffb5p-7"), (2, "0x1.31bac734f74b2p-7"),
        (11, "0x1.654b29e05319bp-13"),
    ],
    "shorter than its warm-up": [
        (0, "0x1.47ae147ae147bp-9"), (1, "0x1.1eb851eb851ecp-8"), (2, "0x1.999999999999ap-8"),
        (3, "0x1.47ae147ae147bp-7"),
    ],
    "cached depth": [
        (0, "0x1.95e67fc4ce62bp-14"), (1, "0x1.8f5a85f74f2f9p-13"), (15, "0x1.89a00b637fe2dp-10"),
        (29, "0x1.70aa63040aefep-9"), (30, "0x1.89374bc6a7efap-9"), (31, "0x1.8933e3923ebe1p-9"),
        (150, "0x1.cd7f4b3d93d1bp-10"), (299, "0x1.b41a3498c7adfp-24"),
    ],
    "text": CELLS,
    "boundaries": CELLS,
    "ADE20K": [
        (0, "0x1.12e0be826d695p-30"), (1, "0x1.12e0be826d695p-30"), (2, "0x1.667105b099349p-21"),
        (750, "0x1.00e483722d669p-11"), (1500, "0x1.f84dcb1f8de40p-11"),
        (1501, "0x1.053bf85c072efp-10"), (20_000, "0x1.0624dd2f1a9fcp-11"),
        (39_999, "0x1.b211de353f7cfp-40"),
    ],
    "NYUv2": [
        (0, "0x1.421f5f40d8376p-22"), (1, "0x1.5b49d2b1343efp-22"), (6400, "0x1.26212b15ac8b3p-13"),
        (12_799, "0x1.d87948d04f061p-13"), (12_800, "0x1.d7d7dc35335bfp-13"),
        (20_000, "0x1.25fc89ff06980p-13"), (38_399, "0x1.9c511dc3a41dfp-27"),
    ],
    "NYUv2's beta1": [
        (0, "0x0.0p+0"), (12_799, "0x0.0p+0"), (12_800, "0x1.b333333333333p-1"),
        (20_000, "0x1.bc8f3d7bf8b4fp-1"), (38_399, "0x1.e66666632a7a4p-1"),
    ],
    "alignment": [
        (0, "0x1.b98174853a506p-16"), (1, "0x1.b98174853a506p-15"), (74, "0x1.02b1da46102b2p-9"),
        (75, "0x1.0624dd2f1a9fcp-9"), (76, "0x1.0624c84f107ccp-9"), (750, "0x1.1bcaab89590c4p-10"),
        (1499, "0x1.4e00a22f9db23p-29"),
    ],
    "lesson": [
        (0, "0x1.00cb4b9bdb630p-14"), (1, "0x1.00cb4b9bdb630p-13"), (47, "0x1.8130f169c9148p-9"),
        (48, "0x1.89374bc6a7efap-9"), (49, "0x1.89373160d382ap-9"), (800, "0x1.9c4fbab5f8073p-10"),
        (1599, "0x1.a65d46d020c4ap-29"),
    ],
    "lesson without decay": [
        (0, "0x1.1df9ab7934513p-13"), (1, "0x1.1df9ab7934513p-12"), (20, "0x1.7757b10f14aa9p-9"),
        (21, "0x1.89374bc6a7efap-9"), (699, "0x1.89374bc6a7efap-9"),
    ],
}  # fmt: skip


def computed(protocol: str) -> Iterator[float]:
    return {
        "cached segmentation": lambda: CachedSegmentation().rates(),
        "without a warm-up": lambda: CachedSegmentation(steps=12, warmup_steps=0).rates(),
        "shorter than its warm-up": lambda: CachedSegmentation(steps=4).rates(),
        "cached depth": lambda: CachedDepth().rates(),
        "text": lambda: TEXT.rates(),
        "boundaries": lambda: Boundaries.model_validate({"data": SCENES}).rates(),
        "ADE20K": lambda: OnlineSegmentation().rates(),
        "NYUv2": lambda: OnlineDepth().rates(),
        "NYUv2's beta1": lambda: (OnlineDepth().betas_at(step)[0] for step in range(38_400)),
        "alignment": lambda: Alignment().rates(),
        "lesson": lambda: LESSON.rates(1600),
        "lesson without decay": lambda: LESSON.model_copy(update={"decay": False}).rates(700),
    }[protocol]()


@pytest.mark.parametrize("protocol", RATES)
def test_learning_rates_are_those_of_the_recorded_protocols(protocol: str) -> None:
    rates = list(computed(protocol))
    assert len(rates) == RATES[protocol][-1][0] + 1
    assert [(step, rates[step].hex()) for step, _ in RATES[protocol]] == RATES[protocol]
