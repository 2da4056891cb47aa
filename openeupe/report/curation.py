"""HTML page of a curation: dropped images with their originals, and clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image, ImageOps

from openeupe.curation.summary import BECAUSE, likeness, settings, unprotected
from openeupe.data import BrokenImage, decode
from openeupe.data.manifest import open_manifest, roots
from openeupe.data.shards import OpenShards
from openeupe.files import write_atomically
from openeupe.report import charts
from openeupe.report.compact import jpeg_uri, svg_uri

Row = dict[str, Any]  # of a manifest, by column

_TILE = 112  # pixels
_COLUMNS, _ROWS = 4, 2  # of a sheet
_CLUSTERS = 30
_PAIRS = 12
_NAMES = 300


@dataclass(frozen=True)
class _Sheet:
    """One picture of several images."""

    title: str
    lines: list[str]
    alt: str
    uri: str
    width: int
    height: int


@dataclass
class _Part:
    """Dropped images of one reason."""

    title: str
    text: str
    sheets: list[_Sheet] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    more: int | None = None


def write_curation(manifest: Path, out: Path | None = None) -> Path:
    """Write the page of a manifest, by default next to it. Returns the file."""
    out = out or manifest.with_suffix(".html")
    write_atomically(out, _render(_Curated(manifest)))
    return out


class _Curated:
    """A manifest's numbers as arrays, and its images and names on demand."""

    def __init__(self, manifest: Path) -> None:
        self.manifest = manifest
        self._file, self.about = open_manifest(manifest)
        self._roots = roots(manifest, self.about)
        self._shards = OpenShards()
        table = self._file.read(columns=["reason", "weight", "cluster", "of", "bits", "cosine"])
        self.reason = np.array(table["reason"].cast(pa.string()).to_numpy(), dtype="U10")
        self.weight = table["weight"].to_numpy()
        self.cluster = table["cluster"].fill_null(-1).to_numpy()
        self.bits = table["bits"].fill_null(0).to_numpy().astype(np.int64)
        self.cosine = np.nan_to_num(table["cosine"].fill_null(1).to_numpy(), nan=1.0)
        groups = [self._file.metadata.row_group(i) for i in range(self._file.num_row_groups)]
        self._starts = np.cumsum([0, *(group.num_rows for group in groups)])

    def rows(self, numbers: Sequence[int] | NDArray[np.int64]) -> list[Row]:
        """These rows of the manifest, in this order: only their row groups are read."""
        wanted = [int(number) for number in numbers]
        found: dict[int, Row] = {}
        for group in sorted({self._group(number) for number in wanted}):
            inside = [n for n in dict.fromkeys(wanted) if self._group(n) == group]
            taken = self._file.read_row_group(group).take([n - self._starts[group] for n in inside])
            found.update(zip(inside, taken.to_pylist(), strict=True))
        return [found[number] for number in wanted]

    def image(self, row: Row) -> Image.Image | None:
        """The image of a row; None if it cannot be read (any more)."""
        path = self._roots[row["source"]] / row["path"]
        try:
            if row["offset"] is None:
                return decode(path, "", _TILE)
            encoded = self._shards.read(str(path), row["offset"], row["size_bytes"])
            return decode(encoded, "", _TILE)
        except (BrokenImage, OSError):
            return None

    def some(self, reason: str, count: int) -> NDArray[np.int64]:
        """Evenly spaced rows that were dropped for a reason."""
        return _spread(np.flatnonzero(self.reason == reason), count)

    def _group(self, number: int) -> int:
        return int(np.searchsorted(self._starts, number, side="right")) - 1


def _render(curated: _Curated) -> str:
    about = curated.about
    environment = jinja2.Environment(
        autoescape=True, loader=jinja2.PackageLoader("openeupe", "report")
    )
    css = (resources.files("openeupe") / "report" / "page.css").read_text(encoding="utf-8")
    parts = [part for make in (_pairs, _leaks, _shapes, _others) if (part := make(curated))]
    sections = [("dropped", "What was dropped"), ("settings", "Settings")]
    if "balance" in about:
        sections.insert(1, ("clusters", "Clusters"))
    return environment.get_template("curation.html").render(
        name=curated.manifest.name,
        state=f"{about['kept']:,} of {about['images']:,} images are kept",
        sections=sections,
        reasons=[
            (reason, f"{about['dropped'][reason]:,}", because)
            for reason, because in BECAUSE.items()
            if reason in about["dropped"]
        ],
        parts=parts,
        settings=[(name, str(value)) for name, value in settings(about).items()],
        css=Markup(css),  # of the package itself
        **(_clusters(curated) if "balance" in about else {}),
    )


def _pairs(curated: _Curated) -> _Part | None:
    """Near copies, next to their originals."""
    rows = np.flatnonzero(curated.reason == "near copy")
    if not len(rows):
        return None
    # Half of those shown are the least certain, which show whether thresholds are right.
    doubt = np.lexsort((curated.cosine[rows], -curated.bits[rows]))
    shown = np.concatenate([rows[doubt[: _PAIRS // 2]], _spread(rows[doubt], _PAIRS // 2)])
    dropped = curated.rows(list(dict.fromkeys(shown.tolist())))
    kept = curated.rows([row["of"] for row in dropped])
    sheets = []
    for row, other in zip(dropped, kept, strict=True):
        images = [curated.image(row), curated.image(other)]
        lines = [f"{row['width']} × {row['height']} dropped, left", f"as {other['path']}"]
        sheets.append(_sheet(images, row["path"], [*lines, likeness(row)], 2))
    return _Part(
        "Near copies",
        "Left: dropped. Right: kept, the one of most pixels. The first are those that the "
        "thresholds let in most narrowly; if they are no copies, raise agreement, lower "
        "hash_distance or raise similarity.",
        sheets,
    )


def _leaks(curated: _Curated) -> _Part | None:
    rows = np.flatnonzero(curated.reason == "leak")
    blind = len(curated.about.get("unreadable_against", []))
    if not len(rows) and not blind:
        return None
    sheets = []
    for row in curated.rows(_spread(rows, _PAIRS)):
        try:
            other = decode(Path(row["against"]), "", _TILE)
        except BrokenImage:  # of a shard, or moved
            other = None
        lines = [f"shows {row['against']}", likeness(row)]
        sheets.append(_sheet([curated.image(row), other], row["path"], lines, 2))
    named = [f"{row['path']} shows {row['against']}" for row in curated.rows(rows[:_NAMES])]
    text = "Left: dropped. Right: the evaluation image that it shows."
    if blind:
        text += f" {unprotected(blind)}."
    return _Part("Evaluation images", text, sheets, named, len(rows))


def _shapes(curated: _Curated) -> _Part | None:
    sheets = []
    for reason in ("small", "narrow"):
        if len(rows := curated.some(reason, _COLUMNS * _ROWS)):
            images = [curated.image(row) for row in curated.rows(rows)]
            sheets.append(_sheet(images, reason, [BECAUSE[reason]], _COLUMNS, whole=True))
    broken = np.flatnonzero(curated.reason == "unreadable")
    names = [row["path"] for row in curated.rows(broken[:_NAMES])]
    if not sheets and not names:
        return None
    text = "Those that cannot be read are listed."
    return _Part("Unusable images", text, sheets, names, len(broken))


def _others(curated: _Curated) -> _Part | None:
    sheets = []
    for reason in ("unlike", "balance"):
        if len(rows := curated.some(reason, 4 * _COLUMNS * _ROWS)):
            images = [curated.image(row) for row in curated.rows(rows)]
            sheets.append(_sheet(images, reason, [BECAUSE[reason]], 2 * _COLUMNS))
    return _Part("Left out of the choice", "Evenly spaced ones.", sheets) if sheets else None


def _clusters(curated: _Curated) -> dict[str, object]:
    about = curated.about
    count = about["clusters"][0]
    known = curated.cluster >= 0
    before = np.bincount(curated.cluster[known], minlength=count)
    after = np.bincount(curated.cluster[known], curated.weight[known], minlength=count)
    ranked = np.argsort(-before, kind="stable")
    ranked = ranked[before[ranked] > 0]
    chosen = list(
        dict.fromkeys([*ranked[: _CLUSTERS // 2].tolist(), *_spread(ranked, _CLUSTERS // 2)])
    )
    sheets = []
    for number in chosen:
        members = np.flatnonzero((curated.cluster == number) & (curated.weight > 0))
        if not len(members):  # of a cluster that the choice left out
            members = np.flatnonzero(curated.cluster == number)
        images = [curated.image(row) for row in curated.rows(_spread(members, _COLUMNS * _ROWS))]
        kept = int((curated.weight[members] > 0).sum())
        lines = [f"{before[number]:,} images, {kept:,} kept, {after[number]:.1f} drawn an epoch"]
        sheets.append(_sheet(images, f"cluster {number}", lines, _COLUMNS))
    chart = svg_uri(charts.cluster_sizes(before.tolist(), after.tolist()))
    top = f"from {before[ranked[-1]]:,} to {before[ranked[0]]:,} before"
    low, high = after[ranked].min(), after[ranked].max()
    alt = f"Sizes of {len(ranked)} clusters: {top}, from {low:.1f} to {high:.1f} drawn after"
    evenness = about["balance"]
    return {
        "clusters": sheets,
        "sizes": {"uri": chart, "alt": alt},
        "levels": "Clusters of each level, the finest first: "
        + ", ".join(f"{size:,}" for size in about["clusters"])
        + ". Copies are counted before, with what they are copies of.",
        "evenness": [
            (label, str(evenness["before"][key]), str(evenness["after"][key]))
            for key, label in (
                ("gini", "Gini coefficient (0: all equal)"),
                ("effective_clusters", "effective number (exponential of the entropy)"),
            )
        ],
        "shown": f"The largest {_CLUSTERS // 2} and others, evenly spaced by size: "
        f"{len(chosen)} of {len(ranked)}. Members as kept, evenly spaced.",
    }


def _spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return rows[np.arange(min(count, len(rows))) * len(rows) // max(min(count, len(rows)), 1)]


def _sheet(
    images: Sequence[Image.Image | None],
    title: str,
    lines: list[str],
    columns: int,
    *,
    whole: bool = False,
) -> _Sheet:
    """Tiles row by row: the middle square of each image, or the whole of it."""
    across = columns  # the same for all sheets, so that tiles have one size
    down = -(-len(images) // across)
    ground = Image.new("RGB", (across * _TILE, down * _TILE), "white")
    size = (_TILE - 2, _TILE - 2)
    for place, image in enumerate(images):
        if image is None:
            continue
        if whole:
            tile = ImageOps.pad(image, size, Image.Resampling.BICUBIC, color="white")
        else:
            tile = ImageOps.fit(image, size, Image.Resampling.BICUBIC)
        ground.paste(tile, (place % across * _TILE + 1, place // across * _TILE + 1))
    curated = f"{title}: {', '.join(lines)}"
    return _Sheet(title, lines, curated, jpeg_uri(ground), ground.width, ground.height)
