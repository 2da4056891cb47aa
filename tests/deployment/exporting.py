"""Exports with settings as keywords."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openeupe.deployment.config import ExportConfig
from openeupe.deployment.export import export as export_with
from openeupe.encoders import Encoder
from openeupe.encoders.licences import Licence


def export(
    encoder: Encoder,
    folder: Path,
    *,
    images: Path | None = None,
    source: str | None = None,
    licences: Mapping[str, Licence] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """What `export.json` then holds."""
    config = ExportConfig(**settings)
    return export_with(encoder, folder, config, images=images, source=source, licences=licences)
