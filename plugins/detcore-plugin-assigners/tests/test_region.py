"""RegionAssigner, against a plain loop over priors and ground truths."""

import pytest
import torch
from detcore_assigners import RegionAssigner

from detcore.boxes import area
from detcore.errors import ConfigError
from detcore.structures import Targets

VARIANTS = {
    "default": {},
    "wide": {"center_ratio": 0.5, "ignore_ratio": 0.9},
    "reference": {"sequential": True},
    "wide_reference": {"center_ratio": 0.5, "ignore_ratio": 0.9, "sequential": True},
    "inside_out": {"center_ratio": 0.9, "ignore_ratio": 0.3},
    "inside_out_reference": {"center_ratio": 0.9, "ignore_ratio": 0.3, "sequential": True},
}
variants = pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)


@pytest.fixture
def squares(grid):
    return grid(((12, 10, 1, 8), (6, 5, 1, 16), (3, 3, 1, 32)))


def within(box, ratio, level, center):
    """Whether a centre, in cells, is in the region of a box."""
    margin = (1 - ratio) / 2
    stride = torch.tensor([*level.stride, *level.stride])
    b, limit = box / stride, torch.tensor([level.w, level.h]).float()
    low = ((1 - margin) * b[:2] + margin * b[2:]).round().clamp(min=0).minimum(limit)
    high = (margin * b[:2] + (1 - margin) * b[2:]).round().clamp(min=0).minimum(limit)
    return bool(((center >= low) & (center <= high)).all())


def by_loop(assigner, priors, gts):
    """State and ground truth of each prior of one image: the definition, word for word."""
    base, n_levels = area(priors.boxes[:1]).sqrt(), len(priors.levels)
    own = [int(((area(g) ** 0.5).log2() - base.log2() + 0.5).floor().clamp(0, n_levels - 1)) for g in gts]
    result, first = [], 0
    for number, level in enumerate(priors.levels):
        for i in range(first, first + level.count):
            center = priors.centers[i] / torch.tensor(level.stride)
            central = [g for g, box in enumerate(gts) if within(box, assigner.center_ratio, level, center)]
            around = [g for g, box in enumerate(gts) if within(box, assigner.ignore_ratio, level, center)]
            here = [g for g in central if own[g] == number]
            beside = any(abs(own[g] - number) == 1 for g in around)
            if assigner.sequential:
                state, gt = 0, 0
                for g in (g for g in range(len(gts)) if own[g] == number):
                    state, gt = (-1, 0) if g in around else (state, gt)
                    state, gt = (1, g) if g in central else (state, gt)
                result.append((-1, 0) if beside else (state, gt))
            elif here:
                result.append((1, min(here, key=lambda g: (area(gts[g]).item(), g))))
            else:
                ignored = beside or any(own[g] == number for g in around)
                result.append((-1 if ignored else 0, 0))
        first += level.count
    return result


@variants
@pytest.mark.parametrize("seed", [1, 2])
def test_as_by_loop(arguments, seed, squares, image):
    targets = Targets.stack([image(8, 2, seed=seed), image(3, seed=seed + 10)])
    assigner = RegionAssigner(**arguments, ignore_iof_thr=None)
    assignment = assigner.assign(squares, targets)
    for i in range(2):
        rows = targets.matchable[i].nonzero()[:, 0]
        expected = by_loop(assigner, squares, targets.boxes[i, rows])
        assert assignment.state[i].tolist() == [s for s, _ in expected]
        assert assignment.gt_index[i].tolist() == [int(rows[g]) if s == 1 else 0 for s, g in expected]
        assert assignment.quality[i].tolist() == [float(s == 1) for s, _ in expected]


def objects(*boxes):
    return Targets.stack([{"boxes": torch.tensor(boxes), "labels": torch.arange(len(boxes))}])


def counts(squares, assignment, sort):
    """Priors per level of a sort."""
    flags = torch.split(assignment.state[0] == sort, [level.count for level in squares.levels])
    return [int(f.sum()) for f in flags]


@pytest.mark.parametrize(("side", "level"), [(2, 0), (16, 0), (22, 0), (24, 1), (45, 1), (46, 2), (900, 2)])
def test_the_level_follows_the_size_of_the_priors(side, level, squares):
    """The first prior is 16 pixels wide; the limits are its powers of two times the root of two."""
    box = [32.0 - side / 2, 32.0 - side / 2, 32.0 + side / 2, 32.0 + side / 2]
    positives = counts(squares, RegionAssigner().assign(squares, objects(box)), 1)
    assert [n > 0 for n in positives] == [i == level for i in range(3)]


def test_neighbouring_levels_are_ignored_others_are_not(squares):
    low = RegionAssigner().assign(squares, objects([24.0, 24.0, 40.0, 40.0]))
    ignored = counts(squares, low, -1)
    assert ignored[1] > 0
    assert ignored[2] == 0


def test_positives_are_not_wiped_by_others(squares):
    """A small one, and a larger one on the next level around it; in the reference the larger one wipes the small."""
    small, large = [24.0, 24.0, 40.0, 40.0], [16.0, 16.0, 48.0, 48.0]
    for boxes in ([small, large], [large, small]):
        assert counts(squares, RegionAssigner().assign(squares, objects(*boxes)), 1)[0] > 0
        reference = RegionAssigner(sequential=True).assign(squares, objects(*boxes))
        assert counts(squares, reference, 1)[0] == 0


def test_order_does_not_matter(squares, image):
    boxes = image(9, seed=3)["boxes"] + torch.rand(9, 4, generator=torch.Generator().manual_seed(0))
    wide = RegionAssigner(center_ratio=0.6, ignore_ratio=0.9)
    there, back = (wide.assign(squares, objects(*b.tolist())) for b in (boxes, boxes.flip(0)))
    assert torch.equal(there.state, back.state)
    assert torch.equal(there.gt_index[there.positive], 8 - back.gt_index[back.positive])


def test_errors(priors, targets):
    with pytest.raises(ValueError, match=r"RegionAssigner works level by level: .*got levels of \[\]"):
        RegionAssigner().assign(priors.replace(levels=()), targets)
    with pytest.raises(ConfigError, match=r"center_ratio: .*less than or equal to 1; got 2"):
        RegionAssigner(center_ratio=2)
