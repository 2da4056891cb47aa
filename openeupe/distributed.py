"""Process groups, FSDP2 wrapping and collectives.

Every process makes its slice of the same global batch. Students are wrapped by FSDP2 on a mesh of
(replicas, shards): with shards of one process it is plain data parallelism, with the processes of
a node it shards weights, gradients and optimizer state within the node. Teachers are only wrapped
where they are sharded, since they have no gradients to exchange.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TypeVar

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from openeupe.errors import InputError
from openeupe.stopping import StopRequest, end_with_parent

Plain = TypeVar("Plain")

# Longest wait for another process: by default for the first one, which may be fetching weights.
_PATIENCE = timedelta(hours=1)


@dataclass(frozen=True)
class Processes:
    """The processes of this job; a single one unless torchrun started more.

    Attributes:
        device: this process's own.
        rank, count: which of how many this is.
        per_node: processes on each machine; weights are sharded among these.
    """

    device: torch.device
    rank: int = 0
    count: int = 1
    per_node: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and messages."""
        return self.rank == 0

    def mine(self, parts: int) -> range:
        """Return the parts of a list that this process works on: every `count`-th."""
        return range(self.rank, parts, self.count)

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.count > 1:
            dist.barrier()

    def mean(self, tensor: Tensor) -> Tensor:
        """Mean over the processes."""
        if self.count == 1:
            return tensor
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed / self.count

    def least(self, tensor: Tensor) -> Tensor:
        """Elementwise minimum over the processes."""
        if self.count > 1:
            dist.all_reduce(tensor, dist.ReduceOp.MIN)
        return tensor

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensor of every process, in order of rank."""
        if self.count == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(found, tensor)
        return found

    def gather_plain(self, value: Plain) -> list[Plain]:
        """A plain Python value of every process, in order of rank."""
        if self.count == 1:
            return [value]
        found = [value] * self.count
        dist.all_gather_object(found, value)
        return found

    @cached_property
    def background(self) -> dist.ProcessGroup | None:
        """A second group of all processes, for a background thread."""
        return self._everyone()

    @cached_property
    def signalling(self) -> dist.ProcessGroup | None:
        """A third group of all processes, for `StopTogether`."""
        return self._everyone()

    def _everyone(self) -> dist.ProcessGroup | None:
        """A new group of all processes on the CPU. None where there is one alone."""
        if self.count == 1:
            return None
        group: dist.ProcessGroup = dist.new_group(backend="gloo")  # type: ignore[assignment]
        return group

    @cached_property
    def replicated(self) -> DeviceMesh:
        """Every process holds everything."""
        return self._mesh(1)

    @cached_property
    def sharded(self) -> DeviceMesh:
        """The processes of a node share what each node holds once."""
        return self._mesh(self.per_node)

    def _mesh(self, shards: int) -> DeviceMesh:
        shape, names = (self.count // shards, shards), ("replicas", "shards")
        return init_device_mesh(self.device.type, shape, mesh_dim_names=names)


class StopTogether:
    """Stops all processes after the same step.

    A signal reaches them at different moments. Each step starts an exchange that the next one
    reads, so that no process waits for it.
    """

    def __init__(self, processes: Processes, request: StopRequest) -> None:
        self.request = request
        self._group = processes.signalling
        self._asked = torch.zeros((), dtype=torch.int32)
        self._exchange: dist.Work | None = None

    def signal(self) -> int:
        """Return the signal on which all stop now; 0: none. All processes call it once a step."""
        if self._group is None:
            return self.request.signum or 0
        found = 0
        if self._exchange is not None:
            self._exchange.wait()
            found = int(self._asked)
        self._asked = torch.tensor(self.request.signum or 0, dtype=torch.int32)
        self._exchange = dist.all_reduce(
            self._asked, dist.ReduceOp.MAX, group=self._group, async_op=True
        )
        return found


def default_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def named_device(name: str | torch.device | None) -> torch.device | None:
    """The device of a name. None, which lets each process choose its own, stays None.

    Raises:
        InputError: if it cannot be used on this machine.
    """
    if name is None:
        return None
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name} cannot be used here ({reason}): try cpu") from None
    return device


def one_device(name: str | torch.device | None) -> torch.device:
    """The device of a name. By default the GPU if there is one, else the CPU.

    Raises:
        InputError: if it cannot be used on this machine.
    """
    return named_device(name) or default_device()


@contextmanager
def processes(device: torch.device | None, patience: timedelta = _PATIENCE) -> Iterator[Processes]:
    """Join the job that torchrun started, or run as a single process.

    Args:
        device: by default the GPU of this process's number on its node, else the CPU.
        patience: how long a process waits for another one before it fails.
    """
    cuda = torch.cuda.is_available() if device is None else device.type == "cuda"
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Processes(device or torch.device("cuda" if cuda else "cpu"))
        return
    end_with_parent()
    local, per_node = (int(os.environ[f"LOCAL_{name}"]) for name in ("RANK", "WORLD_SIZE"))
    if cuda and local >= torch.cuda.device_count():
        raise InputError(
            f"process {local} of this node finds {torch.cuda.device_count()} GPUs: start as many "
            "processes as there are GPUs (torchrun --nproc-per-node), or choose device cpu"
        )
    own = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(own)
    dist.init_process_group(
        "nccl" if cuda else "gloo", timeout=patience, device_id=own if cuda else None
    )
    yield Processes(own, dist.get_rank(), dist.get_world_size(), per_node)
    # Not after an error: other processes may wait for this one, and torchrun ends them.
    dist.destroy_process_group()


def check_share(batch_size: int, accumulate: int, count: int, field: str) -> None:
    """Raise `InputError` unless a batch can be divided evenly."""
    if batch_size % (count * accumulate):
        raise InputError(
            f"{field}: a batch of {batch_size} cannot be dealt out to {count} process(es) in "
            f"{accumulate} part(s) each: use a multiple of {count * accumulate}"
        )


def split_over(module: nn.Module, mesh: DeviceMesh) -> None:
    """Wrap a network with FSDP2, and separately each layer of its lists."""
    for layer in layers(module, sum(p.numel() for p in module.parameters())):
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)


def agree_on_batch_norm(student: nn.Module, processes: Processes) -> nn.Module:
    """Convert batch norm to synchronized batch norm, on GPUs only."""
    if processes.count > 1 and processes.device.type == "cuda":
        synced: nn.Module = convert_sync_batchnorm(student)
        return synced
    return student


def average_batch_norm(modules: Iterable[nn.Module], processes: Processes) -> None:
    """Average the running batch statistics over the processes."""
    for module in modules:
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and processes.count > 1:
            for buffer in module.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(processes.mean(buffer))


def exchange_gradients(modules: Iterable[nn.Module], now: bool) -> None:
    """Set whether the next backward exchanges gradients."""
    for module in modules:
        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(now)


def whole(tensor: Tensor) -> Tensor:
    """Return a whole sharded tensor; all processes must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def device_memory(processes: Processes) -> int:
    """Bytes that one process may use."""
    if processes.device.type == "cuda":
        return torch.cuda.get_device_properties(processes.device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // processes.per_node


def layers(module: nn.Module, total: int) -> Iterator[nn.Module]:
    """The outermost layers that each have 0.5 to 25 % of all parameters."""
    in_list = isinstance(module, nn.ModuleList | nn.Sequential)
    for child in module.children():
        size = sum(p.numel() for p in child.parameters())
        if in_list and total / 200 <= size <= total / 4:
            yield child
        else:
            yield from layers(child, total)
