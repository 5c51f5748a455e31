"""The losses under test, with inputs for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from detcore_losses import (
    BalancedL1Loss,
    BoundedIoULoss,
    CIoULoss,
    CrossEntropyLoss,
    DiceLoss,
    DIoULoss,
    DistributionFocalLoss,
    EIoULoss,
    FocalLoss,
    GaussianFocalLoss,
    GIoULoss,
    IoULoss,
    KnowledgeDistillationKLDivLoss,
    L1Loss,
    MSELoss,
    QualityFocalLoss,
    SIoULoss,
    SmoothL1Loss,
    VarifocalLoss,
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
    leading: bool = True  # whether rows may have several dimensions


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


def distribution_inputs(rows: int, dtype: torch.dtype = torch.float32):
    pred, target = soft_inputs(rows, dtype)
    return pred, target[:, 0] * (CHANNELS - 1)


def heat_map_inputs(rows: int, dtype: torch.dtype = torch.float32):
    pred, target = soft_inputs(rows, dtype)
    target[:, 0] = 1
    return pred.sigmoid(), target


def mask_inputs(rows: int, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(rows)
    pred = torch.randn(rows, 3, 4, generator=generator, dtype=dtype)
    return pred, (torch.rand(rows, 3, 4, generator=generator) > 0.5).to(dtype)


def sparse_inputs(rows: int, dtype: torch.dtype = torch.float32):
    """Qualities of every class, most of them 0."""
    pred, target = soft_inputs(rows, dtype)
    return pred, target * (target > 0.7)


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
    Case("quality", QualityFocalLoss, label_inputs),
    Case("quality-beta0.5", lambda **kw: QualityFocalLoss(beta=0.5, **kw), label_inputs),
    Case("quality-soft", QualityFocalLoss, sparse_inputs),
    Case("quality-activated", lambda **kw: QualityFocalLoss(activated=True, **kw), probability_inputs),
    Case("varifocal", VarifocalLoss, label_inputs),
    Case("varifocal-soft", VarifocalLoss, sparse_inputs),
    Case("varifocal-unweighted", lambda **kw: VarifocalLoss(iou_weighted=False, **kw), sparse_inputs),
    Case("gaussian", GaussianFocalLoss, heat_map_inputs),
    Case("distribution", DistributionFocalLoss, distribution_inputs),
    Case("distillation", lambda **kw: KnowledgeDistillationKLDivLoss(temperature=2, **kw), soft_inputs),
    Case("dice", DiceLoss, mask_inputs, leading=False),
    Case("dice-naive", lambda **kw: DiceLoss(naive_dice=True, **kw), mask_inputs, leading=False),
    Case("l1", L1Loss, code_inputs),
    Case("mse", MSELoss, code_inputs),
    Case("balanced-l1", BalancedL1Loss, code_inputs),
    Case("balanced-l1-beta", lambda **kw: BalancedL1Loss(beta=0.4, **kw), code_inputs),
    Case("smooth-l1", lambda **kw: SmoothL1Loss(beta=0.3, **kw), code_inputs),
    Case("iou-log", IoULoss, box_inputs),
    Case("iou-linear", lambda **kw: IoULoss(mode="linear", **kw), box_inputs),
    Case("iou-square", lambda **kw: IoULoss(mode="square", **kw), box_inputs),
    Case("giou", GIoULoss, box_inputs),
    Case("diou", DIoULoss, box_inputs),
    Case("ciou", CIoULoss, box_inputs),
    Case("eiou", EIoULoss, box_inputs),
    Case("siou", SIoULoss, box_inputs),
    Case("bounded-iou", BoundedIoULoss, box_inputs),
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
