"""CrossEntropyLossCost, DiceCost, and FocalLossCost of masks."""

import pytest
import torch
from detcore_assigners import CrossEntropyLossCost, DiceCost, FocalLossCost, overlaps
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from detcore.errors import ConfigError
from detcore.structures import Predictions, Targets

COSTS = {
    "cross_entropy": CrossEntropyLossCost(weight=2.0),
    "dice": DiceCost(weight=2.0),
    "dice_squared": DiceCost(naive_dice=False, eps=1.0),
    "dice_given": DiceCost(pred_act=False),
    "focal": FocalLossCost(binary_input=True, weight=2.0),
}
costs = pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
SIZE = (12, 16)


def masks_of(*counts):
    """Images of blobs, so many in each."""
    images = []
    for i, count in enumerate(counts):
        noise = torch.rand(count, 3, 4, generator=torch.Generator().manual_seed(i)) > 0.5
        masks = noise.repeat_interleave(4, 1).repeat_interleave(4, 2)
        images.append({"boxes": torch.zeros(count, 4), "labels": torch.zeros(count).long(), "masks": masks})
    return Targets.stack(images)


def predicted(images, *shape, points=None):
    logits = 3 * torch.randn(images, 5, *shape, generator=torch.Generator().manual_seed(0))
    return Predictions(torch.zeros(images, 5, 1), torch.zeros(images, 5, 4), logits, mask_points=points)


def expected(cost, logits, truth):
    """The cost of one pair over its places: the definition, word for word."""
    if isinstance(cost, CrossEntropyLossCost):
        value = F.binary_cross_entropy_with_logits(logits, truth)
    elif isinstance(cost, FocalLossCost):
        inside, outside = (
            sigmoid_focal_loss(logits, torch.full_like(logits, t), cost.alpha, cost.gamma) for t in (1.0, 0.0)
        )
        value = (truth * inside + (1 - truth) * outside).mean()
    else:
        p = logits.sigmoid() if cost.pred_act else logits
        below = p.sum() + truth.sum() if cost.naive_dice else (p * p).sum() + (truth * truth).sum()
        value = 1 - (2 * (p * truth).sum() + cost.eps) / (below + cost.eps)
    return cost.weight * value


@costs
def test_maps_cover_the_image(cost):
    """A cell takes the mask's value at its centre: here four pixels of the same value."""
    targets, predictions = masks_of(3, 2), predicted(2, 3, 4)
    got = cost.cost(predictions, targets)
    assert got.shape == (2, 5, 3)
    dense = targets.masks.dense()[:, :, 1::4, 1::4].float()
    for i, rows in enumerate((3, 2)):
        for n in range(5):
            for m in range(rows):
                value = expected(cost, predictions.masks[i, n], dense[i, m])
                torch.testing.assert_close(got[i, n, m], value, rtol=1e-4, atol=1e-5)


@costs
def test_points(cost):
    """Values at places of their own; masks are bilinear between pixels, so the truth is soft."""
    targets = masks_of(3, 2)
    points = torch.rand(2, 7, 2, generator=torch.Generator().manual_seed(2)) * torch.tensor(SIZE[::-1])
    predictions = predicted(2, 7, points=points)
    got = cost.cost(predictions, targets)
    for i, rows in enumerate((3, 2)):
        grid = (2 * points[i] / torch.tensor(SIZE[::-1]) - 1)[None, None]
        for m in range(rows):
            mask = targets.masks.dense()[i, m].float()[None, None]
            truth = F.grid_sample(mask, grid, align_corners=False).flatten()
            for n in range(5):
                value = expected(cost, predictions.masks[i, n], truth)
                torch.testing.assert_close(got[i, n, m], value, rtol=1e-4, atol=1e-5)


@costs
def test_slices_change_nothing(cost, monkeypatch):
    targets, predictions = masks_of(6, 0), predicted(2, 12, 16)
    whole = cost.cost(predictions, targets)
    monkeypatch.setattr(overlaps, "CHUNK", 400)
    torch.testing.assert_close(cost.cost(predictions, targets), whole)


def test_memory_is_bounded(largest, monkeypatch):
    targets, predictions = masks_of(40), predicted(1, 12, 16)
    monkeypatch.setattr(overlaps, "CHUNK", 1000)
    with largest() as seen:
        CrossEntropyLossCost().cost(predictions, targets)
    assert seen.elements <= 2 * 1000  # all places of all masks would be 7,680


@costs
def test_the_right_mask_costs_least(cost):
    targets = masks_of(4)
    logits = targets.masks.dense().float() * 10 - 5
    if cost is COSTS["dice_given"]:
        logits = logits.clamp(0, 1)
    predictions = Predictions(torch.zeros(1, 4, 1), torch.zeros(1, 4, 4), logits)
    got = cost.cost(predictions, targets)[0]
    assert got.argmin(dim=0).tolist() == got.argmin(dim=1).tolist() == [0, 1, 2, 3]


@costs
def test_errors(cost):
    targets, predictions = masks_of(2), predicted(1, 3, 4)
    with pytest.raises(ValueError, match=r"compares masks, and predictions.masks is None; give masks"):
        cost.cost(Predictions(predictions.logits, predictions.boxes), targets)
    with pytest.raises(ValueError, match=r"compares masks, and targets.masks is None"):
        cost.cost(predictions, targets.replace(masks=None))
    with pytest.raises(
        ValueError, match=r"maps \[B, N, h, w\] where there are no mask_points, got shape \[1, 5, 7\]"
    ):
        cost.cost(predicted(1, 7), targets)
    with pytest.raises(ValueError, match="place of each of the 7 mask values, got 6 points"):
        cost.cost(predicted(1, 7, points=torch.zeros(1, 6, 2)), targets)


def test_parameters():
    with pytest.raises(ConfigError, match=r"eps: .*greater than 0; got 0"):
        DiceCost(eps=0)
    with pytest.raises(ConfigError, match="unknown parameter 'use_sigmoid'"):
        CrossEntropyLossCost(use_sigmoid=True)
