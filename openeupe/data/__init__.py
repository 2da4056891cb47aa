"""Files -> batches: sources, mixing, augmentation, the resolution pyramid."""

from openeupe.data.augment import Augment, center_view, resize
from openeupe.data.batch_augment import BatchAugment
from openeupe.data.batches import Batch, Batches
from openeupe.data.broken import BrokenImages
from openeupe.data.config import AugmentConfig, DataConfig, SourceConfig
from openeupe.data.decode import EXTENSIONS, BrokenImage, decode
from openeupe.data.folders import FolderSource
from openeupe.data.huggingface import HuggingFaceSource
from openeupe.data.images import (
    DepthImages,
    Images,
    KeypointImages,
    LabelledImages,
    MaskedImages,
)
from openeupe.data.manifest import ManifestSource
from openeupe.data.questions import Question, QuestionedImages
from openeupe.data.recorded import changed, image_sets
from openeupe.data.repeated import RepeatedViews
from openeupe.data.seeds import derive_seed, shuffled
from openeupe.data.shards import ShardSource
from openeupe.data.sources import Source, check_heldout, mean_bytes, open_source, open_sources
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
    "DepthImages",
    "FolderSource",
    "HuggingFaceSource",
    "Images",
    "KeypointImages",
    "LabelledImages",
    "ManifestSource",
    "MaskedImages",
    "Question",
    "QuestionedImages",
    "RepeatedViews",
    "ShardSource",
    "Source",
    "SourceConfig",
    "View",
    "Weights",
    "center_view",
    "changed",
    "check_heldout",
    "decode",
    "derive_seed",
    "image_sets",
    "mean_bytes",
    "open_source",
    "open_sources",
    "resize",
    "shuffled",
]
