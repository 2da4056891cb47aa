"""Results of a study: metrics over seeds, paired comparisons and power."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from openeupe.ablation.addresses import lineage
from openeupe.ablation.power import Power, power
from openeupe.ablation.running import Place, results_folder, source_of
from openeupe.ablation.study import LoadedStudy
from openeupe.distillation.chain import load_with_chains
from openeupe.distillation.plan import petaflops
from openeupe.errors import InputError
from openeupe.evaluation.benchmark import identify
from openeupe.evaluation.compare import PairedDifference, check_pair
from openeupe.evaluation.measure import Measure
from openeupe.evaluation.records import BenchmarkResult, Conditions, EncoderIdentity
from openeupe.evaluation.results import read_benchmark, read_measure
from openeupe.evaluation.statistics import Difference, corrected, mean_difference


@dataclass(frozen=True)
class Cost:
    """Cost of one arm, with all its stages.

    images: that its own student saw. all_images: with those of the stages before it.
    petaflops: all forwards and backwards of its lineage, statistics included.
    """

    images: int
    all_images: int
    petaflops: float


@dataclass(frozen=True)
class ArmDifference(PairedDifference):
    """Difference of a row, or an effect, on one benchmark.

    p: adjusted by Holm over all rows and benchmarks of the table. power: what these seeds could
    have shown.
    """

    row: str
    power: Power | None


class StudyResults:
    """Reads the available results of a study.

    Attributes:
        stale: "ARM, seed SEED: BENCHMARK" of saved results that are left out: of another
            encoder than the arm's now, or other settings or another precision than the study's.
    """

    def __init__(self, loaded: LoadedStudy, place: Place) -> None:
        self.loaded = loaded
        self.place = place
        self.stale: list[str] = []
        self._measures: dict[tuple[str, str], Measure | None] = {}
        self._encoders: dict[tuple[str, int], EncoderIdentity] = {}
        self._first: dict[str, tuple[Path, BenchmarkResult]] = {}

    def measure(self, arm: str, benchmark: str) -> Measure | None:
        """An arm's headline measure `[seeds, N, M]`; None where it is not there.

        The seeds are the study's: what a probe's own seeds count is added up before.
        """
        if (arm, benchmark) not in self._measures:
            self._measures[arm, benchmark] = self._read(arm, benchmark)
        return self._measures[arm, benchmark]

    def seeds(self, arm: str) -> int:
        """Number of seeds that all of an arm's finished benchmarks have."""
        there = [self.measure(arm, benchmark) for benchmark in self.loaded.benchmarks]
        return min((len(m.sums) for m in there if m is not None), default=0)

    def cost(self, arm: str) -> Cost | None:
        """Cost of an arm; None for an existing encoder."""
        trained = self.loaded.trained(arm)
        if trained is None:
            return None
        recipe = self.loaded.recipes[trained.recipe]
        line = lineage(recipe, trained.stage, trained.student)
        images = {name: s.steps * s.batch_size for name, s in line.stages.items()}
        own, stage, student = 0, trained.stage, trained.student
        while True:  # a student that continues another has seen that one's images, too
            own += images[stage]
            earlier = line.stages[stage].students[student].earlier
            if earlier is None:
                break
            stage, student = line.resolve(earlier)
        return Cost(own, sum(images.values()), sum(petaflops(line).values()))

    def compare(self, table: str) -> list[ArmDifference]:
        """Compare every row with the reference, or every effect, on all benchmarks."""
        config = self.loaded.study.tables[table]
        found: list[tuple[str, str, Difference, list[tuple[Measure, Measure]], bool]] = []
        for row, arms in config.compared.items():
            for benchmark in config.benchmarks or self.loaded.benchmarks:
                if (pairs := self._pairs(arms, benchmark)) is None:
                    continue
                try:
                    shared = self._trained(arms)
                    gap = mean_difference(pairs, same_seeds=shared)
                except ValueError as error:
                    named = ", ".join(arm for pair in arms for arm in pair)
                    raise InputError(f"benchmark {benchmark}: {named}: {error}") from None
                found.append((row, benchmark, gap, pairs, shared))
        adjusted = corrected([gap for _, _, gap, *_ in found])
        compared = []
        for (row, benchmark, gap, pairs, shared), p in zip(found, adjusted, strict=True):
            could = power(pairs, tests=len(found)) if shared else None
            if not pairs[0][0].higher_is_better:
                gap = gap.turned()
            unit = pairs[0][0].unit
            compared.append(ArmDifference(benchmark, gap, p, unit, row, could))
        return compared

    def _pairs(
        self, arms: Sequence[tuple[str, str]], benchmark: str
    ) -> list[tuple[Measure, Measure]] | None:
        """Their measures. Of an interrupted study, those of the seeds that all have."""
        found = [self.measure(arm, benchmark) for pair in arms for arm in pair]
        there = [measure for measure in found if measure is not None]
        if len(there) < len(found):
            return None
        if self._trained(arms):
            there = [m.first_seeds(min(len(m.sums) for m in there)) for m in there]
        return list(zip(there[::2], there[1::2], strict=True))

    def _trained(self, arms: Sequence[tuple[str, str]]) -> bool:
        return all(self.loaded.study.arms[arm].recipe for pair in arms for arm in pair)

    def _is_own(self, arm: str, seed: int, saved: BenchmarkResult) -> bool:
        """Whether a saved result belongs to the present settings and encoder."""
        name = f"{arm}, seed {seed}: {saved.name}"
        try:
            encoder = self._encoder(arm, seed)
        except InputError as error:
            self.stale.append(f"{name} (its encoder cannot be opened: {error})")
            return False
        now = Conditions(
            encoder=encoder,
            precision=self.loaded.study.evaluation.precision,
            benchmark=self.loaded.suite.benchmarks[saved.name].identity(saved.name),
        )
        own = saved.fits(now)
        if not own:
            self.stale.append(name)
        return own

    def _encoder(self, arm: str, seed: int) -> EncoderIdentity:
        """Identity of an arm's encoder; raises `InputError` if it cannot be opened."""
        if (arm, seed) not in self._encoders:
            source = source_of(self.loaded, self.place, arm, seed)
            self._encoders[arm, seed] = identify(*load_with_chains(source, allow_code=True))
        return self._encoders[arm, seed]

    def _read(self, arm: str, benchmark: str) -> Measure | None:
        parts = []
        for seed in self.loaded.seeds(arm):
            folder = results_folder(self.loaded, self.place, arm, seed)
            there = read_benchmark(folder, benchmark)
            if there is None or not self._is_own(arm, seed, there):
                break  # arms are paired by seed: what follows a gap cannot be
            check_pair(self._first.setdefault(benchmark, (folder, there)), (folder, there))
            if there.score is None:
                return None
            parts.append(read_measure(folder, there))
        if not parts:
            return None
        if self.loaded.trained(arm) is None:  # nothing was trained but the probe
            return parts[0]
        if any(list(part.samples) != list(parts[0].samples) for part in parts):
            raise InputError(f"benchmark {benchmark}: {arm}: its seeds have other samples")
        sums = np.stack([part.sums.sum(axis=0) for part in parts])
        return replace(parts[0], sums=sums, trained=True)
