"""Compare encoders from saved results, with significance tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from openeupe.errors import InputError
from openeupe.evaluation.records import BenchmarkResult, by_domain
from openeupe.evaluation.results import Results
from openeupe.evaluation.statistics import Difference, corrected, difference, verdict
from openeupe.table import Table


@dataclass(frozen=True)
class PairedDifference:
    """The difference of two encoders on one benchmark.

    gain: first minus second, positive where the first is better, whatever the direction.
    p: two-sided, adjusted by Holm over all rows of the comparison.
    """

    benchmark: str
    gain: Difference
    p: float
    unit: str

    @property
    def verdict(self) -> str:
        """See `statistics.verdict`."""
        return verdict(self.gain, self.p)

    def to_json(self) -> dict[str, object]:
        """All fields and the verdict."""
        return {**asdict(self), "verdict": self.verdict}


@dataclass(frozen=True)
class Comparison:
    """Two encoders compared benchmark by benchmark. first, second: their names."""

    first: str
    second: str
    rows: tuple[PairedDifference, ...]

    def table(self) -> Table:
        """A row for each benchmark that both have."""
        rows = []
        for row in self.rows:
            digits, gain = 1 if row.unit == "%" else 3, row.gain
            rows.append(
                [
                    row.benchmark,
                    f"{gain.delta:+.{digits}f} {row.unit}".strip(),
                    f"{gain.low:+.{digits}f} to {gain.high:+.{digits}f}",
                    f"{row.p:.4f}",
                    row.verdict,
                ]
            )
        header = ["benchmark", "gain", "95 % interval", "p (Holm)", "the first is"]
        return Table(header, rows, f"{self.first} compared with {self.second}")

    def summary(self) -> str:
        """Numbers of better and worse benchmarks, as text."""
        verdicts = [row.verdict for row in self.rows]
        one_seed = verdicts.count("one seed: no verdict")
        text = (
            f"{self.first} is better on {verdicts.count('better')} benchmarks, worse on "
            f"{verdicts.count('worse')}; no difference shown on "
            f"{verdicts.count('no difference shown')}."
        )
        if one_seed:
            text += (
                f" No verdict on {one_seed}: these test items show a difference, but a probe was "
                "trained with one seed, and the noise of its training is not in p."
            )
        return text

    def to_json(self) -> dict[str, object]:
        """As `openeupe compare --json` prints it."""
        rows = [row.to_json() for row in self.rows]
        return {"first": self.first, "second": self.second, "benchmarks": rows}


@dataclass(frozen=True)
class Comparisons:
    """The first of several encoders compared with each of the others.

    results: of each encoder. ranks: their mean ranks, see `mean_ranks`. pairs: the comparisons.
    """

    results: list[Results]
    ranks: list[float]
    pairs: list[Comparison]

    def table(self) -> Table:
        """A column for each encoder, and the mean ranks below."""
        scores = side_by_side(self.results)
        ranks = ["mean rank ↓", *(f"{rank:.2f}" for rank in self.ranks)]
        return replace(scores, rows=[*scores.rows, ranks])

    def to_json(self) -> dict[str, object]:
        """As `openeupe compare --json` prints it."""
        encoders = [
            {
                "name": results.config.model,
                "mean_rank": rank,
                "benchmarks": results.to_json()["benchmarks"],
            }
            for results, rank in zip(self.results, self.ranks, strict=True)
        ]
        return {"encoders": encoders, "comparisons": [pair.to_json() for pair in self.pairs]}


def compare_first(everyone: Sequence[Results]) -> Comparisons:
    """Compare the first encoder with each of the others.

    Raises:
        InputError: if a benchmark was evaluated with other settings, or on other data.
    """
    pairs = [compare(everyone[0], results) for results in everyone[1:]]
    return Comparisons(list(everyone), mean_ranks(everyone), pairs)


def compare(first: Results, second: Results) -> Comparison:
    """Compare two encoders on all benchmarks that both have.

    Raises:
        InputError: if a benchmark was evaluated with other settings, or on other data.
    """
    check_comparable([first, second])
    found = []
    for name in benchmarks_of([first, second]):
        if not all(
            name in one.benchmarks and one.benchmarks[name].score for one in (first, second)
        ):
            continue
        measure = first.measure(name)
        try:
            gap = difference(measure, second.measure(name))
        except ValueError as error:
            raise InputError(
                f"benchmark {name}: {first.folder}, {second.folder}: {error}"
            ) from None
        if not measure.higher_is_better:
            gap = gap.turned()
        found.append((name, gap, measure.unit))
    adjusted = corrected([gap for _, gap, _ in found])
    rows = (
        PairedDifference(name, gap, p, unit)
        for (name, gap, unit), p in zip(found, adjusted, strict=True)
    )
    return Comparison(first.config.model, second.config.model, tuple(rows))


def benchmarks_of(everyone: Sequence[Results]) -> list[str]:
    """Benchmarks that at least one encoder has, in the table's order."""
    found: dict[str, BenchmarkResult] = {}
    for results in everyone:
        found = {**results.benchmarks, **found}
    names = dict.fromkeys(name for results in everyone for name in results.benchmarks)
    return [one.name for one in by_domain(found[name] for name in names)]


def what_differs(one: BenchmarkResult, other: BenchmarkResult) -> list[str]:
    """Whether "settings" or "data" of two results of one benchmark differ."""
    same = {
        "settings": one.benchmark.protocol_hash == other.benchmark.protocol_hash,
        "data": one.data == other.data,
    }
    return [what for what, equal in same.items() if not equal]


def check_pair(first: tuple[Path, BenchmarkResult], second: tuple[Path, BenchmarkResult]) -> None:
    """Refuse two results of one benchmark with other settings or data.

    Args:
        first, second: with the folders of the results.

    Raises:
        InputError: in one line.
    """
    if differing := what_differs(first[1], second[1]):
        raise InputError(
            f"benchmark {first[1].name}: {first[0]} and {second[0]} were evaluated with other "
            f"{differing[0]}: evaluate both with the same suite and data"
        )


def check_comparable(everyone: Sequence[Results]) -> None:
    """Raise `InputError` for results of one benchmark with other settings or data.

    Raises:
        InputError: in one line.
    """
    first: dict[str, tuple[Path, BenchmarkResult]] = {}
    for results in everyone:
        for name, one in results.benchmarks.items():
            if one.score is not None:
                here = (results.folder, one)
                check_pair(first.setdefault(name, here), here)


def side_by_side(everyone: Sequence[Results], labels: Sequence[str] | None = None) -> Table:
    """A column for each encoder: score ± half the 95 % interval.

    Args:
        labels: of the encoders. [default: what the user called them]
    """
    rows = []
    for name in benchmarks_of(everyone):
        found = [results.benchmarks.get(name) for results in everyone]
        labelled = [one.label for one in found if one is not None and one.score is not None]
        rows.append([labelled[-1] if labelled else name, *map(_cell, found)])
    names = labels or [results.config.model for results in everyone]
    return Table(["benchmark", *names], rows, "Score ± half its 95 % interval (samples)")


def _cell(result: BenchmarkResult | None) -> str:
    if result is None or (score := result.score) is None:
        return "n/a"
    half = None if score.low is None or score.high is None else (score.high - score.low) / 2
    return f"{result.text} ± {score.text(half)}"


def mean_ranks(everyone: Sequence[Results]) -> list[float]:
    """Mean rank of each encoder over the benchmarks that all have. 1 is best, ties share.

    The only aggregate given: benchmarks have no common unit. nan if no benchmark is common to all.

    Raises:
        InputError: if a benchmark was evaluated with other settings, or on other data.
    """
    check_comparable(everyone)
    ranks: list[list[float]] = [[] for _ in everyone]
    for name in benchmarks_of(everyone):
        values = [_signed(results.benchmarks.get(name)) for results in everyone]
        known = [value for value in values if value is not None]
        if len(known) < len(everyone):
            continue
        for place, value in enumerate(known):
            above = sum(other > value for other in known)
            equal = sum(other == value for other in known)
            ranks[place].append(above + (equal + 1) / 2)
    return [sum(r) / len(r) if r else math.nan for r in ranks]


def _signed(result: BenchmarkResult | None) -> float | None:
    """The headline value, negative where lower is better. None where there is none."""
    score = result.score if result is not None else None
    if score is None or score.value is None:
        return None
    return score.value if score.higher_is_better else -score.value
