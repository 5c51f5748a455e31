"""The losses under test, with inputs for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from detcore_losses import (
    CIoULoss,
    CrossEntropyLoss,
    DIoULoss,
    FocalLoss,
    GIoULoss,
    IoULoss,
    L1Loss,
    SmoothL1Loss,
)
from torch import Tensor

from detcore.interfaces import Loss

CHANNELS = 5


@dataclass(frozen=True)
class Case:
    """A loss and a maker of inputs: rows -> (pred, target)."""

    name: str
    loss: Callable[..., Loss]
    inputs: Callable[..., tuple[Tensor, Tensor]]


def label_inputs(rows: int, background: int = CHANNELS, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(rows)
    pred = torch.randn(rows, CHANNELS, generator=generator, dtype=dtype) * 2
    return pred, torch.randint(0, background + 1, (rows,), generator=generator)


def softmax_inputs(rows: int, dtype: torch.dtype = torch.float32):
    return label_inputs(rows, CHANNELS - 1, dtype)


def soft_inputs(rows: int, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(rows)
    pred = torch.randn(rows, CHANNELS, generator=generator, dtype=dtype) * 2
    return pred, torch.rand(rows, CHANNELS, generator=generator, dtype=dtype)


def code_inputs(rows: int, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(rows)
    return tuple(torch.randn(rows, 4, generator=generator, dtype=dtype) for _ in range(2))


def box_inputs(rows: int, dtype: torch.dtype = torch.float32):
    """Boxes of some tens of pixels, most of which overlap their target."""
    generator = torch.Generator().manual_seed(rows)
    target = torch.rand(rows, 4, generator=generator, dtype=dtype) * 40 + 10
    target = torch.cat((target[:, :2], target[:, :2] + target[:, 2:]), 1)
    shift = torch.randn(rows, 4, generator=generator, dtype=dtype) * 4
    return target + shift, target


def probability_inputs(rows: int, dtype: torch.dtype = torch.float32):
    pred, target = label_inputs(rows, dtype=dtype)
    return pred.sigmoid(), target


CASES = (
    Case("focal", FocalLoss, label_inputs),
    Case("focal-gamma0.5", lambda **kw: FocalLoss(gamma=0.5, alpha=0.4, **kw), label_inputs),
    Case("focal-gamma0", lambda **kw: FocalLoss(gamma=0, **kw), label_inputs),
    Case("focal-soft", FocalLoss, soft_inputs),
    Case("focal-activated", lambda **kw: FocalLoss(activated=True, **kw), probability_inputs),
    Case("softmax", CrossEntropyLoss, softmax_inputs),
    Case(
        "softmax-weights", lambda **kw: CrossEntropyLoss(class_weight=(1, 2, 0.5, 0, 1), **kw), softmax_inputs
    ),
    Case("sigmoid", lambda **kw: CrossEntropyLoss(use_sigmoid=True, **kw), label_inputs),
    Case(
        "sigmoid-weights",
        lambda **kw: CrossEntropyLoss(use_sigmoid=True, class_weight=(1, 2, 0.5, 0, 1), **kw),
        label_inputs,
    ),
    Case("sigmoid-soft", lambda **kw: CrossEntropyLoss(use_sigmoid=True, **kw), soft_inputs),
    Case("l1", L1Loss, code_inputs),
    Case("smooth-l1", lambda **kw: SmoothL1Loss(beta=0.3, **kw), code_inputs),
    Case("iou-log", IoULoss, box_inputs),
    Case("iou-linear", lambda **kw: IoULoss(mode="linear", **kw), box_inputs),
    Case("iou-square", lambda **kw: IoULoss(mode="square", **kw), box_inputs),
    Case("giou", GIoULoss, box_inputs),
    Case("diou", DIoULoss, box_inputs),
    Case("ciou", CIoULoss, box_inputs),
)


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request):
    """Each loss."""
    return request.param


@pytest.fixture(params=[c for c in CASES if c.inputs is box_inputs], ids=lambda case: case.name)
def box_case(request):
    """Each loss on boxes."""
    return request.param


@pytest.fixture(params=[c for c in CASES if c.inputs is label_inputs], ids=lambda case: case.name)
def sigmoid_case(request):
    """Each loss with sigmoids on labels."""
    return request.param
