"""Losses against the reference's values and gradients."""

from __future__ import annotations

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
    reduce_loss,
)

from detcore.errors import ConfigError
from detcore.testing.goldens import missing, read, task_cases

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

CLASSES = {
    c.__name__: c
    for c in (CIoULoss, CrossEntropyLoss, DIoULoss, FocalLoss, GIoULoss, IoULoss, L1Loss, SmoothL1Loss)
}
MASK, SEGMENTATION, SAME_SHAPE = "losses.ce.mask", "losses.ce.seg.", "losses.ce.sigmoid_1d_same"
IDENTICAL = "losses.ciou.identical"


def cases(*classes):
    return [pytest.param(case, id=case["id"]) for case in task_cases("losses", *classes)]


def build(case, call):
    args = dict(case["args"])
    args.pop("use_mask", None)  # the test picks the channel of the class
    if case["id"] == MASK:
        args["use_sigmoid"] = True
    if "ignore_index" in call:  # the reference takes it per call too
        args["ignore_index"] = call.pop("ignore_index")
    return CLASSES[case["cls"]](**args)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=5e-5, atol=1e-6)


@pytest.mark.parametrize("case", cases(*CLASSES))
def test_value_and_gradient(case):
    inputs, outputs, call = read(case, "inputs"), read(case, "outputs"), dict(case.get("call") or {})
    loss_fn = build(case, call)
    leaf = inputs["pred"].clone().requires_grad_()
    pred, target = leaf, inputs["target"] if "target" in inputs else inputs["label"]
    if case["id"] == MASK:
        pred = pred[torch.arange(len(pred)), inputs["label"]]
    if case["id"].startswith(SEGMENTATION):  # channels are last here
        pred = pred.movedim(1, -1)
    kwargs = {"weight": inputs.get("weight"), "avg_factor": call.pop("avg_factor", None)}
    kwargs["reduction"] = call.pop("reduction_override", None)
    assert not call
    if case.get("raises"):
        with pytest.raises(ConfigError, match="avg_factor replaces the divisor of a mean"):
            loss_fn(pred, target, **kwargs)
        return
    loss = loss_fn(pred, target, **kwargs)
    loss.sum().backward()
    expected, gradient = torch.as_tensor(outputs["loss"]), outputs["grad_pred"]
    if case["id"] == IDENTICAL:  # the reference's 0 / 0
        expected, gradient = expected.nan_to_num(), gradient.nan_to_num()
    if case["id"] == MASK:  # the reference's mask form is not a scalar
        expected = expected.squeeze(0)
    assert loss.shape == expected.shape
    close(loss, expected)
    close(leaf.grad, gradient)


@pytest.mark.parametrize("case", cases("weight_reduce_loss"))
def test_reduction(case):
    inputs, outputs, call = read(case, "inputs"), read(case, "outputs"), case["call"]
    kwargs = {
        "weight": inputs.get("weight"),
        "avg_factor": call["avg_factor"],
        "reduction": call["reduction"],
    }
    if case.get("raises"):
        with pytest.raises(ConfigError, match="avg_factor replaces the divisor of a mean"):
            reduce_loss(inputs["loss"], **kwargs)
        return
    close(reduce_loss(inputs["loss"], **kwargs), torch.as_tensor(outputs["loss"]))
