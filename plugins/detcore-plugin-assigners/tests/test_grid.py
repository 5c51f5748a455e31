"""GridAssigner, against a plain loop over priors and ground truths."""

import pytest
import torch
from detcore_assigners import GridAssigner

from detcore.boxes import pairwise_overlap
from detcore.errors import ConfigError
from detcore.structures import PriorLevel, Priors, Targets

YOLO = {"pos_iou_thr": 0.5, "neg_iou_thr": 0.5}
LOW = {"pos_iou_thr": 0.3, "neg_iou_thr": 0.2}
VARIANTS = {
    "yolo": YOLO,
    "low": LOW,
    "range": {**LOW, "neg_iou_thr": (0.05, 0.2), "min_pos_iou": 0.2},
    "first": {**LOW, "gt_max_assign_all": False},
    "reference": {**LOW, "own_cell": False},
    "reference_first": {**YOLO, "own_cell": False, "gt_max_assign_all": False, "min_pos_iou": 0.1},
}
variants = pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)


def own_cells(priors, gts):
    """Whether each prior is in the cell of each ground truth's centre [M, N]."""
    found = torch.zeros(len(gts), len(priors), dtype=torch.bool)
    for g, box in enumerate(gts):
        first = 0
        for h, w, per_cell, (dx, dy) in priors.levels:
            x, y = int((box[0] + box[2]) / 2 // dx), int((box[1] + box[3]) / 2 // dy)
            if 0 <= x < w and 0 <= y < h:
                start = first + (y * w + x) * per_cell
                found[g, start : start + per_cell] = True
            first += h * w * per_cell
    return found


def by_loop(assigner, priors, gts, part):
    """State, ground truth and quality of each prior of one image: the definition, word for word."""
    iou = pairwise_overlap(gts, priors.boxes)
    cell = own_cells(priors, gts)
    cell = cell if assigner.own_cell else cell.any(0, keepdim=True).expand_as(cell)
    may = cell & part
    low, high = torch.tensor(assigner.neg_iou_range)
    state, gt, quality = [-1] * len(priors), [0] * len(priors), [0.0] * len(priors)
    for i in (i for i in range(len(priors)) if part[i]):
        best = max(iou[:, i].tolist(), default=-0.5)
        if not len(gts) or low < best <= high:
            state[i] = 0
        here = [g for g in range(len(gts)) if may[g, i]]
        quality[i] = max((iou[g, i].item() for g in here), default=0.0)
        if quality[i] > torch.tensor(assigner.pos_iou_thr):
            state[i], gt[i] = 1, min(g for g in here if iou[g, i] == quality[i])
    claims = []
    for g in range(len(gts)):
        best = max((iou[g, i].item() for i in range(len(priors)) if may[g, i]), default=0.0)
        if best > torch.tensor(assigner.min_pos_iou):
            takes = [i for i in range(len(priors)) if may[g, i] and iou[g, i] == best]
            claims += [(best, g, i) for i in (takes if assigner.gt_max_assign_all else takes[:1])]
    # what is written last stays: the highest IoU and of equals the first, or the reference's order
    for _, g, i in sorted(claims, key=lambda c: (c[0], -c[1]) if assigner.own_cell else c[1]):
        state[i], gt[i] = 1, g
    return state, gt, quality


@variants
@pytest.mark.parametrize("seed", [0, 1])
def test_as_by_loop(arguments, seed, priors, image, targets):
    targets = targets if seed == 0 else Targets.stack([image(25, seed=s, priors=priors) for s in (5, 6)])
    assigner = GridAssigner(**arguments, ignore_iof_thr=None)
    valid = torch.rand(len(targets), len(priors), generator=torch.Generator().manual_seed(0)) > 0.2
    assignment = assigner.assign(priors.replace(valid=valid), targets)
    for i in range(len(targets)):
        rows = targets.matchable[i].nonzero()[:, 0]
        state, gt, quality = by_loop(assigner, priors, targets.boxes[i, rows], valid[i])
        assert assignment.state[i].tolist() == state
        expected = [int(rows[g]) if s == 1 else 0 for s, g in zip(state, gt, strict=True)]
        assert assignment.gt_index[i].tolist() == expected
        assert assignment.quality[i].tolist() == quality


CELLS = Priors(  # two cells side by side, a square prior of two cells in each
    torch.tensor([[-4.0, -4.0, 12.0, 12.0], [4.0, -4.0, 20.0, 12.0]]),
    torch.full((2, 2), 8.0),
    (PriorLevel(1, 2, 1, (8.0, 8.0)),),
)


def objects(*boxes):
    return Targets.stack([{"boxes": torch.tensor(boxes), "labels": torch.arange(len(boxes))}])


def test_only_the_cell_of_the_centre_answers():
    """The centre is just inside of the first cell; both priors overlap it well."""
    targets = objects([-0.2, -4.0, 15.8, 12.0])
    assert GridAssigner(pos_iou_thr=0.3, neg_iou_thr=0.1).assign(CELLS, targets).state.tolist() == [[1, -1]]


def test_cells_of_others_answer_in_the_reference():
    thin = [3.8, -20.0, 3.9, 30.0]  # makes the first cell responsible, and little else
    targets = objects(thin, [4.0, -4.0, 20.0, 12.0])
    mine = GridAssigner(pos_iou_thr=0.3, neg_iou_thr=0.1).assign(CELLS, targets)
    theirs = GridAssigner(pos_iou_thr=0.3, neg_iou_thr=0.1, own_cell=False).assign(CELLS, targets)
    assert (mine.state.tolist(), mine.gt_index.tolist()) == ([[1, 1]], [[0, 1]])
    assert (theirs.state.tolist(), theirs.gt_index.tolist()) == ([[1, 1]], [[0, 1]])
    assert mine.quality[0, 0] < 0.01
    assert theirs.quality[0, 0] > 0.3  # with the second ground truth, of the other cell


def test_of_two_claimants_the_better_wins_whatever_the_order():
    better, worse = [-4.0, -4.0, 12.0, 12.0], [1.0, 1.0, 7.0, 7.0]
    for boxes in ([better, worse], [worse, better]):
        assignment = GridAssigner(**YOLO).assign(CELLS, objects(*boxes))
        assert boxes[assignment.gt_index[0, 0]] == better
        reference = GridAssigner(**YOLO, own_cell=False).assign(CELLS, objects(*boxes))
        assert reference.gt_index[0, 0] == 1  # the last


def test_a_centre_outside_of_the_grid_has_no_cell():
    targets = objects([10.0, -4.0, 26.0, 12.0], [-16.0, -4.0, 14.0, 12.0], [4.0, -40.0, 20.0, 12.0])
    for own_cell in (True, False):
        assert not GridAssigner(**LOW, own_cell=own_cell).assign(CELLS, targets).positive.any()


def test_errors(priors, targets):
    with pytest.raises(ValueError, match=r"GridAssigner works level by level: .*levels of \[\]"):
        GridAssigner(**YOLO).assign(priors.replace(levels=()), targets)
    with pytest.raises(ConfigError, match=r"neg_iou_thr .*low <= high <= pos_iou_thr \(0.5\), got 0.6"):
        GridAssigner(pos_iou_thr=0.5, neg_iou_thr=0.6)
    with pytest.raises(ConfigError, match=r"neg_iou_thr .*got \(0.4, 0.3\)"):
        GridAssigner(pos_iou_thr=0.5, neg_iou_thr=[0.4, 0.3])
