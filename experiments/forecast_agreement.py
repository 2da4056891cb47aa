"""How well the measurements of `experiments.forecast` predicted what each teacher is worth."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any

import numpy as np

from openeupe.table import Table

_EXACT = 8  # items up to which every order is tried


def compared(
    measured: dict[str, Any],
    arms: dict[str, Any],
    full: str,
    without: dict[str, str],
    alone: dict[str, str],
) -> dict[str, Any]:
    """What leaving out each teacher cost, and how well the measurements predicted it.

    Args:
        measured: by teacher, what `measure` returns.
        arms: of the study's results file.
        full, without, alone: the arm of all teachers, and by teacher the arm without it and that
            of its frozen encoder.
    """
    best = arms[full]["benchmarks"]
    worth: dict[str, dict[str, float]] = {}
    for teacher, arm in without.items():
        left = arms[arm]["benchmarks"]
        worth[teacher] = {c: _good(best[c]) - _good(left[c]) for c in best if c in left}
    frozen = {
        teacher: {benchmark: _good(figure) for benchmark, figure in arms[arm]["benchmarks"].items()}
        for teacher, arm in alone.items()
    }
    if len(worth) <= 2 or not all(worth.values()):
        return {}
    return {"worth": worth, "agreement": agreement(measured, worth, frozen)}


def table(content: dict[str, Any]) -> str:
    """What `main` prints: Markdown."""
    agreed = content.get("agreement")
    header = ["teacher", "class token shared", "patches shared", "gradient agreement",
              "share of the gradient"]  # fmt: skip
    header += ["worth"] if agreed else []
    rows = []
    for teacher, told in content["teachers"].items():
        keys = ("shared_cls", "shared_patches", "agreement", "pull")
        cells = [teacher, *(f"{told[key]:.2f}" for key in keys)]
        if agreed:
            worth = agreed["mean_worth"].get(teacher)
            cells.append("" if worth is None else f"{worth:+.2f}")
        rows.append(cells)
    parts = [Table(header, rows).markdown()]
    for name, told in (agreed or {}).items():
        if name != "mean_worth":
            parts.append(
                f"\n{name}: Spearman {told['spearman']:+.2f} with the worth, p = {told['p']:.3f}, "
                f"{told['pairs']} pairs"
            )
    return "\n".join(parts)


def agreement(
    measured: Mapping[str, Mapping[str, float]],
    worth: Mapping[str, Mapping[str, float]],
    alone: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """How well what was told before agreed with what leaving a teacher out then cost.

    Benchmarks have no common unit: each is centred and divided by its spread over the teachers.

    Args:
        measured: by teacher, what `measure` returns.
        worth: by teacher and benchmark, how much better the student was with it than without.
        alone: by teacher and benchmark, how good its frozen tokens are; larger is better.

    Returns:
        `mean_worth` by teacher, and by name of a forecast its Spearman correlation with the worth,
        the p of it, and how many pairs it rests on.
    """
    teachers = list(worth)
    benchmarks = [c for c in worth[teachers[0]] if all(c in worth[t] for t in teachers)]
    scaled = {c: _scaled([worth[t][c] for t in teachers]) for c in benchmarks}
    mean = np.mean([scaled[c] for c in benchmarks], axis=0).tolist()
    own = [1 - (measured[t]["shared_cls"] + measured[t]["shared_patches"]) / 2 for t in teachers]
    guesses = {
        "what the others do not know": (own, mean),
        "gradient agreement": ([measured[t]["agreement"] for t in teachers], mean),
    }
    told = [c for c in benchmarks if all(c in alone.get(t, {}) for t in teachers)]
    if told:
        frozen = [v for c in told for v in _scaled([alone[t][c] for t in teachers])]
        guesses["frozen tokens on the benchmark"] = (frozen, [v for c in told for v in scaled[c]])
    found: dict[str, Any] = {"mean_worth": dict(zip(teachers, mean, strict=True))}
    for name, (guess, outcome) in guesses.items():
        rho, p = spearman(guess, outcome)
        found[name] = {"spearman": rho, "p": p, "pairs": len(guess)}
    return found


def spearman(a: list[float], b: list[float]) -> tuple[float, float]:
    """Rank correlation, and the two-sided p of so much among all (or 20,000 random) orders."""
    first, second = _ranks(a), _ranks(b)
    seen = _correlation(first, second)
    random = np.random.default_rng(0)
    orders: Any = (
        (np.array(order) for order in permutations(range(len(b))))
        if len(b) <= _EXACT
        else (random.permutation(len(b)) for _ in range(20_000))
    )
    hits = [abs(_correlation(first, second[order])) >= abs(seen) - 1e-9 for order in orders]
    return seen, float(np.mean(hits))


def _good(figure: dict[str, Any]) -> float:
    """Larger is better."""
    return float(figure["value"]) if figure["higher_is_better"] else -float(figure["value"])


def _scaled(values: list[float]) -> list[float]:
    array = np.asarray(values)
    found: list[float] = ((array - array.mean()) / (array.std() or 1.0)).tolist()
    return found


def _ranks(values: list[float]) -> Any:
    """Ranks from 0; ties share their mean."""
    array = np.asarray(values, dtype=float)
    below = (array[None] < array[:, None]).sum(1)
    return below + ((array[None] == array[:, None]).sum(1) - 1) / 2


def _correlation(a: Any, b: Any) -> float:
    a, b = a - a.mean(), b - b.mean()
    length = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / length if length else 0.0
