"""ApproxMaxIoUAssigner: MaxIoUAssigner on the best IoU of each group of boxes."""

import pytest
import torch
from detcore_assigners import ApproxMaxIoUAssigner, MaxIoUAssigner
from detcore_assigners.groups import GroupSearch
from detcore_assigners.overlaps import DenseSearch

from detcore.boxes import pairwise_overlap
from detcore.errors import ConfigError
from detcore.structures import ApproxPriors

RETINA = {"pos_iou_thr": 0.5, "neg_iou_thr": 0.4}
VARIANTS = {
    "retina": RETINA,
    "rpn": {"pos_iou_thr": 0.7, "neg_iou_thr": 0.3, "min_pos_iou": 0.3},
    "range": {"pos_iou_thr": 0.5, "neg_iou_thr": (0.1, 0.4), "match_low_quality": False},
    "first": {**RETINA, "gt_max_assign_all": False},
    "reference": {**RETINA, "match_without_overlap": True},
}
variants = pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)


def grouped(priors, size=3):
    noise = torch.randint(-3, 4, (len(priors), size, 4), generator=torch.Generator().manual_seed(0))
    approxs = priors.boxes[:, None] + noise
    return ApproxPriors(priors.boxes, priors.strides, priors.levels, approxs=approxs)


@variants
@pytest.mark.parametrize("levels", [True, False])
def test_as_max_iou_of_the_best_overlaps(arguments, levels, priors, targets, same):
    priors = grouped(priors if levels else priors.replace(levels=()))
    valid = torch.rand(len(targets), len(priors), generator=torch.Generator().manual_seed(0)) > 0.2
    assigner = ApproxMaxIoUAssigner(**arguments, ignore_iof_thr=None)
    iou = pairwise_overlap(targets.boxes, priors.approxs.flatten(0, 1)).unflatten(2, (len(priors), -1))
    wanted = MaxIoUAssigner(**arguments).assign_overlaps(iou.amax(3), targets.matchable, valid)
    same(assigner.assign(priors.replace(valid=valid), targets), wanted)


@variants
def test_one_box_each_is_max_iou(arguments, priors, targets, same):
    """With the priors themselves as approximating boxes, regions to ignore included."""
    alone = ApproxPriors(priors.boxes, priors.strides, priors.levels, approxs=priors.boxes[:, None])
    for extra in ({}, {"ignore_wrt_candidates": False}, {"ignore_in_empty_images": False}):
        wanted = MaxIoUAssigner(**arguments, **extra).assign(priors, targets)
        same(ApproxMaxIoUAssigner(**arguments, **extra).assign(alone, targets), wanted)


def test_a_prior_is_positive_by_its_best_box():
    square = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    wide = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [-5.0, 2.5, 15.0, 7.5]]])
    gt = torch.tensor([[[-5.0, 2.5, 15.0, 7.5]]])
    search = GroupSearch(DenseSearch.of_boxes(gt, wide.flatten(0, 1)[None]), 2)
    best = search.best()
    assert best.prior_iou.tolist() == [[1.0]]
    assert best.row_iou.tolist() == [[1.0]]
    assert search.first_priors(best.row_iou).tolist() == [[0]]
    assert pairwise_overlap(gt[0], square).item() < 0.5


def test_priors_need_approximating_boxes(priors, targets):
    n = len(priors)
    with pytest.raises(
        ValueError, match=rf"ApproxPriors with approxs \[{n}, A, 4\].*got None; .*MaxIoUAssigner"
    ):
        ApproxMaxIoUAssigner(**RETINA).assign(priors, targets)
    few = ApproxPriors(priors.boxes, priors.strides, approxs=torch.zeros(n - 1, 3, 4))
    with pytest.raises(ValueError, match=rf"got \[{n - 1}, 3, 4\]"):
        ApproxMaxIoUAssigner(**RETINA).assign(few, targets)
    with pytest.raises(ValueError, match=rf"A at least 1; got \[{n}, 0, 4\]"):
        ApproxMaxIoUAssigner(**RETINA).assign(few.replace(approxs=torch.zeros(n, 0, 4)), targets)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pos_iou_thr": 0.5, "neg_iou_thr": 0.6}, r"neg_iou_thr .*low <= high <= pos_iou_thr \(0.5\)"),
        ({"pos_iou_thr": 0.5}, "neg_iou_thr: required parameter"),
        ({**RETINA, "min_pos_iou": 2}, "min_pos_iou: .*less than or equal to 1; got 2"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ApproxMaxIoUAssigner(**arguments)
