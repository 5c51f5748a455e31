"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from detcore.interfaces import Detector
from detcore_train.interfaces import Optimizer
from detcore_train.optimizers.groups import parameter_groups
from detcore_train.optimizers.rules import LayerDecay, ParameterRule

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum: :class:`torch.optim.SGD`.

    Args:
        lr: Learning rate, for the batch size that is trained with (or the experiment's ``base_batch_size``).
        momentum: Momentum.
        weight_decay: L2 penalty on the weights.
        nesterov: Whether to look ahead along the momentum (Nesterov).
        norm_decay_mult: Factor on the weight decay of normalisation layers; 0 leaves them undecayed.
        bias_decay_mult: Factor on the weight decay of other layers' biases.
        backbone_lr_mult: Factor on the backbone's learning rate.
        layer_decay: Factor on the learning rate from each layer of the backbone to the one before it (Clark et
            al., arXiv:2003.10555); the last layer has it once, the rest of the detector not at all.
        rules: Factors for parameters by name, in place of the general ones; see :class:`ParameterRule`. The first
            rule that matches counts.
    """

    def __init__(
        self,
        *,
        lr: Positive,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
        weight_decay: NotNegative = 1e-4,
        nesterov: bool = False,
        norm_decay_mult: NotNegative = 1.0,
        bias_decay_mult: NotNegative = 1.0,
        backbone_lr_mult: Positive = 1.0,
        layer_decay: LayerDecay = 1.0,
        rules: tuple[ParameterRule, ...] = (),
    ) -> None:
        if nesterov and momentum == 0:
            raise ValueError("nesterov needs a momentum above 0, got momentum 0")
        self.lr, self.momentum, self.weight_decay, self.nesterov = lr, momentum, weight_decay, nesterov
        self.norm_decay_mult, self.bias_decay_mult = norm_decay_mult, bias_decay_mult
        self.backbone_lr_mult, self.layer_decay, self.rules = backbone_lr_mult, layer_decay, rules

    def build(self, model: Detector, *, lr_scale: float = 1.0) -> torch.optim.SGD:
        """See :class:`~detcore_train.interfaces.Optimizer`."""
        groups = parameter_groups(
            model,
            lr=self.lr * lr_scale,
            weight_decay=self.weight_decay,
            norm_decay_mult=self.norm_decay_mult,
            bias_decay_mult=self.bias_decay_mult,
            backbone_lr_mult=self.backbone_lr_mult,
            layer_decay=self.layer_decay,
            rules=self.rules,
        )
        return torch.optim.SGD(groups, lr=self.lr * lr_scale, momentum=self.momentum, nesterov=self.nesterov)
