"""The exponential moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from detcore_train.interfaces import WeightAverage


class EMA(WeightAverage):
    """The exponential moving average of weights (Tarvainen and Valpola, arXiv:1703.01780).

    ``average = decay_t * average + (1 - decay_t) * weights`` after each optimizer step t = 1, 2, ... with
    ``decay_t = decay * (1 - exp(-t / ramp_steps))``, so that the random weights of the begin are soon
    forgotten.

    Args:
        decay: How much of the average is kept in a step.
        ramp_steps: Steps over which the decay rises; 0 for the full decay from the first step.
        buffers: Whether floating buffers (the statistics of batch normalisation) are averaged too, or copied.
    """

    def __init__(
        self,
        *,
        decay: Annotated[float, Field(gt=0, lt=1)] = 0.9998,
        ramp_steps: Annotated[int, Field(ge=0)] = 2000,
        buffers: Literal["average", "copy"] = "average",
    ) -> None:
        self.decay, self.ramp_steps, self.buffers = decay, ramp_steps, buffers
        self._steps = 0
        self._average: dict[str, Tensor] = {}

    def decay_at(self, step: int) -> float:
        """The decay that the update after optimizer step ``step`` (from 1) uses."""
        ramp = 1.0 - math.exp(-step / self.ramp_steps) if self.ramp_steps else 1.0
        return self.decay * ramp

    def start(self, model: nn.Module) -> None:
        """See :class:`~detcore_train.interfaces.WeightAverage`."""
        self._steps = 0
        self._average = {name: value.detach().clone() for name, value in self._tensors(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """See :class:`~detcore_train.interfaces.WeightAverage`."""
        self._steps += 1
        present = self._tensors(model)
        averages = [self._average[name] for name in present]
        torch._foreach_lerp_(averages, list(present.values()), 1.0 - self.decay_at(self._steps))

    def weights(self) -> Mapping[str, Tensor]:
        """See :class:`~detcore_train.interfaces.WeightAverage`."""
        return self._average

    def state_dict(self) -> dict[str, object]:
        """See :class:`~detcore_train.interfaces.WeightAverage`."""
        return {"steps": self._steps, "average": dict(self._average)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """See :class:`~detcore_train.interfaces.WeightAverage`."""
        self._steps = int(state["steps"])  # type: ignore[call-overload]
        loaded: Mapping[str, Tensor] = state["average"]  # type: ignore[assignment]
        for name, value in loaded.items():
            if name in self._average:
                self._average[name].copy_(value)
            else:
                self._average[name] = value.clone()

    def _tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """What is averaged: floating parameters, and buffers where these are averaged too."""
        parameters = dict(model.named_parameters())
        return {
            name: value.detach()
            for name, value in model.state_dict().items()
            if value.is_floating_point() and (name in parameters or self.buffers == "average")
        }
