"""PointAssigner, against a plain loop over ground truths."""

import math

import pytest
import torch
from detcore_assigners import PointAssigner

from detcore.errors import ConfigError
from detcore.structures import PriorLevel, Priors, Targets

VARIANTS = {"default": {}, "one": {"scale": 2, "pos_num": 1}, "many": {"scale": 1.5, "pos_num": 20}}
variants = pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)


def by_loop(assigner, priors, boxes, part):
    """Ground truth of each point of one image, or -1: the definition, word for word."""
    exponent = [int(math.log2(s)) for s in priors.strides[:, 0].tolist()]
    found = {}
    for g, box in enumerate(boxes):
        size = (box[2:] - box[:2]).clamp(min=1e-6)
        wanted = int(torch.log2(size / assigner.scale).sum() / 2)
        level = min(sorted(set(exponent)), key=lambda e: abs(e - wanted))
        apart = ((priors.centers - (box[:2] + box[2:]) / 2) / size).square().sum(1).sqrt().tolist()
        here = [i for i in range(len(priors)) if exponent[i] == level and part[i]]
        for i in sorted(here, key=lambda i: (apart[i], i))[: assigner.pos_num]:
            if i not in found or apart[i] < found[i][0]:
                found[i] = (apart[i], g)
    return [found[i][1] if i in found else -1 for i in range(len(priors))]


@variants
def test_as_by_loop(arguments, priors, targets):
    assigner = PointAssigner(**arguments, ignore_gt_scale=None)
    valid = torch.rand(len(targets), len(priors), generator=torch.Generator().manual_seed(0)) > 0.2
    assignment = assigner.assign(priors.replace(valid=valid), targets)
    for i in range(len(targets)):
        rows = targets.matchable[i].nonzero()[:, 0]
        found = by_loop(assigner, priors, targets.boxes[i, rows], valid[i])
        state = [1 if g >= 0 else 0 if v else -1 for g, v in zip(found, valid[i], strict=True)]
        assert assignment.state[i].tolist() == state
        assert assignment.gt_index[i].tolist() == [int(rows[g]) if g >= 0 else 0 for g in found]
        assert assignment.quality[i].tolist() == [float(s == 1) for s in state]


def points(*levels):
    """(stride, [x, ...]) of each level, all at y = 0."""
    xs = torch.tensor([float(x) for _, level in levels for x in level])
    boxes = torch.stack((xs, torch.zeros_like(xs)), 1).repeat(1, 2)
    strides = torch.cat([torch.full((len(level), 2), float(s)) for s, level in levels])
    grid = tuple(PriorLevel(1, len(level), 1, (float(s), float(s))) for s, level in levels)
    return Priors(boxes, strides, grid)


def objects(*boxes):
    return Targets.stack([{"boxes": torch.tensor(boxes), "labels": torch.arange(len(boxes))}])


@pytest.mark.parametrize(("side", "level"), [(4, 0), (32, 0), (63, 0), (64, 1), (127, 1), (500, 1)])
def test_the_level_follows_the_size(side, level):
    priors = points((8, [0]), (16, [0]))
    box = [-side / 2, -side / 2, side / 2, side / 2]
    assert PointAssigner().assign(priors, objects(box)).positive[0].nonzero().tolist() == [[level]]


def test_a_level_that_does_not_exist_is_replaced_by_the_nearest_finer_one():
    """The reference finds no points there, and fails."""
    priors = points((8, [0]), (32, [0]))
    assert PointAssigner().assign(priors, objects([-32.0, -32.0, 32.0, 32.0])).state.tolist() == [[1, 0]]


def test_distances_count_in_the_size_of_the_ground_truth():
    """Nearer to the small one in pixels, to the large one in widths."""
    priors = points((8, [20]))
    small, large = [14.0, -8.0, 18.0, 8.0], [0.0, -30.0, 60.0, 30.0]
    assert PointAssigner(pos_num=1).assign(priors, objects(small, large)).gt_index.item() == 1
    assert PointAssigner(pos_num=1).assign(priors, objects(large, small)).gt_index.item() == 0


def test_ties_go_to_the_first():
    priors = points((8, [-4, 4, 40]))
    box = [-8.0, -8.0, 8.0, 8.0]
    assignment = PointAssigner(pos_num=1).assign(priors, objects(box, box))
    assert assignment.state.tolist() == [[1, 0, 0]]
    assert assignment.gt_index.tolist() == [[0, 0, 0]]
    any_of_them = PointAssigner(pos_num=1, first_of_equals=False).assign(priors, objects(box))
    assert any_of_them.positive.sum() == 1
    assert not any_of_them.positive[0, 2]


def test_levels_of_one_stride_are_one():
    priors = points((8, [0, 100]), (8, [1, 2]))
    assert PointAssigner(pos_num=2).assign(priors, objects([-8.0, -8.0, 8.0, 8.0])).state.tolist() == [
        [1, 0, 1, 0]
    ]


def test_fewer_points_than_wanted():
    assert PointAssigner(pos_num=9).assign(points((8, [0, 8])), objects([0.0, 0.0, 9.0, 9.0])).positive.all()


def test_regions_to_ignore():
    priors = points((8, [0, 8, 16, 24]))
    region = {"boxes": torch.tensor([[4.0, -9.0, 20.0, 9.0]]), "labels": torch.tensor([0])}
    targets = Targets.stack([{**region, "ignore": torch.tensor([True])}])
    assert PointAssigner().assign(priors, targets).state.tolist() == [[0, -1, -1, 0]]
    assert PointAssigner(ignore_gt_scale=0.25).assign(priors, targets).state.tolist() == [[0, 0, 0, 0]]
    assert PointAssigner(ignore_gt_scale=None).assign(priors, targets).state.tolist() == [[0, 0, 0, 0]]


def test_errors(priors, targets):
    with pytest.raises(
        ValueError, match=r"PointAssigner works level by level: priors.levels should describe all"
    ):
        PointAssigner().assign(priors.replace(levels=()), targets)
    with pytest.raises(ConfigError, match=r"pos_num: .*greater than or equal to 1; got 0"):
        PointAssigner(pos_num=0)
    with pytest.raises(ConfigError, match=r"scale: .*greater than 0; got 0"):
        PointAssigner(scale=0)
