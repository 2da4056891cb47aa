"""Write the report of a run as one self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from openeupe.distillation.encoder_settings import EncoderConfig
from openeupe.distillation.optimizer import peak_lr
from openeupe.distillation.recipe import StageConfig
from openeupe.evaluation.compare import side_by_side
from openeupe.evaluation.records import DOMAINS
from openeupe.files import write_atomically
from openeupe.report import charts
from openeupe.report.charts import KINDS
from openeupe.report.compact import compact_all, image_uri, svg_uri, tile_uri
from openeupe.report.gather import Curve, StageStory, Story, gather
from openeupe.report.seen import Seen
from openeupe.table import Table
from openeupe.visualization.colours import Coloured
from openeupe.visualization.figures import extent, variance

_DOMAIN_TITLES = {
    "image": "Image understanding",
    "language": "Vision and language",
    "text": "Text",
    "dense": "Dense prediction",
    "experts": "Fidelity to the experts",
}
_IMAGE_RESOLUTION = 384  # pixels in the page


def write_report(
    folder: Path,
    seen: Seen | None = None,
    out: Path | None = None,
    results: Sequence[Path] = (),
    exports: Path | None = None,
) -> Path:
    """Write the report of a run, finished or not.

    Args:
        seen: features of encoders on some images; None: no pictures.
        out: the page's file. [default: `RUN/report.html`]
        results: further results folders of `openeupe evaluate`, with the run's own.
        exports: folder of exported folders, next to those inside the run.

    Returns the file written.
    """
    story = gather(folder, results, exports)
    out = out or folder / "report.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, render(story, seen or Seen()))
    return out


def render(story: Story, seen: Seen) -> str:
    """The page as HTML."""
    files = resources.files("openeupe") / "report"
    environment = jinja2.Environment(
        autoescape=True, loader=jinja2.PackageLoader("openeupe", "report")
    )
    template = environment.get_template("page.html")
    recipe = (story.run.folder / "recipe.yaml").read_text(encoding="utf-8")
    context = {
        "name": story.run.recipe.name,
        "folder": story.run.folder,
        "unfinished": story.unfinished,
        "state": _state(story),
        "sections": _sections(bool(seen.images)),
        "data": _data(story),
        "stages": [_Stage.of(stage) for stage in story.stages],
        "recipe": recipe,
        "curves": _curves(story),
        "left_out": story.left_out,
        "deployment": story.deployment,
        "not_deployed": story.not_deployed,
        "versions": _versions(story),
        **_evaluations(story),
        **_pictures(seen),
        # Of the package itself, so never escaped.
        "css": Markup((files / "page.css").read_text(encoding="utf-8")),
        "js": Markup((files / "page.js").read_text(encoding="utf-8")),
    }
    return template.render(context)


@dataclass(frozen=True)
class _Chart:
    uri: str
    alt: str


@dataclass(frozen=True)
class _Stage:
    name: str
    state: str
    finished: bool
    facts: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, stage: StageStory) -> _Stage:
        config = stage.config

        def members(of: Mapping[str, EncoderConfig]) -> str:
            return "; ".join(
                f"{name} ({one.encoder}, {'/'.join(map(str, one.resolution))} px)"
                for name, one in of.items()
            )

        facts = [
            ("teachers", members(config.teachers)),
            ("students", members(config.students)),
            ("steps", f"{config.steps:,} of {config.batch_size:,} images"),
            *learning_rates(config),
        ]
        if stage.ending is not None:
            for name, step in stage.ending.dropped.items():
                facts.append(("dropped", f"{name} diverged at step {step:,}"))
            if broken := stage.ending.broken_images:
                facts.append(("unreadable", f"{len(broken)} images were left out"))
        return cls(stage.name, stage.state, stage.finished, facts)


def learning_rates(config: StageConfig) -> list[tuple[str, str]]:
    """The peak after scaling, once for students that share an optimizer."""
    students: dict[str, list[str]] = {}
    for name in config.students:
        own = config.optimizer_of(name)
        text = f"{peak_lr(own, config.batch_size):.4g}"
        if own.lr_scaling != "none":
            text += f" ({own.lr:g} scaled by {own.lr_scaling})"
        if own.backbone_lr != 1:
            text += f", times {own.backbone_lr:g} for the backbone"
        students.setdefault(f"{text}, {own.warmup_steps} warm-up", []).append(name)
    if len(students) == 1:
        return [("learning rate", next(iter(students)))]
    return [(f"learning rate of {', '.join(names)}", text) for text, names in students.items()]


def _state(story: Story) -> str:
    if not story.unfinished:
        return f"Finished: all {len(story.stages)} stages"
    done = len(story.stages) - len(story.unfinished)
    now = story.unfinished[0]
    return (
        f"Half-finished: {done} of {len(story.stages)} stages have ended, {now.name}: {now.state}. "
        "This page shows what there is so far"
    )


def _sections(pictures: bool) -> list[tuple[str, str]]:
    similar = [("similar", "Which patches are similar")] if pictures else []
    return [
        ("recipe", "What was done"),
        ("learning", "Learning"),
        ("results", "Results"),
        ("seen", "What it sees"),
        *similar,
        ("deployment", "Deployment"),
        ("versions", "Versions and seeds"),
    ]


def _data(story: Story) -> str:
    sources = story.run.recipe.data.sources
    named = ", ".join(f"{s.path} (weight {s.weight:g})" for s in sources)
    return f"Images from {named}. Each stage's students are the next one's teachers or its start."


def _curves(story: Story) -> list[dict[str, object]]:
    shown: list[dict[str, object]] = []
    for stage in story.stages:
        groups: dict[tuple[str, str], list[Curve]] = {}
        for curve in stage.curves:
            groups.setdefault((curve.student, curve.kind), []).append(curve)
        drawn = []
        for (student, kind), curves in groups.items():
            title = f"{student}: {KINDS.get(kind, kind)}"
            last = ", ".join(f"{c.teacher} {c.losses[-1]:.3f}" for c in curves)
            alt = f"Loss over steps of stage {stage.name}, {title}. Last values: {last}"
            drawn.append(_Chart(svg_uri(charts.loss_curves(curves, title)), alt))
        if drawn:
            shown.append({"name": f"{stage.name} ({stage.state})", "charts": drawn})
    return shown


def _evaluations(story: Story) -> dict[str, object]:
    """Dot plots by domain and tables, for each suite."""
    domains: list[dict[str, object]] = []
    tables: list[Table] = []
    radar: dict[str, object] | None = None
    suites = list(dict.fromkeys(e.suite for e in story.evaluations))
    for suite in suites:
        same = [e for e in story.evaluations if e.suite == suite]
        for domain in DOMAINS:
            if benchmarks := charts.benchmarks_in(same, domain):
                title = _DOMAIN_TITLES[domain] + (f", suite {suite}" if len(suites) > 1 else "")
                alt = f"{title}: {', '.join(benchmarks)}, score and interval of each encoder"
                chart = _Chart(svg_uri(charts.domain_dots(same, domain)), alt)
                domains.append({"title": title, "chart": chart})
        table = side_by_side([e.results for e in same], [e.label for e in same])
        title = f"Suite {suite}: score ± half its 95 % interval"
        tables.append(replace(table, title=title))
        if radar is None and (drawn := charts.radar(same)):
            alt = f"Radar chart of suite {suite}; its axes are written below"
            radar = {"chart": _Chart(svg_uri(drawn[0]), alt), "axes": drawn[1]}
    fidelity = any(charts.benchmarks_in(story.evaluations, "experts"))
    return {"domains": domains, "tables": tables, "radar": radar, "fidelity": fidelity}


def _pictures(seen: Seen) -> dict[str, object]:
    context: dict[str, object] = {"no_pictures": seen.lacking, "picture_notes": seen.notes}
    if not seen.images:
        return context
    names, coloured = list(seen.tokens), seen.coloured
    images = []
    for place, image in enumerate(seen.images):
        width, height = image.pixels.size
        stages = [name for name in names if name in seen.stages]
        images.append(
            {
                "name": image.name,
                "uri": image_uri(image.pixels, _IMAGE_RESOLUTION),
                "aspect": f"{width} / {height}",
                "tiles": [_tile(name, coloured[name][place]) for name in names],
                "components": [_components(name, coloured[name][place]) for name in stages],
            }
        )
    return {**context, "images": images, "colours": seen.caption, **_looked(seen)}


def _tile(name: str, one: Coloured) -> dict[str, object]:
    lines = [variance(one), *extent(one).split(", ")]
    return {"name": name, "uri": tile_uri(one.rgb), "lines": lines}


def _components(name: str, one: Coloured) -> dict[str, object]:
    tiles = [
        {
            "uri": tile_uri(one.components[i]),
            "share": f"{100 * float(one.explained[i]):.1f} % of variance",
        }
        for i in range(4)
    ]
    return {"name": name, "tiles": tiles}


def _looked(seen: Seen) -> dict[str, object]:
    """Data for the page's similarities."""
    from matplotlib import colormaps

    small = compact_all(seen.tokens)
    ramp = (colormaps["viridis"]([i / 16 for i in range(17)])[:, :3] * 255).round().astype(int)
    content = {
        "images": [image.name for image in seen.images],
        "encoders": [{"name": name, **one.for_page()} for name, one in small.items()],
        "ramp": ramp.tolist(),
    }
    names = list(small)
    return {
        "looked": {
            "json": Markup(json.dumps(content).replace("<", "\\u003c")),
            "encoders": [{"name": name} for name in names],
            "errors": "; ".join(
                f"{name} {len(one.scales)}, {one.error:.3f}" for name, one in small.items()
            ),
        },
        "chosen": (max((names.index(name) for name in seen.stages), default=0), 0),
    }


def _versions(story: Story) -> Table:
    packages = list(
        dict.fromkeys(p for stage in story.stages if stage.ending for p in stage.ending.versions)
    )
    rows = []
    for stage in story.stages:
        end = stage.ending
        seed = story.run.recipe.seed if end is None or end.seed is None else end.seed
        device = (end and end.device) or stage.state
        versions = end.versions if end else {}
        rows.append([stage.name, str(seed), device, *(versions.get(p, "") for p in packages)])
    return Table(["stage", "seed", "device", *packages], rows)
