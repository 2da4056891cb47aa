"""Estimate the costs of a recipe on the meta device."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from openeupe import encoders
from openeupe.data import DataConfig, mean_bytes
from openeupe.distillation.activation_memory import Saved, saved_by_autograd
from openeupe.distillation.adapter_heads import TeacherHeads
from openeupe.distillation.check import check_networks, check_sources, meta_encoder
from openeupe.distillation.costs import EncoderCost, StageCost
from openeupe.distillation.encoder_settings import EncoderConfig, StudentConfig
from openeupe.distillation.load import carried_from
from openeupe.distillation.placement import (
    FROZEN_BYTES,
    TRAINED_BYTES,
    choose_sharded,
)
from openeupe.distillation.recipe import Recipe, StageConfig
from openeupe.distillation.teacher_cache import view_bytes
from openeupe.distributed import check_share
from openeupe.encoders import Encoder, Tokens
from openeupe.encoders.create import is_name
from openeupe.encoders.meta import on_meta


def petaflops(recipe: Recipe) -> dict[str, float]:
    """Compute of each stage in 1e15 FLOPs, statistics included.

    Cached teacher outputs are counted as if computed.
    """
    found = {}
    for name, config in recipe.stages.items():
        teaching, trained = image_gflops(recipe, config)
        images = config.steps * config.batch_size
        statistics = _statistics_images(recipe, config)
        found[name] = (images * (teaching + trained) + statistics * teaching) / 1e6
    return found


def image_gflops(recipe: Recipe, config: StageConfig) -> tuple[float, float]:
    """GFLOPs of an image in a stage: of all teachers, and of all students with their heads.

    Teachers forward, students forward and backward.
    """
    teachers = {k: meta_encoder(recipe, c, c.args) for k, c in config.teachers.items()}
    students = {k: meta_encoder(recipe, c, c.args) for k, c in config.students.items()}
    teaching = sum(_forward(t, config.teachers[k].resolution)[0] for k, t in teachers.items())
    trained = 0.0
    for key, student in students.items():
        gflops, grids = _forward(student, config.students[key].resolution)
        heads = _heads(student, [teachers[t] for t in config.teachers_of(key)], config)
        trained += _trained(config.students[key], gflops, _heads_gflops(student, heads, grids))
    return teaching, trained


def _statistics_images(recipe: Recipe, config: StageConfig) -> int:
    """Images for the teachers' statistics; none if an earlier stage has them."""
    if carried_from(recipe, config):
        return 0
    iterations = config.statistics.batches(config.batch_size)
    return iterations * config.batch_size


def _forward(encoder: Encoder, resolutions: Sequence[int]) -> tuple[float, list[tuple[int, int]]]:
    """Mean GFLOPs of an image's forward pass over `resolutions`, and the grid of tokens at each."""
    if is_name(encoder.name):
        args = json.dumps(encoder.args, sort_keys=True)
        each = [_forward_at(encoder.name, args, resolution) for resolution in resolutions]
    else:  # made by user code
        each = [_forward_of(encoder, resolution) for resolution in resolutions]
    return sum(flops for flops, _ in each) / len(each) / 1e9, [grid for _, grid in each]


def _trained(config: StudentConfig, network: float, heads: float) -> float:
    """GFLOPs per image, forward and backward, with recomputed activations."""
    return (4 if config.checkpoint_activations else 3) * network + 3 * heads


@lru_cache(maxsize=256)  # a study's recipes repeat a few networks
def _forward_at(name: str, args: str, resolution: int) -> tuple[float, tuple[int, int]]:
    with on_meta():
        encoder = encoders.create(name, **json.loads(args))
    return _forward_of(encoder, resolution)


def _forward_of(encoder: Encoder, resolution: int) -> tuple[float, tuple[int, int]]:
    flops, tokens = _counted(encoder, torch.empty(2, 3, resolution, resolution, device="meta"))
    height, width = tokens.patches.shape[-2:]
    return flops / 2, (height, width)


def plan(
    recipe: Recipe,
    tflops: float | Mapping[str, float],
    devices: int = 1,
    memory_gib: float = 80,
    per_node: int = 8,
    bf16: bool = True,
) -> list[StageCost]:
    """Cost of every stage.

    With several resolutions the mean over them is taken for FLOPs and the largest for memory.
    Memory of a device: weights of the teachers in their precision; float32 weights, gradients and
    AdamW moments of students and heads, both sharded; and what autograd saves for
    the largest student (others run after it), in its precision, at the images that a device takes
    at once. The allocator's overhead is not included.

    Args:
        tflops: sustained TFLOP/s of one device (peak times efficiency): of "bf16" and "fp32", as
            far as `precisions` asks for them, or one number for both. fp8 counts as bf16.
        devices: those that share a batch.
        memory_gib: of one device; decides what `shard: auto` shares.
        per_node: devices of a machine, among which networks are shared.
        bf16: whether the devices have instructions for it, which precision `auto` asks for.

    Raises:
        InputError: for a recipe that `distill` would refuse, and if a stage's batch cannot be
            divided among the devices. Data that are not on this machine are not checked.
    """
    check_networks(recipe)
    for name, config in recipe.stages.items():
        check_share(config.batch_size, config.accumulate, devices, f"stages.{name}")
    if not isinstance(tflops, Mapping):
        tflops = dict.fromkeys(("bf16", "fp32"), tflops)
    bytes_each = _bytes_each(recipe.data)
    where = _Where(devices, memory_gib, min(per_node, devices), bf16)
    return [_stage_cost(recipe, name, tflops, where, bytes_each) for name in recipe.stages]


def precisions(recipe: Recipe, bf16: bool) -> set[str]:
    """Precisions ("bf16", "fp32") that networks of the recipe use."""
    return {
        _rate(precision, bf16)
        for config in recipe.stages.values()
        for precision in (config.teacher_precision, config.student_precision)
    }


def _rate(precision: str, bf16: bool) -> str:
    return "fp32" if _precise(precision, bf16) == "fp32" else "bf16"


@dataclass(frozen=True)
class _Where:
    """Devices that share a batch, GiB of each, devices of a machine, and whether they have bf16."""

    devices: int
    memory_gib: float
    per_node: int
    bf16: bool


def _stage_cost(
    recipe: Recipe,
    name: str,
    tflops: Mapping[str, float],
    where: _Where,
    bytes_each: tuple[float, int] | None,
) -> StageCost:
    config = recipe.stages[name]
    teachers = {k: meta_encoder(recipe, c, c.args) for k, c in config.teachers.items()}
    students = {k: meta_encoder(recipe, c, c.args) for k, c in config.students.items()}
    teacher_costs = [_encoder_cost(k, e, config.teachers[k]) for k, e in teachers.items()]
    student_costs = [_encoder_cost(k, e, config.students[k]) for k, e in students.items()]
    share = config.batch_size // (where.devices * config.accumulate)
    head_costs, kept_bytes, trained_gflops = [], 0, 0.0
    for cost, (key, student) in zip(student_costs, students.items(), strict=True):
        heads = _heads(student, [teachers[t] for t in config.teachers_of(key)], config)
        heads_cost, kept = _student_step(key, student, heads, config, where.bf16)
        head_costs.append(heads_cost)
        kept_bytes = max(kept_bytes, kept.once + kept.each * share)
        trained_gflops += _trained(config.students[key], cost.gflops, heads_cost.gflops)
    trained = list(zip(student_costs, head_costs, strict=True))
    sharded, held = _held(config, teacher_costs, trained, where)
    images = config.steps * config.batch_size
    statistics = _statistics_images(recipe, config)
    teacher_gflops = sum(c.gflops for c in teacher_costs)
    seen_by_teachers, cached = _cached(config, teachers, bytes_each) or (images, 0)
    teachers_work = (seen_by_teachers + statistics) * teacher_gflops
    seconds = sum(
        gflops / (tflops[_rate(precision, where.bf16)] * 1e3)
        for gflops, precision in (
            (images * trained_gflops, config.student_precision),
            (teachers_work, config.teacher_precision),
        )
    )
    return StageCost(
        stage=name,
        teachers=teacher_costs,
        students=student_costs,
        heads=head_costs,
        images=images,
        statistics_images=statistics,
        gflops_per_image=teacher_gflops + trained_gflops,
        sharded=sharded,
        memory_gib=(held + kept_bytes) / 2**30,
        read_gib=images * bytes_each[0] / 2**30 if bytes_each else None,
        cached_gib=cached / 2**30,
        device_hours=seconds / 3600,
    )


def _held(
    config: StageConfig,
    teachers: list[EncoderCost],
    trained: list[tuple[EncoderCost, EncoderCost]],
    where: _Where,
) -> tuple[list[str], int]:
    """Sharded networks, and bytes of weights and optimizer states per device.

    trained: each student with its heads.
    """
    frozen_bytes = FROZEN_BYTES[_precise(config.teacher_precision, where.bf16)]
    needs = {f"teachers.{c.name}": frozen_bytes * c.parameters for c in teachers}
    for cost, heads in trained:
        needs[f"students.{cost.name}"] = TRAINED_BYTES * (cost.parameters + heads.parameters)
    memory = int(where.memory_gib * 2**30)
    alone = where.devices == 1
    sharded = [] if alone else choose_sharded(needs, memory, where.per_node, config.shard)
    return sharded, sum(n // (where.per_node if k in sharded else 1) for k, n in needs.items())


def _cached(
    config: StageConfig, teachers: Mapping[str, Encoder], bytes_each: tuple[float, int] | None
) -> tuple[int, int] | None:
    """Number of cached views and their bytes; None without a cache."""
    if config.teacher_cache in ("none", "auto") or not config.views or not bytes_each:
        return None
    views = bytes_each[1] * config.views
    grids = {
        k: (t.cls_dim, t.patch_dim, (config.teachers[k].resolution[0] // t.patch_size) ** 2)
        for k, t in teachers.items()
    }
    return views, views * view_bytes(grids, config.teacher_cache)


def _bytes_each(data: DataConfig) -> tuple[float, int] | None:
    """Mean encoded bytes per sampled image, and the number of images."""
    sources = check_sources(data, absent=True)
    if len(sources) < len(data.sources):
        return None
    weights = [one.weight for one in data.sources]
    mean = sum(w * mean_bytes(s) for w, s in zip(weights, sources, strict=True)) / sum(weights)
    return mean, sum(len(source) for source in sources)


def _encoder_cost(name: str, encoder: Encoder, config: EncoderConfig) -> EncoderCost:
    return EncoderCost(name, _count(encoder), _forward(encoder, config.resolution)[0])


def _student_step(
    name: str, student: Encoder, heads: list[TeacherHeads], config: StageConfig, bf16: bool
) -> tuple[EncoderCost, Saved]:
    """Cost of a student's heads, and the bytes autograd saves at the largest resolution."""
    resolutions = config.students[name].resolution
    gflops = _heads_gflops(student, heads, _forward(student, resolutions)[1])
    student.train()
    precision = _precise(config.student_precision, bf16)
    again = config.students[name].checkpoint_activations
    kept = _saved(student, heads, max(resolutions), precision, again)
    return EncoderCost(f"{name} heads", sum(_count(h) for h in heads), gflops), kept


_SAVED: dict[tuple[object, ...], Saved] = {}  # as `_forward_at`, which remembers FLOPs


def _saved(
    student: Encoder, heads: list[TeacherHeads], resolution: int, precision: str, again: bool
) -> Saved:
    """`saved_by_autograd`, remembered for the networks that have names."""
    widths = tuple(p.shape for head in heads for p in head.parameters())
    args = json.dumps(student.args, sort_keys=True)
    key = (student.name, args, widths, resolution, precision, again)
    if key not in _SAVED or not is_name(student.name):
        _SAVED[key] = saved_by_autograd(student, heads, resolution, precision, again)
    return _SAVED[key]


def _precise(precision: str, bf16: bool) -> str:
    return ("bf16" if bf16 else "fp32") if precision == "auto" else precision


def _heads(student: Encoder, teachers: list[Encoder], config: StageConfig) -> list[TeacherHeads]:
    with on_meta():
        return [TeacherHeads(student, teacher, config.head_hidden) for teacher in teachers]


def _heads_gflops(
    student: Encoder, heads: list[TeacherHeads], grids: Sequence[tuple[int, int]]
) -> float:
    """Of an image, forward, the mean over the student's `grids` of tokens."""
    flops = []
    for height, width in grids:
        cls = torch.empty(2, student.cls_dim, device="meta")
        patches = torch.empty(2, student.patch_dim, height, width, device="meta")
        pair, _ = _counted(lambda t: [head(t) for head in heads], Tokens(cls, patches))
        flops.append(pair / 2)
    return sum(flops) / len(flops) / 1e9


def _counted(network: Callable[[Any], Any], given: Any) -> tuple[int, Any]:
    """FLOPs of a forward pass, and its output."""
    with FlopCounterMode(display=False) as counter:  # forward only; its hooks dislike no_grad
        found = network(given)
    return counter.get_total_flops(), found


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
