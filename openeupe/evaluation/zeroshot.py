"""Zero-shot classification by class names (paper appendix C.1), and its ridge variant."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from openeupe import encoders
from openeupe.data import View
from openeupe.datasets.classification import ClassData, ImageNet
from openeupe.datasets.interfaces import Images, LabelledImages
from openeupe.datasets.subset import Subset
from openeupe.encoders import Encoder
from openeupe.encoders.meta import on_meta
from openeupe.encoders.text import TextSpace, TextTower, text_space
from openeupe.errors import InputError
from openeupe.evaluation.benchmark import Benchmark, Domain, EvaluatedEncoder, NotApplicable
from openeupe.evaluation.features import Features, Precision
from openeupe.evaluation.knn import class_labels, crop_view
from openeupe.evaluation.measure import Outcome, mean_measure
from openeupe.evaluation.ridge import RidgeReadout
from openeupe.identity import facts_identity, tensors_identity
from openeupe.seeds import derive_seed, shuffled

_OPENAI = "openai-80"


@dataclass(frozen=True)
class NamedImages:
    """Data of a zero-shot benchmark: images, the classes' prompts and the space that joins them."""

    train: LabelledImages
    test: LabelledImages
    prompts: list[list[str]]
    names_from: str
    space: TextSpace


class _ByNames(Benchmark):
    """Common settings: images, an expert's text space, prompts and view."""

    domain: Domain = "image"
    data: ClassData
    expert: str = Field(
        "efficientnet_lite0", description="Whose text space: efficientnet_lite0, pe_core_g, ..."
    )
    templates: Literal["openai-80"] | tuple[str, ...] = Field(
        ("{}",),
        description="Prompts, {} being the class; openai-80: CLIP's, and for ImageNet CLIP's names "
        "of the classes, both from open_clip",
    )
    short: int = Field(256, ge=1, description="Pixels of the short side after resizing")
    crop: int = Field(224, ge=1, description="Pixels of the centre crop")

    def open(self, root: Path) -> NamedImages:
        """Open images, names and the text tower."""
        train, test = self.data.open(root)
        if test.classes is None:
            raise InputError(f"{self.kind}: these images have no classes: give labelled data")
        names, source = self.data.titles(root, test.classes), "data"
        templates: Sequence[str] = self.templates
        if self.templates == _OPENAI:
            templates, curated = _openai()
            if isinstance(self.data, ImageNet) and self.data.names is None:
                if len(names) != len(curated):
                    raise InputError(
                        f"{self.kind}: {len(names)} class folders, ImageNet-1k has "
                        f"{len(curated)}: add the missing ones, or give templates as a list"
                    )
                names, source = curated, "open_clip"
        if wrong := [template for template in templates if "{}" not in template]:
            raise InputError(f"{self.kind}: template {wrong[0]!r} has no {{}} for the class")
        prompts = [[template.replace("{}", name) for template in templates] for name in names]
        return NamedImages(train, test, prompts, source, text_space(self.expert))

    def identities(self, data: NamedImages) -> list[str]:
        """Of the images, and of the prompts that names and templates made."""
        words = facts_identity(data.prompts, data.space.tower.name)
        return [data.train.identity, data.test.identity, words]

    def _score(
        self,
        data: NamedImages,
        vectors: Tensor,
        evaluated: EvaluatedEncoder,
        details: dict[str, object],
    ) -> dict[str, Outcome]:
        classes = class_vectors(data.space.tower.to(evaluated.device), data.prompts)
        truth = class_labels(data.test)
        ranked = (vectors @ classes.T).topk(min(5, len(classes)), dim=1).indices == truth[:, None]
        names = [data.test.name(i) for i in range(len(data.test))]
        measures = {
            "top1": mean_measure(names, ranked[:, 0].numpy(), scale=100, unit="%"),
            "top5": mean_measure(names, ranked.any(dim=1).numpy(), scale=100, unit="%"),
        }
        details = {
            "text_tower": data.space.tower.name,
            "templates": self.templates,
            "class_names": data.names_from,
            "classes": len(classes),
            "test_images": len(truth),
            **details,
        }
        return {"": Outcome("top1", measures, {"chance": 100 / len(classes)}, details)}


class ZeroShot(_ByNames):
    """Zero-shot accuracy: the nearest class name in text space; nothing is trained.

    The expert's own class tokens are used directly. A student's are mapped by its heads to the
    expert's, de-standardized at each step. Other encoders are not supported.
    """

    kind: Literal["zero_shot"] = "zero_shot"
    protocol: str = "zero_shot/eupe-v1"

    def run(self, data: NamedImages, evaluated: EvaluatedEncoder) -> dict[str, Outcome]:
        """Evaluate by the chain of heads. Raises `NotApplicable` if there is none to the expert's
        text space.
        """
        space = data.space
        chain = evaluated.chains.get(self.expert)
        direct = not evaluated.chains and is_expert(self.expert, evaluated.encoder)
        if chain is None and not direct:
            experts = ", ".join(evaluated.chains)
            raise NotApplicable(
                f"its heads lead to {experts}, not to {self.expert}"
                if experts
                else f"neither {self.expert} nor distilled from it"
            )
        view = crop_view(evaluated.encoder, self.crop, self.short)
        cls = evaluated.features.cls(data.test, view)
        if chain is not None:
            cls = chain(cls)
        if cls.shape[1] != space.width:
            raise NotApplicable(
                f"its way to {self.expert} ends in {cls.shape[1]} dimensions, the text space asks "
                f"for {space.width}"
            )
        details: dict[str, object] = {
            "way": "chain" if chain is not None else "direct",
            "resolution": view.height,
        }
        return self._score(data, space.image_vectors(cls), evaluated, details)


class ZeroShotRidge(_ByNames):
    """Zero-shot classification through a ridge map from the class token. The map leads into the
    expert's text space.

    The map is fitted for each encoder on unlabelled training images, whose targets are the
    expert's own image vectors; a fifth of these images chooses the shrinkage. It works for any
    encoder, so it measures the information in a class token, not what was distilled.
    """

    kind: Literal["zero_shot_ridge"] = "zero_shot_ridge"
    protocol: str = "zero_shot_ridge/v1"
    fit_images: int = Field(10_000, ge=10, description="At most this many training images, drawn")
    seed: int = Field(0, description="Which training images, where there are more")

    def run(self, data: NamedImages, evaluated: EvaluatedEncoder) -> dict[str, Outcome]:
        """The expert's own image vectors are computed once a process."""
        train: Images = data.train
        if len(train) > self.fit_images:
            key = derive_seed(self.seed, "zero_shot_ridge")
            drawn = shuffled(np.arange(self.fit_images), len(train), key)
            train = Subset(train, sorted(drawn.tolist()))
        view = crop_view(evaluated.encoder, self.crop, self.short)
        targets = _image_vectors(self.expert, data.space, train, self.crop, self.short, evaluated)
        readout = RidgeReadout(evaluated.features.cls(train, view), torch.arange(len(train)))
        vectors = readout.predict(targets, evaluated.features.cls(data.test, view))
        details: dict[str, object] = {
            "fit_images": len(train),
            "shrinkage": readout.shrinkage(targets),
            "resolution": view.height,
        }
        return self._score(data, F.normalize(vectors, dim=1), evaluated, details)


def is_expert(expert: str, encoder: Encoder) -> bool:
    """Whether an encoder is the published expert itself, by all its weights.

    Students and `untrained:NAME` may share its architecture and its name.
    """
    if encoder.name != expert:
        return False
    return tensors_identity(encoder.state_dict()) == _published(expert)


@functools.cache
def _published(expert: str) -> str:
    return tensors_identity(encoders.load(expert).state_dict())


def class_vectors(tower: TextTower, prompts: Sequence[Sequence[str]]) -> Tensor:
    """`[C, D]` L2-normalized: the mean over each class's prompts, each normalized before.

    Args:
        prompts: for each class the same number of texts.
    """
    each = tower.encode([text for texts in prompts for text in texts])
    return F.normalize(each.unflatten(0, (len(prompts), -1)).mean(dim=1), dim=1)


def _openai() -> tuple[list[str], list[str]]:
    """CLIP's 80 templates, with {} for the class, and its names of the ImageNet-1k classes."""
    try:
        import open_clip
    except ImportError:
        raise InputError(
            "templates openai-80 come with open_clip: pip install 'openeupe[clip]'"
        ) from None
    templates = [template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    return templates, list(open_clip.IMAGENET_CLASSNAMES)


_VECTORS: dict[tuple[str, str, View, Precision], Tensor] = {}


def _image_vectors(
    expert: str,
    space: TextSpace,
    images: Images,
    crop: int,
    short: int,
    evaluated: EvaluatedEncoder,
) -> Tensor:
    """The expert's image vectors `[N, D]`, cached for the next encoder.

    The expert sees the same part of each image at its own resolution.
    """
    with on_meta():
        resolution = encoders.create(expert).resolution
    view = View(resolution, resolution, "crop", short=round(short * resolution / crop))
    key = (expert, images.fingerprint, view, evaluated.features.precision)
    if key not in _VECTORS:
        encoder = encoders.load(expert).to(evaluated.device)
        features = Features(
            encoder,
            precision=evaluated.features.precision,
            batch_size=evaluated.features.batch_size,
            workers=evaluated.features.workers,
            progress=evaluated.progress,
        )
        _VECTORS[key] = space.image_vectors(features.cls(images, view))
    return _VECTORS[key]
