"""Training of the packaged reader (`openeupe.evaluation.vlm.reader`): about 13 CPU minutes.

    python -m experiments.reader OUT

Writes a folder as `openeupe/evaluation/vlm/reader`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from openeupe.cli.drawn_progress import DrawnProgress
from openeupe.datasets.question_data import spelling
from openeupe.datasets.questions import Question
from openeupe.datasets.scenes.dataset import CLASSES, Scenes, plural_shape
from openeupe.datasets.scenes.drills import drills
from openeupe.datasets.scenes.lettering import WORDS
from openeupe.datasets.scenes.staging import COLOURS
from openeupe.evaluation.vlm.language import tiny_language
from openeupe.evaluation.vlm.model import VisionLanguage
from openeupe.evaluation.vlm.reader import FORM, truth
from openeupe.evaluation.vlm.training import Lesson, fit_cached
from openeupe.progress import LOGGED, Progress
from openeupe.seeds import derive_seed

_FAST: dict[str, Any] = {
    "train": "all", "lr": 3e-3, "batch_size": 16, "warmup": 0.03, "weight_decay": 0.05,
    "beta2": 0.95, "clip": 10.0,
}  # fmt: skip
_SLOW = {**_FAST, "lr": 2e-3}
LESSONS = (  # looking up one object is learned first: all at once takes far longer
    Lesson(**_FAST, steps=700, abilities=("attribute",), decay=False),
    Lesson(**_FAST, steps=400, abilities=("attribute", "place", "exist", "read"), decay=False),
    Lesson(**_FAST, steps=1600),
    Lesson(**_SLOW, steps=700, abilities=("spatial", "place"), decay=False),
    Lesson(**_SLOW, steps=900),
    Lesson(**_SLOW, steps=1000),
)


def teach(
    lessons: Sequence[Lesson] = LESSONS,
    scenes: int = 12_000,
    *,
    width: int = 96,
    layers: int = 3,
    seed: int = 0,
    packed: int = 8,
    progress: Progress = LOGGED,
) -> VisionLanguage:
    """Train a reader on generated scenes that no suite asks about."""
    seen, questions = schoolbook(scenes)
    vocabulary = [*WORDS, *CLASSES, *map(plural_shape, CLASSES), *COLOURS, *"0123456789"]
    texts = [text for q in questions for text in (q.text, q.answers[0])]
    language, tokenizer = tiny_language(
        [*texts, *vocabulary], width=width, layers=layers, heads=4, rare=0, seed=seed
    )
    model = VisionLanguage(language, tokenizer, seen.shape[1], FORM, seed=seed)
    _initialize_synonyms(model)
    for number, lesson in enumerate(lessons):
        losses = fit_cached(
            model,
            lesson,
            seen,
            lesson.talks(questions, len(seen), FORM.template),
            packed=packed,
            seed=derive_seed(seed, "lesson", number),
            progress=progress,
        )
        if losses:
            last = losses[-50:]
            progress.message(f"lesson {number + 1}: loss {sum(last) / len(last):.3f}")
    return model


def schoolbook(count: int) -> tuple[Tensor, list[Question]]:
    """The truth `[count, S, 7, 7]`, in half precision, about scenes, and questions about them."""
    assert FORM.grid is not None
    parts: list[Tensor] = []
    questions: list[Question] = []
    for start in range(0, count, 1000):
        part = Scenes(min(1000, count - start), seed=derive_seed("reader", start))
        parts.append(truth(part).half())
        for q in (*part.questions(), *drills(part, FORM.grid)):
            questions.append(Question(start + q.image, q.text, q.answers, q.ability, q.choices))
    return torch.cat(parts), questions


def _initialize_synonyms(model: VisionLanguage) -> None:
    """Start words and marks of one meaning as one embedding, and keys as queries.

    Shapes (one or several) and colours are their marks, a word of a sign the sum of its letters'.
    Only where a reader starts: what it makes of them is learned.
    """
    words = model.language.get_input_embeddings().weight.data
    assert isinstance(model.projector, nn.Linear)
    marks, width = model.projector.weight.data, len(words[0])

    def number(word: str) -> int:
        return int(model.tokenizer.convert_tokens_to_ids(word))

    draw = torch.Generator().manual_seed(derive_seed("marks"))
    marks.copy_(torch.randn(marks.shape, generator=draw) * words.std())
    for mark, word in enumerate([*CLASSES, *COLOURS]):
        marks[:, mark] = words[number(word)]
    for shape in CLASSES:
        words[number(plural_shape(shape))] = words[number(shape)]
    for word in WORDS:
        spelt = marks[:, : model.patch_dim] @ torch.from_numpy(spelling(word))
        words[number(word)] = spelt * words.std() / spelt.std()
    for layer in model.language.model.layers:
        layer.self_attn.k_proj.weight.data.copy_(layer.self_attn.q_proj.weight.data)
    # Names are louder than measures; empty cells say one and the same thing, not each its place.
    measures = len(CLASSES) + len(COLOURS) + 1  # distance, and place inside the cell
    marks[:, measures : measures + 2] *= 0.4
    marks[:, model.patch_dim :] *= 0.2
    nothing = torch.Generator().manual_seed(1)
    model.projector.bias.data.copy_(0.1 * torch.randn(width, generator=nothing))


if __name__ == "__main__":
    teach(progress=DrawnProgress(Console())).to(torch.bfloat16).save(sys.argv[1])
