"""What heads need to know of other processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """The number of processes that train together; 1 outside of distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def reduce_mean(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes; the tensor itself where there is only one.

    Losses divide by counts averaged like this, so that training on several processes equals training on one with
    the whole batch. It carries no gradient.
    """
    if world_size() == 1:
        return value.detach()
    mean = value.detach().clone().to(torch.float32)
    dist.all_reduce(mean.div_(world_size()))
    return mean


def mean_count(count: Tensor, minimum: float = 1.0) -> Tensor:
    """A divisor of losses: the mean of a count over all processes, for at least ``minimum`` in all of them together.

    The gradients of processes are averaged, so the limit of each is its share: what several processes divide by
    is then what one process with the whole batch divides by, also where there is nothing to count.

    Args:
        count: Of this process.
        minimum: Lower limit of the count of all processes together.
    """
    return reduce_mean(count).clamp(min=minimum / world_size())
