"""What the two gradient harmonising losses share: the density of the norms of gradients.

Norms 0..1 fall into bins of equal width. The more examples are in a bin, the less each of them counts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from detcore.distributed import reduce_mean, world_size


class Harmony(NamedTuple):
    """How much examples count.

    Args:
        factors: For an example of each bin.
        total: The mass of all examples, at least 1: what a mean divides by.
    """

    factors: Float[Tensor, "bins"]
    total: Float[Tensor, ""]


def bin_of(norms: Float[Tensor, "*S"], bins: int) -> Int[Tensor, "*S"]:
    """The bin of each norm; bin i begins at i / bins, itself included."""
    edges = torch.arange(1, bins, device=norms.device, dtype=torch.float32) / bins
    return torch.bucketize(norms, edges.to(norms.dtype), right=True, out_int32=True)


def mass_of(index: Int[Tensor, "*S"], weight: Tensor, bins: int) -> Float[Tensor, "bins"]:
    """The sum of the weights in each bin, in float64: millions of ones do not fit into float32."""
    mass = torch.zeros(bins, dtype=torch.float64, device=index.device)
    weight = weight.expand(index.shape).reshape(-1)
    return mass.index_add_(0, index.reshape(-1), weight.to(mass.dtype))


def register_state(loss: nn.Module, bins: int, momentum: float, bias_correction: bool) -> None:
    """The buffers of moving averages: ``acc_sum``, and ``updates`` of each where their bias is corrected."""
    if momentum > 0:
        loss.register_buffer("acc_sum", torch.zeros(bins))
        if bias_correction:
            loss.register_buffer("updates", torch.zeros(bins))


@torch.no_grad()
def harmonise(loss: nn.Module, mass: Float[Tensor, "bins"], momentum: float, *, update: bool) -> Harmony:
    """How much examples count, from the mass of each bin.

    Args:
        loss: Has the state of :func:`register_state`.
        mass: Of this process; averaged over all of them here.
        momentum: As there.
        update: Whether this is a step of training.
    """
    mass = reduce_mean(mass).float()
    held, total = mass > 0, mass.sum().clamp(min=1 / world_size())
    if momentum > 0:
        mass = _average(loss, mass, held, momentum, update)
    share = total / (mass * held.sum().clamp(min=1))
    return Harmony(torch.where(held, share, 0), total)


def _average(loss: nn.Module, mass: Tensor, held: Tensor, momentum: float, update: bool) -> Tensor:
    average, updates = loss.get_buffer("acc_sum"), getattr(loss, "updates", None)
    if update:
        average.copy_(torch.where(held, momentum * average + (1 - momentum) * mass, average))
        if updates is not None:
            updates += held
    if updates is not None:
        average = average / (1 - momentum**updates).clamp(min=torch.finfo(average.dtype).tiny)
    return torch.where(held & (average > 0), average, mass)


def is_step(loss: nn.Module) -> bool:
    """Whether state changes now: in training, where gradients are computed; not where examples are only ranked."""
    return loss.training and torch.is_grad_enabled()
