"""The reader: a tiny language model trained to answer questions about procedural scenes.

A randomly initialized model would use a probe's training to learn what questions mean. The reader
was trained on the ground truth of generated scenes, encoded as visual tokens, without images and
without an encoder. A probe then only has to map an encoder's tokens to such visual tokens.

It is bundled; `experiments/reader.py` of the repository trained it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from openeupe.datasets.question_data import symbols
from openeupe.datasets.questions import QuestionedImages
from openeupe.evaluation.vlm.model import Form, VisionLanguage

FOLDER = Path(__file__).parent / "reader"
FORM = Form(grid=7, template="bare", projector="linear", placed=True)


def load_reader(folder: Path = FOLDER) -> VisionLanguage:
    """Load the reader, whose visual tokens are the ground truth of `truth`."""
    return VisionLanguage.load(folder)


def truth(images: QuestionedImages) -> Tensor:
    """Ground truth `[N, S, 7, 7]` of each image, as the reader was trained on."""
    assert FORM.grid is not None
    return torch.from_numpy(symbols(images, FORM.grid))
