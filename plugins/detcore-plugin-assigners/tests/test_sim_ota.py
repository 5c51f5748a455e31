"""SimOTAAssigner, against a plain loop over images and ground truths."""

import pytest
import torch
from detcore_assigners import SimOTAAssigner
from torch.nn import functional as F

from detcore.boxes import pairwise_overlap
from detcore.errors import ConfigError
from detcore.structures import Predictions, Priors, Targets

VARIANTS = {
    "default": {},
    "narrow": {"center_radius": 0.8, "candidate_topk": 3},
    "weights": {"iou_weight": 0.5, "cls_weight": 2.0},
    "one": {"candidate_topk": 1},
    "everything": {"candidate_topk": 500, "center_radius": 100.0},
}
variants = pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)


def by_loop(assigner, priors, gts, labels, logits, boxes):
    """Ground truth of each prior of one image, or None: the definition, word for word, in float64."""
    count, rows = len(priors), len(gts)
    centers, strides, logits = priors.centers.double(), priors.strides.double(), logits.double()
    overlap = pairwise_overlap(boxes.double(), gts.double())
    cost, allowed = torch.zeros(count, rows), torch.zeros(count, rows, dtype=torch.bool)
    cost = cost.double()
    for n in range(count):
        for m in range(rows):
            x1, y1, x2, y2 = gts[m].double()
            (x, y), (sx, sy) = centers[n], strides[n]
            inside = x1 < x < x2 and y1 < y < y2
            near = abs(x - (x1 + x2) / 2) < assigner.center_radius * sx
            near = near and abs(y - (y1 + y2) / 2) < assigner.center_radius * sy
            allowed[n, m] = bool(inside or near)
            label = F.one_hot(labels[m], logits.shape[1]).double()
            classes = F.binary_cross_entropy_with_logits(logits[n], label, reduction="sum")
            cost[n, m] = assigner.cls_weight * classes - assigner.iou_weight * (overlap[n, m] + 1e-7).log()
            cost[n, m] += 0 if inside and near else 1e5
    candidates = allowed.any(1).nonzero()[:, 0].tolist()
    takers = {n: [] for n in candidates}
    for m in range(rows):
        best = sorted((overlap[n, m].item() for n in candidates), reverse=True)[: assigner.candidate_topk]
        k = max(1, int(sum(best)))
        for n in sorted((n for n in candidates if allowed[n, m]), key=lambda n: cost[n, m].item())[:k]:
            takers[n].append(m)
    result = [None] * count
    for n, rows_of_n in takers.items():
        if len(rows_of_n) == 1:
            result[n] = rows_of_n[0]
        elif rows_of_n:
            result[n] = cost[n].masked_fill(~allowed[n], torch.inf).argmin().item()
    return result


@variants
def test_as_by_loop(arguments, grid, targets, predicted):
    assigner, priors = SimOTAAssigner(**arguments), grid(((8, 6, 1, 8), (4, 3, 1, 16)))
    predictions = predicted(priors, targets)
    assignment = assigner.assign(priors, targets, predictions)
    for i in (0, 2, 4):
        rows = (targets.valid & ~targets.ignore)[i].nonzero()[:, 0]
        ignored = targets.boxes[i][targets.valid[i] & targets.ignore[i]]
        x, y = priors.centers.unbind(1)
        outside = torch.tensor(
            [not any(r[0] < a < r[2] and r[1] < b < r[3] for r in ignored) for a, b in zip(x, y, strict=True)]
        )
        part = Priors(priors.boxes[outside], priors.strides[outside])
        gts, labels = targets.boxes[i, rows], targets.labels[i, rows]
        values = predictions.logits[i, outside], predictions.boxes[i, outside]
        expected = by_loop(assigner, part, gts, labels, *values)
        assert (assignment.state[i, ~outside] == -1).all()
        assert assignment.state[i, outside].tolist() == [int(row is not None) for row in expected]
        index = [0 if row is None else int(rows[row]) for row in expected]
        assert assignment.gt_index[i, outside].tolist() == index
        overlap = pairwise_overlap(values[1], targets.boxes[i])
        quality = [0.0 if r is None else overlap[n, rows[r]] for n, r in enumerate(expected)]
        torch.testing.assert_close(assignment.quality[i, outside], torch.tensor(quality))


def test_scores_stand_for_logits(priors, targets, predictions, same):
    """Heads with objectness give probabilities; the logits are not looked at then."""
    both = Predictions(
        torch.full_like(predictions.logits, torch.nan), predictions.boxes, scores=predictions.logits.sigmoid()
    )
    same(
        SimOTAAssigner().assign(priors, targets, both), SimOTAAssigner().assign(priors, targets, predictions)
    )


def test_certain_scores_cost_what_is_finite():
    priors = Priors(torch.tensor([[8.0, 8.0, 8.0, 8.0]] * 2), torch.full((2, 2), 8.0))
    targets = Targets.stack([{"boxes": torch.tensor([[0.0, 0.0, 16.0, 16.0]]), "labels": torch.tensor([0])}])
    scores = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    boxes = torch.tensor([[[0.0, 0.0, 16.0, 16.0]] * 2])
    assignment = SimOTAAssigner(candidate_topk=1).assign(
        priors, targets, Predictions(scores, boxes, scores=scores)
    )
    assert assignment.state.tolist() == [[0, 1]]


def test_a_ground_truth_far_away_takes_nothing(priors, predicted):
    """The reference gives it a prior of another object; that is behind a switch."""
    boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0], [900.0, 900.0, 940.0, 960.0]])
    targets = Targets.stack([{"boxes": boxes, "labels": torch.tensor([0, 1])}])
    predictions = predicted(priors, targets)
    for switch in (False, True):
        assignment = SimOTAAssigner(match_outside=switch).assign(priors, targets, predictions)
        assert (assignment.gt_index == 1).any() == switch


def test_equal_costs_go_to_the_first():
    """Of equal priors the first, of equal ground truths the first; one without is left without."""
    priors = Priors(torch.tensor([[8.0, 8.0, 8.0, 8.0]] * 3), torch.full((3, 2), 8.0))
    boxes = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    predictions = Predictions(torch.zeros(1, 3, 2), boxes.expand(1, 3, 4))
    one = Targets.stack([{"boxes": boxes, "labels": torch.tensor([0])}])
    assigner = SimOTAAssigner(candidate_topk=2)
    assert assigner.assign(priors, one, predictions).state.tolist() == [[1, 1, 0]]
    twins = Targets.stack([{"boxes": boxes.repeat(2, 1), "labels": torch.tensor([0, 0])}])
    assignment = assigner.assign(priors, twins, predictions)
    assert assignment.state.tolist() == [[1, 1, 0]]
    assert assignment.gt_index.tolist() == [[0, 0, 0]]


def test_errors():
    with pytest.raises(ConfigError, match=r"candidate_topk: .*greater than or equal to 1; got 0"):
        SimOTAAssigner(candidate_topk=0)
    with pytest.raises(ConfigError, match=r"center_radius: .*greater than 0; got 0"):
        SimOTAAssigner(center_radius=0)
    with pytest.raises(ConfigError, match=r"iou_weight: .*greater than or equal to 0; got -1"):
        SimOTAAssigner(iou_weight=-1)
