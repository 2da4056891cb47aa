"""A small vision-language probe with exact answers and baselines.

Not comparable with published vision-language scores: the language model is small or trained from
scratch, and the questions are generated. It compares encoders that were evaluated with the same
settings.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from openeupe.data import View
from openeupe.datasets.interfaces import check_apart
from openeupe.datasets.question_data import QuestionData, symbols
from openeupe.datasets.questions import Question, QuestionedImages
from openeupe.datasets.scenes.drills import drills
from openeupe.encoders.resolver import random_network
from openeupe.evaluation.benchmark import Benchmark, Domain, EvaluatedEncoder
from openeupe.evaluation.features import Features, Precision, fitting_resolution
from openeupe.evaluation.measure import Array, Outcome, mean_measure
from openeupe.evaluation.vlm.language import (
    language_identity,
    load_language,
    need_transformers,
    tiny_language,
)
from openeupe.evaluation.vlm.marking import exist_f1, gap_and_error, marked
from openeupe.evaluation.vlm.model import Form, VisionLanguage, pooled
from openeupe.evaluation.vlm.prompts import Template, put
from openeupe.evaluation.vlm.reader import FOLDER, load_reader, truth
from openeupe.evaluation.vlm.reader import FORM as READS
from openeupe.evaluation.vlm.training import Alignment, Lesson, align, fit_cached
from openeupe.files import write_atomically
from openeupe.identity import settings_identity
from openeupe.registry import cache_folder
from openeupe.seeds import derive_seed, seeded

Data = tuple[QuestionedImages, QuestionedImages]
Baseline = Literal["blind", "raw pixels", "untrained"]
Reference = Literal["blind", "raw pixels", "untrained", "ceiling"]


class VlmMini(Benchmark):
    """Question answering by a small language model on the encoder's tokens.

    The form is LLaVA-1.5's; visual tokens are computed once and averaged to a small grid. The
    language model "reader" (`openeupe.evaluation.vlm.reader`) was trained on questions about
    procedural scenes; the projector is trained to encode where each object of the
    training scenes is (alignment), and the reader is frozen unless phases follow. "tiny" is a
    randomly initialized Llama, for photos; any other name is a pretrained language model, for
    which give two phases and the template "chat".

    Baselines are trained without an image (blind), with raw pixels, and with an untrained network;
    the ground truth in place of visual tokens gives the ceiling. These do not depend on the
    encoder and are cached. An ability is resolved where the ceiling is above the
    best baseline by more than `gate_points` and by more than `gate_errors` standard errors;
    otherwise the probe cannot distinguish encoders, and the table shows this.
    """

    fills_several = True

    kind: Literal["vlm_mini"] = "vlm_mini"
    protocol: str = "vlm/mini-v2"
    domain: Domain = "language"
    data: QuestionData

    language_model: str = Field(
        "reader", description="reader, tiny, smollm2, a Hugging Face name or folder"
    )
    width: int = Field(64, ge=8, description="Of tiny")
    layers: int = Field(2, ge=1, description="Of tiny")
    heads: int = Field(2, ge=1, description="Of tiny")
    template: Template = "bare"
    hidden: int | None = Field(None, ge=1, description="Of the projector; default: as LLaVA's")
    alignment: Alignment = Field(Alignment(), description="Of reader")
    phases: tuple[Lesson, ...] = Field(
        (), description="On questions; of reader after the alignment, and needed by any other"
    )
    resolution: int = Field(224, ge=32, description="Pixels; fitted to the encoder's patches")
    grid: int = Field(7, ge=1, description="Visual tokens are averaged to grid x grid")
    packed: int = Field(8, ge=1, description="Questions of an image a step takes, at most")
    precision: Precision = "fp32"
    test_batch: int = Field(64, ge=1, description="Questions answered at a time")
    max_new_tokens: int = Field(10, ge=1, description="Of an answer")
    seeds: int = Field(3, ge=1)
    baseline_seeds: int = Field(
        1, ge=1, description="Trainings of each baseline and of the ceiling"
    )
    baselines: tuple[Baseline, ...] = ("blind", "raw pixels", "untrained")
    untrained: str = Field("vit_tiny_patch16_224", description="The network with random weights")
    gate_points: float = 10.0
    gate_errors: float = 4.0

    @model_validator(mode="after")
    def _used(self) -> VlmMini:
        """Refuse settings that have no effect on the chosen language model."""
        own = {"tiny": ("width", "layers", "heads"), "reader": ("alignment",)}
        for model, names in own.items():
            for name in names if model != self.language_model else ():
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"{name} is of language_model {model}, not {self.language_model}: leave "
                        "it out"
                    )
        return self

    @model_validator(mode="after")
    def _readable(self) -> VlmMini:
        if self.language_model != "reader" and not self.phases:
            raise ValueError(f"language_model {self.language_model} needs phases: give some")
        if self.language_model == "reader":
            if self.data.layout != "scenes":
                raise ValueError(
                    "the reader was trained on procedural scenes only: give language_model tiny"
                )
            if (self.grid, self.template) != (READS.grid, READS.template):
                raise ValueError(f"the reader reads grid {READS.grid}, template {READS.template}")
        return self

    def open(self, root: Path) -> Data:
        """(train, test) of `data`."""
        need_transformers()
        train, test = self.data.open(root)
        check_apart(train, test)
        return train, test

    def identities(self, data: Data) -> list[str]:
        """Of images, questions and the language model."""
        model = str(FOLDER) if self.language_model == "reader" else self.language_model
        return [*(part.identity for part in data), language_identity(model)]

    def run(self, data: Data, evaluated: EvaluatedEncoder) -> dict[str, Outcome]:
        train, test = data
        asked = test.questions()
        names = [test.name(question.image) for question in asked]
        shown = self._tokens(evaluated.features, data)
        predictions = [self._answers(*shown, data, seed, evaluated) for seed in range(self.seeds)]
        right = marked(predictions, asked)
        baselines = {name: self._reference(name, data, evaluated) for name in self.baselines}
        ceiling = self._reference("ceiling", data, evaluated)
        outcomes = {}
        for ability in dict.fromkeys(question.ability for question in asked):
            of = np.array([question.ability == ability for question in asked])
            where = [name for name, is_it in zip(names, of, strict=True) if is_it]

            def percent(hits: Array, of: Array = of) -> float:
                return 100 * float(hits[:, of].mean())

            measures = {"accuracy": mean_measure(where, right[:, of], scale=100, unit="%")}
            if ability == "exist":
                measures["f1"] = exist_f1(predictions, asked, names)
            low = max(baselines.values(), key=percent, default=np.zeros_like(right))
            gap, error = gap_and_error(ceiling[:, of], low[:, of], where)
            best, baseline = percent(ceiling), percent(low)
            details: dict[str, object] = {
                "questions": int(of.sum()),
                "images": len(set(where)),
                "train_images": len(train),
                "language_model": self.language_model,
                "ceiling": best,
                "gap": gap,
                "gap_error": error,
                "resolved": bool(gap > self.gate_points and gap > self.gate_errors * error),
                "normalised": (percent(right) - baseline) / (best - baseline)
                if best > baseline
                else None,
            }
            if not details["resolved"]:
                details["note"] = "not resolved by this probe"
            outcomes[ability] = Outcome(
                "accuracy",
                measures,
                baselines={name: percent(hits) for name, hits in baselines.items()},
                details=details,
                answers=[
                    {
                        "image": name,
                        "question": question.text,
                        "choices": list(question.choices),
                        "answers": list(question.answers),
                        "predictions": [answers[k] for answers in predictions],
                    }
                    for k, (question, name) in enumerate(zip(asked, names, strict=True))
                    if of[k]
                ],
            )
        return outcomes

    def _tokens(self, features: Features, data: Data) -> tuple[Tensor, Tensor]:
        """Patch tokens `[N, D, grid, grid]` of the train and the test images."""
        resolution = fitting_resolution(features.encoder, self.resolution)
        view = View(resolution, resolution, "pad")
        train, test = (
            torch.cat(
                [pooled(part.float(), self.grid) for part in features.patches(s, view).split(64)]
            )
            for s in data
        )
        return train, test

    def _answers(
        self, train: Tensor, test: Tensor, data: Data, seed: int, evaluated: EvaluatedEncoder
    ) -> list[str]:
        """The answer to every test question, after training with one seed."""
        learned: list[Question] = []
        if self.phases:
            learned = [*data[0].questions(), *drills(data[0], self.grid)]
        form = Form(grid=self.grid, template=self.template, hidden=self.hidden)
        if self.language_model == "reader":
            reader = load_reader()
            language, tokenizer = reader.language, reader.tokenizer
            form = form.model_copy(update={"placed": reader.form.placed})
        elif self.language_model == "tiny":
            texts = [text for q in learned for text in (put(q, self.template), q.answers[0])]
            language, tokenizer = tiny_language(
                texts, width=self.width, layers=self.layers, heads=self.heads, seed=seed
            )
        else:
            language, tokenizer = load_language(self.language_model)
        model = VisionLanguage(language, tokenizer, train.shape[1], form, seed=seed)
        model.standardize(train)
        model.to(evaluated.device)
        if self.language_model == "reader":
            seen = truth(data[0])
            wanted, spoken = reader.visual(seen), seen.flatten(2).any(1)
            align(model, self.alignment, train, wanted, spoken, seed=seed)
        for number, phase in enumerate(self.phases):
            fit_cached(
                model,
                phase,
                train,
                phase.talks(learned, len(data[0]), self.template),
                packed=self.packed,
                seed=derive_seed(seed, number),
                precision=self.precision,
                progress=evaluated.progress,
            )
        return self._asked(model, test, data[1].questions())

    def _asked(self, model: VisionLanguage, test: Tensor, asked: Sequence[Question]) -> list[str]:
        """A trained model's answer to each question."""
        predictions = [""] * len(asked)
        # Similar questions together: of equal length, with equally long answers.
        order = sorted(range(len(asked)), key=lambda k: (asked[k].ability, len(asked[k].text)))
        for start in range(0, len(order), self.test_batch):
            part = order[start : start + self.test_batch]
            answers = model.generate(
                test[[asked[k].image for k in part]],
                [put(asked[k], self.template) for k in part],
                max_new_tokens=self.max_new_tokens,
            )
            for k, answer in zip(part, answers, strict=True):
                predictions[k] = answer
        return predictions

    def _reference(self, name: Reference, data: Data, evaluated: EvaluatedEncoder) -> Array:
        """Which test questions a baseline or the ceiling gets right, `[seeds, Q]`; cached."""
        facts = self.model_dump(mode="json", exclude={"data", "seeds", "baselines", "test_batch"})
        facts |= {
            "data": self.identities(data),
            "encoder_precision": evaluated.features.precision,
            "name": name,
            "device": evaluated.device.type,
            "torch": torch.__version__,
        }
        file = cache_folder() / "vlm-baselines" / f"{settings_identity(facts)}.json"
        asked = data[1].questions()
        try:
            return marked(json.loads(file.read_text(encoding="utf-8")), asked)
        except (OSError, ValueError, RecursionError):
            pass
        if name == "ceiling" and self.language_model == "reader":  # there is nothing to train
            predictions = [self._asked(load_reader().to(evaluated.device), truth(data[1]), asked)]
        else:
            train, test = self._replaced(name, data, evaluated)
            seeds = range(self.baseline_seeds)
            predictions = [self._answers(train, test, data, seed, evaluated) for seed in seeds]
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(predictions))
        return marked(predictions, asked)

    def _replaced(
        self, name: Reference, data: Data, evaluated: EvaluatedEncoder
    ) -> tuple[Tensor, Tensor]:
        """Tokens of a baseline or the ceiling, in place of the encoder's."""
        if name == "ceiling":
            train, test = (torch.from_numpy(symbols(part, self.grid)) for part in data)
            return train, test
        if name == "blind":
            train, test = (torch.zeros(len(s), 1, self.grid, self.grid) for s in data)
            return train, test
        with seeded(derive_seed("untrained")):
            network = "raw_pixels" if name == "raw pixels" else self.untrained
            encoder = random_network(network)
        features = Features(
            encoder.to(evaluated.device),
            precision=evaluated.features.precision,
            batch_size=evaluated.features.batch_size,
            workers=evaluated.features.workers,
            progress=evaluated.progress,
        )
        return self._tokens(features, data)
