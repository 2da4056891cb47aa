"""Data settings of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from openeupe.config import Config
from openeupe.limits import FACTOR, RATE, SEED, WORKERS

Probability = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, le=FACTOR)]
Range = Annotated[float, Field(ge=1 / FACTOR, le=FACTOR)]


class SourceConfig(Config):
    """One set of images."""

    path: str = Field(
        min_length=1,
        description="Folder of images, tar shards (folder, file or pattern such as "
        "'shards/{000..127}.tar'), a dataset written by save_to_disk, or a manifest of "
        "`openeupe curate` (.parquet), whose weights are the sampling weights of the images.",
    )
    kind: Literal["auto", "folder", "shards", "huggingface", "manifest"] = Field(
        default="auto", description="Kind of the source; auto: detected."
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        le=RATE,
        description="Share of the batches, relative to the other sources. Each batch comes from "
        "one source (paper 3.4: 10 % of the batches are ImageNet-1k only).",
    )
    heldout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of a folder's images that is held out from training, chosen by name.",
    )
    column: str = Field(default="image", description="Image column of a Hugging Face dataset.")


class AugmentConfig(Config):
    """Augmentation of a training image.

    The paper lists the kinds (4.1: random resized crop, flip, color jitter, Gaussian blur,
    solarization) and no values; these are the DINO family's (inference). Probability 0 switches
    a kind off at no cost.
    """

    scale: tuple[float, float] = Field(
        default=(0.32, 1.0),
        description="Smallest and largest crop, as a share of the image's area.",
    )
    ratio: tuple[Range, Range] = Field(
        default=(3 / 4, 4 / 3), description="Smallest and largest width / height of a crop."
    )
    flip: Probability = Field(default=0.5, description="Probability of a horizontal flip.")
    jitter: Probability = Field(default=0.8, description="Probability of color jitter.")
    brightness: Strength = Field(default=0.4, description="Jitter: factor within 1 +- this.")
    contrast: Strength = Field(default=0.4, description="Jitter: factor within 1 +- this.")
    saturation: Strength = Field(default=0.2, description="Jitter: factor within 1 +- this.")
    hue: float = Field(
        default=0.1, ge=0, le=0.5, description="Jitter: shift within +- this, in turns."
    )
    grayscale: Probability = Field(
        default=0.0,
        description="Probability of gray; the DINO family uses 0.2, the paper lists none.",
    )
    blur: Probability = Field(
        default=0.1,
        description="Probability of Gaussian blur; the DINO family's second view, because its "
        "first view's 1.0 would leave no sharp image to a single-view distillation.",
    )
    blur_kernel: int = Field(
        default=9,
        ge=1,
        le=FACTOR + 1,
        description="Kernel side at 256 pixels; scaled with the image, so that a blur "
        "looks the same at every size of the pyramid.",
    )
    blur_sigma: tuple[Range, Range] = Field(
        default=(0.1, 2.0), description="Range of the blur's sigma at 256 pixels; scaled likewise."
    )
    solarize: Probability = Field(default=0.2, description="Probability of solarization.")
    solarize_threshold: int = Field(
        default=128, ge=0, le=256, description="Pixels from this value on (0 to 255) are inverted."
    )
    on_device: bool = Field(
        default=False,
        description="Augment batches on the training device, except for the crop: for GPUs that "
        "wait for images. The distributions are those of the CPU, the random numbers are not.",
    )

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be 0 < low <= high <= 1, not {list(self.scale)}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be 0 < low <= high, not {list(self.ratio)}")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"blur_sigma must be 0 < low <= high, not {list(self.blur_sigma)}")
        return self


class DataConfig(Config):
    """Image sources and how batches are made of them."""

    sources: list[SourceConfig] = Field(min_length=1, description="Sets of images to mix.")
    workers: int = Field(
        default=0,
        ge=0,
        le=WORKERS,
        description="Loader processes of each rank; 0 loads in the training process.",
    )
    max_broken: Probability = Field(
        default=0.01,
        description="Stop when more than this share of the images drawn (and more than 10) "
        "cannot be read.",
    )
    cache_images: bool = Field(
        default=False,
        description="Cache decoded images in the memory of each loader process: for sets of a few "
        "thousand images, best with workers 0.",
    )
    reduced_decode: bool = Field(
        default=True,
        description="Decode JPEGs much larger than the crop at 1/2, 1/4 or 1/8 of their size: "
        "faster, never coarser than the crop's own pixels.",
    )
    augment: AugmentConfig = Field(
        default=AugmentConfig(), description="Augmentation of training images."
    )
    views_seed: int | None = Field(
        default=None,
        ge=-SEED,
        le=SEED,
        description="Seed of the crops and colors of a stage's `views`; default: the recipe's. "
        "Runs of several seeds that share it see the same views and can share a teacher cache.",
    )
