"""The optimizers of a student and their learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from torch import nn

from openeupe.config import Config
from openeupe.distillation.muon import Muon, matrix_parts
from openeupe.limits import RATE, STEPS, WIDTH

Beta = Annotated[float, Field(ge=0, lt=1)]


class MuonConfig(Config):
    """Muon for matrices and convolution kernels, with the schedule of AdamW. Not in the paper."""

    lr: float = Field(
        0.02, gt=0, le=RATE, description="peak learning rate; lr_scaling is not for it"
    )
    momentum: Beta = 0.95
    weight_decay: float = Field(0.0, ge=0, le=RATE)
    iterations: int = Field(5, ge=1, le=20, description="Newton-Schulz steps")
    block_rows: int = Field(
        0,
        ge=0,
        le=WIDTH,
        description="orthogonalize wide matrices in blocks of so many rows, which costs less; 0: "
        "whole",
    )
    heads: bool = Field(True, description="also for the matrices of the adapter heads")


class OptimizerConfig(Config):
    """AdamW with a cosine schedule. The paper gives `lr`, `weight_decay` and the cosine."""

    lr: float = Field(gt=0, le=RATE, description="base learning rate")
    lr_scaling: Literal["none", "sqrt_wrt_1024", "linear_wrt_256"] = Field(
        "none",
        description="none: lr as written; sqrt_wrt_1024: lr * 4 * sqrt(batch / 1024), the rule of "
        "the DINOv3 code base; linear_wrt_256: lr * batch / 256",
    )
    weight_decay: float = Field(1e-4, ge=0, le=RATE, description="for matrices and kernels only")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="not in the paper")
    clip_norm: float | None = Field(
        3.0, gt=0, le=RATE, description="gradient norm limit; not in the paper"
    )
    warmup_steps: int = Field(0, ge=0, le=STEPS, description="linear warm-up; not in the paper")
    freeze_backbone_steps: int = Field(
        0,
        ge=0,
        le=STEPS,
        description="first steps in which only the adapter heads are trained, so that random heads "
        "do not damage pretrained weights (the warm-up is not repeated afterwards); not in the "
        "paper",
    )
    backbone_lr: float = Field(
        1.0,
        ge=0,
        le=RATE,
        description="learning rate of the student's backbone as a share of `lr`; its adapter heads "
        "use `lr`. Below 1 for pretrained backbones; not in the paper",
    )
    final_lr: float = Field(
        0.0, ge=0, le=RATE, description="where the cosine ends, as a share of the peak"
    )
    muon: MuonConfig | None = Field(
        None,
        description="settings of Muon, which then trains matrices and kernels; biases, norms, "
        "embeddings and depthwise kernels stay with AdamW. null: AdamW trains everything",
    )


class OwnOptimizerConfig(OptimizerConfig):
    """Optimizer settings of one student; unset ones are taken from the stage."""

    lr: float = Field(math.nan, gt=0, le=RATE, description="base learning rate")

    @model_serializer(mode="wrap")
    def _only_what_is_set(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        # Written in full, it would keep a later change of the stage's settings from the student.
        return {key: value for key, value in dump(self).items() if key in self.model_fields_set}

    def over(self, shared: OptimizerConfig) -> OptimizerConfig:
        """The student's settings laid over the stage's."""
        return shared.model_copy(update={key: getattr(self, key) for key in self.model_fields_set})


def build_optimizers(
    network: nn.Module, heads: nn.Module, config: OptimizerConfig, batch_size: int
) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon if configured, for a student's trainable parameters.

    Weight decay goes to matrices and kernels. Biases, norms, layer scales, class tokens and
    embeddings have none, whatever their shape: these are no `weight` of a layer.

    Args:
        network: the student.
        heads: its adapter heads.
        config: the student's settings.
        batch_size: of all processes together, for the scaling of the learning rate.
    """
    # Parameters stand in the order of their names: checkpoints name them by position.
    shares = [([network, heads], 1.0)]
    if config.backbone_lr != 1:
        shares = [([network], config.backbone_lr), ([heads], 1.0)]
    groups = []
    matrices: dict[tuple[float, int], list[nn.Parameter]] = {}
    for modules, share in shares:
        decaying, free = [], []
        for module in modules:
            for name, parameter in module.named_parameters():
                if not parameter.requires_grad:
                    continue
                parts = 0
                if config.muon and (module is network or config.muon.heads):
                    parts = matrix_parts(name, parameter, module)
                if parts:
                    matrices.setdefault((share, parts), []).append(parameter)
                elif parameter.ndim >= 2 and name.endswith("weight"):
                    decaying.append(parameter)
                else:
                    free.append(parameter)
        for params, decay in ((decaying, config.weight_decay), (free, 0.0)):
            if params:
                groups.append({"params": params, "weight_decay": decay, "lr_share": share})
    found: list[torch.optim.Optimizer] = []
    if groups:
        found.append(torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True))
    if config.muon and matrices:
        found.append(_muon(matrices, config.muon, peak_lr(config, batch_size)))
    return found


def _muon(
    matrices: Mapping[tuple[float, int], list[nn.Parameter]], config: MuonConfig, peak: float
) -> Muon:
    """Its learning rate follows the schedule of AdamW's, whose peak is `peak`."""
    groups = [
        {"params": params, "parts": parts, "lr_share": share * config.lr / peak}
        for (share, parts), params in matrices.items()
    ]
    return Muon(
        groups,
        config.lr,
        config.momentum,
        config.weight_decay,
        config.iterations,
        config.block_rows,
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_share"]


def peak_lr(config: OptimizerConfig, batch_size: int) -> float:
    """The highest learning rate after the scaling rule."""
    if config.lr_scaling == "sqrt_wrt_1024":
        return config.lr * 4 * math.sqrt(batch_size / 1024)
    if config.lr_scaling == "linear_wrt_256":
        return config.lr * batch_size / 256
    return config.lr


def learning_rate(step: int, steps: int, batch_size: int, config: OptimizerConfig) -> float:
    """Learning rate of `step` (from 0): linear warm-up, then a cosine from the peak to `final_lr`.

    A pure function of the step, so that resuming needs no scheduler state.
    """
    peak = peak_lr(config, batch_size)
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    cosine = (1 + math.cos(math.pi * done)) / 2
    return peak * (config.final_lr + (1 - config.final_lr) * cosine)
