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
