"""TextVQA, ScienceQA, RealWorldQA, POPE, GQA and MME after training as LLaVA-1.5 was (paper C.2).

The frozen encoder, a two-layer projector and a language model are trained in two phases on
LLaVA-1.5's own data; lmms-eval asks the questions of the original data sets; our own rules
score the answers, image by image. Absolute scores depend on the language model, the harness and
its version: compare encoders that were evaluated by the same settings, not with publications.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from openeupe.errors import InputError
from openeupe.evaluation.benchmark import Benchmark, Domain, EvaluatedEncoder
from openeupe.evaluation.features import fitting_resolution
from openeupe.evaluation.measure import Outcome
from openeupe.evaluation.vlm.language import language_identity
from openeupe.evaluation.vlm.llava import (
    Llava,
    conversations_identity,
    read_llava,
    train_llava,
)
from openeupe.evaluation.vlm.scorers import SCORERS, Record, over_seeds
from openeupe.identity import encoder_identity, facts_identity, files_identity, settings_identity

Task = Literal["textvqa", "sqa", "realworldqa", "pope", "gqa", "mme"]
Sample = Mapping[str, Any]

# LLaVA-1.5's prompt of TextVQA, which lists the data set's OCR tokens; lmms-eval's does not.
_WITH_OCR_TOKENS = {
    "default": {
        "pre_prompt": "",
        "post_prompt": "\nAnswer the question using a single word or phrase.",
        "ocr": True,
    }
}


@dataclass(frozen=True)
class LlavaData:
    """Checked paths of LLaVA-1.5's training data.

    align, tune: (JSON file of conversations, folder that its image paths start from).
    task_folder: further task files of lmms-eval.
    fingerprint: identity of what is trained on: both JSON files and their images.
    """

    align: tuple[Path, Path]
    tune: tuple[Path, Path]
    task_folder: Path | None
    fingerprint: str


class VlmBenchmarks(Benchmark):
    """Settings of the six benchmarks; one training fills all six: NAME-textvqa, NAME-sqa, ..."""

    fills_several = True
    locates_data = frozenset(
        {"align_data", "align_images", "tune_data", "tune_images", "task_folder"}
    )

    kind: Literal["vlm"] = "vlm"
    protocol: str = "vlm/llava-1.5-v1"
    domain: Domain = "language"

    language_model: str = Field(
        "lmsys/vicuna-7b-v1.5", description="Name or folder of a Hugging Face causal LM."
    )
    align_data: Path = Field(
        Path("llava/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json"),
        description="558K image-caption pairs of the first phase, which trains the projector.",
    )
    align_images: Path = Path("llava/LLaVA-Pretrain")
    tune_data: Path = Field(
        Path("llava/llava_v1_5_mix665k.json"),
        description="665K conversations of the second phase: projector and language model.",
    )
    tune_images: Path = Path("llava")
    llava: Llava = Field(
        Llava(),
        description="Both phases. Default resolution: 576 patches, 384 pixels at patch 16 and "
        "336 at 14 (384 pixels at any other).",
    )
    seeds: int = Field(3, ge=1, description="Trainings; the paper has one.")

    tasks: dict[Task, str] = Field(
        {
            "textvqa": "textvqa_val",
            "sqa": "scienceqa",
            "realworldqa": "realworldqa",
            "pope": "pope",
            "gqa": "gqa",
            "mme": "mme",
        },
        description="Benchmarks to fill, and the task of lmms-eval that asks for each.",
    )
    task_folder: Path | None = Field(None, description="Further task files of lmms-eval.")
    ocr_tokens: bool = Field(True, description="Ask TextVQA with listed OCR tokens as well.")
    batch_size: int = Field(16, ge=1, description="Questions a forward pass.")
    limit: int | None = Field(None, ge=1, description="First questions of each task: for a trial.")

    def open(self, root: Path) -> LlavaData:
        for module in ("lmms_eval", "transformers"):
            if importlib.util.find_spec(module) is None:
                raise InputError(f"{module} is not installed: pip install 'openeupe[vlm-bench]'")
        extra = root / self.task_folder if self.task_folder is not None else None
        if extra is not None and not extra.is_dir():
            raise InputError(f"{extra}: no such folder (task_folder)")
        align = _checked(root / self.align_data, root / self.align_images)
        tune = _checked(root / self.tune_data, root / self.tune_images)
        trained_on = [conversations_identity(*part) for part in (align, tune)]
        return LlavaData(align, tune, extra, facts_identity(*trained_on))

    def identities(self, data: LlavaData) -> list[str]:
        """Identities of training data, language model, tasks and lmms-eval."""
        extra = data.task_folder
        tasks = extra and files_identity(extra, sorted(f for f in extra.rglob("*") if f.is_file()))
        asked = facts_identity(tasks, version("lmms-eval"))
        return [data.fingerprint, language_identity(self.language_model), asked]

    def run(self, data: LlavaData, evaluated: EvaluatedEncoder) -> dict[str, Outcome]:
        from openeupe.evaluation.vlm.lmms import OpenEupeVlm

        found: dict[str, list[Outcome]] = {}
        with ExitStack() as stack:
            kept = evaluated.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for seed in range(self.seeds):
                folder = self._trained(data, evaluated, kept, seed)
                model = OpenEupeVlm(str(folder), self.batch_size, str(evaluated.device))
                for name, records in self.ask(model, data.task_folder).items():
                    found.setdefault(name, []).append(SCORERS[name](records))
        outcomes = {name: over_seeds(seeds) for name, seeds in found.items()}
        for outcome in outcomes.values():
            outcome.details["language_model"] = self.language_model
            outcome.details["lmms_eval"] = version("lmms-eval")
        return outcomes

    def _trained(self, data: LlavaData, evaluated: EvaluatedEncoder, kept: Path, seed: int) -> Path:
        """Folder of the trained model. It is trained if missing."""
        encoder, form = evaluated.encoder, self.llava.form
        resolution = form.resolution or fitting_resolution(
            encoder, 336 if encoder.patch_size == 14 else 384
        )
        form = form.model_copy(update={"resolution": resolution})
        llava = self.llava.model_copy(update={"form": form})
        what = {
            "encoder": encoder_identity(encoder),
            "language_model": language_identity(self.language_model),
            "llava": llava.model_dump(mode="json"),
            "data": data.fingerprint,
            "seed": seed,
        }
        folder = kept / f"llava-{settings_identity(what)}"
        if not (folder / "vision_language.json").is_file():  # `VisionLanguage.save` ends with it
            train_llava(
                encoder,
                self.language_model,
                data.align,
                data.tune,
                folder,
                llava,
                seed=seed,
                progress=evaluated.progress,
            )
        return folder

    def ask(self, model: Any, task_folder: Path | None) -> dict[str, list[Record]]:
        """The answers of an `OpenEupeVlm`: records of each benchmark, for its scorer."""
        from lmms_eval import evaluator
        from lmms_eval.tasks import TaskManager

        extra = str(task_folder) if task_folder else None
        manager = TaskManager("ERROR", include_path=extra)

        def samples(tasks: list[Any]) -> dict[str, list[Sample]]:
            results = evaluator.simple_evaluate(
                model=model,
                tasks=tasks,
                limit=self.limit,
                predict_only=True,  # our rules score; theirs would also write files
                bootstrap_iters=0,
                task_manager=manager,
                verbosity="ERROR",
            )
            return dict(results["samples"])

        answered = samples(list(self.tasks.values()))
        records: dict[str, list[Record]] = {
            name: records_of(name, answered[task], model.without_image, task)
            for name, task in self.tasks.items()
        }
        if self.ocr_tokens and "textvqa" in self.tasks:
            task = self.tasks["textvqa"]
            listed = samples([{"task": task, "lmms_eval_specific_kwargs": _WITH_OCR_TOKENS}])[task]
            records["textvqa"] += [
                {**r, "ocr_tokens": True} for r in records_of("textvqa", listed, (), task)
            ]
        return records


def records_of(
    benchmark: str,
    samples: Sequence[Sample],
    without_image: Collection[tuple[str, int]],
    task: str,
) -> list[Record]:
    """Records for a scorer from lmms-eval's logged samples of one task.

    Args:
        without_image: (task, document) of the questions that had no image, of all tasks.
        task: the task of lmms-eval that the samples are of.

    Raises:
        InputError: if a document lacks a field that the benchmark's set had when this was written.
    """
    records: list[Record] = []
    for sample in samples:
        doc, number = sample["doc"], sample["doc_id"]
        try:
            about = _truth(benchmark, doc, f"question {number}")
        except KeyError as error:
            raise InputError(
                f"{benchmark}: its documents have no field {error}; the data set of this"
                " lmms-eval differs from the one that is known"
            ) from None
        response = sample["filtered_resps"][0]
        while isinstance(response, list):
            response = response[0]
        if benchmark == "sqa":
            about["has_image"] = (task, number) not in without_image
        records.append({"question": number, "response": response, **about})
    return records


def _truth(benchmark: str, doc: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Image name and ground truth, from the benchmark's fields.

    name: of the question; stands for its image where the set does not name images.
    """
    if benchmark == "textvqa":
        return {"image": doc["image_id"], "answers": list(doc["answers"])}
    if benchmark == "sqa":
        letter = "ABCDE"[doc["answer"]]
        return {"image": name, "answer": letter, "choices": len(doc["choices"])}
    if benchmark == "pope":
        return {"image": doc["image_source"], "split": doc["category"], "answer": doc["answer"]}
    if benchmark == "gqa":
        return {"image": doc["imageId"], "answer": doc["answer"]}
    if benchmark == "mme":
        image, category = doc["question_id"], doc["category"]
        return {"image": image, "category": category, "answer": doc["answer"]}
    return {"image": doc.get("image_path") or name, "answer": doc["answer"]}  # RealWorldQA


def _checked(file: Path, images: Path) -> tuple[Path, Path]:
    """Both paths, after checking the conversations and their images."""
    if not file.is_file():
        raise InputError(f"{file}: no such file; LLaVA-1.5's training data are expected there")
    if not images.is_dir():
        raise InputError(f"{images}: no such folder; the images of {file.name} start from there")
    wanted = [image for image, _ in read_llava(file) if image is not None]
    missing = [name for name in dict.fromkeys(wanted) if not (images / name).is_file()]
    if missing:
        raise InputError(
            f"{images / missing[0]}: image of {file.name} is missing"
            f" ({len(missing)} of {len(wanted)} are); see LLaVA's list of image sets"
        )
    return file, images
