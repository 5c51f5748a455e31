"""Masks: the head, its targets, and those of detections."""

import pytest
import torch
from detcore_losses import CrossEntropyLoss, FocalLoss
from detcore_postprocess import NMSPostprocess
from detcore_rcnn import FCNMaskHead, SingleRoIExtractor
from detcore_rcnn.masks import mask_losses, mask_positives
from detcore_samplers import PseudoSampler
from torch.nn import functional as F

import detcore
from detcore.errors import ConfigError, DataError
from detcore.structures import Proposals

NEIGHBOURS = {"in_channels": 4, "roi_feat_size": 3, "num_classes": 5, "conv_out_channels": 6}
HEAD = FCNMaskHead.spec(num_convs=1, conv_out_channels=6)
ALL = NMSPostprocess(score_thr=0.01, nms_pre=None, min_bbox_size=None, max_per_img=12)


@pytest.mark.parametrize(
    ("arguments", "channels", "side"),
    [
        ({}, 5, 6),
        ({"upsample": None}, 5, 3),
        ({"upsample": "bilinear", "scale_factor": 3}, 5, 9),
        ({"upsample": "nearest", "num_convs": 0}, 5, 6),
        ({"class_agnostic": True, "norm": "GN", "num_groups": 2}, 1, 6),
        ({"loss_mask": FocalLoss.spec()}, 5, 6),
    ],
)
@pytest.mark.parametrize("rows", [3, 0])
def test_sizes_and_gradients(arguments, channels, side, rows):
    head = FCNMaskHead(**NEIGHBOURS, **arguments)
    logits = head(torch.randn(rows, 4, 3, 3))
    assert logits.shape == (rows, channels, side, side)
    labels = torch.arange(rows)
    loss = head.loss(logits, labels, torch.ones(rows, side, side))["loss_mask"]
    assert loss > 0 if rows else loss == 0
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    masks = head.masks(logits, labels)
    assert masks.shape == (rows, side, side)
    assert ((masks >= 0) & (masks <= 1)).all()


def test_the_mask_of_the_class_counts():
    head = FCNMaskHead(**NEIGHBOURS)
    logits, labels = torch.randn(2, 5, 6, 6), torch.tensor([3, 1])
    target = torch.randint(0, 2, (2, 6, 6)).float()
    own = torch.stack((logits[0, 3], logits[1, 1]))
    expected = F.binary_cross_entropy_with_logits(own, target)
    torch.testing.assert_close(head.loss(logits, labels, target)["loss_mask"], expected)
    torch.testing.assert_close(head.masks(logits, labels), own.sigmoid())


def test_softmax_is_refused():
    with pytest.raises(ConfigError, match="loss_mask should be a sigmoid loss, one logit per cell"):
        FCNMaskHead(**NEIGHBOURS, loss_mask=CrossEntropyLoss())


def test_even_kernels_are_refused():
    with pytest.raises(ConfigError, match="conv_kernel_size should be odd, got 2"):
        FCNMaskHead(**NEIGHBOURS, conv_kernel_size=2)


@pytest.mark.parametrize("extractor", [None, SingleRoIExtractor.spec(output_size=14)])
@pytest.mark.parametrize("counts", [(3, 2), (0, 2), (0, 0), (1, 1), (500, 3)])
def test_training(make_roi_head, make_features, make_targets, make_proposals, extractor, counts):
    features, batch = make_features()
    targets = make_targets(*counts, masks=True)
    head = make_roi_head(mask_head=HEAD, mask_roi_extractor=extractor)
    losses = head.loss(features, make_proposals(targets), targets, batch)
    assert list(losses) == ["loss_cls", "loss_bbox", "loss_mask"]
    assert (losses["loss_mask"] > 0) == any(counts)
    losses.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_targets_are_masks_inside_the_regions(make_roi_head, make_features, make_targets, make_proposals):
    features, batch = make_features()
    targets = make_targets(3, 2, masks=True)
    head = make_roi_head(mask_head=HEAD, sampler=PseudoSampler())
    sample = head.sample(features, make_proposals(targets), targets, batch)
    positives = mask_positives(sample)
    assert len(positives.rows) == sample.positive.sum() >= 5

    class Seen(FCNMaskHead):
        def loss(self, logits, labels, masks):
            self.seen = masks
            return super().loss(logits, labels, masks)

    mask_head = Seen(in_channels=8, roi_feat_size=7, num_classes=5)
    mask_losses(mask_head, torch.zeros(len(positives.rows), 8, 7, 7), positives, targets)
    for row, box in enumerate(positives.boxes):
        truth = targets.boxes[positives.image[row], positives.gt_index[row]]
        steps = (torch.arange(14) + 0.5) / 14
        x, y = box[0] + steps * (box[2] - box[0]), box[1] + steps * (box[3] - box[1])
        inside = ((y > truth[1]) & (y < truth[3]))[:, None] & ((x > truth[0]) & (x < truth[2]))
        assert (mask_head.seen[row].bool() == inside).float().mean() > 0.85


def test_objects_without_masks(make_roi_head, make_features, make_targets, make_proposals):
    features, batch = make_features()
    head = make_roi_head(mask_head=HEAD)
    targets = make_targets(3, 2)
    with pytest.raises(DataError, match="a mask head needs targets with masks; load them with the data"):
        head.loss(features, make_proposals(targets), targets, batch)
    empty = make_targets(0, 0)
    assert head.loss(features, make_proposals(empty), empty, batch)["loss_mask"] == 0


@pytest.mark.parametrize("extractor", [None, SingleRoIExtractor.spec(output_size=14)])
def test_detections_have_masks(make_roi_head, make_features, make_targets, make_proposals, extractor):
    features, batch = make_features()
    head = make_roi_head(mask_head=HEAD, mask_roi_extractor=extractor, postprocess=ALL)
    found = head.predict(features, make_proposals(make_targets(3, 2)), batch)
    side = 28 if extractor else 14
    assert found.masks.shape == (2, 12, side, side)
    assert found.image_sizes.tolist() == batch.sizes.tolist()
    images = found.unpad()
    assert images[0].masks.shape == (len(images[0]), 96, 128)
    assert images[1].masks.shape == (len(images[1]), 48, 64)
    pooled = (head.mask_roi_extractor or head.bbox_roi_extractor)(
        features, found.boxes[0, :1], torch.tensor([0])
    )
    alone = head.mask_head.masks(head.mask_head(pooled), found.labels[0, :1])
    torch.testing.assert_close(found.masks[0, 0], alone[0])


def test_no_detection(make_roi_head, make_features):
    features, batch = make_features()
    none = Proposals(torch.zeros(2, 4, 4), torch.zeros(2, 4), torch.zeros(2, 4).bool())
    found = make_roi_head(mask_head=HEAD, postprocess=ALL).predict(features, none, batch)
    assert found.masks.shape == (2, 12, 14, 14)
    assert not found.masks.any()
    assert [len(image) for image in found.unpad()] == [0, 0]


def test_dump(make_roi_head, pyramid):
    head = make_roi_head(mask_head=HEAD, mask_roi_extractor=SingleRoIExtractor.spec(output_size=14))
    config = detcore.dump(head)
    assert detcore.dump(detcore.build(config, in_features=pyramid, num_classes=5)) == config
