"""Assigners that look at predictions, against the reference's numbers; built through the bridge."""

import pytest
import torch
from detcore_mmdet.parity.scenes import quality_of, scene_of
from detcore_mmdet.translation import translate

from detcore.boxes import contains
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


def check(assignment, targets, outputs):
    """Our tensors in the reference's words: gt_inds is 0 or i + 1."""
    state, index = assignment.state[0].long(), assignment.gt_index[0]
    assert torch.equal(torch.where(state == 1, index + 1, state), outputs["gt_inds"])
    assert torch.equal(torch.where(state == 1, targets.labels[0, index], -1), outputs["labels"])


def near(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", cases("SimOTAAssigner", "DynamicSoftLabelAssigner"))
def test_dynamic_k(case):
    priors, targets, predictions, _ = scene_of(case, read(case, "inputs"))
    assignment, outputs = assigner_of(case).assign(priors, targets, predictions), read(case, "outputs")
    check(assignment, targets, outputs)
    near(assignment.quality[0], outputs["max_overlaps"].clamp(min=0))


@pytest.mark.parametrize("case", cases("SimOTAAssigner", "DynamicSoftLabelAssigner"))
def test_dynamic_k_without_the_quirks(case):
    """Our defaults give other numbers only where in the reference objects take priors far from them."""
    priors, targets, predictions, _ = scene_of(case, read(case, "inputs"))
    outputs = read(case, "outputs")
    assigner = assigner_of(case, match_outside=False, ignore_regions=True)

    def fits(prior, gt):
        box = targets.boxes[0, gt]
        apart = (priors.centers[prior] - (box[:, :2] + box[:, 2:]) / 2).abs() / priors.strides[prior]
        inside = contains(box[:, None], priors.centers[prior][:, None])[:, 0, 0]
        if case["cls"] == "SimOTAAssigner":
            return inside | (apart < assigner.center_radius).all(1)
        return inside | (apart.norm(dim=1) <= assigner.soft_center_radius)

    assignment = assigner.assign(priors, targets, predictions)
    found = assignment.positive[0].nonzero()[:, 0]
    assert fits(found, assignment.gt_index[0, found]).all()
    expected = (outputs["gt_inds"] > 0).nonzero()[:, 0]
    everyone_takes_all = case["id"] == "assigners.simota.p3"  # nine objects, three priors
    if fits(expected, outputs["gt_inds"][expected] - 1).all() and not everyone_takes_all:
        check(assignment, targets, outputs)


@pytest.mark.parametrize("case", cases("TaskAlignedAssigner"))
def test_task_aligned(case):
    priors, targets, predictions, _ = scene_of(case, read(case, "inputs"))
    outputs = read(case, "outputs")
    iou, metric = outputs["max_overlaps"].clamp(min=0), outputs["assign_metrics"]
    for name, expected in (("iou", iou), ("metric", metric), ("soft_label", quality_of(outputs))):
        assignment = assigner_of(case, quality=name).assign(priors, targets, predictions)
        check(assignment, targets, outputs)
        near(assignment.quality[0], expected)


@pytest.mark.parametrize("case", cases("TaskAlignedAssigner"))
def test_task_aligned_without_the_quirks(case):
    """Soft labels of ours reach the highest IoU, however small the metric is."""
    priors, targets, predictions, _ = scene_of(case, read(case, "inputs"))
    assignment = assigner_of(case, eps=0.0, ignore_regions=True).assign(priors, targets, predictions)
    outputs = read(case, "outputs")
    check(assignment, targets, outputs)
    found = outputs["gt_inds"]
    for gt in found[found > 0].unique():
        near(assignment.quality[0, found == gt].max(), outputs["max_overlaps"][found == gt].max())


@pytest.mark.parametrize("quirks", [True, False])
@pytest.mark.parametrize("case", cases("HungarianAssigner"))
def test_hungarian(case, quirks):
    priors, targets, predictions, batch = scene_of(case, read(case, "inputs"))
    assigner = assigner_of(case) if quirks else assigner_of(case, ignore_iof_thr=0.5)
    assert assigner.needs == {"logits", "boxes", "batch"}
    check(assigner.assign(priors, targets, predictions, batch), targets, read(case, "outputs"))


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
