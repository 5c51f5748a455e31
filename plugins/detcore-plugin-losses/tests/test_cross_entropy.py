"""Cross entropy: ignored rows, class weights, soft targets."""

import pytest
import torch
from detcore_losses import CrossEntropyLoss
from torch.nn import functional as F

from detcore.errors import ConfigError


@pytest.fixture
def pred():
    torch.manual_seed(1)
    return torch.randn(6, 4)


def test_softmax_has_a_channel_for_background(pred):
    loss = CrossEntropyLoss()
    assert loss.channels(3) == 4
    torch.testing.assert_close(loss(pred, torch.full((6,), 3)), -pred.log_softmax(1)[:, 3].mean())
    torch.testing.assert_close(loss.scores(pred), pred.softmax(1)[:, :3])


def test_sigmoid_background_is_no_channel(pred):
    loss = CrossEntropyLoss(use_sigmoid=True)
    assert loss.channels(4) == 4
    torch.testing.assert_close(loss(pred, torch.full((6,), 4)), F.softplus(pred).mean())
    torch.testing.assert_close(loss.scores(pred), pred.sigmoid())


@pytest.mark.parametrize("use_sigmoid", [False, True])
def test_ignored_rows(pred, use_sigmoid):
    labels = torch.tensor([0, 255, 1, 2, 255, 3])
    used = labels != 255
    for whole in (False, True):
        loss = CrossEntropyLoss(use_sigmoid=use_sigmoid, ignore_index=255, avg_non_ignore=whole)
        expected = CrossEntropyLoss(use_sigmoid=use_sigmoid)(pred[used], labels[used])
        torch.testing.assert_close(loss(pred, labels), expected if whole else expected * 4 / 6)
    leaf = pred.requires_grad_()
    loss(leaf, labels).backward()
    assert not leaf.grad[~used].any()
    assert leaf.grad[used].any(1).all()


@pytest.mark.parametrize("use_sigmoid", [False, True])
def test_everything_ignored_is_zero(pred, use_sigmoid):
    loss = CrossEntropyLoss(use_sigmoid=use_sigmoid, ignore_index=255, avg_non_ignore=True)
    leaf = pred.requires_grad_()
    value = loss(leaf, torch.full((6,), 255))
    value.backward()
    assert value == 0
    assert not leaf.grad.any()


def test_sigmoid_ignores_negative_labels(pred):
    labels = torch.tensor([0, -1, 1, 2, -7, 3])
    each = CrossEntropyLoss(use_sigmoid=True, reduction="none")(pred, labels)
    assert not each[labels < 0].any()
    assert each[labels >= 0].all()


def test_labels_equal_one_hot(pred):
    labels = torch.tensor([0, 1, 2, 3, 4, 4])
    one_hot = F.one_hot(labels, 5)[:, :4]
    for weights in (None, (1.0, 2.0, 3.0, 0.5)):
        loss = CrossEntropyLoss(use_sigmoid=True, class_weight=weights, reduction="none")
        torch.testing.assert_close(loss(pred, labels), loss(pred, one_hot))
        torch.testing.assert_close(loss(pred, labels), loss(pred, one_hot.float()))


def test_soft_targets_of_a_softmax(pred):
    labels = torch.tensor([0, 1, 2, 3, 3, 0])
    loss = CrossEntropyLoss(class_weight=(1.0, 2.0, 3.0, 0.5), reduction="none")
    torch.testing.assert_close(loss(pred, F.one_hot(labels, 4)), loss(pred, labels))


def test_mean_divides_by_all_rows_whatever_the_class_weights(pred):
    labels = torch.tensor([0, 1, 2, 3, 3, 0])
    loss = CrossEntropyLoss(class_weight=(1.0, 2.0, 3.0, 0.5))
    torch.testing.assert_close(loss(pred, labels), loss(pred, labels, reduction="sum") / 6)


def test_weights_per_value(pred):
    weight = torch.rand(6, 4)
    loss = CrossEntropyLoss(use_sigmoid=True)
    labels = torch.tensor([0, 1, 2, 3, 4, 4])
    expected = (loss(pred, labels, reduction="none") * weight).sum() / 2
    torch.testing.assert_close(loss(pred, labels, weight=weight, avg_factor=2), expected)


def test_class_weights_are_configuration_not_state(pred):
    loss = CrossEntropyLoss(class_weight=(1, 2, 3, 4))
    assert loss.class_weight == (1.0, 2.0, 3.0, 4.0)
    assert not loss.state_dict()
    assert loss.double()(pred.double(), torch.zeros(6, dtype=torch.int64)).dtype == torch.float64


def test_wrong_number_of_class_weights(pred):
    with pytest.raises(
        ConfigError, match=r"class_weight has 2 entries, but pred has 4 channels .*background"
    ):
        CrossEntropyLoss(class_weight=(1.0, 2.0))(pred, torch.zeros(6, dtype=torch.int64))


def test_extreme_logits():
    pred = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]]).requires_grad_()
    for use_sigmoid in (False, True):
        for label in range(3):
            value = CrossEntropyLoss(use_sigmoid=use_sigmoid)(pred, torch.full((2,), label))
            (gradient,) = torch.autograd.grad(value, pred)
            assert value.isfinite()
            assert gradient.isfinite().all()
