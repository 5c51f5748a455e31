"""The running average of weights, in the place of the weights while these are evaluated or saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from detcore_train.interfaces import WeightAverage


class AverageWeights(Callback):
    """Keeps a :class:`~detcore_train.interfaces.WeightAverage` up to date.

    Args:
        average: The average; None keeps none, and everything here does nothing.
    """

    def __init__(self, average: WeightAverage | None) -> None:
        self.average = average
        self._restored: Mapping[str, Any] | None = None
        self._steps = 0
        self._own: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Begins with the model's weights, or where the resumed run was."""
        if self.average is not None:
            self.average.start(pl_module.model)
            if self._restored is not None:
                self.average.load_state_dict(self._restored)
                self._restored = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Notes the number of steps, to know whether the batch makes one."""
        self._steps = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Takes the new weights in, if the batch made a step."""
        if self.average is not None and trainer.global_step > self._steps:
            self.average.update(pl_module.model)

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Puts the average in place."""
        if self.average is not None:
            self._own = swap_in(pl_module.model, self.average.weights())

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Puts the weights back."""
        if self.average is not None:
            swap_in(pl_module.model, self._own)
            self._own = {}

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """The average in place of the weights, inside the ``with`` block."""
        if self.average is None:
            yield
            return
        own = swap_in(model, self.average.weights())
        try:
            yield
        finally:
            swap_in(model, own)

    def state_dict(self) -> dict[str, Any]:
        """The average's state."""
        return {} if self.average is None else self.average.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until the model is on its device."""
        self._restored = state_dict or None


@torch.no_grad()
def swap_in(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Writes ``weights`` over the model's and returns what was there."""
    present = model.state_dict()
    before = {name: present[name].clone() for name in weights}
    for name, value in weights.items():
        present[name].copy_(value)
    return before
