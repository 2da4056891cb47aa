"""Plug-in of lmms-eval: `lmms-eval --model openeupe --model_args pretrained=FOLDER --tasks pope`.

lmms-eval finds it by the entry point group `lmms_eval.models`; nothing else of the package imports
this module where lmms-eval is not installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import groupby

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from PIL import Image

from openeupe.errors import InputError
from openeupe.evaluation.vlm.model import VisionLanguage


def manifest() -> object:
    """Entry point of lmms-eval's registry."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("openeupe", simple_class_path=f"{__name__}.OpenEupeVlm")


class OpenEupeVlm(lmms):
    """A folder that `VisionLanguage.save` wrote, as a model of lmms-eval.

    Answers are decoded greedily, as in LLaVA-1.5's protocol. Prompts are the tasks' own, in
    the template that the model was trained with. Several processes (`accelerate launch`) share the
    questions; each works on the device of its local rank.

    Args:
        pretrained: the folder.
        batch_size: questions a forward pass.
        device: "cpu", "cuda", ...; default: the local rank's CUDA device, if there is one.
        dtype: of the language model; default: bfloat16 on CUDA, else float32.
        max_new_tokens: longest answer, in tokens, where the task sets none.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str | None = None,
        max_new_tokens: int | str = 128,
        max_batch_size: int | None = None,  # lmms-eval hands it to every model
    ) -> None:
        super().__init__()
        if device is None:
            cuda = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
            device = cuda if torch.cuda.is_available() else "cpu"
        if dtype is None:
            dtype = "bfloat16" if device.startswith("cuda") else "float32"
        model = VisionLanguage.load(pretrained, dtype=getattr(torch, dtype))
        self.model = model.to(device).eval()
        self.batch_size = int(batch_size)
        self.max_new_tokens = int(max_new_tokens)
        self.without_image: set[tuple[str, int]] = set()
        """(task, document) of every question that came without an image."""

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """The answer to every request, in their order."""
        answers: list[str] = []
        for length, group in groupby(requests, self._length):
            waiting = list(group)
            for start in range(0, len(waiting), self.batch_size):
                batch = waiting[start : start + self.batch_size]
                images = [self._image(request) for request in batch]
                questions = [request.args[0] for request in batch]
                responses = self.model.generate(images, questions, max_new_tokens=length)
                for request, answer in zip(batch, responses, strict=True):
                    question, settings, *_ = request.args
                    answers.append(_cut(answer, settings.get("until")))
                    self.cache_hook.add_partial("generate_until", (question, settings), answers[-1])
        return answers

    def _length(self, request: Instance) -> int:
        """Maximum answer length of a request. Its decoding must be greedy."""
        settings, task = request.args[1], request.args[4]
        sampled = settings.get("do_sample") and (settings.get("temperature") or 0) > 0
        if sampled or (settings.get("num_beams") or 1) > 1:
            raise InputError(
                f"task {task} asks for sampling or beams; openeupe decodes greedily:"
                " give --gen_kwargs do_sample=False,temperature=0,num_beams=1"
            )
        return int(settings.get("max_new_tokens") or self.max_new_tokens)

    def _image(self, request: Instance) -> Image.Image | None:
        """The one image that a request is about, if any."""
        _, _, doc_to_visual, doc_id, task, split = request.args
        visuals = doc_to_visual(self.task_dict[task][split][doc_id])
        if not visuals:
            self.without_image.add((task, doc_id))
            return None
        if len(visuals) > 1 or not isinstance(visuals[0], Image.Image):
            raise InputError(f"task {task}: openeupe answers questions about one image")
        return visuals[0].convert("RGB")

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Not supported, but required by lmms-eval."""
        raise NotImplementedError("openeupe answers in words; it gives no likelihoods")

    def clean(self) -> None:
        """Keep the model, which lmms-eval would drop after one evaluation: there may be another."""

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Refused, likewise."""
        raise NotImplementedError("openeupe answers one question at a time")


def _cut(answer: str, until: str | Iterable[str] | None) -> str:
    """The answer up to the first stop string, without outer white space."""
    answer = answer.strip()
    for end in [until] if isinstance(until, str) else until or []:
        answer = answer.split(end)[0] if end else answer
    return answer.strip()
