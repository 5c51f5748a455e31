"""HungarianAssigner and the matching behind it, against trying every matching there is."""

import itertools
import math

import numpy as np
import pytest
import torch
from detcore_assigners import (
    BBoxL1Cost,
    ClassificationCost,
    CrossEntropyLossCost,
    DiceCost,
    HungarianAssigner,
    IoUCost,
    MatchCost,
)
from detcore_assigners.matching import cheapest_matching

from detcore.errors import ConfigError
from detcore.structures import ImageBatch, Predictions, Priors, Targets


class GivenCost(MatchCost):
    """Costs that are read off the logits: prediction n costs ``logits[n, m]`` with ground truth m."""

    needs = frozenset({"logits"})

    def cost(self, predictions, targets, batch=None):
        return predictions.logits[..., : targets.boxes.shape[1]]


def given(costs, ignore=(), valid=None, **arguments):
    """The assignment for a matrix of costs [N, M]."""
    costs = torch.as_tensor(costs, dtype=torch.float32)
    count, rows = costs.shape
    flags = torch.tensor([m in ignore for m in range(rows)])
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]]).expand(rows, 4)
    targets = Targets.stack([{"boxes": boxes, "labels": torch.zeros(rows).long(), "ignore": flags}])
    priors = Priors(torch.zeros(count, 4), torch.ones(count, 2), valid=valid)
    predictions = Predictions(costs[None], torch.full((1, count, 4), 99.0))
    return HungarianAssigner(match_costs=(GivenCost(),), **arguments).assign(priors, targets, predictions)


def best_total(costs):
    """Most pairs of finite cost, then their lowest total: by trying every matching."""
    count, rows = costs.shape
    if count > rows:
        return best_total(costs.T)
    return min(
        (-sum(math.isfinite(v) for v in values), sum(v for v in values if math.isfinite(v)))
        for values in (
            [costs[n, m] for n, m in enumerate(order)] for order in itertools.permutations(range(rows), count)
        )
    )


@pytest.mark.parametrize("holes", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (1, 6), (6, 1)])
def test_cheapest_of_all_matchings(shape, holes):
    random = np.random.RandomState(0)
    for _ in range(10):
        costs = random.randn(*shape) * 10
        costs[random.rand(*shape) < holes] = random.choice([np.nan, np.inf, -np.inf])
        rows, columns = cheapest_matching(costs)
        assert len(set(rows.tolist())) == len(set(columns.tolist())) == len(rows)
        pairs, total = best_total(costs)
        assert len(rows) == -pairs
        assert costs[rows, columns].sum() == pytest.approx(total)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_nothing_to_match(shape):
    assert [len(side) for side in cheapest_matching(np.zeros(shape))] == [0, 0]


def test_one_each():
    assignment = given([[5.0, 1.0], [2.0, 0.0], [9.0, 9.0]])
    assert assignment.state.tolist() == [[1, 1, 0]]
    assert assignment.gt_index.tolist() == [[1, 0, 0]]  # 1 + 2, not 0 + 5


def test_fewer_predictions_than_ground_truths():
    assignment = given([[3.0, 1.0, 2.0], [3.0, 1.0, 5.0]])
    assert assignment.state.tolist() == [[1, 1]]
    assert assignment.gt_index.tolist() == [[2, 1]]


def test_rows_to_ignore_and_invalid_predictions_are_never_matched():
    costs = [[0.0, 5.0], [0.0, 1.0], [0.0, 3.0]]
    assert given(costs, ignore={0}).state.tolist() == [[0, 1, 0]]
    valid = torch.tensor([[True, False, True]])
    assignment = given(costs, ignore={0}, valid=valid)
    assert assignment.state.tolist() == [[0, -1, 1]]
    assert assignment.gt_index.tolist() == [[0, 0, 1]]


def test_costs_that_are_not_finite_are_no_matches():
    nan, inf = math.nan, math.inf
    assignment = given([[nan, 1.0], [nan, 2.0], [nan, inf]])
    assert assignment.state.tolist() == [[1, 0, 0]]
    assert assignment.gt_index.tolist() == [[1, 0, 0]]
    assert given([[nan, inf], [-inf, nan]]).state.tolist() == [[0, 0]]
    # the most pairs first: prediction 0 gives way although it is cheaper for ground truth 0
    assert given([[0.0, 50.0], [90.0, inf]]).gt_index.tolist() == [[1, 0]]


def test_regions_take_unmatched_predictions():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 40.0, 40.0]])
    image = {"boxes": boxes, "labels": torch.zeros(2).long(), "ignore": torch.tensor([False, True])}
    predicted = torch.tensor([[[0.0, 0.0, 10.0, 9.0], [5.0, 5.0, 30.0, 30.0], [60.0, 60.0, 70.0, 70.0]]])
    predictions = Predictions(torch.zeros(1, 3, 1), predicted)
    priors, targets = Priors(torch.zeros(3, 4), torch.ones(3, 2)), Targets.stack([image])
    for threshold, expected in ((0.5, [1, -1, 0]), (None, [1, 0, 0]), (-1, [1, 0, 0])):
        assigner = HungarianAssigner(match_costs=(IoUCost(),), ignore_iof_thr=threshold)
        assignment = assigner.assign(priors, targets, predictions)
        assert assignment.state.tolist() == [expected]
        torch.testing.assert_close(assignment.quality, torch.tensor([[0.9, 0.0, 0.0]]))


def test_the_total_of_all_costs_counts(priors, targets, predictions):
    batch = ImageBatch.of(torch.zeros(5, 3, 48, 64))
    parts = (ClassificationCost(weight=2.0), BBoxL1Cost(weight=5.0), IoUCost())
    total = sum(part.cost(predictions, targets, batch) for part in parts)
    assignment = HungarianAssigner(match_costs=parts).assign(priors, targets, predictions, batch)
    for i in range(5):
        rows = targets.matchable[i].nonzero()[:, 0]
        n, m = cheapest_matching(total[i][:, rows].double().numpy())
        assert assignment.positive[i].nonzero()[:, 0].tolist() == n.tolist()
        assert assignment.gt_index[i, n].tolist() == rows[m].tolist()


def test_masks_alone():
    """What a mask classifier needs: every mask finds its own, images without objects have none."""
    masks = torch.zeros(3, 16, 16, dtype=torch.bool)
    masks[0, :8], masks[1, 8:], masks[2, :, 8:] = True, True, True
    boxes = torch.tensor([[0.0, 0.0, 16.0, 8.0], [0.0, 8.0, 16.0, 16.0], [8.0, 0.0, 16.0, 16.0]])
    full = {"boxes": boxes, "labels": torch.arange(3), "masks": masks}
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()}
    targets = Targets.stack([full, none])
    order = [2, 0, 1]
    logits = torch.nn.functional.interpolate(masks[order].float()[None], size=(4, 4)) * 8 - 4
    predictions = Predictions(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), logits.expand(2, -1, -1, -1))
    priors = Priors(torch.zeros(3, 4), torch.ones(3, 2))
    assigner = HungarianAssigner(
        match_costs=(CrossEntropyLossCost.spec(weight=5.0), DiceCost.spec(weight=5.0))
    )
    assert assigner.needs == {"boxes", "masks"}
    assignment = assigner.assign(priors, targets, predictions)
    assert assignment.gt_index[0].tolist() == order
    assert assignment.state.tolist() == [[1, 1, 1], [0, 0, 0]]
    assert not assigner.assign(priors, Targets.stack([none] * 2), predictions).positive.any()


def test_needs():
    assert HungarianAssigner(match_costs=(ClassificationCost(),)).needs == {"logits", "boxes"}
    assert HungarianAssigner(match_costs=(BBoxL1Cost(), IoUCost())).needs == {"boxes", "batch"}


def test_errors(priors, targets, predictions):
    with pytest.raises(ConfigError, match="match_costs should name at least one cost, got none; add"):
        HungarianAssigner(match_costs=())
    with pytest.raises(ConfigError, match=r"match_costs.0.*expected a MatchCost"):
        HungarianAssigner(match_costs=("IoUCost",))
    assigner = HungarianAssigner(match_costs=(BBoxL1Cost(),))
    with pytest.raises(ValueError, match="BBoxL1Cost measures in parts of the image, got batch=None"):
        assigner.assign(priors, targets, predictions)
    few = Priors(priors.boxes[:5], priors.strides[:5])
    with pytest.raises(ValueError, match=r"one for each of the 192 predictions, got 5"):
        assigner.assign(few, targets, predictions, ImageBatch.of(torch.zeros(5, 3, 48, 64)))
