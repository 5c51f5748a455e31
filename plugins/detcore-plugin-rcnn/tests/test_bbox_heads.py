"""Box heads of convolutions and fully connected layers."""

import pytest
import torch
from detcore_coders import DeltaXYWHBBoxCoder
from detcore_losses import CrossEntropyLoss, FocalLoss, GIoULoss, L1Loss, VarifocalLoss
from detcore_rcnn import ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead
from detcore_rcnn.box_losses import regions_as_priors

import detcore
from detcore.errors import ConfigError
from detcore.interfaces.bbox_head import BBoxOutput, RoISample

NEIGHBOURS = {"in_channels": 4, "roi_feat_size": 3, "num_classes": 5}
SMALL = {**NEIGHBOURS, "fc_out_channels": 6}


def sample_of(labels, boxes=None, weight=None):
    labels = torch.tensor(labels, dtype=torch.int64)
    count = len(labels)
    boxes = torch.tensor([[10, 10, 20, 20.0]]).expand(count, 4) if boxes is None else boxes
    positive = labels < 5
    return RoISample(
        boxes=boxes,
        image=torch.zeros(count).long(),
        real=torch.ones(count).bool(),
        added=torch.zeros(count).bool(),
        positive=positive,
        labels=labels,
        weight=torch.ones(count) if weight is None else torch.tensor(weight),
        gt_index=torch.zeros(count).long(),
        gt_boxes=torch.where(positive[:, None], boxes + 1, boxes),
    )


@pytest.mark.parametrize(
    "head",
    [
        ConvFCBBoxHead(**NEIGHBOURS),
        ConvFCBBoxHead(**NEIGHBOURS, with_avg_pool=True),
        ConvFCBBoxHead(**SMALL, num_shared_convs=1, num_cls_convs=1, num_reg_fcs=2, conv_out_channels=7),
        ConvFCBBoxHead(**SMALL, num_shared_fcs=1, num_cls_fcs=1, num_reg_fcs=1, with_avg_pool=True),
        Shared2FCBBoxHead(**SMALL),
        Shared4Conv1FCBBoxHead(**SMALL, conv_out_channels=8, norm="GN", num_groups=4),
    ],
    ids=lambda head: type(head).__name__,
)
@pytest.mark.parametrize("labels", [[0, 5, 3], [5, 5], []])
def test_predictions_and_gradients(head, labels):
    features = torch.randn(len(labels), 4, 3, 3)
    output = head(features)
    assert output.logits.shape == (len(labels), 6)
    assert output.codes.shape == (len(labels), 5, 4)
    head.zero_grad()
    losses = head.loss(output, sample_of(labels))
    assert list(losses) == ["loss_cls", "loss_bbox"]
    losses.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def output_of(head, count):
    torch.manual_seed(0)
    codes = torch.randn(count, head.num_boxes, 4)
    return BBoxOutput(torch.randn(count, head.fc_cls.out_features), codes)


def test_averages():
    head = Shared2FCBBoxHead(**SMALL)
    sample = sample_of([1, 5, 2, 5], weight=[1.0, 1.0, 1.0, 0.0])
    output = output_of(head, 4)
    losses = head.loss(output, sample)
    # classes over what has a weight, boxes over all samples rather than over the positives
    expected = CrossEntropyLoss()(output.logits[:3], sample.labels[:3])
    torch.testing.assert_close(losses["loss_cls"], expected)
    coder = DeltaXYWHBBoxCoder(target_stds=(0.1, 0.1, 0.2, 0.2))
    wanted = coder.encode(regions_as_priors(sample.boxes[:1]), sample.gt_boxes[:1]).values
    own = torch.stack((output.codes[0, 1], output.codes[2, 2]))
    torch.testing.assert_close(losses["loss_bbox"], (own - wanted).abs().sum() / 4)


def test_padding_changes_nothing():
    head = Shared2FCBBoxHead(**SMALL)
    output = output_of(head, 3)
    whole = head.loss(output, sample_of([1, 5, 2]))
    padded = BBoxOutput(*(torch.cat((x, torch.full_like(x[:1], 50.0))) for x in output))
    sample = sample_of([1, 5, 2, 5], weight=[1.0, 1, 1, 0])
    real = torch.tensor([True, True, True, False])
    again = head.loss(padded, RoISample(**{**vars(sample), "real": real}))
    torch.testing.assert_close(dict(again), dict(whole))


def test_class_agnostic_boxes():
    head = Shared2FCBBoxHead(**SMALL, reg_class_agnostic=True)
    output = head(torch.randn(3, 4, 3, 3))
    assert output.codes.shape == (3, 1, 4)
    assert head.loss(output, sample_of([1, 5, 2]))["loss_bbox"] > 0


@pytest.mark.parametrize(("loss", "decoded"), [(GIoULoss.spec(), None), (L1Loss.spec(), True)])
def test_losses_on_boxes(loss, decoded):
    head = Shared2FCBBoxHead(**SMALL, loss_bbox=loss, reg_decoded_bbox=decoded)
    assert head.compares_boxes
    sample = sample_of([1, 5])
    output = output_of(head, 2)
    predicted = head.decode(output.codes[:1, 1], sample.boxes[:1])
    expected = detcore.make(loss)(predicted, sample.gt_boxes[:1], avg_factor=2.0)
    torch.testing.assert_close(head.loss(output, sample)["loss_bbox"], expected)


def test_sigmoid_loss():
    head = Shared2FCBBoxHead(**SMALL, loss_cls=FocalLoss.spec())
    output = head(torch.randn(3, 4, 3, 3))
    assert output.logits.shape == head.scores(output).shape == (3, 5)
    assert head.class_losses(output, torch.tensor([0, 5, 1])).shape == (3,)
    assert head.loss(output, sample_of([0, 5, 1]))["loss_cls"] > 0


def test_a_loss_that_regresses_to_the_quality_gets_it():
    """With codes of 0 a region's box is the region, whose overlap with its ground truth is known."""
    loss = VarifocalLoss()
    head = Shared2FCBBoxHead(**SMALL, loss_cls=loss)
    sample = sample_of([0, 5, 3])
    logits = torch.randn(3, loss.channels(5), requires_grad=True)
    output = BBoxOutput(logits, torch.zeros(3, 5, 4, requires_grad=True))
    overlap = 81 / 119  # of 10 x 10 boxes, moved by (1, 1)
    quality = torch.tensor([overlap, 0, overlap])
    wanted = loss(logits, sample.labels, weight=sample.weight, avg_factor=3, quality=quality)
    torch.testing.assert_close(head.loss(output, sample)["loss_cls"], wanted)
    perfect = loss(logits, sample.labels, weight=sample.weight, avg_factor=3, quality=torch.ones(3))
    assert not torch.isclose(wanted, perfect)


def test_decode_clips_each_row_to_its_image():
    head = Shared2FCBBoxHead(**SMALL)
    boxes = torch.tensor([[0, 0, 50, 50.0]]).expand(2, 4)
    decoded = head.decode(torch.zeros(2, 4), boxes, torch.tensor([[40, 30], [100, 100]]))
    assert decoded.tolist() == [[0, 0, 30, 40], [0, 0, 50, 50]]


def test_convolutions_after_shared_layers_are_refused():
    with pytest.raises(
        ConfigError, match="num_shared_fcs=1 leaves no feature map for num_cls_convs=0 and num_reg"
    ):
        ConvFCBBoxHead(**NEIGHBOURS, num_shared_fcs=1, num_reg_convs=2)


def test_dump_gives_the_same_head():
    head = Shared4Conv1FCBBoxHead(**SMALL, conv_out_channels=8, loss_bbox=GIoULoss(loss_weight=2.0))
    again = detcore.build(detcore.dump(head))
    assert detcore.dump(again) == detcore.dump(head)
    assert again.state_dict().keys() == head.state_dict().keys()
    assert again.loss_bbox.loss_weight == 2
