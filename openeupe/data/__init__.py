"""Image files -> training batches: sources, decoding, augmentation, batches."""

from openeupe.data.augment import Augment, resize
from openeupe.data.batch_augment import BatchAugment
from openeupe.data.batches import Batch, Batches
from openeupe.data.broken import BrokenImages
from openeupe.data.config import AugmentConfig, DataConfig, SourceConfig
from openeupe.data.decode import EXTENSIONS, BrokenImage, decode
from openeupe.data.folders import FolderSource
from openeupe.data.heldout import check_heldout, open_sources
from openeupe.data.huggingface import HuggingFaceSource
from openeupe.data.manifest import ManifestSource
from openeupe.data.recorded import changed, image_sets
from openeupe.data.repeated import RepeatedViews
from openeupe.data.shards import ShardSource
from openeupe.data.sources import Source, at_hand, mean_bytes, open_source
from openeupe.data.views import View
from openeupe.data.weighted import Weights

__all__ = [
    "EXTENSIONS",
    "Augment",
    "AugmentConfig",
    "Batch",
    "BatchAugment",
    "Batches",
    "BrokenImage",
    "BrokenImages",
    "DataConfig",
    "FolderSource",
    "HuggingFaceSource",
    "ManifestSource",
    "RepeatedViews",
    "ShardSource",
    "Source",
    "SourceConfig",
    "View",
    "Weights",
    "at_hand",
    "changed",
    "check_heldout",
    "decode",
    "image_sets",
    "mean_bytes",
    "open_source",
    "open_sources",
    "resize",
]
