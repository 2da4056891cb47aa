"""Which results, exports and latencies are those of a run: made of just its students' weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from openeupe.distillation.chain import load_with_chains
from openeupe.distillation.run_folder import Run, load_stages
from openeupe.encoders.export_layout import is_export, read_about
from openeupe.errors import InputError
from openeupe.evaluation.compare import what_differs
from openeupe.evaluation.suite import of_encoder
from openeupe.identity import encoder_identity


class Belonging:
    """The encoders of a run by identity; they are loaded when something is first compared."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._at: dict[Path, dict[str, Any]] = {}

    @cached_property
    def students(self) -> dict[str, str]:
        """Identity of each stage's student by the names of `load_stages`."""
        loaded = load_stages(self._run)
        return {k: encoder_identity(e) for k, e in loaded.items() if k != "untrained"}

    def evaluated(self, place: Path, content: Mapping[str, Any]) -> bool:
        """Whether results that lie in `place` are of the encoder and heads that are there now.

        content: what their `results.json` holds.
        """
        if place not in self._at:
            self._at[place] = self._of_encoder(place)
        now, benchmarks = self._at[place], content["benchmarks"].values()
        same = bool(now) and content["config"].get("encoder") == now["encoder"]
        return same and all(benchmark.get("heads") == now["heads"] for benchmark in benchmarks)

    def exported(self, about: Any) -> bool:
        """Whether an export was made of a student of the run. about: its `export.json`."""
        encoder = about.get("encoder") if isinstance(about, dict) else None
        identity = encoder.get("identity") if isinstance(encoder, dict) else None
        return identity is not None and identity in self.students.values()

    def _of_encoder(self, place: Path) -> dict[str, Any]:
        """What identifies the encoder in `place`; nothing where none of the run's is there."""
        try:
            if is_export(place) and not self.exported(read_about(place)):
                return {}
            return of_encoder(*load_with_chains(place))
        except InputError:
            return {}


def comparable(
    contents: Sequence[dict[str, Any]], labels: Sequence[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Results of one suite without the benchmarks that cannot be compared with the first encoder's.

    Args:
        contents: what each `results.json` holds.
        labels: what the page calls each encoder.

    Returns the contents, and a sentence on each benchmark that was left out.
    """
    first: dict[str, tuple[str, dict[str, Any]]] = {}
    found, notes = [], []
    for content, label in zip(contents, labels, strict=True):
        benchmarks = {}
        for name, benchmark in content["benchmarks"].items():
            other, reference = first.setdefault(name, (label, benchmark))
            if unlike := what_differs(benchmark, reference):
                notes.append(
                    f"{name} of {label} is not shown: it was evaluated with other "
                    f"{' and '.join(unlike)} than {other}. Evaluate both again."
                )
            else:
                benchmarks[name] = benchmark
        found.append({**content, "benchmarks": benchmarks})
    return found, notes
