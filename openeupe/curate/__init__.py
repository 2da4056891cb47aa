"""A heap of images -> a deduplicated, balanced, documented training set."""

from openeupe.curate.config import CurateConfig
from openeupe.curate.pipeline import curate

__all__ = ["CurateConfig", "curate"]
