"""What a recipe will cost, before anything runs: counted on the meta device, not guessed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from openeupe.distill.check import meta_encoder
from openeupe.distill.heads import TeacherHeads
from openeupe.distill.recipe import EncoderConfig, Recipe, StageConfig
from openeupe.encoders import Encoder, Tokens
from openeupe.errors import InputError

# Dense bf16 matrix peak in TFLOP/s, from the vendors' data sheets.
PEAK_TFLOPS = {
    "a100": 312.0,
    "h100": 989.0,
    "h200": 989.0,
    "b200": 2250.0,
    "l4": 121.0,
    "l40s": 362.0,
    "rtx4090": 165.0,
}
_ADAMW_BYTES = 16  # float32 weight, gradient and two moments


@dataclass(frozen=True)
class EncoderCost:
    """One network of a stage. FLOPs count a multiply-add as two, forward only, per image."""

    name: str
    parameters: int
    gflops: float


@dataclass(frozen=True)
class StageCost:
    """One stage. `gflops_per_image`: teacher forwards plus three times the student's forward."""

    stage: str
    teachers: list[EncoderCost]
    students: list[EncoderCost]
    heads: list[EncoderCost]
    images: int
    statistics_images: int
    gflops_per_image: float
    memory_gib: float
    device_hours: float


def plan(recipe: Recipe, tflops: float, world_size: int = 1) -> list[StageCost]:
    """Cost of every stage.

    With several resolutions the mean over them is taken for FLOPs and the largest for memory.
    Memory is a lower bound for one device: float32 weights of the teachers; weights, gradients and
    AdamW moments of students and heads; and what autograd keeps for the largest student (others
    run after it), at `batch_size / world_size` images in float32.

    Args:
        tflops: sustained TFLOP/s of one device (peak times efficiency).
    """
    return [_stage_cost(recipe, name, tflops, world_size) for name in recipe.stages]


def device_tflops(device: str, efficiency: float) -> float:
    """Sustained TFLOP/s of a named device; `this` measures the machine at hand.

    Raises:
        InputError: for a name that is not known.
    """
    if device == "this":
        return _measured_tflops() * efficiency
    if device not in PEAK_TFLOPS:
        raise InputError(f"--device {device}: use this, or one of {', '.join(PEAK_TFLOPS)}")
    return PEAK_TFLOPS[device] * efficiency


def _stage_cost(recipe: Recipe, name: str, tflops: float, world_size: int) -> StageCost:
    config = recipe.stages[name]
    teachers = {k: meta_encoder(recipe, c.encoder, c.args) for k, c in config.teachers.items()}
    students = {k: meta_encoder(recipe, c.encoder, c.args) for k, c in config.students.items()}
    teacher_costs = [_encoder_cost(k, e, config.teachers[k]) for k, e in teachers.items()]
    student_costs = [_encoder_cost(k, e, config.students[k]) for k, e in students.items()]
    head_costs, activation_bytes = [], 0
    for key, student in students.items():
        with torch.device("meta"):
            heads = [TeacherHeads(student, t, config.head_hidden) for t in teachers.values()]
        cost, saved = _student_step(key, student, heads, config)
        head_costs.append(cost)
        activation_bytes = max(activation_bytes, saved)
    trained = student_costs + head_costs
    gflops = sum(c.gflops for c in teacher_costs) + 3 * sum(c.gflops for c in trained)
    images = config.steps * config.batch_size
    statistics = config.statistics.iterations * config.batch_size
    teacher_gflops = sum(c.gflops for c in teacher_costs)
    memory = (
        4 * sum(c.parameters for c in teacher_costs)
        + _ADAMW_BYTES * sum(c.parameters for c in trained)
        + activation_bytes * config.batch_size // world_size
    )
    return StageCost(
        stage=name,
        teachers=teacher_costs,
        students=student_costs,
        heads=head_costs,
        images=images,
        statistics_images=statistics,
        gflops_per_image=gflops,
        memory_gib=memory / 2**30,
        device_hours=(images * gflops + statistics * teacher_gflops) / (tflops * 1e3) / 3600,
    )


def _encoder_cost(name: str, encoder: Encoder, config: EncoderConfig) -> EncoderCost:
    flops = [_flops(encoder, _images(2, side)) / 2 for side in config.resolution]
    return EncoderCost(name, _count(encoder), sum(flops) / len(flops) / 1e9)


def _student_step(
    name: str, student: Encoder, heads: list[TeacherHeads], config: StageConfig
) -> tuple[EncoderCost, int]:
    """Cost of a student's heads, and the bytes autograd keeps of an image at the largest side."""
    sides = config.students[name].resolution

    def adapt(tokens: Tokens) -> list[Tokens]:
        return [head(tokens) for head in heads]

    flops = []
    for side in sides:
        with torch.no_grad():
            tokens = student(_images(2, side))
        flops.append(_flops(adapt, tokens) / 2)
    own = {p.untyped_storage()._cdata for m in (student, *heads) for p in m.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage.nbytes()
        alive.append(tensor)  # else a freed storage's address would be counted for another
        return tensor

    alive: list[Tensor] = []
    student.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        adapt(student(_images(2, max(sides))))
    cost = EncoderCost(
        f"{name} heads", sum(_count(h) for h in heads), sum(flops) / len(flops) / 1e9
    )
    return cost, sum(saved.values()) // 2


def _flops(network: Callable[[Any], Any], given: Any) -> int:
    with FlopCounterMode(display=False) as counter:  # forward only; its hooks dislike no_grad
        network(given)
    return counter.get_total_flops()


def _images(count: int, side: int) -> Tensor:
    return torch.empty(count, 3, side, side, device="meta")


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _measured_tflops() -> float:
    """Best of a few large matrix products, in the precision that training would use."""
    cuda = torch.cuda.is_available()
    size = 8192 if cuda else 1536
    dtype = torch.bfloat16 if cuda else torch.float32
    a = torch.randn(size, size, device="cuda" if cuda else "cpu", dtype=dtype)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        a @ a
        if cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e12
