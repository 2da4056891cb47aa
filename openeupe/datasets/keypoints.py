"""Data sets with keypoints: SPair-71k, tables (CSV), procedural scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from openeupe.config import Config
from openeupe.datasets.point_tables import PointTable
from openeupe.datasets.scenes.dataset import Scenes
from openeupe.datasets.spair import SPair


class KeypointScenes(Config):
    """Procedural objects; needs no files."""

    layout: Literal["scenes"] = "scenes"
    count: int = Field(400, ge=2, description="Number of images")
    seed: int = Field(0, description="Which images")

    def open(self, root: Path) -> Scenes:
        """The images; nothing is read from `root`."""
        return Scenes(self.count, seed=self.seed, split="test", content="object")


KeypointData = Annotated[SPair | PointTable | KeypointScenes, Field(discriminator="layout")]
