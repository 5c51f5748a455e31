"""ATSSAssigner, against a plain loop over images and ground truths."""

import pytest
import torch
from detcore_assigners import ATSSAssigner, overlaps

from detcore.boxes import aligned_overlap, pairwise_overlap
from detcore.errors import ConfigError
from detcore.structures import Predictions, PriorLevel, Priors, Targets

VARIANTS = {
    "default": {},
    "topk1": {"topk": 1},
    "topk50": {"topk": 50},
    "no_regions": {"ignore_iof_thr": None},
    "reference": {"match_single_candidate": False, "ignore_in_empty_images": False},
    "ignored_candidates": {"topk": 30, "ignored_candidates": True},
    "alpha": {"alpha": 0.8},
}
variants = pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)


@pytest.fixture
def predictions(priors, targets):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(targets), len(priors), 5, generator=generator)
    return Predictions(logits, priors.boxes + torch.randn(len(targets), len(priors), 4, generator=generator))


def by_loop(assigner, priors, gts, labels, regions, valid, predicted):
    """State, ground truth and quality of each prior of one image: the definition, word for word."""
    boxes, n = priors.boxes, len(priors)
    ignored = torch.zeros(n, dtype=torch.bool)
    if assigner.ignore_iof_thr is not None and len(regions) and (len(gts) or assigner.ignore_in_empty_images):
        ignored = (pairwise_overlap(boxes, regions, "iof") > assigner.ignore_iof_thr).any(1)
    state = [0 if v and not i else -1 for v, i in zip(valid, ignored, strict=True)]
    gt, quality = [0] * n, [0.0] * n
    for g, box in enumerate(gts):
        distance = (priors.centers - (box[:2] + box[2:]) / 2).square().sum(1).sqrt()
        chosen, first = [], 0
        for level in priors.levels:
            here = [i for i in range(first, first + level.count) if valid[i]]
            inner = sorted((i for i in here if not ignored[i]), key=lambda i: (distance[i].item(), i))
            outer = [i for i in here if ignored[i]] if assigner.ignored_candidates else []
            chosen += (inner + outer)[: assigner.topk]
            first += level.count
        if not chosen or (len(chosen) == 1 and not assigner.match_single_candidate):
            continue
        if predicted is None:
            overlap = aligned_overlap(boxes[chosen], box)
        else:
            score = predicted[0][chosen, labels[g]].sigmoid()
            iou = aligned_overlap(predicted[1][chosen], box)
            overlap = score ** (1 - assigner.alpha) * iou**assigner.alpha
        spread = overlap.double().std() if len(chosen) > 1 else 0
        threshold = overlap.double().mean() + spread
        for i, value in zip(chosen, overlap, strict=True):
            x, y = priors.centers[i]
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if inside and value >= threshold - 1e-6 and (state[i] != 1 or value > quality[i]):
                state[i], gt[i], quality[i] = 1, g, value.item()
    return state, gt, quality


def loop_over(assigner, priors, targets, valid, predictions):
    for i in range(len(targets)):
        rows = targets.matchable[i].nonzero()[:, 0]
        regions = targets.boxes[i][targets.valid[i] & targets.ignore[i]]
        predicted = None if predictions is None else (predictions.logits[i], predictions.boxes[i])
        labels = targets.labels[i, rows]
        state, gt, quality = by_loop(
            assigner, priors, targets.boxes[i, rows], labels, regions, valid[i], predicted
        )
        yield state, [int(rows[g]) if s == 1 else 0 for s, g in zip(state, gt, strict=True)], quality


@variants
def test_as_by_loop(arguments, priors, targets, predictions):
    assigner = ATSSAssigner(**arguments)
    predictions = predictions if assigner.alpha is not None else None
    valid = torch.rand(len(targets), len(priors), generator=torch.Generator().manual_seed(0)) > 0.2
    assignment = assigner.assign(priors.replace(valid=valid), targets, predictions)
    expected = loop_over(assigner, priors, targets, valid, predictions)
    positives = 0
    for i, (state, gt, quality) in enumerate(expected):
        assert assignment.state[i].tolist() == state
        assert assignment.gt_index[i].tolist() == gt
        torch.testing.assert_close(assignment.quality[i], torch.tensor(quality))
        positives += state.count(1)
    assert positives >= 8
    assert (assignment.state.dtype, assignment.gt_index.dtype) == (torch.int8, torch.int64)


@variants
@pytest.mark.parametrize("chunk", [1, 500, 3000])
def test_chunks_change_nothing(arguments, chunk, priors, targets, predictions, same, monkeypatch):
    assigner = ATSSAssigner(**arguments)
    whole = assigner.assign(priors, targets, predictions)
    monkeypatch.setattr(overlaps, "CHUNK", chunk)
    same(assigner.assign(priors, targets, predictions), whole)


def test_memory_is_bounded(grid, image, largest, monkeypatch):
    priors = grid(((20, 20, 3, 8),))
    targets = Targets.stack([image(60, 10, seed=1), image(70, seed=2)])
    monkeypatch.setattr(overlaps, "CHUNK", 4000)
    with largest() as seen:
        ATSSAssigner(topk=3).assign(priors, targets)
    assert seen.elements <= 2 * len(priors) * 4  # the boxes themselves; all pairs would be 168,000


@variants
def test_batch_equals_singles_and_padding_changes_nothing(
    arguments, priors, targets, predictions, single, same
):
    assigner = ATSSAssigner(**arguments)
    assignment = assigner.assign(priors, targets, predictions)
    for i in range(len(targets)):
        predicted = Predictions(predictions.logits[[i]], predictions.boxes[[i]])
        alone = assigner.assign(priors, single(targets, i), predicted)
        same(type(alone)(assignment.gt_index[[i]], assignment.state[[i]], assignment.quality[[i]]), alone)


@variants
def test_priors_per_image(arguments, priors, targets, predictions, same):
    assigner = ATSSAssigner(**arguments)
    shared = assigner.assign(priors, targets, predictions)
    repeated = priors.replace(boxes=priors.boxes.expand(len(targets), -1, -1))
    same(assigner.assign(repeated, targets, predictions), shared)


def test_no_ground_truth_makes_everything_negative(priors):
    targets = Targets.stack([{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2)
    assignment = ATSSAssigner().assign(priors, targets)
    assert (assignment.state == 0).all()
    assert (assignment.quality == 0).all()


def test_no_priors(targets):
    nothing = Priors(torch.zeros(0, 4), torch.zeros(0, 2), (PriorLevel(0, 0, 3, (8.0, 8.0)),) * 2)
    for arguments in ({}, {"ignored_candidates": True}):
        assignment = ATSSAssigner(**arguments).assign(nothing, targets)
        assert assignment.state.shape == assignment.gt_index.shape == assignment.quality.shape == (5, 0)


def test_no_valid_priors(priors, targets):
    valid = torch.zeros(len(targets), len(priors), dtype=torch.bool)
    for arguments in VARIANTS.values():
        if "alpha" not in arguments:
            assignment = ATSSAssigner(**arguments).assign(priors.replace(valid=valid), targets)
            assert (assignment.state == -1).all()
            assert assignment.quality.isfinite().all()


def test_a_region_over_everything(priors):
    """What is ignored is never positive; the reference's rule is behind a switch."""
    boxes = torch.tensor([[-99.0, -99.0, 200.0, 200.0], [8.0, 8.0, 40.0, 40.0]])
    targets = Targets.stack(
        [{"boxes": boxes, "labels": torch.tensor([0, 0]), "ignore": torch.tensor([True, False])}]
    )
    assert (ATSSAssigner().assign(priors, targets).state == -1).all()
    filled = ATSSAssigner(ignored_candidates=True, topk=200).assign(priors, targets)
    assert (filled.state == 1).any()
    assert (filled.gt_index[filled.positive] == 1).all()


def test_single_candidate():
    priors = Priors(
        torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.ones(1, 2), (PriorLevel(1, 1, 1, (8.0, 8.0)),)
    )
    box = torch.tensor([[1.0, 1.0, 12.0, 12.0]])
    targets = Targets.stack([{"boxes": box, "labels": torch.tensor([0])}])
    assert ATSSAssigner().assign(priors, targets).state.item() == 1
    assert ATSSAssigner(match_single_candidate=False).assign(priors, targets).state.item() == 0


def test_equal_candidates_are_all_positive(grid):
    """A ground truth around all its candidates overlaps them equally: rounding must not lift their mean."""
    priors = grid(((5, 5, 1, 8),))
    reach = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) * 50
    boxes = torch.tensor([-20.0, -20.0, 60.0, 60.0]) + reach * torch.tensor([-1, -1, 1, 1])
    targets = Targets.stack([{"boxes": box[None], "labels": torch.tensor([0])} for box in boxes])
    for topk in (2, 3, 7, 9, 25):
        assert (ATSSAssigner(topk=topk).assign(priors, targets).positive.sum(1) == topk).all()


def test_ground_truth_without_area_takes_nothing(priors):
    box = torch.tensor([[16.0, 16.0, 16.0, 16.0]])
    targets = Targets.stack([{"boxes": box, "labels": torch.tensor([0])}])
    assert (ATSSAssigner().assign(priors, targets).state == 0).all()


def test_a_prior_of_two_goes_to_the_better_then_to_the_first(priors):
    box = torch.tensor([[8.0, 8.0, 24.0, 24.0]])
    loose = torch.tensor([[4.0, 4.0, 30.0, 30.0]])
    targets = Targets.stack([{"boxes": torch.cat((loose, box, box)), "labels": torch.tensor([0, 1, 2])}])
    exact = (priors.boxes == box).all(1).nonzero().item()
    assert ATSSAssigner().assign(priors, targets).gt_index[0, exact] == 1


def test_points_as_priors(grid):
    priors = grid()
    points = priors.replace(boxes=priors.centers.repeat(1, 2))
    targets = Targets.stack([{"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([0])}])
    assignment = ATSSAssigner(topk=3).assign(points, targets)
    assert assignment.positive.any()
    assert (assignment.quality == 0).all()


def test_needs():
    assert ATSSAssigner().needs == {"levels"}
    assert ATSSAssigner(alpha=0.8).needs == {"levels", "logits", "boxes"}
    assert ATSSAssigner.needs == {"levels"}


def test_errors(priors, targets):
    with pytest.raises(ValueError, match=r"priors.levels should describe all 192 priors, got levels of \[\]"):
        ATSSAssigner().assign(priors.replace(levels=()), targets)
    with pytest.raises(ValueError, match=r"got levels of \[144, 36\]; use priors from a prior generator"):
        ATSSAssigner().assign(priors.replace(levels=priors.levels[:2]), targets)
    with pytest.raises(ValueError, match="alpha needs predictions"):
        ATSSAssigner(alpha=0.5).assign(priors, targets)
    with pytest.raises(ConfigError, match=r"topk: .*greater than or equal to 1; got 0"):
        ATSSAssigner(topk=0)


@pytest.mark.parametrize("name", ["default", "ignored_candidates", "alpha"])
def test_compiles_whole(name, priors, targets, predictions, same):
    assigner = ATSSAssigner(**VARIANTS[name])
    torch.compiler.reset()  # the limit on recompilations is per function, not per assigner
    compiled = torch.compile(assigner.assign, fullgraph=True, backend="aot_eager")
    same(compiled(priors, targets, predictions), assigner.assign(priors, targets, predictions))
