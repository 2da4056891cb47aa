"""Find results, exports and latencies that belong to a run's weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from openeupe.distillation.chain import load_with_chains
from openeupe.distillation.run_folder import Run, load_stages
from openeupe.encoders.export_layout import is_export, read_about
from openeupe.errors import InputError
from openeupe.evaluation.benchmark import identify
from openeupe.evaluation.compare import what_differs
from openeupe.evaluation.records import BenchmarkResult, EncoderIdentity
from openeupe.evaluation.results import Results
from openeupe.identity import encoder_identity


class Belonging:
    """The encoders of a run by identity. They are loaded when something is first compared."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._at: dict[Path, EncoderIdentity | None] = {}

    @cached_property
    def students(self) -> dict[str, str]:
        """Identity of each stage's student by the names of `load_stages`."""
        loaded = load_stages(self._run)
        return {k: encoder_identity(e) for k, e in loaded.items() if k != "untrained"}

    def evaluated(self, place: Path, results: Results) -> bool:
        """Whether results in `place` belong to the present encoder and heads."""
        if place not in self._at:
            self._at[place] = self._of_encoder(place)
        now = self._at[place]
        return now is not None and results.is_of(now)

    def exported(self, about: object) -> bool:
        """Whether an export was made of a student of the run. about: its `export.json`."""
        encoder = about.get("encoder") if isinstance(about, dict) else None
        identity = encoder.get("identity") if isinstance(encoder, dict) else None
        return identity is not None and identity in self.students.values()

    def _of_encoder(self, place: Path) -> EncoderIdentity | None:
        """Identity of the run's encoder in `place`; None if there is none."""
        try:
            if is_export(place) and not self.exported(read_about(place)):
                return None
            return identify(*load_with_chains(place))
        except InputError:
            return None


def comparable(
    everyone: Sequence[Results], labels: Sequence[str]
) -> tuple[list[Results], list[str]]:
    """Results of one suite that can be compared with the first encoder's.

    Args:
        labels: of the encoders in the page.

    Returns the results, and a sentence on each benchmark that was left out.
    """
    first: dict[str, tuple[str, BenchmarkResult]] = {}
    found, notes = [], []
    for results, label in zip(everyone, labels, strict=True):
        names = []
        for name, benchmark in results.benchmarks.items():
            other, reference = first.setdefault(name, (label, benchmark))
            if differing := what_differs(benchmark, reference):
                notes.append(
                    f"{name} of {label} is not shown: it was evaluated with other "
                    f"{' and '.join(differing)} than {other}. Evaluate both again."
                )
            else:
                names.append(name)
        found.append(results.only(names))
    return found, notes
