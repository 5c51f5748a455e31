"""The RoI head of Faster R-CNN."""

import pickle

import pytest
import torch
from detcore_postprocess import NMSPostprocess
from detcore_rcnn import Shared2FCBBoxHead, SingleRoIExtractor, StandardRoIHead
from detcore_samplers import PseudoSampler
from torch import nn

import detcore
from detcore.component import wired
from detcore.errors import ConfigError
from detcore.interfaces import Sampler, SharedHead
from detcore.interfaces.bbox_head import RoISize
from detcore.structures import Proposals, Sample

ALL = NMSPostprocess(score_thr=0.01, nms_pre=None, min_bbox_size=None, max_per_img=50)


@pytest.mark.parametrize("counts", [(3, 2), (0, 0), (0, 2), (1, 1), (500, 500)])
@pytest.mark.parametrize("regions", [0, 20])
def test_every_parameter_gets_a_finite_gradient(
    make_roi_head, make_features, make_targets, make_proposals, counts, regions
):
    features, batch = make_features()
    features = tuple(f.requires_grad_() for f in features)
    head, targets = make_roi_head(), make_targets(*counts)
    losses = head.loss(features, make_proposals(targets, regions), targets, batch)
    assert list(losses) == ["loss_cls", "loss_bbox"]
    losses.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    assert all(f.grad is not None and f.grad.isfinite().all() for f in features[:4])
    if not any(counts):
        assert losses["loss_bbox"] == 0


def test_no_proposal_and_no_ground_truth(make_roi_head, make_features, make_targets):
    features, batch = make_features()
    none = Proposals(torch.zeros(2, 4, 4), torch.zeros(2, 4), torch.zeros(2, 4).bool())
    head = make_roi_head(postprocess=ALL)
    for add in (True, False):
        losses = make_roi_head(add_gt_as_proposals=add).loss(features, none, make_targets(0, 0), batch)
        assert losses.total == 0
    assert not head.predict(features, none, batch).valid.any()
    without_rows = Proposals(torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0).bool())
    assert not head.predict(features, without_rows, batch).valid.any()


def test_detections(make_roi_head, make_features, make_targets, make_proposals):
    features, batch = make_features()
    targets = make_targets(3, 2)
    found = make_roi_head(postprocess=ALL).predict(features, make_proposals(targets), batch)
    assert found.boxes.shape == (2, 50, 4)
    assert found.valid.sum() > 10
    for i, (height, width) in enumerate(batch.sizes.tolist()):
        kept = found.valid[i]
        assert (found.scores[i][kept].diff() <= 0).all()
        assert (found.boxes[i] >= 0).all()
        assert (found.boxes[i][:, 2] <= width).all()
        assert (found.boxes[i][:, 3] <= height).all()
        assert (found.labels[i] < 5).all()


@pytest.mark.parametrize("agnostic", [False, True])
def test_detections_are_decoded_by_class(make_roi_head, make_features, agnostic):
    features, batch = make_features(1)
    box = torch.tensor([[[20, 20, 60, 60.0]]])
    one = Proposals(box, torch.ones(1, 1), torch.ones(1, 1).bool())
    bbox_head = Shared2FCBBoxHead.spec(fc_out_channels=16, reg_class_agnostic=agnostic)
    head = make_roi_head(postprocess=ALL, bbox_head=bbox_head)
    nn.init.normal_(head.bbox_head.fc_reg.weight, std=0.5)
    found = head.predict(features, one, batch)
    output = head.bbox_head(head.bbox_roi_extractor(features, box[0], torch.tensor([0])))
    for row in found.valid[0].nonzero().flatten():
        label = int(found.labels[0, row])
        wanted = head.bbox_head.decode(output.codes[:, 0 if agnostic else label], box[0], batch.sizes)
        torch.testing.assert_close(found.boxes[0, row], wanted[0])
        torch.testing.assert_close(found.scores[0, row], head.bbox_head.scores(output)[0, label])


def test_padding_is_never_detected(make_roi_head, make_features, make_targets, make_proposals):
    features, batch = make_features()
    proposals = make_proposals(make_targets(3, 2))
    head = make_roi_head(postprocess=ALL)
    padded = Proposals(
        torch.cat((proposals.boxes, torch.tensor([5, 5, 40, 40.0]).expand(2, 6, 4)), 1),
        torch.cat((proposals.scores, torch.ones(2, 6)), 1),
        torch.cat((proposals.valid, torch.zeros(2, 6).bool()), 1),
    )
    torch.testing.assert_close(
        vars(head.predict(features, padded, batch)), vars(head.predict(features, proposals, batch))
    )


def test_nothing_is_computed_for_padding(make_roi_head, make_features):
    features, batch = make_features()
    valid = torch.tensor([[True, False, True, False, False], [True, False, False, False, False]])
    proposals = Proposals(torch.tensor([5, 5, 40, 40.0]).expand(2, 5, 4), torch.ones(2, 5), valid)
    head, rows = make_roi_head(postprocess=ALL), []
    head.bbox_head.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    head.predict(features, proposals, batch)
    none = head.predict(features, proposals.replace(valid=torch.zeros(2, 5).bool()), batch)
    assert rows == [2 * 3, 0]
    assert not none.valid.any()


def test_batch_equals_singles(make_roi_head, make_features, make_targets, make_proposals):
    features, batch = make_features()
    proposals = make_proposals(make_targets(3, 2))
    head = make_roi_head(postprocess=ALL).eval()
    both = head.predict(features, proposals, batch)
    for i in range(2):
        rows = slice(i, i + 1)
        one = type(batch).of(batch.pixels[rows], batch.sizes[rows].tolist())
        mine = Proposals(*(getattr(proposals, f)[rows] for f in ("boxes", "scores", "valid")))
        single = head.predict(tuple(f[rows] for f in features), mine, one)
        torch.testing.assert_close(single.boxes[0], both.boxes[i], rtol=1e-4, atol=1e-3)
        assert torch.equal(single.labels[0], both.labels[i])


class HighestLoss(Sampler):
    """The two regions of the highest loss, whatever they are."""

    num = 2

    def sample(self, assignment, *, predict=None, generator=None) -> Sample:
        self.seen = predict()
        best = self.seen.losses.masked_fill(assignment.state < 0, -1).topk(2).indices
        chosen = torch.zeros_like(assignment.positive).scatter(1, best, True)
        return Sample(assignment.positive & chosen, assignment.negative & chosen)


def test_samplers_may_look_at_predictions(make_roi_head, make_features, make_targets, make_proposals):
    features, batch = make_features()
    targets = make_targets(3, 2)
    proposals = make_proposals(targets)
    head = make_roi_head(sampler=HighestLoss())
    sample = head.sample(features, proposals, targets, batch)
    seen, regions = head.sampler.seen, 3 + proposals.boxes.shape[1]
    assert seen.losses.shape == (2, regions)
    assert seen.logits.shape == (2, regions, 6)
    assert seen.boxes.shape == (2, regions, 4)
    assert not seen.losses.requires_grad
    assert len(sample.boxes) == 4
    whole = make_roi_head(sampler=PseudoSampler()).loss(features, proposals, targets, batch)
    assert head.loss(features, proposals, targets, batch)["loss_cls"] > whole["loss_cls"]


class Halving(SharedHead):
    """A strided convolution."""

    def __init__(self, *, in_channels: int = wired(), roi_feat_size: RoISize = wired()) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 12, 3, stride=2, padding=1)
        self.out_channels = 12
        self.output_size = tuple(-(-side // 2) for side in roi_feat_size)

    def forward(self, features):
        return self.conv(features)


def test_shared_head(make_roi_head, make_features, make_targets, make_proposals):
    features, batch = make_features()
    targets = make_targets(3, 2)
    head = make_roi_head(
        shared_head=Halving.spec(), bbox_roi_extractor=SingleRoIExtractor.spec(output_size=(8, 6))
    )
    assert head.shared_head.conv.in_channels == 8
    assert head.bbox_head.shared_fcs[0].in_features == 12 * 4 * 3
    head.loss(features, make_proposals(targets), targets, batch).total.backward()
    assert head.shared_head.conv.weight.grad.any()


def test_features_for_masks_need_a_mask_head(make_roi_head):
    with pytest.raises(ConfigError, match="mask_roi_extractor needs a mask_head"):
        make_roi_head(mask_roi_extractor=SingleRoIExtractor.spec())


def test_a_box_head_for_other_features_is_refused(make_roi_head):
    other = Shared2FCBBoxHead(in_channels=9, roi_feat_size=7, num_classes=5)
    with pytest.raises(ConfigError, match=r"bbox_head\.in_channels: Shared2FCBBoxHead has in_channels=9"):
        make_roi_head(bbox_head=other)


def test_a_box_head_that_fits(make_roi_head, make_features, make_targets, make_proposals):
    own = Shared2FCBBoxHead(in_channels=8, roi_feat_size=7, num_classes=5, fc_out_channels=4)
    assert make_roi_head(bbox_head=own).bbox_head is own


def test_dump_and_pickle(make_roi_head, pyramid):
    head = make_roi_head(postprocess=ALL, pos_weight=2.0)
    config = detcore.dump(head)
    again = detcore.build(config, in_features=pyramid, num_classes=5)
    assert detcore.dump(again) == config
    assert isinstance(pickle.loads(pickle.dumps(head)), StandardRoIHead)
