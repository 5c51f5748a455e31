"""Random numbers that belong to an image, wherever in which batch on which device it is.

A generator that is read row by row gives an image other numbers at another place in the batch. Here a call
reads one number from it, and every prior's key is a hash of that number, of the states of the image's priors
and of the prior's index. So an image's keys depend on itself and on the generator's state alone.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from detcore.structures import IGNORED, Assignment


def random_keys(assignment: Assignment, generator: torch.Generator | None = None) -> Int[Tensor, "B N"]:
    """Uniform keys of 62 bits, at least 0.

    Only positive and negative priors have a key that means anything; ignored ones between, before or after
    them (padding) change nothing, nor does the order of the ground truths.

    Args:
        assignment: The images.
        generator: Read once; torch's global one of the CPU where None.
    """
    state = assignment.state.long()
    part = state != IGNORED
    source = torch.device("cpu") if generator is None else generator.device
    base = torch.randint(2**62, (), generator=generator, device=source).to(state.device)
    prior = _mix(base + part.cumsum(dim=1) * _GOLDEN)
    # a sum that wraps around does not depend on the order in which a device adds
    content = torch.where(part, _mix(prior + state), 0).sum(dim=1, keepdim=True)
    image = _mix(content + base)
    return _mix(prior ^ image) & (2**62 - 1)


def other_keys(keys: Int[Tensor, "B N"]) -> Int[Tensor, "B N"]:
    """Further uniform keys, as good as independent of the given ones."""
    return _mix(keys + _GOLDEN) & (2**62 - 1)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


# SplitMix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014
_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser: every bit of the output depends on every bit of the input."""
    x = torch.mul(x ^ _shift(x, 30), _FIRST)
    x = torch.mul(x ^ _shift(x, 27), _SECOND)
    return torch.bitwise_xor(x, _shift(x, 31))


def _shift(x: Tensor, bits: int) -> Tensor:
    """A shift to the right that fills up with zeros, which torch's does not for negative numbers."""
    return torch.bitwise_and(x >> bits, 2 ** (64 - bits) - 1)
