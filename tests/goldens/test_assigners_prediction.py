"""Assigners that look at predictions, against the reference's numbers; built through the bridge."""

import pytest
import torch
from detcore_mmdet.parity.scenes import quality_of, scene_of
from detcore_mmdet.translation import translate

from detcore.boxes import pairwise_overlap
from detcore.serialize import build
from detcore.testing.goldens import missing, read, task_cases

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

#: Number of cases of each.
COUNTS = {
    "HungarianAssigner": 33,
    "HungarianAssigner.match_costs": 6,
    "SimOTAAssigner": 22,
    "TaskAlignedAssigner": 15,
    "DynamicSoftLabelAssigner": 22,
}


def cases(*classes):
    return [pytest.param(c, id=c["id"]) for c in task_cases("assigners", *classes)]


def assigner_of(case, **changes):
    """The assigner of a case with the reference's quirks; ``alpha`` and ``beta`` come with the call there."""
    powers = {n: v for n, v in (case.get("call") or {}).items() if n in ("alpha", "beta")}
    name = case["cls"].partition(".")[0]
    return build({**translate({"type": name, **case["args"], **powers}), **changes})


def check(assignment, targets, case, quality=None):
    """Our tensors in the reference's words: gt_inds is 0 or i + 1.

    They may differ only where the reference's own answer changes when its inputs move by a rounding error.
    """
    outputs, fragile = read(case, "outputs"), read(case, "aux")["fragile_inds"]
    state, index = assignment.state[0].long(), assignment.gt_index[0]
    got = torch.where(state == 1, index + 1, state)
    differs = got != outputs["gt_inds"]
    assert set(differs.nonzero()[:, 0].tolist()) <= set(fragile.tolist())
    labels = torch.where(state == 1, targets.labels[0, index], -1)
    assert torch.equal(labels[~differs], outputs["labels"][~differs])
    if quality is not None and not differs.any():
        near(assignment.quality[0], quality)


def near(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", cases("SimOTAAssigner", "DynamicSoftLabelAssigner"))
def test_dynamic_k(case):
    priors, targets, predictions, _ = scene_of(case, read(case, "inputs"))
    assignment = assigner_of(case).assign(priors, targets, predictions)
    check(assignment, targets, case, quality_of(read(case, "outputs")))


@pytest.mark.parametrize("case", cases("SimOTAAssigner", "DynamicSoftLabelAssigner"))
def test_dynamic_k_without_the_quirks(case):
    """Our defaults give other numbers only where in the reference objects take priors far from them."""
    priors, targets, predictions, _ = scene_of(case, read(case, "inputs"))
    assigner = assigner_of(case, match_outside=False, ignore_regions=True)

    box, point = targets.boxes[0], priors.centers[:, None]
    apart = (point - (box[:, :2] + box[:, 2:]) / 2) / priors.strides[:, None]
    inside = ((point > box[:, :2]) & (point < box[:, 2:])).all(2)
    if case["cls"] == "SimOTAAssigner":
        near_centre = (apart.abs() < assigner.center_radius).all(2)
    else:
        near_centre = apart.norm(dim=2) <= assigner.soft_center_radius
    assignment = assigner.assign(priors, targets, predictions)
    found = assignment.positive[0].nonzero()[:, 0]
    assert (inside | near_centre)[found, assignment.gt_index[0, found]].all()
    if case["cls"] == "SimOTAAssigner":
        enough = (inside & near_centre)[:, targets.matchable[0]].sum(0) >= assigner.candidate_topk
        if enough.all():  # no ground truth needs a last resort
            check(assignment, targets, case, quality_of(read(case, "outputs")))


@pytest.mark.parametrize("case", cases("TaskAlignedAssigner"))
def test_task_aligned(case):
    priors, targets, predictions, _ = scene_of(case, read(case, "inputs"))
    outputs = read(case, "outputs")
    iou, metric = outputs["max_overlaps"].clamp(min=0), outputs["assign_metrics"]
    for name, expected in (("iou", iou), ("metric", metric), ("soft_label", quality_of(outputs))):
        assignment = assigner_of(case, quality=name).assign(priors, targets, predictions)
        check(assignment, targets, case, expected)


@pytest.mark.parametrize("case", cases("TaskAlignedAssigner"))
def test_task_aligned_without_the_quirks(case):
    """Soft labels of ours reach the highest IoU, however small the metric is."""
    priors, targets, predictions, _ = scene_of(case, read(case, "inputs"))
    assignment = assigner_of(case, eps=0.0, ignore_regions=True).assign(priors, targets, predictions)
    check(assignment, targets, case)
    found = assignment.gt_index[0].masked_fill(~assignment.positive[0], -1)
    for gt in found[found >= 0].unique():
        mine = found == gt
        overlaps = pairwise_overlap(predictions.boxes[0, mine], targets.boxes[0, gt][None])
        near(assignment.quality[0, mine].max(), overlaps.max())


@pytest.mark.parametrize("quirks", [True, False])
@pytest.mark.parametrize("case", cases("HungarianAssigner"))
def test_hungarian(case, quirks):
    priors, targets, predictions, batch = scene_of(case, read(case, "inputs"))
    assigner = assigner_of(case) if quirks else assigner_of(case, ignore_iof_thr=0.5)
    assert assigner.needs == {"logits", "boxes", "batch"}
    check(assigner.assign(priors, targets, predictions, batch), targets, case)


@pytest.mark.parametrize("case", cases("HungarianAssigner.match_costs"))
def test_match_costs(case):
    _, targets, predictions, batch = scene_of(case, read(case, "inputs"))
    outputs = read(case, "outputs")
    costs = [part.cost(predictions, targets, batch)[0] for part in assigner_of(case).match_costs]
    for cost, expected in zip(costs, outputs["costs"], strict=True):
        near(cost, expected)
    near(sum(costs), outputs["total"])


def test_all_cases_are_there():
    for cls, count in COUNTS.items():
        assert len(cases(cls)) == count
