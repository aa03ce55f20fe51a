"""Several processes under torchrun: what they must agree on, and how they do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

# A rank that waits longer than this for the others gives up instead of hanging for ever.
TIMEOUT = timedelta(minutes=30)


class ProcessGroup:
    """This process among the others of its job; alone, every method is the identity.

    Args:
        rank: number of this process, 0 writes files and events.
        world_size: number of processes.
        local_rank: number of this process on its machine, which picks its GPU.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, local_rank: int = 0) -> None:
        self.rank = rank
        self.world_size = world_size
        self.local_rank = local_rank

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and events."""
        return self.rank == 0

    @property
    def is_distributed(self) -> bool:
        """Whether there are other processes."""
        return self.world_size > 1

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the ranks, in place and without gradient."""
        if self.is_distributed:
            dist.all_reduce(values)
        return values

    def differentiable_sum(self, values: Tensor) -> Tensor:
        """Sum over the ranks through which gradients flow."""
        return _Sum.apply(values) if self.is_distributed else values

    def gathered(self, values: Tensor) -> Tensor:
        """The values (N, ...) of all ranks one after another, rank 0 first; the ranks' shapes must be the same."""
        if not self.is_distributed:
            return values
        parts = [torch.empty_like(values) for _ in range(self.world_size)]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    def smallest(self, value: float) -> float:
        """The smallest of the ranks' values."""
        if not self.is_distributed:
            return value
        tensor = torch.tensor(float(value))
        dist.all_reduce(tensor, op=dist.ReduceOp.MIN)
        return float(tensor)

    def largest(self, value: float) -> float:
        """The largest of the ranks' values."""
        return -self.smallest(-value)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return self.smallest(-float(flag)) < 0

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.is_distributed:
            dist.barrier()


class _Sum(torch.autograd.Function):
    """A sum over the ranks; every rank's loss depends on every rank's values, so gradients are summed as well."""

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, values: Tensor) -> Tensor:
        """The sum of all ranks' values."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        """The sum of all ranks' gradients."""
        total = gradient.clone()
        dist.all_reduce(total)
        return total


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started; outside torchrun this process is alone.

    Collectives run over gloo on the CPU and, for tensors on GPUs, over NCCL.
    """
    if not dist.is_torchelastic_launched():
        yield ProcessGroup()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=TIMEOUT)
    try:
        # The three variables are torchrun's own way to tell a process who it is.
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))
    finally:
        dist.destroy_process_group()
