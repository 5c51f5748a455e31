"""Adam with decoupled weight decay."""

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
Beta = Annotated[float, Field(ge=0, lt=1)]


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101): :class:`torch.optim.AdamW`.

    Args:
        lr: Learning rate, for the batch size that is trained with (or the experiment's ``base_batch_size``).
        betas: Decay of the running averages of the gradient and of its square.
        eps: Added to the denominator.
        weight_decay: Decoupled weight decay.
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
        betas: tuple[Beta, Beta] = (0.9, 0.999),
        eps: Positive = 1e-8,
        weight_decay: NotNegative = 0.05,
        norm_decay_mult: NotNegative = 1.0,
        bias_decay_mult: NotNegative = 1.0,
        backbone_lr_mult: Positive = 1.0,
        layer_decay: LayerDecay = 1.0,
        rules: tuple[ParameterRule, ...] = (),
    ) -> None:
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.norm_decay_mult, self.bias_decay_mult = norm_decay_mult, bias_decay_mult
        self.backbone_lr_mult, self.layer_decay, self.rules = backbone_lr_mult, layer_decay, rules

    def build(self, model: Detector, *, lr_scale: float = 1.0) -> torch.optim.AdamW:
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
        return torch.optim.AdamW(groups, lr=self.lr * lr_scale, betas=self.betas, eps=self.eps)
