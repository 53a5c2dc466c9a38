"""The few collective operations the objectives need, with gradients that equal those of one process.

Convention: every rank computes the loss of its own rows against the columns of all ranks, divides by the
global count and calls `sum_over_ranks`. The value is then the global loss on every rank, and the gradient with
respect to a rank's own features is that of the global loss: no factor of the world size, in either direction.
(DDP *averages* parameter gradients afterwards; the training loop undoes that, see `training/step.py`.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_local = False


@contextmanager
def local_only() -> Iterator[None]:
    """Treat this process as if it were alone, for validation on a single rank."""
    global _local
    before, _local = _local, True
    try:
        yield
    finally:
        _local = before


def world_size() -> int:
    """Number of ranks that share a batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not _local else 1


def rank() -> int:
    """Index of this process among them."""
    return dist.get_rank() if world_size() > 1 else 0


def own_rows(count: int) -> slice:
    """Where the rows of this rank are among those of all ranks, which have `count` each."""
    return slice(rank() * count, (rank() + 1) * count)


def own_numbers(count: int, device: torch.device) -> Tensor:
    """(count,) the same as numbers."""
    return torch.arange(rank() * count, (rank() + 1) * count, device=device)


def total(value: Tensor) -> Tensor:
    """Sum over ranks of a tensor that needs no gradient."""
    if world_size() == 1:
        return value.detach()
    value = value.detach().clone()
    dist.all_reduce(value)
    return value


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ARG004
        return total(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ARG004
        return grad


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.contiguous()
        parts = [torch.empty_like(value) for _ in range(world_size())]
        dist.all_gather(parts, value)
        ctx.rows = len(value)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return total(grad)[own_rows(ctx.rows)]


def sum_over_ranks(value: Tensor) -> Tensor:
    """Sum of every rank's share of a loss; the gradient flows into the own share only."""
    return value if world_size() == 1 else _SumOverRanks.apply(value)


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the values at the chosen places of all ranks, 0 where there are none; both of one shape."""
    return sum_over_ranks((values * chosen).sum() / total(chosen.sum()).clamp(min=1))


def gather(value: Tensor) -> Tensor:
    """Concatenate the rows of all ranks, in rank order; (n, ...) -> (world size · n, ...).

    Every rank must bring the same shape. The gradient of every rank's use of a row returns to its owner.
    """
    return value if world_size() == 1 else _Gather.apply(value)
