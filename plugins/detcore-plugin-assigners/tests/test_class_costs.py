"""ClassificationCost, and FocalLossCost of classes."""

import pytest
import torch
from detcore_assigners import ClassificationCost, FocalLossCost
from torchvision.ops import sigmoid_focal_loss

from detcore.errors import ConfigError
from detcore.structures import Predictions, Targets


def scene(images=2, count=5, rows=3, channels=4):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(images, count, channels, generator=generator)
    labels = torch.randint(0, channels, (images, rows), generator=generator)
    flags = torch.ones_like(labels, dtype=torch.bool)
    targets = Targets(torch.zeros(images, rows, 4), labels, flags, ~flags)
    return Predictions(logits, torch.zeros(images, count, 4)), targets


def test_classification():
    predictions, targets = scene()
    got = ClassificationCost(weight=2.0).cost(predictions, targets)
    for i in range(2):
        for n in range(5):
            for m, label in enumerate(targets.labels[i]):
                scores = predictions.logits[i, n].exp()
                torch.testing.assert_close(got[i, n, m], -2 * scores[label] / scores.sum())


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 0.0), (0.75, 1.5)])
def test_focal_is_the_loss_with_less_the_loss_without(alpha, gamma):
    predictions, targets = scene()
    got = FocalLossCost(alpha=alpha, gamma=gamma, weight=2.0).cost(predictions, targets)
    for i in range(2):
        for m, label in enumerate(targets.labels[i]):
            logits = predictions.logits[i, :, label]
            matched, unmatched = (
                sigmoid_focal_loss(logits, torch.full_like(logits, t), alpha, gamma) for t in (1.0, 0.0)
            )
            torch.testing.assert_close(got[i, :, m], 2 * (matched - unmatched))


def test_focal_of_certain_logits_is_finite():
    predictions, targets = scene()
    certain = Predictions(torch.full_like(predictions.logits, 200.0), predictions.boxes)
    assert FocalLossCost().cost(certain, targets).isfinite().all()
    certain = Predictions(-certain.logits, predictions.boxes)
    assert FocalLossCost().cost(certain, targets).isfinite().all()


@pytest.mark.parametrize("cost", [ClassificationCost(), FocalLossCost()], ids=["softmax", "focal"])
def test_half_precision_is_computed_in_float32(cost):
    predictions, targets = scene()
    half = Predictions(predictions.logits.half(), predictions.boxes)
    back = Predictions(half.logits.float(), predictions.boxes)
    assert torch.equal(cost.cost(half, targets), cost.cost(back, targets))
    assert cost.cost(half, targets).dtype == torch.float32


@pytest.mark.parametrize("cost", [ClassificationCost(), FocalLossCost()], ids=["softmax", "focal"])
def test_no_predictions(cost):
    assert cost.cost(*scene(count=0)).shape == (2, 0, 3)


def test_errors():
    with pytest.raises(ConfigError, match=r"alpha: .*less than or equal to 1; got 2"):
        FocalLossCost(alpha=2)
    with pytest.raises(ConfigError, match=r"weight: .*greater than or equal to 0; got -1"):
        ClassificationCost(weight=-1)
    assert FocalLossCost().needs == {"logits"}
    assert FocalLossCost(binary_input=True).needs == {"masks"}
