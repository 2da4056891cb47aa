"""Files -> batches: sources, mixing, augmentation, the resolution pyramid."""

from openeupe.data.augment import Augment, center_view, resize
from openeupe.data.batches import Batch, Batches
from openeupe.data.broken import BrokenImages
from openeupe.data.config import AugmentConfig, DataConfig, SourceConfig
from openeupe.data.decode import EXTENSIONS, BrokenImage, decode
from openeupe.data.folders import FolderSource
from openeupe.data.huggingface import HuggingFaceSource
from openeupe.data.seeds import derive_seed, shuffled
from openeupe.data.shards import ShardSource
from openeupe.data.sources import Source, open_source

__all__ = [
    "EXTENSIONS",
    "Augment",
    "AugmentConfig",
    "Batch",
    "Batches",
    "BrokenImage",
    "BrokenImages",
    "DataConfig",
    "FolderSource",
    "HuggingFaceSource",
    "ShardSource",
    "Source",
    "SourceConfig",
    "center_view",
    "decode",
    "derive_seed",
    "open_source",
    "resize",
    "shuffled",
]
