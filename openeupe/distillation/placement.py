"""Precision, sharding and compilation of a stage's networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from timm.layers import Conv2dSame
from torch import nn

from openeupe import encoders
from openeupe.distillation.adapter_heads import TeacherHeads
from openeupe.distillation.checkpoint import snapshot
from openeupe.distillation.precision import resolve_precision
from openeupe.distillation.stage import Stage
from openeupe.distributed import Processes, agree_on_batch_norm, device_memory, split_over
from openeupe.encoders import Encoder
from openeupe.encoders.encoder import TokenWidths
from openeupe.errors import InputError

FROZEN_BYTES = {"fp32": 4, "bf16": 2, "fp8": 1}  # a teacher's weight
TRAINED_BYTES = 16  # float32 weight, its gradient and AdamW's two moments
_PROGRAMS = 256  # variants of one layer: widths, resolutions and students share its code
_SHARE = 0.5  # of the device's memory; the rest is for activations


def place(stage: Stage, processes: Processes) -> list[str]:
    """Move the stage to the device as configured. Call before optimizers are made.

    Returns the names of the networks that are sharded, as `teachers.NAME` or `students.NAME`.
    """
    config = stage.config
    for name, student in config.students.items():
        if student.checkpoint_activations:
            checkpoint_activations(cast(Encoder, stage.students[name]))
    if resolve_precision(config.teacher_precision, processes.device) != "fp32":
        for teacher in stage.teachers.values():
            hold_in_bf16(teacher)
    sharded: list[str] = []
    if processes.count > 1:
        needs = {f"teachers.{k}": _bytes(t) for k, t in stage.teachers.items()}
        needs |= {
            f"students.{k}": TRAINED_BYTES * _count(stage.trainable(k)) for k in stage.students
        }
        sharded = choose_sharded(needs, device_memory(processes), processes.per_node, config.shard)
        _spread(stage, processes, sharded)
    stage.to(processes.device)
    if config.compile != "none":
        compile_networks(stage, students=config.compile == "all")
    return sharded


def unsharded(
    stage: Stage, name: str, processes: Processes
) -> tuple[Encoder, dict[str, nn.Module]]:
    """Gather a student and its heads. All processes must call, the first one gets them.

    Of several processes the networks are copies on the CPU.
    """
    student = cast(Encoder, stage.students[name])
    heads = dict(cast(nn.ModuleDict, stage.heads[name]).items())
    if processes.count == 1:
        return student, heads
    weights = snapshot(student.state_dict(), processes.first)
    of_heads = {k: snapshot(h.state_dict(), processes.first) for k, h in heads.items()}
    if processes.first:
        here, student = student, encoders.create(student.name, **student.args)
        student.load_state_dict(weights)
        student.set_constants(*here.constants)  # of a saved encoder, if it starts from one
        student.resolution = here.resolution
        hidden = stage.config.head_hidden
        teachers = cast(Mapping[str, TokenWidths], stage.teachers)
        heads = {k: TeacherHeads(student, teachers[k], hidden) for k in heads}
        for key, module in heads.items():
            module.load_state_dict(of_heads[key])
    return student, heads


def choose_sharded(needs: Mapping[str, int], memory: int, shards: int, mode: str) -> list[str]:
    """Choose networks to shard: the largest first, until the rest fits in half the memory.

    Args:
        needs: bytes of weights, gradients and optimizer state by network.
        memory: bytes of a device.
        shards: processes that would share a network.
        mode: `always`, `never` or `auto`.
    """
    if mode != "auto" or shards == 1:
        return list(needs) if mode == "always" else []
    chosen: list[str] = []
    for name in sorted(needs, key=lambda n: -needs[n]):
        held = sum(n // shards if k in chosen else n for k, n in needs.items())
        if held <= _SHARE * memory:
            break
        chosen.append(name)
    return chosen


def _spread(stage: Stage, processes: Processes, sharded: list[str]) -> None:
    for name, teacher in stage.teachers.items():
        if f"teachers.{name}" in sharded:
            split_over(teacher, processes.sharded)
    for name, student in list(stage.students.items()):
        mesh = processes.sharded if f"students.{name}" in sharded else processes.replicated
        stage.students[name] = agree_on_batch_norm(student, processes)
        split_over(stage.students[name], mesh)
        for heads in cast(nn.ModuleDict, stage.heads[name]).values():
            split_over(heads, mesh)


def checkpoint_activations(student: Encoder) -> None:
    """Enable activation checkpointing of the blocks."""
    set_checkpointing = getattr(getattr(student, "trunk", None), "set_grad_checkpointing", None)
    try:
        if set_checkpointing is None:
            raise AssertionError
        set_checkpointing(True)
    except (AssertionError, NotImplementedError):
        raise InputError(
            f"{student.name} cannot checkpoint activations: leave checkpoint_activations out"
        ) from None


def hold_in_bf16(teacher: nn.Module) -> None:
    """Cast the weights of matrix products to bf16 once. Autocast would do so in every pass.

    The outputs under autocast stay the same to the last bit; half the memory, and no cast. Layers
    that compute with their weights before (weight standardization) keep them in float32.
    """
    for module in teacher.modules():
        if type(module) in (nn.Linear, nn.Conv2d, Conv2dSame):
            module.bfloat16()


def compile_networks(stage: Stage, students: bool) -> None:
    """Compile repeated layers one by one. Blocks of one shape share a program per resolution.

    A network of fifty blocks compiles as fast as one block. Layers between blocks, such as the
    embedding with its random draws, are not compiled.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _PROGRAMS)
    torch._inductor.config.fallback_random = True  # the same random draws as uncompiled
    networks = [*stage.teachers.values()]
    if students:
        networks += [*stage.students.values()]
        networks += [head for head in stage.heads.modules() if isinstance(head, TeacherHeads)]
    for network in networks:
        for layer in list(repeated_layers(network)) or [network]:
            layer.compile(dynamic=False)


def repeated_layers(module: nn.Module) -> Iterator[nn.Module]:
    """A network's blocks: innermost items of lists of equal layers."""
    children = list(module.children())
    kinds = [type(child) for child in children]
    listed = isinstance(module, nn.ModuleList | nn.Sequential)
    for child in children:
        inner = list(repeated_layers(child))
        if inner:
            yield from inner
        elif listed and kinds.count(type(child)) > 1 and any(True for _ in child.children()):
            yield child


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _bytes(module: nn.Module) -> int:
    return sum(p.nbytes for p in module.parameters())
