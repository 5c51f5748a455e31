"""MaxIoUAssigner, against a plain loop over images and ground truths."""

import pickle

import pytest
import torch
from detcore_assigners import MaxIoUAssigner, overlaps

from detcore.boxes import pairwise_overlap
from detcore.errors import ConfigError
from detcore.structures import Priors, Targets

RETINA = {"pos_iou_thr": 0.5, "neg_iou_thr": 0.4}
VARIANTS = {
    "retina": RETINA,
    "rpn": {"pos_iou_thr": 0.7, "neg_iou_thr": 0.3, "min_pos_iou": 0.3},
    "rcnn": {"pos_iou_thr": 0.5, "neg_iou_thr": 0.5, "match_low_quality": False},
    "range": {"pos_iou_thr": 0.5, "neg_iou_thr": (0.1, 0.4)},
    "first": {**RETINA, "gt_max_assign_all": False},
    "regions": {**RETINA, "ignore_iof_thr": 0.2, "ignore_wrt_candidates": False},
    "no_regions": {**RETINA, "ignore_iof_thr": None},
    "reference": {**RETINA, "match_without_overlap": True, "ignore_in_empty_images": False},
    "reference_first": {**RETINA, "match_without_overlap": True, "gt_max_assign_all": False},
}
variants = pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)


def by_loop(assigner, boxes, gts, regions, part):
    """State and ground truth of each prior of one image: the definition, word for word."""
    n = len(boxes)
    if assigner.ignore_iof_thr is not None and len(regions) and (len(gts) or assigner.ignore_in_empty_images):
        iof = pairwise_overlap(boxes, regions, "iof")
        if not assigner.ignore_wrt_candidates:
            iof = pairwise_overlap(regions, boxes, "iof").T
        part = part & ~(iof > assigner.ignore_iof_thr).any(1)
    iou = pairwise_overlap(gts, boxes)
    state, gt, quality = [-1] * n, [0] * n, [0.0] * n
    low, high = assigner.neg_iou_range
    for i in (i for i in range(n) if part[i]):
        quality[i] = max(iou[:, i].tolist(), default=0.0)
        if not len(gts) or torch.tensor(low) <= quality[i] < torch.tensor(high):
            state[i] = 0
        if len(gts) and quality[i] >= torch.tensor(assigner.pos_iou_thr):
            state[i], gt[i] = 1, iou[:, i].tolist().index(quality[i])
    for g in range(len(gts) if assigner.match_low_quality else 0):
        best = max((iou[g, i].item() for i in range(n) if part[i]), default=-1)
        if best < assigner.min_pos_iou or (best == 0 and not assigner.match_without_overlap):
            continue
        takes = [i for i in range(n) if part[i] and iou[g, i] == best]
        for i in takes if assigner.gt_max_assign_all else takes[:1]:
            state[i], gt[i] = 1, g
    return state, gt, quality


@variants
def test_as_by_loop(arguments, priors, targets):
    assigner = MaxIoUAssigner(**arguments)
    valid = torch.rand(len(targets), len(priors), generator=torch.Generator().manual_seed(0)) > 0.2
    assignment = assigner.assign(priors.replace(valid=valid), targets)
    for i in range(len(targets)):
        rows = targets.matchable[i].nonzero()[:, 0]
        regions = targets.boxes[i][targets.valid[i] & targets.ignore[i]]
        state, gt, quality = by_loop(assigner, priors.boxes, targets.boxes[i, rows], regions, valid[i])
        assert assignment.state[i].tolist() == state
        expected = [int(rows[g]) if s == 1 else 0 for s, g in zip(state, gt, strict=True)]
        assert assignment.gt_index[i].tolist() == expected
        assert assignment.quality[i].tolist() == quality
    assert (assignment.state.dtype, assignment.gt_index.dtype) == (torch.int8, torch.int64)


@variants
@pytest.mark.parametrize("chunk", [97, 1000])
@pytest.mark.parametrize("levels", [True, False])
def test_chunks_change_nothing(arguments, chunk, levels, priors, targets, same, monkeypatch):
    assigner = MaxIoUAssigner(**arguments)
    priors = priors if levels else priors.replace(levels=())
    whole = assigner.assign(priors, targets)
    assert len(overlaps.slices(len(priors), targets.valid.numel())) == 1
    monkeypatch.setattr(overlaps, "CHUNK", chunk)
    assert len(overlaps.slices(len(priors), targets.valid.numel())) > 1
    same(assigner.assign(priors, targets), whole)


@variants
def test_levels_change_nothing(arguments, priors, targets, same):
    """They only tell where to look."""
    assigner = MaxIoUAssigner(**arguments)
    same(assigner.assign(priors.replace(levels=()), targets), assigner.assign(priors, targets))


@pytest.mark.parametrize("levels", [True, False])
def test_memory_is_bounded(levels, grid, image, largest, monkeypatch):
    priors = grid(((20, 20, 3, 8),))
    priors = priors if levels else priors.replace(levels=())
    targets = Targets.stack([image(60, 10, seed=1), image(70, seed=2)])
    monkeypatch.setattr(overlaps, "CHUNK", 4000)
    with largest() as seen:
        MaxIoUAssigner(**RETINA).assign(priors, targets)
    assert 4000 * 0.9 < seen.elements <= 2 * len(priors) * 10  # what a prior needs; all pairs are 168,000


@variants
def test_batch_equals_singles_and_padding_changes_nothing(arguments, priors, targets, single, same):
    assigner = MaxIoUAssigner(**arguments)
    assignment = assigner.assign(priors, targets)
    for i in range(len(targets)):
        alone = assigner.assign(priors, single(targets, i))
        here = type(alone)(assignment.gt_index[[i]], assignment.state[[i]], assignment.quality[[i]])
        same(here, alone)


def test_what_padded_rows_hold_does_not_matter(priors, targets, same):
    rows = targets.boxes.clone()
    rows[~targets.valid] = torch.tensor([0.0, 0.0, 60.0, 60.0])
    assigner = MaxIoUAssigner(**RETINA)
    same(assigner.assign(priors, targets.replace(boxes=rows)), assigner.assign(priors, targets))


@variants
def test_priors_per_image(arguments, priors, targets, same):
    assigner = MaxIoUAssigner(**arguments)
    moved = torch.stack([priors.boxes + i for i in range(len(targets))])
    assignment = assigner.assign(Priors(moved, priors.strides), targets)
    for i in range(len(targets)):
        alone = assigner.assign(Priors(moved[i], priors.strides), targets)
        assert torch.equal(assignment.state[i], alone.state[i])
        assert torch.equal(assignment.gt_index[i], alone.gt_index[i])


def test_invalid_priors_are_as_if_absent(priors, targets):
    assigner = MaxIoUAssigner(**RETINA)
    valid = torch.arange(len(priors)) % 3 > 0
    assignment = assigner.assign(priors.replace(valid=valid.expand(len(targets), -1)), targets)
    without = assigner.assign(Priors(priors.boxes[valid], priors.strides[valid]), targets)
    assert torch.equal(assignment.state[:, valid], without.state)
    assert torch.equal(assignment.gt_index[:, valid], without.gt_index)
    assert (assignment.state[:, ~valid] == -1).all()
    assert (assignment.quality[:, ~valid] == 0).all()


def test_no_ground_truth_makes_everything_negative(priors):
    targets = Targets.stack([{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}])
    for thresholds in (0.4, 0.0, (0.1, 0.4)):
        assignment = MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=thresholds).assign(priors, targets)
        assert (assignment.state == 0).all()
        assert (assignment.quality == 0).all()


def test_no_priors(targets):
    nothing = Priors(torch.zeros(0, 4), torch.zeros(0, 2))
    for arguments in VARIANTS.values():
        assignment = MaxIoUAssigner(**arguments).assign(nothing, targets)
        assert assignment.state.shape == assignment.gt_index.shape == assignment.quality.shape == (5, 0)


def test_regions_are_neither_positive_nor_negative(priors):
    region = {"boxes": torch.tensor([[0.0, 0.0, 24.0, 60.0]]), "labels": torch.tensor([0])}
    targets = Targets.stack([{**region, "ignore": torch.tensor([True])}])
    covered = pairwise_overlap(priors.boxes, targets.boxes[0], "iof")[:, 0] > 0.5
    assert 0 < covered.sum() < len(priors)
    state = MaxIoUAssigner(**RETINA).assign(priors, targets).state[0]
    assert torch.equal(state, torch.where(covered, -1, 0).to(torch.int8))
    off = {"ignore_iof_thr": None}, {"ignore_iof_thr": -1}, {"ignore_in_empty_images": False}
    for arguments in off:
        assert (MaxIoUAssigner(**RETINA, **arguments).assign(priors, targets).state == 0).all()


@pytest.mark.parametrize(
    "box", [[500.0, 500.0, 520.0, 520.0], [16.0, 16.0, 16.0, 16.0], [16.0, 16.0, 16.0, 30.0]]
)
def test_ground_truth_without_overlap_takes_nothing(box, priors):
    """Far away, or without area; the reference's rule is behind a switch."""
    targets = Targets.stack([{"boxes": torch.tensor([box]), "labels": torch.tensor([0])}])
    assert (MaxIoUAssigner(**RETINA).assign(priors, targets).state == 0).all()
    everything = MaxIoUAssigner(**RETINA, match_without_overlap=True).assign(priors, targets)
    assert (everything.state == 1).all()
    first = MaxIoUAssigner(**RETINA, match_without_overlap=True, gt_max_assign_all=False)
    assert first.assign(priors, targets).state[0].nonzero().tolist() == [[0]]


def test_ties_go_to_the_first_and_claims_to_the_last():
    priors = Priors(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.ones(1, 2))
    twins = Targets.stack(
        [{"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]] * 3), "labels": torch.tensor([0, 1, 2])}]
    )
    assert MaxIoUAssigner(**RETINA, match_low_quality=False).assign(priors, twins).gt_index.item() == 0
    assert MaxIoUAssigner(**RETINA).assign(priors, twins).gt_index.item() == 2
    assert MaxIoUAssigner(**RETINA, gt_max_assign_all=False).assign(priors, twins).gt_index.item() == 2


def test_given_overlaps():
    matrix = torch.tensor([[[0.6, 0.45, 0.1, 0.9], [0.2, 0.3, 0.2, 0.9], [0.9, 0.9, 0.9, 0.9]]])
    rows, part = torch.tensor([[True, True, False]]), torch.tensor([[True, True, True, False]])
    assignment = MaxIoUAssigner(**RETINA).assign_overlaps(matrix, rows, part)
    assert assignment.state.tolist() == [[1, 1, 0, -1]]
    assert assignment.gt_index.tolist() == [[0, 1, 0, 0]]
    torch.testing.assert_close(assignment.quality, torch.tensor([[0.6, 0.45, 0.2, 0.0]]))


def test_half_precision_boxes_are_compared_in_float32(priors, targets):
    assigner = MaxIoUAssigner(**RETINA)
    large = Targets.stack([{"boxes": torch.tensor([[0.0, 0.0, 512.0, 512.0]]), "labels": torch.tensor([0])}])
    boxes = torch.tensor([[0.0, 0.0, 512.0, 480.0]])  # its area exceeds what float16 holds
    assignment = assigner.assign(
        Priors(boxes.half(), torch.ones(1, 2)), large.replace(boxes=large.boxes.half())
    )
    assert assignment.quality.dtype == torch.float32
    assert assignment.quality.item() == pytest.approx(480 / 512)


def test_gives_no_gradient_to_predicted_priors(priors, targets):
    boxes = priors.boxes.clone().requires_grad_()
    assert not MaxIoUAssigner(**RETINA).assign(Priors(boxes, priors.strides), targets).quality.requires_grad


@pytest.mark.parametrize("name", ["retina", "regions", "reference_first"])
def test_compiles_whole(name, priors, targets, same):
    assigner = MaxIoUAssigner(**VARIANTS[name])
    torch.compiler.reset()  # the limit on recompilations is per function, not per assigner
    compiled = torch.compile(assigner.assign, fullgraph=True, backend="aot_eager")
    same(compiled(priors, targets), assigner.assign(priors, targets))


def test_parameters():
    assert MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=[0.1, 0.5]).neg_iou_range == (0.1, 0.5)
    assert MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.4).neg_iou_range == (0.0, 0.4)
    assert MaxIoUAssigner.spec(**RETINA) == MaxIoUAssigner.spec(**RETINA, min_pos_iou=0)
    copy = pickle.loads(pickle.dumps(MaxIoUAssigner(**RETINA)))
    assert vars(copy).keys() == vars(MaxIoUAssigner(**RETINA)).keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"pos_iou_thr": 0.5, "neg_iou_thr": 0.6},
            r"neg_iou_thr .*low <= high <= pos_iou_thr \(0.5\).*\(0.0, 0.6\)",
        ),
        ({"pos_iou_thr": 0.5, "neg_iou_thr": (0.3, 0.1)}, r"neg_iou_thr .*got \(0.3, 0.1\)"),
        ({"pos_iou_thr": 1.5, "neg_iou_thr": 0.4}, r"pos_iou_thr: .*less than or equal to 1; got 1.5"),
        (
            {"pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "ignore_iof_thr": 0},
            r"ignore_iof_thr: .*greater than 0.*got 0",
        ),
        (
            {"pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "gpu_assign_thr": 100},
            "unknown parameter 'gpu_assign_thr'",
        ),
        ({"pos_iou_thr": 0.5}, "neg_iou_thr: required parameter"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ConfigError, match=message):
        MaxIoUAssigner(**arguments)
