"""UniformAssigner, against a plain loop over ground truths."""

import pytest
import torch
from detcore_assigners import UniformAssigner

from detcore.boxes import pairwise_overlap
from detcore.errors import ConfigError
from detcore.structures import Predictions, Priors, Targets

YOLOF = {"pos_ignore_thr": 0.15, "neg_ignore_thr": 0.7}
VARIANTS = {
    "yolof": YOLOF,
    "reference": {**YOLOF, "last_choice_wins": True},
    "strict": {"pos_ignore_thr": 0.5, "neg_ignore_thr": 0.3, "match_times": 3},
    "strict_reference": {
        "pos_ignore_thr": 0.5,
        "neg_ignore_thr": 0.3,
        "match_times": 3,
        "last_choice_wins": True,
    },
    "all": {**YOLOF, "match_times": 1000},
}
variants = pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)


@pytest.fixture
def predicted(priors, targets):
    moved = torch.randn(len(targets), len(priors), 4, generator=torch.Generator().manual_seed(0)) * 2
    boxes = priors.boxes + moved.sort(dim=2).values
    return Predictions(torch.zeros(len(targets), len(priors), 1), boxes)


def shape(boxes):
    return torch.stack(
        (
            (boxes[:, 0] + boxes[:, 2]) / 2,
            (boxes[:, 1] + boxes[:, 3]) / 2,
            boxes[:, 2] - boxes[:, 0],
            boxes[:, 3] - boxes[:, 1],
        ),
        1,
    )


def choices(assigner, boxes, gts, valid):
    """The nearest boxes of each ground truth, from near to far."""
    found = []
    for gt in shape(gts):
        dx, dy, dw, dh = (shape(boxes) - gt).abs().unbind(1)
        apart = (dx + dy + dw + dh).tolist()
        here = [i for i in range(len(boxes)) if valid[i]]
        found.append(sorted(here, key=lambda i: (apart[i], i))[: assigner.match_times])
    return found


def by_loop(assigner, priors, predicted, gts, valid):
    """State, ground truth and quality of each prior, and the matches: the definition, word for word."""
    iou = pairwise_overlap(gts, priors)
    near = (pairwise_overlap(predicted, gts) > assigner.neg_ignore_thr).any(1)
    state = [-1 if n or not v else 0 for n, v in zip(near, valid, strict=True)]
    ways = [choices(assigner, boxes, gts, valid) for boxes in (predicted, priors)]
    chosen = [
        (rank, way, g, prior)
        for way, of_gts in enumerate(ways)
        for g, some in enumerate(of_gts)
        for rank, prior in enumerate(some)
    ]
    matches = sorted((prior, g) for _, _, g, prior in chosen if iou[g, prior] >= assigner.pos_ignore_thr)
    gt, quality = [0] * len(priors), [0.0] * len(priors)
    for i in {prior for *_, prior in chosen}:
        mine = sorted(c for c in chosen if c[3] == i)
        if not assigner.last_choice_wins:
            mine = sorted(mine, key=lambda c: (iou[c[2], i].item(), -c[2]))
        g = mine[-1][2]
        state[i] = -1
        if iou[g, i] >= assigner.pos_ignore_thr:
            state[i], gt[i], quality[i] = 1, g, iou[g, i].item()
    return state, gt, quality, matches


@variants
def test_as_by_loop(arguments, priors, targets, predicted):
    assigner = UniformAssigner(**arguments, ignore_iof_thr=None)
    valid = torch.rand(len(targets), len(priors), generator=torch.Generator().manual_seed(0)) > 0.2
    assignment = assigner.assign(priors.replace(valid=valid), targets, predicted)
    for i in range(len(targets)):
        rows = targets.matchable[i].nonzero()[:, 0]
        gts = targets.boxes[i, rows]
        state, gt, quality, matches = by_loop(assigner, priors.boxes, predicted.boxes[i], gts, valid[i])
        assert assignment.state[i].tolist() == state
        expected = [int(rows[g]) if s == 1 else 0 for s, g in zip(state, gt, strict=True)]
        assert assignment.gt_index[i].tolist() == expected
        torch.testing.assert_close(assignment.quality[i], torch.tensor(quality))
        here = assignment.pairs.valid[i]
        found = zip(
            assignment.pairs.prior[i, here].tolist(), assignment.pairs.gt[i, here].tolist(), strict=True
        )
        assert sorted(found) == [(prior, int(rows[g])) for prior, g in matches]


def test_every_ground_truth_has_as_many_choices(priors, targets, predicted):
    pairs = UniformAssigner(**YOLOF, match_times=3).assign(priors, targets, predicted).pairs
    rows = targets.valid.shape[1]
    assert pairs.gt.tolist() == [[row for row in range(rows) for _ in range(6)]] * len(targets)


BOX = [[0.0, 0.0, 10.0, 10.0]]


def test_of_several_the_highest_iou_wins():
    """The prior lies nearer to the first in differences, its prediction to the second; both choose it."""
    priors = Priors(torch.tensor(BOX), torch.ones(1, 2))
    predicted = Predictions(torch.zeros(1, 1, 1), torch.tensor([BOX]))
    boxes = torch.tensor([[0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 10.0, 4.0], [30.0, 30.0, 40.0, 40.0]])
    targets = Targets.stack([{"boxes": boxes, "labels": torch.arange(3)}])
    best = UniformAssigner(**YOLOF).assign(priors, targets, predicted)
    assert (best.state.item(), best.gt_index.item()) == (1, 0)
    assert best.quality.item() == pytest.approx(0.9)
    last = UniformAssigner(**YOLOF, last_choice_wins=True).assign(priors, targets, predicted)
    assert last.state.item() == -1  # of the third, with which there is no overlap
    assert last.pairs.valid.tolist() == best.pairs.valid.tolist() == [[True, True, True, True, False, False]]


def test_a_good_prediction_is_not_negative():
    priors = Priors(torch.tensor([*BOX, [50.0, 50.0, 60.0, 60.0]]), torch.ones(2, 2))
    predicted = Predictions(torch.zeros(1, 2, 1), torch.tensor([[*BOX, [0.0, 0.0, 10.0, 9.0]]]))
    targets = Targets.stack([{"boxes": torch.tensor(BOX), "labels": torch.tensor([0])}])
    one = {**YOLOF, "match_times": 1}
    assert UniformAssigner(**one).assign(priors, targets, predicted).state.tolist() == [[1, -1]]
    assert UniformAssigner(**{**one, "neg_ignore_thr": 0.95}).assign(
        priors, targets, predicted
    ).state.tolist() == [[1, 0]]


def test_ties_go_to_the_first():
    priors = Priors(torch.tensor(BOX * 3), torch.ones(3, 2))
    predicted = Predictions(torch.zeros(1, 3, 1), torch.tensor([BOX * 3]))
    targets = Targets.stack([{"boxes": torch.tensor(BOX * 2), "labels": torch.arange(2)}])
    assignment = UniformAssigner(**YOLOF, match_times=2).assign(priors, targets, predicted)
    assert assignment.positive.tolist() == [[True, True, False]]
    assert assignment.gt_index.tolist() == [[0, 0, 0]]
    loose = UniformAssigner(**YOLOF, match_times=2, first_of_equals=False).assign(priors, targets, predicted)
    assert loose.positive.sum() in (2, 3)


def test_errors(priors, targets, predicted):
    n = len(priors)
    with pytest.raises(ValueError, match=rf"decoded box for each of {n} priors, got None"):
        UniformAssigner(**YOLOF).assign(priors, targets)
    few = predicted.replace(boxes=predicted.boxes[:, 1:])
    with pytest.raises(ValueError, match=rf"got boxes \[5, {n - 1}, 4\]"):
        UniformAssigner(**YOLOF).assign(priors, targets, few)
    with pytest.raises(ConfigError, match=r"match_times: .*greater than or equal to 1; got 0"):
        UniformAssigner(**YOLOF, match_times=0)
    with pytest.raises(ConfigError, match=r"neg_ignore_thr: required parameter"):
        UniformAssigner(pos_ignore_thr=0.1)
