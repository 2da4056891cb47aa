"""What a study found: figures over seeds, paired comparisons, and what it could have resolved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openeupe.ablate.addresses import lineage
from openeupe.ablate.power import ALPHA, Power, power
from openeupe.ablate.running import Place, results_folder
from openeupe.ablate.study import LoadedStudy
from openeupe.distill.plan import petaflops
from openeupe.distill.recipe import STAGE_PREFIX
from openeupe.errors import InputError
from openeupe.evaluate.measure import Measure
from openeupe.evaluate.results import Results
from openeupe.evaluate.statistics import Difference, difference, holm


@dataclass(frozen=True)
class Cost:
    """What one arm takes, its stages before included.

    images: that its own student saw. all_images: with those of the stages before it.
    petaflops: all forwards and backwards of its lineage, statistics included.
    """

    images: int
    all_images: int
    petaflops: float


@dataclass(frozen=True)
class Compared:
    """A row of a table against its reference on one column; positive gain: the row is better.

    p: Holm's, over all rows and columns of the table. power: what could have been shown.
    """

    row: str
    column: str
    gain: Difference
    p: float
    unit: str
    power: Power | None

    @property
    def verdict(self) -> str:
        """ "better" or "worse" where noise is ruled out at 5 %, else "no difference shown"."""
        if self.p >= ALPHA or self.gain.delta == 0:
            return "no difference shown"
        return "better" if self.gain.delta > 0 else "worse"


class Outcome:
    """Reads the results of a study, as far as they are there."""

    def __init__(self, loaded: LoadedStudy, place: Place) -> None:
        self.loaded = loaded
        self.place = place
        self._measures: dict[tuple[str, str], Measure | None] = {}

    def measure(self, arm: str, column: str) -> Measure | None:
        """An arm's headline measure `[seeds, N, M]`; None where it is not there.

        The seeds are the study's: what a probe's own seeds count is added up before.
        """
        if (arm, column) not in self._measures:
            self._measures[arm, column] = self._read(arm, column)
        return self._measures[arm, column]

    def seeds(self, arm: str) -> int:
        """How many seeds of an arm have every column of the study."""
        there = [self.measure(arm, column) for column in self.loaded.columns]
        return min((len(m.sums) for m in there if m is not None), default=0)

    def cost(self, arm: str) -> Cost | None:
        """What the arm takes; None for an encoder that exists."""
        trained = self.loaded.trained(arm)
        if trained is None:
            return None
        recipe = self.loaded.recipes[trained.recipe]
        line = lineage(recipe, trained.stage, trained.student)
        images = {name: s.steps * s.batch_size for name, s in line.stages.items()}
        own, stage, student = 0, trained.stage, trained.student
        while True:  # a student that goes on from another has seen that one's images, too
            own += images[stage]
            source = line.stages[stage].students[student].encoder
            if not source.startswith(STAGE_PREFIX):
                break
            stage, student = line.resolve(source)
        return Cost(own, sum(images.values()), sum(petaflops(line).values()))

    def compare(self, table: str) -> list[Compared]:
        """Every row against the table's reference, on every column that both have."""
        config = self.loaded.study.tables[table]
        if config.reference is None:
            return []
        found: list[tuple[str, str, Difference, Measure, Measure]] = []
        for row in config.rows:
            for column in config.columns or self.loaded.columns:
                a, b = self.measure(row, column), self.measure(config.reference, column)
                if row == config.reference or a is None or b is None:
                    continue
                trained = self._trained(row, config.reference)
                if trained:  # of a study that was cut off, the seeds that both have
                    a, b = a.first_seeds(len(b.sums)), b.first_seeds(len(a.sums))
                try:
                    gap = difference(a, b, same_seeds=trained)
                except ValueError as error:
                    raise InputError(
                        f"column {column}: {row}, {config.reference}: {error}"
                    ) from None
                found.append((row, column, gap, a, b))
        adjusted = holm([gap.p for *_, gap, _, _ in found])
        compared = []
        for (row, column, gap, a, b), p in zip(found, adjusted, strict=True):
            could = power(a, b, tests=len(found))
            if not a.higher_is_better:
                gap = Difference(-gap.delta, -gap.high, -gap.low, gap.p)
            compared.append(Compared(row, column, gap, p, a.unit, could))
        return compared

    def _trained(self, a: str, b: str) -> bool:
        return all(self.loaded.study.arms[arm].recipe for arm in (a, b))

    def _read(self, arm: str, column: str) -> Measure | None:
        parts = []
        for seed in self.loaded.seeds(arm):
            folder = results_folder(self.loaded, self.place, arm, seed)
            there = Results(folder).column(column)
            if there is None:
                break  # seeds are done in order: those before are whole
            if "headline" not in there:
                return None
            parts.append(Results(folder).measure(column))
        if not parts:
            return None
        if self.loaded.trained(arm) is None:  # nothing was trained but the probe
            return parts[0]
        sums = np.stack([part.sums.sum(axis=0) for part in parts])
        one = parts[0]
        return Measure(one.metric, one.samples, sums, one.scale, one.higher_is_better, one.unit)
