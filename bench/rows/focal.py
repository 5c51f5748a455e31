"""The focal loss of all priors, with its gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from bench.row import Row
from bench.rows import models, scene

ROWS_OF_LOGITS = 2 * scene.PRIORS


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels, one in a hundred not background."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(ROWS_OF_LOGITS, scene.CLASSES, generator=generator) - 4
    labels = torch.randint(scene.CLASSES, (ROWS_OF_LOGITS,), generator=generator)
    labels[torch.rand(ROWS_OF_LOGITS, generator=generator) > 0.01] = scene.CLASSES
    return logits.to(scene.device()).requires_grad_(), labels.to(scene.device())


def detcore() -> Callable[[], Any]:
    """detcore's, on labels."""
    from detcore_losses import FocalLoss

    loss = FocalLoss(reduction="sum")
    logits, labels = inputs()
    return lambda: torch.autograd.grad(loss(logits, labels), logits)


def torchvision() -> Callable[[], Any]:
    """torchvision's, which wants one column per class."""
    from torchvision.ops import sigmoid_focal_loss

    logits, labels = inputs()

    def work() -> Any:
        target = torch.zeros_like(logits)
        positive = labels < scene.CLASSES
        target[positive, labels[positive]] = 1.0
        return torch.autograd.grad(sigmoid_focal_loss(logits, target, reduction="sum"), logits)

    return work


ROWS = {
    "focal": Row(
        f"focal loss and gradient, 2 x {scene.PRIORS:,} x {scene.CLASSES}",
        {"detcore": functools.partial(models.kept, detcore), "torchvision": torchvision},
        targets={"torchvision": 3.0},
    )
}
