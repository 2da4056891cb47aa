"""What a recipe will cost, before anything runs: counted on the meta device, not guessed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from openeupe import encoders
from openeupe.data import DataConfig, mean_bytes, open_source
from openeupe.distill.check import meta_encoder
from openeupe.distill.heads import TeacherHeads
from openeupe.distill.parallel import layers
from openeupe.distill.placement import (
    FROZEN_BYTES,
    TRAINED_BYTES,
    checkpoint_activations,
    choose_sharded,
)
from openeupe.distill.recipe import EncoderConfig, Recipe, StageConfig
from openeupe.distill.store import view_bytes
from openeupe.encoders import Encoder, Tokens
from openeupe.errors import InputError


@dataclass(frozen=True)
class EncoderCost:
    """One network of a stage. FLOPs count a multiply-add as two, forward only, per image."""

    name: str
    parameters: int
    gflops: float


@dataclass(frozen=True)
class StageCost:
    """One stage. `gflops_per_image`: teacher forwards plus three times the student's forward, and
    four times where activations are checkpointed. Images, bytes and hours are of the whole stage,
    memory of one device.

    sharded: networks that are shared among the devices of a node.
    read_gib: encoded images read; None where a source is not at hand.
    stored_gib: teacher outputs on disk.
    """

    stage: str
    teachers: list[EncoderCost]
    students: list[EncoderCost]
    heads: list[EncoderCost]
    images: int
    statistics_images: int
    gflops_per_image: float
    sharded: list[str]
    memory_gib: float
    read_gib: float | None
    stored_gib: float
    device_hours: float


def petaflops(recipe: Recipe) -> dict[str, float]:
    """What each stage will compute, in 1e15 FLOPs: all forwards and backwards, with statistics.

    Nothing is taken off for outputs that a stage stores.
    """
    found = {}
    for name, config in recipe.stages.items():
        teachers = {k: meta_encoder(recipe, c.encoder, c.args) for k, c in config.teachers.items()}
        students = {k: meta_encoder(recipe, c.encoder, c.args) for k, c in config.students.items()}
        taught = sum(_forward(t, config.teachers[k].resolution)[0] for k, t in teachers.items())
        trained = 0.0
        for key, student in students.items():
            again = config.students[key].checkpoint_activations
            gflops, grids = _forward(student, config.students[key].resolution)
            heads = _heads(student, [teachers[t] for t in config.teachers_of(key)], config)
            trained += (4 if again else 3) * gflops + 3 * _heads_gflops(student, heads, grids)
        images = config.steps * config.batch_size
        statistics = config.statistics.iterations * config.batch_size
        found[name] = (images * (taught + trained) + statistics * taught) / 1e6
    return found


def _forward(encoder: Encoder, sides: Sequence[int]) -> tuple[float, list[tuple[int, int]]]:
    """Mean GFLOPs of an image's forward pass over `sides`, and the grid of tokens at each."""
    args = json.dumps(encoder.args, sort_keys=True)
    each = [_forward_at(encoder.name, args, side) for side in sides]
    return sum(flops for flops, _ in each) / len(each) / 1e9, [grid for _, grid in each]


@lru_cache(maxsize=256)  # the same few networks come again in every recipe of a study
def _forward_at(name: str, args: str, side: int) -> tuple[float, tuple[int, int]]:
    with torch.device("meta"):
        encoder = encoders.create(name, **json.loads(args))
    with torch.no_grad():
        height, width = encoder(_images(2, side)).patches.shape[-2:]
    return _flops(encoder, _images(2, side)) / 2, (height, width)


def plan(
    recipe: Recipe, tflops: float, devices: int = 1, memory_gib: float = 80, per_node: int = 8
) -> list[StageCost]:
    """Cost of every stage.

    With several resolutions the mean over them is taken for FLOPs and the largest for memory.
    Memory of a device: float32 weights of the teachers; weights, gradients and AdamW moments of
    students and heads, both as they are shared out; and what autograd keeps for the largest
    student (others run after it), at the images that a device takes at once. What the allocator
    adds is not in it.

    Args:
        tflops: sustained TFLOP/s of one device (peak times efficiency).
        devices: those that share a batch.
        memory_gib: of one device; decides what `shard: auto` shares.
        per_node: devices of a machine, among which networks are shared.
    """
    bytes_each = _bytes_each(recipe.data)
    shape = (devices, memory_gib, min(per_node, devices))
    return [_stage_cost(recipe, name, tflops, shape, bytes_each) for name in recipe.stages]


def _stage_cost(
    recipe: Recipe,
    name: str,
    tflops: float,
    shape: tuple[int, float, int],
    bytes_each: tuple[float, int] | None,
) -> StageCost:
    config = recipe.stages[name]
    devices, device_memory_gib, per_node = shape
    teachers = {k: meta_encoder(recipe, c.encoder, c.args) for k, c in config.teachers.items()}
    students = {k: meta_encoder(recipe, c.encoder, c.args) for k, c in config.students.items()}
    teacher_costs = [_encoder_cost(k, e, config.teachers[k]) for k, e in teachers.items()]
    student_costs = [_encoder_cost(k, e, config.students[k]) for k, e in students.items()]
    head_costs, kept_bytes, trained_gflops = [], 0, 0.0
    for cost, (key, student) in zip(student_costs, students.items(), strict=True):
        heads = _heads(student, [teachers[t] for t in config.teachers_of(key)], config)
        heads_cost, kept = _student_step(key, student, heads, config)
        head_costs.append(heads_cost)
        kept_bytes = max(kept_bytes, kept)
        again = config.students[key].checkpoint_activations
        trained_gflops += (4 if again else 3) * cost.gflops + 3 * heads_cost.gflops
    needs = {f"teachers.{c.name}": FROZEN_BYTES * c.parameters for c in teacher_costs}
    for cost, heads_cost in zip(student_costs, head_costs, strict=True):
        needs[f"students.{cost.name}"] = TRAINED_BYTES * (cost.parameters + heads_cost.parameters)
    memory = int(device_memory_gib * 2**30)
    sharded = choose_sharded(needs, memory, per_node, config.shard) if devices > 1 else []
    held = sum(n // (per_node if k in sharded else 1) for k, n in needs.items())
    held += kept_bytes * config.batch_size // (devices * config.accumulate)
    images = config.steps * config.batch_size
    statistics = config.statistics.iterations * config.batch_size
    teacher_gflops = sum(c.gflops for c in teacher_costs)
    seen_by_teachers, stored = images, 0
    if config.store != "none" and config.views and bytes_each:
        seen_by_teachers = bytes_each[1] * config.views
        grids = {
            k: (t.cls_dim, t.patch_dim, (config.teachers[k].resolution[0] // t.patch_size) ** 2)
            for k, t in teachers.items()
        }
        stored = seen_by_teachers * view_bytes(grids, config.store)
    gflops = images * trained_gflops + (seen_by_teachers + statistics) * teacher_gflops
    return StageCost(
        stage=name,
        teachers=teacher_costs,
        students=student_costs,
        heads=head_costs,
        images=images,
        statistics_images=statistics,
        gflops_per_image=teacher_gflops + trained_gflops,
        sharded=sharded,
        memory_gib=held / 2**30,
        read_gib=images * bytes_each[0] / 2**30 if bytes_each else None,
        stored_gib=stored / 2**30,
        device_hours=gflops / (tflops * 1e3) / 3600,
    )


def _bytes_each(data: DataConfig) -> tuple[float, int] | None:
    """Mean encoded bytes of an image as batches draw them, and the number of images."""
    try:
        sources = [open_source(one) for one in data.sources]
    except InputError:
        return None
    weights = [one.weight for one in data.sources]
    mean = sum(w * mean_bytes(s) for w, s in zip(weights, sources, strict=True)) / sum(weights)
    return mean, sum(len(source) for source in sources)


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

    grids = []
    for side in sides:
        with torch.no_grad():
            height, width = student(_images(2, side)).patches.shape[-2:]
        grids.append((height, width))
    gflops = _heads_gflops(student, heads, grids)
    student.train()
    kept = _kept(lambda images: adapt(student(images)), (student, *heads), max(sides))
    if config.students[name].checkpoint_activations:
        kept = _kept_when_computed_again(student, heads, max(sides), kept)
    return EncoderCost(f"{name} heads", sum(_count(h) for h in heads), gflops), kept


def _heads(student: Encoder, teachers: list[Encoder], config: StageConfig) -> list[TeacherHeads]:
    with torch.device("meta"):
        return [TeacherHeads(student, teacher, config.head_hidden) for teacher in teachers]


def _heads_gflops(
    student: Encoder, heads: list[TeacherHeads], grids: Sequence[tuple[int, int]]
) -> float:
    """Of an image, forward, the mean over the student's `grids` of tokens."""
    flops = []
    for height, width in grids:
        cls = torch.empty(2, student.cls_dim, device="meta")
        patches = torch.empty(2, student.patch_dim, height, width, device="meta")
        flops.append(_flops(lambda t: [head(t) for head in heads], Tokens(cls, patches)) / 2)
    return sum(flops) / len(flops) / 1e9


def _kept(run: Callable[[Tensor], Any], modules: Iterable[nn.Module], side: int) -> int:
    """Bytes that autograd keeps of one image's forward pass, weights apart."""
    own = {p.untyped_storage()._cdata for m in modules for p in m.parameters()}
    saved: dict[int, int] = {}
    alive: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage.nbytes()
        alive.append(tensor)  # else a freed storage's address would be counted for another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        run(_images(2, side))
    return sum(saved.values()) // 2


def _kept_when_computed_again(
    student: Encoder, heads: list[TeacherHeads], side: int, plain: int
) -> int:
    """The same with checkpointed activations: autograd's own part, the blocks' inputs, which lie
    outside it, and one block's activations while it is computed again.
    """
    checkpoint_activations(student)
    blocks = list(layers(student, _count(student)))
    inputs: list[int] = []

    def take(_: nn.Module, given: tuple[Any, ...]) -> None:
        inputs.append(given[0].nbytes)

    handles = [block.register_forward_pre_hook(take) for block in blocks]

    def run(images: Tensor) -> None:
        tokens = student(images)
        for head in heads:
            head(tokens)

    kept = _kept(run, (student, *heads), side)
    for handle in handles:
        handle.remove()
    return kept + sum(inputs) // 2 + plain // max(len(blocks), 1)


def _flops(network: Callable[[Any], Any], given: Any) -> int:
    with FlopCounterMode(display=False) as counter:  # forward only; its hooks dislike no_grad
        network(given)
    return counter.get_total_flops()


def _images(count: int, side: int) -> Tensor:
    return torch.empty(count, 3, side, side, device="meta")


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
