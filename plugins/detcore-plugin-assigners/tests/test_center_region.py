"""CenterRegionAssigner, against a plain loop over priors and ground truths."""

import pytest
import torch
from detcore_assigners import CenterRegionAssigner
from detcore_assigners.class_pairs import ClassPairs

from detcore.boxes import area, contains, pairwise_overlap
from detcore.errors import ConfigError
from detcore.structures import Priors, Targets

FSAF = {"pos_scale": 0.2, "neg_scale": 0.2}
VARIANTS = {
    "fsaf": FSAF,
    "shadow": {"pos_scale": 0.4, "neg_scale": 0.7},
    "dominate": {"pos_scale": 0.4, "neg_scale": 0.7, "foreground_dominate": True},
    "strict": {"pos_scale": 0.5, "neg_scale": 1.5, "min_pos_iof": 0.3},
    "no_regions": {"pos_scale": 0.4, "neg_scale": 0.7, "ignore_gt_scale": None},
}
variants = pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)


def scaled(boxes, scale):
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * scale
    return torch.cat((middle - half, middle + half), 1)


def by_loop(assigner, boxes, gts, labels, regions):
    """State, ground truth and (prior, class) pairs of one image: the definition, word for word."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    core = pairwise_overlap(boxes, scaled(gts, assigner.pos_scale), "iof") > assigner.min_pos_iof
    core &= contains(gts, centers)
    shadow = (pairwise_overlap(boxes, scaled(gts, assigner.neg_scale), "iof") > assigner.min_pos_iof) & ~core
    ignored = torch.zeros(len(boxes), dtype=torch.bool)
    if assigner.ignore_gt_scale is not None:
        ignored = contains(scaled(regions, assigner.ignore_gt_scale), centers).any(1)
    sizes = area(gts).tolist()
    state, gt, pairs = [-1 if i else 0 for i in ignored], [0] * len(boxes), set()
    for i in range(len(boxes)):
        inside = core[i].nonzero()[:, 0].tolist()
        winner = min(inside, key=lambda g: (sizes[g], -g), default=None)
        around = set(shadow[i].nonzero()[:, 0].tolist()) | (set(inside) - {winner})
        shadows = {int(labels[g]) for g in around}
        if winner is not None and state[i] == 0:
            if int(labels[winner]) not in shadows:
                state[i], gt[i] = 1, winner
            elif assigner.foreground_dominate:
                state[i], gt[i] = 1, winner
                shadows.remove(int(labels[winner]))
        pairs |= {(i, label) for label in shadows}
    return state, gt, pairs


@variants
def test_as_by_loop(arguments, priors, targets):
    assigner = CenterRegionAssigner(**arguments)
    assignment = assigner.assign(priors, targets)
    pairs = assignment.ignored_pairs
    for i in range(len(targets)):
        rows = targets.matchable[i].nonzero()[:, 0]
        regions = targets.boxes[i][targets.valid[i] & targets.ignore[i]]
        labels = targets.labels[i, rows]
        state, gt, shadows = by_loop(assigner, priors.boxes, targets.boxes[i, rows], labels, regions)
        assert assignment.state[i].tolist() == state
        wanted = [int(rows[g]) if s == 1 else 0 for s, g in zip(state, gt, strict=True)]
        assert assignment.gt_index[i].tolist() == wanted
        valid = pairs.valid[i]
        classes = targets.labels[i, pairs.gt[i, valid]]
        found = list(zip(pairs.prior[i, valid].tolist(), classes.tolist(), strict=True))
        assert set(found) == shadows
        assert len(found) == len(shadows)  # one pair per class


def scene(boxes, labels):
    return Targets.stack([{"boxes": torch.tensor(boxes), "labels": torch.tensor(labels)}])


CELL = Priors(torch.tensor([[8.0, 8.0, 12.0, 12.0]]), torch.ones(1, 2))
LARGE, SMALL = [0.0, 0.0, 20.0, 20.0], [5.0, 5.0, 15.0, 15.0]


@pytest.mark.parametrize("boxes", [[LARGE, SMALL], [SMALL, LARGE]])
def test_the_smaller_one_wins(boxes):
    assignment = CenterRegionAssigner(**FSAF).assign(CELL, scene(boxes, [0, 1]))
    assert boxes[assignment.gt_index.item()] == SMALL
    pairs = assignment.ignored_pairs
    assert (pairs.prior.tolist(), pairs.valid.tolist()) == ([[0]], [[True]])
    assert boxes[pairs.gt.item()] == LARGE


def test_of_equal_areas_the_last_wins():
    assignment = CenterRegionAssigner(**FSAF).assign(CELL, scene([LARGE] * 3, [0, 1, 2]))
    assert assignment.gt_index.item() == 2
    assert assignment.ignored_pairs.gt.tolist() == [[0, 1]]


def test_positive_and_shadowed_by_its_own_class():
    targets = scene([LARGE, SMALL], [1, 1])
    off = CenterRegionAssigner(**FSAF).assign(CELL, targets)
    assert off.state.item() == 0
    assert off.ignored_pairs.gt.tolist() == [[0]]
    stays = CenterRegionAssigner(**FSAF, foreground_dominate=True).assign(CELL, targets)
    assert (stays.state.item(), stays.gt_index.item()) == (1, 1)
    assert not stays.ignored_pairs.valid.any()


def test_pairs_are_padded_to_the_image_with_most():
    images = [
        {"boxes": torch.tensor(boxes), "labels": torch.arange(len(boxes))} for boxes in ([SMALL], [LARGE] * 3)
    ]
    pairs = CenterRegionAssigner(**FSAF).assign(CELL, Targets.stack(images)).ignored_pairs
    assert pairs.valid.tolist() == [[False, False], [True, True]]


def test_many_pairs():
    """More than there is room for at first, in slices: all of them are there."""
    pairs = ClassPairs(torch.arange(40).expand(2, -1))
    for start in range(0, 100, 10):
        pairs.add(torch.ones(2, 40, 10, dtype=torch.bool), start)
    found = pairs.stacked()
    assert found.valid.shape == (2, 4000)
    assert found.valid.all()
    for image in range(2):
        rows = zip(found.prior[image].tolist(), found.gt[image].tolist(), strict=True)
        assert set(rows) == {(prior, gt) for prior in range(100) for gt in range(40)}


def test_points_are_in_no_core():
    point = Priors(torch.tensor([[10.0, 10.0, 10.0, 10.0]]), torch.ones(1, 2))
    assert CenterRegionAssigner(**FSAF).assign(point, scene([LARGE], [0])).state.item() == 0


def test_errors():
    with pytest.raises(ConfigError, match=r"neg_scale should be at least pos_scale \(0.5\).*got 0.2"):
        CenterRegionAssigner(pos_scale=0.5, neg_scale=0.2)
    with pytest.raises(ConfigError, match=r"min_pos_iof: .*less than 1; got 1"):
        CenterRegionAssigner(**FSAF, min_pos_iof=1)
