"""DynamicSoftLabelAssigner, against a plain loop over images and ground truths."""

import pytest
import torch
from detcore_assigners import DynamicSoftLabelAssigner
from torch.nn import functional as F

from detcore.boxes import pairwise_overlap
from detcore.errors import ConfigError
from detcore.structures import Predictions, Priors, Targets

VARIANTS = {
    "default": {},
    "topk5": {"topk": 5, "soft_center_radius": 1.5, "iou_weight": 1.0},
    "one": {"topk": 1},
    "outside": {"match_outside": True},
    "at_the_centre": {"soft_center_radius": 0.0},
}
variants = pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)


def by_loop(assigner, priors, gts, labels, logits, boxes):
    """Ground truth of each prior of one image, or None: the definition, word for word, in float64."""
    centers, logits, gts = priors.centers.double(), logits.double(), gts.double()
    overlap = pairwise_overlap(boxes.double(), gts)
    inside, cost = torch.zeros(overlap.shape, dtype=torch.bool), torch.zeros_like(overlap)
    distance = torch.zeros_like(overlap)
    for n, center in enumerate(centers):
        for m, gt in enumerate(gts):
            inside[n, m] = bool((center > gt[:2]).all() and (center < gt[2:]).all())
            distance[n, m] = (center - (gt[:2] + gt[2:]) / 2).norm() / priors.strides[n, 0]
            label = F.one_hot(labels[m], logits.shape[1]).double() * overlap[n, m]
            entropy = F.binary_cross_entropy_with_logits(logits[n], label, reduction="none")
            cost[n, m] = (entropy * (label - logits[n].sigmoid()).square()).sum()
            cost[n, m] -= assigner.iou_weight * (overlap[n, m] + 1e-7).log()
            cost[n, m] += 10.0 ** (distance[n, m] - assigner.soft_center_radius)
    allowed = inside | (distance <= assigner.soft_center_radius) | assigner.match_outside
    candidates = inside.any(1).nonzero()[:, 0].tolist()
    takers = {n: [] for n in candidates}
    for m in range(len(gts)):
        best = sorted((overlap[n, m].item() for n in candidates), reverse=True)[: assigner.topk]
        k = max(1, int(sum(best)))
        for n in sorted((n for n in candidates if allowed[n, m]), key=lambda n: cost[n, m].item())[:k]:
            takers[n].append(m)
    result = [None] * len(priors)
    for n, rows in takers.items():
        if len(rows) == 1:
            result[n] = rows[0]
        elif rows:
            result[n] = cost[n].masked_fill(~allowed[n], torch.inf).argmin().item()
    return result


@variants
def test_as_by_loop(arguments, grid, image, predicted):
    assigner, priors = DynamicSoftLabelAssigner(**arguments), grid(((8, 6, 1, 8), (4, 3, 1, 16)))
    targets = Targets.stack([image(count, seed=count) for count in (7, 1, 0, 4)])
    predictions = predicted(priors, targets)
    assignment = assigner.assign(priors, targets, predictions)
    for i, rows in enumerate(targets.valid.sum(1).tolist()):
        gts, labels = targets.boxes[i, :rows], targets.labels[i, :rows]
        expected = by_loop(assigner, priors, gts, labels, predictions.logits[i], predictions.boxes[i])
        assert assignment.state[i].tolist() == [int(row is not None) for row in expected]
        assert assignment.gt_index[i].tolist() == [row or 0 for row in expected]
        overlap = pairwise_overlap(predictions.boxes[i], targets.boxes[i])
        quality = [0.0 if row is None else overlap[n, row] for n, row in enumerate(expected)]
        torch.testing.assert_close(assignment.quality[i], torch.tensor(quality))


def test_a_ground_truth_far_away_takes_nothing(priors, predicted):
    """The reference gives it a prior of another object; that is behind a switch."""
    boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0], [900.0, 900.0, 940.0, 960.0]])
    targets = Targets.stack([{"boxes": boxes, "labels": torch.tensor([0, 1])}])
    predictions = predicted(priors, targets)
    for switch in (False, True):
        assignment = DynamicSoftLabelAssigner(match_outside=switch).assign(priors, targets, predictions)
        assert (assignment.gt_index == 1).any() == switch
        assert assignment.quality.isfinite().all()


def test_the_centre_is_preferred():
    """Two equal predictions: the prior at the centre is taken, wherever it stands."""
    points = torch.tensor([[20.0, 20.0], [60.0, 60.0], [50.0, 50.0], [70.0, 70.0]])
    priors = Priors(points.repeat(1, 2), torch.full((4, 2), 8.0))
    box = torch.tensor([[0.0, 0.0, 100.0, 100.0]])
    targets = Targets.stack([{"boxes": box, "labels": torch.tensor([0])}])
    predictions = Predictions(torch.zeros(1, 4, 3), box.expand(1, 4, 4))
    assignment = DynamicSoftLabelAssigner(topk=2).assign(priors, targets, predictions)
    assert assignment.state.tolist() == [[0, 1, 1, 0]]
    assert DynamicSoftLabelAssigner(topk=1).assign(priors, targets, predictions).state.tolist() == [
        [0, 0, 1, 0]
    ]


def test_distance_counts_in_strides_of_each_axis():
    points = torch.tensor([[50.0, 74.0], [74.0, 50.0]])
    priors = Priors(points.repeat(1, 2), torch.tensor([[8.0, 16.0], [8.0, 16.0]]))
    box = torch.tensor([[0.0, 0.0, 100.0, 100.0]])
    targets = Targets.stack([{"boxes": box, "labels": torch.tensor([0])}])
    predictions = Predictions(torch.zeros(1, 2, 3), box.expand(1, 2, 4))
    assert DynamicSoftLabelAssigner(topk=1).assign(priors, targets, predictions).state.tolist() == [[1, 0]]


def test_errors():
    with pytest.raises(ConfigError, match=r"topk: .*greater than or equal to 1; got 0"):
        DynamicSoftLabelAssigner(topk=0)
    with pytest.raises(ConfigError, match=r"soft_center_radius: .*greater than or equal to 0; got -1"):
        DynamicSoftLabelAssigner(soft_center_radius=-1)
    with pytest.raises(ConfigError, match="unknown parameter 'candidate_topk'"):
        DynamicSoftLabelAssigner(candidate_topk=10)
