"""What holds for every assigner that looks at predictions."""

import pytest
import torch
from detcore_assigners import (
    BBoxL1Cost,
    ClassificationCost,
    DynamicSoftLabelAssigner,
    FocalLossCost,
    HungarianAssigner,
    IoUCost,
    SimOTAAssigner,
    TaskAlignedAssigner,
    overlaps,
)

from detcore.structures import Assignment, ImageBatch, Predictions, Priors, Targets

DETR = (ClassificationCost.spec(), BBoxL1Cost.spec(weight=5.0, box_format="xywh"), IoUCost.spec(weight=2.0))
VARIANTS = {
    "simota": SimOTAAssigner.spec(),
    "simota_reference": SimOTAAssigner.spec(match_outside=True, ignore_regions=False),
    "simota_narrow": SimOTAAssigner.spec(center_radius=0.8, candidate_topk=3, cls_weight=0.5),
    "dynamic": DynamicSoftLabelAssigner.spec(),
    "dynamic_reference": DynamicSoftLabelAssigner.spec(match_outside=True, ignore_regions=False),
    "aligned": TaskAlignedAssigner.spec(),
    "aligned_iou": TaskAlignedAssigner.spec(topk=4, alpha=0.5, beta=2, quality="iou", ignore_regions=False),
    "hungarian": HungarianAssigner.spec(match_costs=DETR),
    "hungarian_reference": HungarianAssigner.spec(
        match_costs=(FocalLossCost.spec(weight=2.0), BBoxL1Cost.spec(), IoUCost.spec(iou_mode="iou")),
        ignore_iof_thr=None,
    ),
}
variants = pytest.mark.parametrize("spec", VARIANTS.values(), ids=VARIANTS)
dense = [name for name in VARIANTS if not name.startswith("hungarian")]
dense_variants = pytest.mark.parametrize("spec", [VARIANTS[n] for n in dense], ids=dense)


def images(count):
    return ImageBatch.of(torch.zeros(count, 3, 48, 64), sizes=[(48, 64)] * count)


def run(spec, priors, targets, predictions):
    return spec.build().assign(priors, targets, predictions, images(len(targets)))


@variants
def test_finds_something(spec, priors, targets, predictions):
    assignment = run(spec, priors, targets, predictions)
    assert (assignment.state.dtype, assignment.gt_index.dtype) == (torch.int8, torch.int64)
    assert assignment.quality.dtype == torch.float32
    assert assignment.positive[[0, 2, 4]].any(1).all()
    assert not assignment.positive[[1, 3]].any()
    assert (assignment.quality[~assignment.positive] == 0).all()
    assert (assignment.gt_index[~assignment.positive] == 0).all()
    assert targets.matchable.gather(1, assignment.gt_index)[assignment.positive].all()


@variants
def test_batch_equals_singles_and_padding_changes_nothing(spec, priors, targets, predictions, single, same):
    assignment = run(spec, priors, targets, predictions)
    for i in range(len(targets)):
        one = Predictions(predictions.logits[[i]], predictions.boxes[[i]])
        alone = run(spec, priors, single(targets, i), one)
        same(Assignment(assignment.gt_index[[i]], assignment.state[[i]], assignment.quality[[i]]), alone)


@variants
@pytest.mark.parametrize("chunk", [1, 500, 3000])
def test_chunks_change_nothing(spec, chunk, priors, targets, predictions, same, monkeypatch):
    whole = run(spec, priors, targets, predictions)
    monkeypatch.setattr(overlaps, "CHUNK", chunk)
    same(run(spec, priors, targets, predictions), whole)


@dense_variants
def test_memory_is_bounded(spec, grid, image, predicted, largest, monkeypatch):
    priors = grid(((20, 20, 3, 8),))
    targets = Targets.stack([image(60, 10, seed=1), image(70, seed=2)])
    predictions = predicted(priors, targets)
    monkeypatch.setattr(overlaps, "CHUNK", 4000)
    with largest() as seen:
        run(spec, priors, targets, predictions)
    assert seen.elements <= 5 * 4000  # all pairs would be 168,000


@variants
def test_priors_per_image(spec, priors, targets, predictions, same):
    repeated = priors.replace(boxes=priors.boxes.expand(len(targets), -1, -1))
    same(run(spec, repeated, targets, predictions), run(spec, priors, targets, predictions))


@variants
def test_priors_outside_take_no_part(spec, priors, targets, predictions):
    valid = torch.rand(len(targets), len(priors), generator=torch.Generator().manual_seed(0)) > 0.4
    assignment = run(spec, priors.replace(valid=valid), targets, predictions)
    for i in range(len(targets)):
        kept = valid[i]
        part = Predictions(predictions.logits[[i]][:, kept], predictions.boxes[[i]][:, kept])
        one = Targets(*(getattr(targets, n)[[i]] for n in ("boxes", "labels", "valid", "ignore")))
        without = run(spec, Priors(priors.boxes[kept], priors.strides[kept]), one, part)
        assert torch.equal(assignment.state[i, kept], without.state[0])
        assert torch.equal(assignment.gt_index[i, kept], without.gt_index[0])
        torch.testing.assert_close(assignment.quality[i, kept], without.quality[0])
        assert (assignment.state[i, ~kept] == -1).all()
    assert assignment.positive.any()


@variants
def test_no_ground_truth_makes_everything_negative(spec, priors, predictions):
    targets = Targets.stack([{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 5)
    assignment = run(spec, priors, targets, predictions)
    assert (assignment.state == 0).all()
    assert (assignment.quality == 0).all()


@variants
def test_no_priors(spec, targets):
    nothing = Predictions(torch.zeros(5, 0, 5), torch.zeros(5, 0, 4))
    assignment = run(spec, Priors(torch.zeros(0, 4), torch.zeros(0, 2)), targets, nothing)
    assert assignment.state.shape == assignment.gt_index.shape == assignment.quality.shape == (5, 0)


@variants
def test_a_single_prior_and_ground_truth_without_extent(spec, targets):
    priors = Priors(torch.tensor([[16.0, 16.0, 16.0, 16.0]]), torch.full((1, 2), 8.0))
    box = torch.tensor([[16.0, 16.0, 16.0, 16.0]])
    targets = Targets.stack([{"boxes": box, "labels": torch.tensor([1])}])
    assignment = run(spec, priors, targets, Predictions(torch.zeros(1, 1, 5), box[None]))
    assert assignment.quality.isfinite().all()
    assert assignment.state.item() in (0, 1)


@dense_variants
def test_regions(spec, priors, predictions, same):
    """A region over everything leaves nothing to learn; without regard to regions it is background."""
    boxes = torch.tensor([[-99.0, -99.0, 200.0, 200.0], [8.0, 8.0, 40.0, 40.0]])
    image = {"boxes": boxes, "labels": torch.tensor([0, 1]), "ignore": torch.tensor([True, False])}
    targets, plain = (
        Targets.stack([image]),
        Targets.stack([{"boxes": boxes[1:], "labels": torch.ones(1).long()}]),
    )
    one = Predictions(predictions.logits[:1], predictions.boxes[:1])
    assignment = run(spec, priors, targets, one)
    if spec.complete()["ignore_regions"]:
        assert (assignment.state == -1).all()
        small = {**image, "boxes": torch.tensor([[30.0, 30.0, 50.0, 50.0], [8.0, 8.0, 40.0, 40.0]])}
        state = run(spec, priors, Targets.stack([small]), one).state[0]
        inside = ((priors.centers > 30) & (priors.centers < 50)).all(1)
        assert torch.equal(state == -1, inside)
        assert (state == 1).any()
    else:
        alone = run(spec, priors, plain, one)
        assert torch.equal(assignment.state, alone.state)
        assert (assignment.gt_index[assignment.positive] == 1).all()


@variants
def test_what_diverged_does_not_spread(spec, priors, targets, predictions):
    """Predictions that are not finite stop nothing, and good ones are preferred."""
    logits, boxes = predictions.logits.clone(), predictions.boxes.clone()
    logits[:, ::3], boxes[:, 1::3] = torch.nan, torch.inf
    boxes[:, ::6] = torch.nan
    assignment = run(spec, priors, targets, Predictions(logits, boxes))
    assert assignment.quality.isfinite().all()
    assert assignment.positive[:, 2::3].any()
    nothing = torch.full_like(logits, torch.nan), torch.full_like(boxes, torch.nan)
    assert run(spec, priors, targets, Predictions(*nothing)).quality.isfinite().all()


@variants
def test_half_precision(spec, priors, targets, predictions):
    half = Predictions(predictions.logits.half(), predictions.boxes.half())
    back = Predictions(half.logits.float(), half.boxes.float())
    a, b = run(spec, priors, targets, half), run(spec, priors, targets, back)
    assert torch.equal(a.state, b.state)
    assert torch.equal(a.gt_index, b.gt_index)
    torch.testing.assert_close(a.quality, b.quality, rtol=1e-3, atol=1e-3)
    assert a.quality.dtype == torch.float32


@variants
def test_gives_no_gradient(spec, priors, targets, predictions):
    leaf = Predictions(
        predictions.logits.clone().requires_grad_(), predictions.boxes.clone().requires_grad_()
    )
    assert not run(spec, priors, targets, leaf).quality.requires_grad
    assert not leaf.logits.requires_grad or leaf.logits.grad is None


@variants
def test_changes_nothing_of_its_caller(spec, priors, targets, predictions):
    before = (
        predictions.logits.clone(),
        predictions.boxes.clone(),
        targets.boxes.clone(),
        priors.boxes.clone(),
    )
    run(spec, priors, targets, predictions)
    after = predictions.logits, predictions.boxes, targets.boxes, priors.boxes
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@variants
def test_needs_predictions(spec, priors, targets):
    with pytest.raises(ValueError, match=f"{spec.type.__name__} assigns by predictions .*got None; pass"):
        run(spec, priors, targets, None)
    assert {"logits", "boxes"} <= spec.build().needs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simota", "dynamic_reference", "aligned"])
def test_compiles_whole(name, priors, targets, predictions, same):
    assigner = VARIANTS[name].build()
    torch.compiler.reset()  # the limit on recompilations is per function, not per assigner
    compiled = torch.compile(assigner.assign, fullgraph=True, backend="aot_eager")
    same(compiled(priors, targets, predictions), assigner.assign(priors, targets, predictions))
