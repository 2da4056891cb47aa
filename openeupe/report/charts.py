"""SVG charts, narrow enough for phones."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from openeupe.evaluation.records import DOMAINS, Domain, Metric
from openeupe.report.gather import Curve, Evaluation
from openeupe.visualization.figures import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {"cls": "class token", "patches": "patch tokens"}
_WIDTH = 4.1  # inches: 394 CSS pixels at 96 an inch, three per row on a desktop
_DASHES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
_STYLE: Any = {  # of Matplotlib
    "font.size": 9,
    "text.parse_math": False,  # a name such as `$x$.jpg` is no formula
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "openeupe",  # else the ids in the file differ each time
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def loss_curves(curves: Sequence[Curve], title: str) -> str:
    """Loss over steps of one stage, student and token kind: a line per teacher."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for i, curve in enumerate(curves):
            axis.plot(
                curve.steps,
                curve.losses,
                color=PALETTE[i % len(PALETTE)],
                linestyle=_DASHES[i % len(_DASHES)],
                marker="." if len(curve.steps) < 12 else None,
                label=f"{curve.teacher}  {curve.losses[-1]:.3f}",
            )
        axis.set_title(title)
        axis.set_xlabel("step")
        top = max((loss for curve in curves for loss in curve.losses), default=1)
        axis.set_ylim(0, 1.06 * top)
        axis.locator_params(axis="x", integer=True)
        figure.legend(
            loc="outside lower center", ncols=2, title="teacher, last value", title_fontsize=8
        )

    return _svg(draw, 2.6 + 0.17 * ((len(curves) + 1) // 2))


def domain_dots(evaluations: Sequence[Evaluation], domain: Domain) -> str:
    """The benchmarks of one domain, each on its own axis: score and 95 % interval per encoder."""
    benchmarks = benchmarks_in(evaluations, domain)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(benchmarks), 1, squeeze=False)[:, 0]
        for axis, name in zip(axes, benchmarks, strict=True):
            labels: list[str] = []
            for evaluation in evaluations:
                if (score := _score(evaluation, name)) is None:
                    continue
                place, i = len(labels), evaluations.index(evaluation)
                labels.append(_short(evaluation.label))
                colour = PALETTE[i % len(PALETTE)]
                if score.low is not None and score.high is not None:
                    axis.plot([score.low, score.high], [place, place], color=colour, lw=2.2)
                axis.plot(
                    score.value, place, _MARKERS[i % len(_MARKERS)], color=colour, ms=7, mec="white"
                )
                head = f"{score.name} {score.unit}".strip()
                lower = "" if score.higher_is_better else " (lower is better)"
                axis.set_title(f"{name}: {head}{lower}")
            axis.set_yticks(range(len(labels)), labels)
            axis.set_ylim(len(labels) - 0.5, -0.5)

    rows = sum(_score(e, name) is not None for name in benchmarks for e in evaluations)
    return _svg(draw, 0.2 + 0.62 * len(benchmarks) + 0.25 * rows)


def cluster_sizes(before: Sequence[float], after: Sequence[float]) -> str:
    """Images per cluster before and draws after, by the size before."""
    order = sorted(range(len(before)), key=lambda i: -before[i])

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        places = range(1, len(order) + 1)
        for values, label, i in ((before, "images of the pool", 0), (after, "drawn an epoch", 1)):
            axis.plot(
                places,
                [values[k] for k in order],
                _MARKERS[i] if len(order) < 60 else ".",
                color=PALETTE[i],
                ms=4,
                label=label,
            )
        axis.set_yscale("symlog", linthresh=1)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("cluster, the largest first")
        axis.set_title("Size of each cluster")
        figure.legend(loc="outside lower center", ncols=2)

    return _svg(draw, 2.9)


def benchmarks_in(evaluations: Sequence[Evaluation], domain: Domain) -> list[str]:
    """Benchmarks of a domain that some encoder has a score on."""
    return list(
        dict.fromkeys(
            name
            for evaluation in evaluations
            for name, one in evaluation.results.benchmarks.items()
            if one.benchmark.domain == domain and _score(evaluation, name) is not None
        )
    )


def radar(evaluations: Sequence[Evaluation]) -> tuple[str, list[str]] | None:
    """A radar chart and descriptions of its axes. None with fewer than three axes.

    Every axis is fixed before any encoder is seen: from the benchmark's best baseline (0 where
    there is none) to perfection (100 %, 1, or 0 where lower is better).
    """
    axes_: list[tuple[str, float, float, str]] = []
    for domain in DOMAINS:
        for name in benchmarks_in(evaluations, domain):
            axes_.append(_radar_axis(evaluations, name))
    if len(axes_) < 3:
        return None

    def draw(figure: Figure) -> None:
        import math

        axis: Any = figure.add_subplot(projection="polar")
        angles = [2 * math.pi * i / len(axes_) for i in range(len(axes_))]
        for i, evaluation in enumerate(evaluations):
            shares = []
            for name, start, end, _ in axes_:
                score = _score(evaluation, name)
                if score is None or score.value is None:
                    shares.append(math.nan)
                    continue
                shares.append(min(max((score.value - start) / (end - start), 0), 1))
            axis.plot(
                [*angles, angles[0]],
                [*shares, shares[0]],
                color=PALETTE[i % len(PALETTE)],
                linestyle=_DASHES[i % len(_DASHES)],
                marker=_MARKERS[i % len(_MARKERS)],
                ms=5,
                label=_short(evaluation.label),
            )
        axis.set_theta_offset(math.pi / 2)
        axis.set_theta_direction(-1)
        axis.set_xticks(angles, [str(i + 1) for i in range(len(axes_))])
        axis.set_ylim(0, 1)
        axis.set_yticks([0.25, 0.5, 0.75, 1], [""] * 4)
        figure.legend(loc="outside lower center", ncols=2)

    written = [f"{i + 1}: {text}" for i, (*_, text) in enumerate(axes_)]
    return _svg(draw, 4.2 + 0.2 * len(evaluations)), written


def _radar_axis(evaluations: Sequence[Evaluation], name: str) -> tuple[str, float, float, str]:
    first = next(e for e in evaluations if _score(e, name) is not None)
    result = first.results.benchmarks[name]
    score, baseline = result.metrics[result.headline or ""], result.best_baseline
    if score.higher_is_better:
        start, end = 0.0, 100.0 if score.unit == "%" else score.scale
    else:
        start, end = score.scale, 0.0
    if baseline is not None:
        start = baseline[1]
    if start == end:
        start = end - 1.0
    text = f"{name} {score.name}, {start:.3g} (centre) to {end:.3g} {score.unit}"
    return name, start, end, text.strip()


def _score(evaluation: Evaluation, name: str) -> Metric | None:
    """The benchmark's headline metric, if it is a number."""
    result = evaluation.results.benchmarks.get(name)
    score = None if result is None else result.score
    return None if score is None or score.value is None else score


def _short(label: str, room: int = 24) -> str:
    """Shorten a name at its beginning."""
    return label if len(label) <= room else f"…{label[1 - room :]}"


def _svg(draw: Callable[[Figure], None], height: float) -> str:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()
