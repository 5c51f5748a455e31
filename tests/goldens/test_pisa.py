"""Weights of samples and boxes of PISA against the reference's numbers."""

import pytest
import torch
import torch.nn.functional as F
from detcore_coders import DeltaXYWHBBoxCoder
from detcore_rcnn.pisa import carl_weights, isr_p

from detcore.boxes import aligned_overlap
from detcore.structures import Priors
from detcore.testing.goldens import missing, read, task_cases

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


def cases(name):
    return [pytest.param(c, id=c["id"]) for c in task_cases("losses", name)]


def of_own_class(codes, labels):
    """The codes of each row's class, or those that all classes share."""
    codes = codes.unflatten(-1, (-1, 4))
    return codes[torch.arange(len(codes)), labels.clamp(max=codes.shape[1] - 1)]


@pytest.mark.parametrize("case", cases("isr_p"))
def test_isr_p(case):
    inputs, call = read(case, "inputs"), case["call"]
    labels, rois = inputs["labels"], inputs["rois"]
    positive = labels < call["num_class"]
    coder = DeltaXYWHBBoxCoder(target_stds=tuple(call["target_stds"]))
    regions = Priors(rois[:, 1:], torch.zeros(len(rois), 2))
    predicted = coder.decode(regions, of_own_class(inputs["bbox_pred"], labels))
    ious = aligned_overlap(predicted, coder.decode(regions, inputs["bbox_targets"]))
    objects = torch.zeros_like(labels)
    objects[positive] = torch.cat(list(inputs["pos_assigned_gt_inds"]))
    weight = isr_p(
        ious,
        F.cross_entropy(inputs["cls_score"], labels, reduction="none"),
        inputs["label_weights"],
        positive,
        labels,
        objects + 1000 * rois[:, 0].long(),
        k=call["k"],
        bias=call["bias"],
    )
    torch.testing.assert_close(weight, read(case, "outputs")["label_weights"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", cases("carl_loss"))
def test_carl(case):
    inputs, outputs, call = read(case, "inputs"), read(case, "outputs"), case["call"]
    logits, codes = inputs["cls_score"].requires_grad_(), inputs["bbox_pred"].requires_grad_()
    labels = inputs["labels"]
    positive, own = labels < call["num_class"], labels.clamp(max=call["num_class"] - 1)
    scores = logits.sigmoid() if call.get("sigmoid") else logits.softmax(-1)
    weights = carl_weights(scores[torch.arange(len(own)), own], positive, k=call["k"], bias=call["bias"])
    losses = F.smooth_l1_loss(of_own_class(codes, own), inputs["bbox_targets"], reduction="none").sum(1)
    loss = (losses * weights).sum() / (call.get("avg_factor") or len(labels))
    loss.backward()
    torch.testing.assert_close(loss.detach(), outputs["loss"].squeeze(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(logits.grad, outputs["grad_cls"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(codes.grad, outputs["grad_bbox"], rtol=1e-4, atol=1e-7)


def test_all_cases_are_there():
    assert (len(cases("isr_p")), len(cases("carl_loss"))) == (4, 6)
