"""Image pool -> a deduplicated, balanced, documented training set."""

from openeupe.curation.config import CurateConfig
from openeupe.curation.pipeline import curate

__all__ = ["CurateConfig", "curate"]
