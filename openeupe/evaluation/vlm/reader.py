"""The reader: a tiny language model trained to answer questions about procedural scenes.

A model that starts from nothing spends a probe's whole training on learning what a question asks,
and not on what the encoder shows. The reader knows that before: it was trained on the truth about
generated scenes, written into visual tokens, without any picture and without any encoder. A probe
then has to learn one thing only, which is to turn an encoder's tokens into such visual tokens.

It comes with the package; `experiments/reader.py` of the repository trained it.
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
    """The reader: a model whose patch tokens are the truth, as `truth` writes it."""
    return VisionLanguage.load(folder)


def truth(images: QuestionedImages) -> Tensor:
    """`[N, S, 7, 7]`: what the reader was trained to see of each image."""
    assert FORM.grid is not None
    return torch.from_numpy(symbols(images, FORM.grid))
