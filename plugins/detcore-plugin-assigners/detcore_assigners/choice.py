"""Choices that come out the same on every device: the nearest priors, and who gets a prior that several want."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def nearest(
    distance: Float[Tensor, "*S n"], count: int, *, first_of_equals: bool = True
) -> Int[Tensor, "*S k"]:
    """The ``count`` smallest distances, in order; of equal ones the first, on every device.

    Args:
        distance: Not negative; float32.
        count: At most n.
        first_of_equals: False leaves the choice among equals to ``torch.topk``: it may differ between devices.
    """
    if not first_of_equals:
        return distance.topk(count, largest=False).indices
    index = torch.arange(distance.shape[-1], device=distance.device)
    # the bits of non-negative floats are in their order: with the index below them no two keys are equal
    keys = (distance.contiguous().view(torch.int32).long() << 32) | index
    return keys.topk(count, largest=False).values & 0xFFFFFFFF


def smallest(values: Float[Tensor, "*S n"], count: int) -> Int[Tensor, "*S k"]:
    """As :func:`nearest`, for values of either sign; NaN comes last.

    Args:
        values: float32.
        count: At most n.
    """
    index = torch.arange(values.shape[-1], device=values.device)
    bits = (values + 0.0).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)  # -0.0 becomes 0.0
    bits = bits.contiguous().view(torch.int32)
    # of negative floats the bits below the sign count downwards
    keys = ((bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() << 32) | index
    return keys.topk(count, largest=False).values & 0xFFFFFFFF


def resolve(
    candidates: Int[Tensor, "B M k"],
    score: Float[Tensor, "B M k"],
    chosen: Bool[Tensor, "B M k"],
    count: int,
) -> tuple[Int[Tensor, "B N"], Float[Tensor, "B N"], Bool[Tensor, "B N"]]:
    """Gives each prior to the ground truth of the highest score among those that chose it; of equal ones the first.

    Args:
        candidates: Priors of each ground truth.
        score: How good the match is.
        chosen: Which candidates are matches.
        count: N.

    Returns:
        Ground truth (0 where there is none), score (0 where there is none), and whether there is any.
    """
    images, rows, _ = candidates.shape
    if count == 0:
        nothing = score.new_zeros((images, 0))
        return nothing.long(), nothing, nothing.bool()
    index, chosen = candidates.flatten(1), chosen.flatten(1)
    score = score.flatten(1).masked_fill(~chosen, -torch.inf)
    best = score.new_full((images, count), -torch.inf).scatter_reduce(1, index, score, "amax")
    attains = chosen & (score == best.gather(1, index))
    row = torch.arange(rows, device=index.device)[:, None].expand(candidates.shape).flatten(1)
    row = row.masked_fill(~attains, rows)
    first = index.new_full((images, count), rows).scatter_reduce(1, index, row, "amin")
    found = first < rows
    return first.masked_fill(~found, 0), best.masked_fill(~found, 0), found


def gathered(values: Tensor, index: Int[Tensor, "B M k"]) -> Tensor:
    """Values [B, N] of the priors at ``index``: [B, M, k]."""
    return values.gather(1, index.flatten(1)).reshape(index.shape)


def packed(flags: Bool[Tensor, "B M"]) -> Int[Tensor, "B R"]:
    """The flagged rows of each image first, in order; cut off where no image has more of them.

    Waits for the device to know where that is; compiled, all rows remain.
    """
    order = flags.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    if torch.compiler.is_compiling():
        return order
    return order[:, : int(flags.sum(dim=1).amax())] if flags.numel() else order
