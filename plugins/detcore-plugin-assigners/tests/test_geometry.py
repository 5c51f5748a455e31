"""What holds for every assigner that looks at geometry only."""

import pickle

import pytest
import torch
from detcore_assigners import (
    ApproxMaxIoUAssigner,
    CenterRegionAssigner,
    GridAssigner,
    PointAssigner,
    RegionAssigner,
    UniformAssigner,
    overlaps,
)

from detcore.structures import ApproxPriors, Assignment, Predictions, Targets

SETTINGS = {
    "approx": ApproxMaxIoUAssigner.spec(pos_iou_thr=0.5, neg_iou_thr=0.4),
    "approx_reference": ApproxMaxIoUAssigner.spec(
        pos_iou_thr=0.5, neg_iou_thr=(0.1, 0.4), match_without_overlap=True, ignore_in_empty_images=False
    ),
    "center": CenterRegionAssigner.spec(pos_scale=0.4, neg_scale=0.7),
    "center_dominate": CenterRegionAssigner.spec(pos_scale=0.4, neg_scale=0.7, foreground_dominate=True),
    "grid": GridAssigner.spec(pos_iou_thr=0.3, neg_iou_thr=0.2),
    "grid_first": GridAssigner.spec(pos_iou_thr=0.3, neg_iou_thr=(0.1, 0.2), gt_max_assign_all=False),
    "grid_reference": GridAssigner.spec(pos_iou_thr=0.3, neg_iou_thr=0.2, own_cell=False),
    "grid_reference_first": GridAssigner.spec(
        pos_iou_thr=0.3, neg_iou_thr=0.2, own_cell=False, gt_max_assign_all=False
    ),
    "point": PointAssigner.spec(),
    "point_one": PointAssigner.spec(scale=2, pos_num=1),
    "region": RegionAssigner.spec(center_ratio=0.5, ignore_ratio=0.9),
    "region_reference": RegionAssigner.spec(center_ratio=0.5, ignore_ratio=0.9, sequential=True),
    "uniform": UniformAssigner.spec(pos_ignore_thr=0.15, neg_ignore_thr=0.7),
    "uniform_reference": UniformAssigner.spec(pos_ignore_thr=0.15, neg_ignore_thr=0.7, last_choice_wins=True),
}
every = pytest.mark.parametrize("spec", SETTINGS.values(), ids=SETTINGS)
#: How regions to ignore are switched off.
OFF = {PointAssigner: "ignore_gt_scale", CenterRegionAssigner: "ignore_gt_scale"}


@pytest.fixture
def priors(priors):
    """The grid, with approximating boxes."""
    shifts = torch.tensor([[0.0, 0.0, 0.0, 0.0], [-2.0, 1.0, 3.0, 2.0]])
    approxs = priors.boxes[:, None] + shifts
    return ApproxPriors(priors.boxes, priors.strides, priors.levels, approxs=approxs)


def predictions_for(count, priors):
    """Boxes of a network, the same for every image wherever it stands in a batch."""
    moved = torch.randn(len(priors), 4, generator=torch.Generator().manual_seed(3)).sort(dim=1).values
    boxes = (priors.boxes + moved).expand(count, -1, -1)
    return Predictions(boxes.new_zeros(count, len(priors), 5), boxes)


def run(assigner, priors, targets):
    predictions = predictions_for(len(targets), priors) if "boxes" in assigner.needs else None
    return assigner.assign(priors, targets, predictions)


def pairs_of(assignment, image):
    """The pairs of an image, both sorts."""
    found = []
    for pairs in (assignment.pairs, assignment.ignored_pairs):
        rows = (
            ((), ())
            if pairs is None
            else (t[image][pairs.valid[image]].tolist() for t in (pairs.prior, pairs.gt))
        )
        found.append(set(zip(*rows, strict=True)))
    return found


@every
def test_finds_something_of_everything(spec, priors, targets):
    assignment = run(spec.build(), priors, targets)
    assert (assignment.state.dtype, assignment.gt_index.dtype) == (torch.int8, torch.int64)
    assert assignment.positive[[0, 2, 4]].any(dim=1).all()
    assert assignment.negative.any()
    assert (assignment.state == -1).any()
    matchable = targets.matchable.gather(1, assignment.gt_index)
    assert matchable[assignment.positive].all()
    assert (assignment.gt_index[~assignment.positive] == 0).all()


@every
def test_batch_equals_singles_and_padding_changes_nothing(spec, priors, targets, single, same):
    assigner = spec.build()
    assignment = run(assigner, priors, targets)
    for i in range(len(targets)):
        alone = run(assigner, priors, single(targets, i))
        same(Assignment(assignment.gt_index[[i]], assignment.state[[i]], assignment.quality[[i]]), alone)
        assert pairs_of(alone, 0) == pairs_of(assignment, i)


@every
def test_what_padded_rows_hold_does_not_matter(spec, priors, targets, same):
    rows = targets.boxes.clone()
    rows[~targets.valid] = torch.tensor([0.0, 0.0, 60.0, 60.0])
    got, wanted = (run(spec.build(), priors, t) for t in (targets.replace(boxes=rows), targets))
    same(got, wanted)
    assert all(pairs_of(got, i) == pairs_of(wanted, i) for i in range(len(targets)))


@every
@pytest.mark.parametrize("chunk", [97, 1000])
def test_chunks_change_nothing(spec, chunk, priors, targets, same, monkeypatch):
    whole = run(spec.build(), priors, targets)
    monkeypatch.setattr(overlaps, "CHUNK", chunk)
    assert len(overlaps.slices(len(priors), targets.valid.numel())) > 1
    parts = run(spec.build(), priors, targets)
    same(parts, whole)
    assert all(pairs_of(parts, i) == pairs_of(whole, i) for i in range(len(targets)))


@every
@pytest.mark.parametrize("levels", [((20, 20, 3, 8),), ((20, 20, 1, 8), (10, 10, 1, 16))])
def test_memory_is_bounded(spec, levels, grid, image, largest, monkeypatch):
    priors = grid(levels)
    priors = ApproxPriors(priors.boxes, priors.strides, priors.levels, approxs=priors.boxes[:, None])
    targets = Targets.stack([image(160, 10, seed=1), image(170, seed=2)])
    monkeypatch.setattr(overlaps, "CHUNK", 4000)
    with largest() as seen:
        run(spec.build(), priors, targets)
    pairs = 2 * len(priors) * 170
    assert seen.elements < pairs / 6


@every
def test_invalid_priors_take_no_part(spec, priors, targets):
    valid = torch.arange(len(priors)) % 3 > 0
    assignment = run(spec.build(), priors.replace(valid=valid.expand(len(targets), -1)), targets)
    assert (assignment.state[:, ~valid] == -1).all()
    assert (assignment.quality[:, ~valid] == 0).all()
    assert assignment.positive.any()
    for pairs in (assignment.pairs, assignment.ignored_pairs):
        assert pairs is None or valid[pairs.prior[pairs.valid]].all()


@every
def test_no_ground_truth_makes_everything_negative(spec, priors):
    targets = Targets.stack([{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2)
    assignment = run(spec.build(), priors, targets)
    assert (assignment.state == 0).all()
    assert (assignment.quality == 0).all()
    assert pairs_of(assignment, 0) == [set(), set()]


@every
def test_no_priors(spec, grid, targets):
    nothing = grid(((0, 0, 3, 8),))
    nothing = ApproxPriors(nothing.boxes, nothing.strides, nothing.levels, approxs=torch.zeros(0, 2, 4))
    assignment = run(spec.build(), nothing, targets)
    assert assignment.state.shape == assignment.gt_index.shape == assignment.quality.shape == (5, 0)
    assert pairs_of(assignment, 0) == [set(), set()]


@every
def test_regions_to_ignore_are_not_negative(spec, priors):
    """Whatever counts as inside: the middle of a large region is."""
    box = torch.tensor([[-40.0, -40.0, 90.0, 100.0]])
    targets = Targets.stack([{"boxes": box, "labels": torch.tensor([0]), "ignore": torch.tensor([True])}])
    inside = ((priors.centers > 0) & (priors.centers < torch.tensor([40.0, 50.0]))).all(dim=1)
    state = run(spec.build(), priors, targets).state[0]
    if spec.params.get("ignore_in_empty_images", True):
        assert (state[inside] == -1).all()
    assert not (state == 1).any()
    name = OFF.get(spec.type, "ignore_iof_thr")
    assert (run(spec.replace(**{name: None}).build(), priors, targets).state == 0).all()


@every
def test_degenerate_ground_truths(spec, priors):
    """Without area, far outside, or reversed: no error, and nothing that is not finite."""
    boxes = [
        [16.0, 16.0, 16.0, 16.0],
        [5.0, 5.0, 5.0, 40.0],
        [900.0, 900.0, 950.0, 980.0],
        [30.0, 30.0, 20.0, 20.0],
    ]
    targets = Targets.stack([{"boxes": torch.tensor(boxes), "labels": torch.arange(4)}])
    assignment = run(spec.build(), priors, targets)
    assert assignment.quality.isfinite().all()
    assert ((assignment.gt_index >= 0) & (assignment.gt_index < 4)).all()


@every
def test_half_precision_is_compared_in_float32(spec, priors, targets):
    """Corners are whole numbers below 2048: halves are exact, their areas are not."""
    half = ApproxPriors(
        priors.boxes.round().half(), priors.strides, priors.levels, approxs=priors.approxs.round().half()
    )
    exact = ApproxPriors(half.boxes.float(), priors.strides, priors.levels, approxs=half.approxs.float())
    got = run(spec.build(), half, targets.replace(boxes=targets.boxes.half()))
    wanted = run(spec.build(), exact, targets)
    if "boxes" not in spec.build().needs:  # predictions differ by their own rounding
        assert torch.equal(got.state, wanted.state)
        assert torch.equal(got.gt_index, wanted.gt_index)
    assert got.quality.dtype == torch.float32


@every
def test_arguments_are_left_alone(spec, priors, targets):
    before = pickle.dumps((priors, targets))
    run(spec.build(), priors, targets)
    assert pickle.dumps((priors, targets)) == before


@pytest.mark.parametrize("name", ["approx", "center", "grid", "grid_reference", "point", "region", "uniform"])
def test_compiles_whole(name, priors, targets, same):
    assigner = SETTINGS[name].build()
    predictions = predictions_for(len(targets), priors) if "boxes" in assigner.needs else None
    torch.compiler.reset()  # the limit on recompilations is per function, not per assigner
    compiled = torch.compile(assigner.assign, fullgraph=True, backend="aot_eager")
    got, wanted = compiled(priors, targets, predictions), assigner.assign(priors, targets, predictions)
    same(got, wanted)
    assert all(pairs_of(got, i) == pairs_of(wanted, i) for i in range(len(targets)))
