"""Summary of a manifest in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from openeupe.data.manifest import open_manifest

_NAMED = 200  # names of a list; the manifest has all
BECAUSE = {
    "unreadable": "cannot be decoded",
    "small": "shorter than min_resolution",
    "narrow": "longer than max_aspect times its width",
    "leak": "shows an evaluation image",
    "copy": "the same bytes as another",
    "near copy": "another shows the same, and has more pixels or came first",
    "unlike": "not among the nearest to the seed set",
    "balance": "its cluster had its share",
}


def summary(manifest: Path) -> str:
    """The summary of a manifest as Markdown."""
    file, about = open_manifest(manifest)
    columns = ["path", "reason", "against", "bits", "cosine", "agreement"]
    table = file.read(columns=columns)
    lines = [
        f"# {manifest.name}",
        "",
        f"{about['kept']:,} of {about['images']:,} images remain.",
        "",
        "| dropped | images | because |",
        "|---|---:|---|",
        *(
            f"| {reason} | {about['dropped'][reason]:,} | {why} |"
            for reason, why in BECAUSE.items()
            if reason in about["dropped"]
        ),
        "",
    ]
    if "balance" in about:
        before, after = about["balance"]["before"], about["balance"]["after"]
        sizes = ", ".join(f"{size:,}" for size in about["clusters"])
        lines += [
            f"Clusters, the finest level first: {sizes}.",
            "",
            "| finest clusters | before | after, as drawn |",
            "|---|---:|---:|",
            f"| Gini coefficient (0: all equal) | {before['gini']} | {after['gini']} |",
            "| effective number (exponential of the entropy) "
            f"| {before['effective_clusters']} | {after['effective_clusters']} |",
            "",
        ]
    lines += [
        "## Settings",
        "",
        *(f"- {name}: {value}" for name, value in settings(about).items()),
        "",
    ]
    leaks = table.filter(pc.equal(table["reason"].cast("string"), "leak")).to_pylist()
    if leaks:
        lines += ["## Evaluation images that were among them", ""]
        lines += [_leak(row) for row in leaks[:_NAMED]] + _more(len(leaks)) + [""]
    if blind := about.get("unreadable_against", []):
        lines += ["## Unreadable evaluation images", "", f"{unprotected(len(blind))}:", ""]
        lines += [f"- {name}" for name in blind[:_NAMED]] + _more(len(blind)) + [""]
    broken = table.filter(pc.equal(table["reason"].cast("string"), "unreadable"))["path"]
    if len(broken):
        lines += ["## Unreadable", ""]
        lines += [f"- {name}" for name in broken.to_pylist()[:_NAMED]] + _more(len(broken)) + [""]
    return "\n".join(lines)


def unprotected(count: int) -> str:
    """A sentence on unreadable evaluation images, without its full stop."""
    images = (
        "1 image of `against` cannot be read, so copies of it are"
        if count == 1
        else (f"{count:,} images of `against` cannot be read, so copies of them are")
    )
    return f"{images} not found"


def settings(about: dict[str, Any]) -> dict[str, Any]:
    """Every setting of a manifest by name."""
    facts = {**about["config"], "roots": ", ".join(about["roots"]), "openeupe": about["openeupe"]}
    if about["encoder"]:
        facts["encoder"] = (
            f"{about['encoder']['name']} at {about['encoder']['resolution']} pixels, "
            f"identity {about['encoder']['identity']}"
        )
    for name in ("against", "like"):
        if about[name]:
            facts[name] = ", ".join(about[name])
    return facts


def _leak(row: dict[str, Any]) -> str:
    return f"- {row['path']} shows {row['against']} ({likeness(row)})"


def likeness(row: dict[str, Any]) -> str:
    """How near the two images of a row are."""
    parts = []
    if row["bits"] is not None:
        parts.append(f"{row['bits']} bits differ")
    if row["cosine"] is not None:
        parts.append(f"cosine {row['cosine']:.3f}")
    if row["agreement"] is not None:
        parts.append(f"agreement {row['agreement']:.2f}")
    return ", ".join(parts) or "the same bytes"


def _more(count: int) -> list[str]:
    return [f"- and {count - _NAMED:,} more: see the manifest"] if count > _NAMED else []
