"""Prime sample attention: ISR-P, CARL, and the RoI head that uses them."""

import pickle

import pytest
import torch
from detcore_losses import GIoULoss
from detcore_rcnn import PISARoIHead, Shared2FCBBoxHead
from detcore_rcnn.pisa import carl_weights, isr_p
from detcore_samplers import OHEMSampler, RandomSampler, ScoreHLRSampler
from torch import nn

import detcore
from detcore.component import wired
from detcore.errors import ConfigError
from detcore.interfaces import BBoxHead
from detcore.interfaces.bbox_head import RoISize
from detcore.structures import Proposals


def isr(ious, labels, objects, positive=None, losses=None, weight=None, **arguments):
    ious = torch.tensor(ious)
    ones = torch.ones(len(ious))
    return isr_p(
        ious,
        ones if losses is None else torch.tensor(losses),
        ones if weight is None else torch.tensor(weight),
        torch.ones(len(ious), dtype=torch.bool) if positive is None else torch.tensor(positive),
        torch.tensor(labels),
        torch.tensor(objects),
        **arguments,
    )


class TestISR:
    def test_place_within_the_object_counts_more_than_the_overlap(self):
        # class 0: objects 0 (0.9, 0.8) and 1 (0.5): 0.9, 0.5, then 0.8
        found = isr([0.8, 0.9, 0.5], [0, 0, 0], [0, 0, 1], k=1.0)
        linear = torch.tensor([1.0, 3, 2]) / 3
        torch.testing.assert_close(found, linear * 3 / linear.sum())

    def test_classes_are_ranked_apart_on_one_scale(self):
        found = isr([0.9, 0.8, 0.7, 0.6], [0, 0, 0, 1], [0, 1, 2, 3], k=1.0)
        linear = torch.tensor([3.0, 2, 1, 3]) / 3
        torch.testing.assert_close(found, linear * 4 / linear.sum())

    def test_objects_of_three_images_stay_apart(self):
        # two classes' worth of objects that share numbers in no image
        apart = isr([0.9, 0.8, 0.7], [0, 0, 0], [0, 10, 20], k=1.0)
        one = isr([0.9, 0.8, 0.7], [0, 0, 0], [0, 0, 0], k=1.0)
        torch.testing.assert_close(apart, one)

    def test_power_and_bias(self):
        linear = torch.tensor([1.0, 0.5])
        new = (0.2 + 0.8 * linear) ** 2
        torch.testing.assert_close(isr([0.9, 0.5], [0, 0], [0, 1], k=2.0, bias=0.2), new * 2 / new.sum())

    def test_the_sum_of_losses_stays_and_negatives_are_left_alone(self):
        losses, weight = [0.3, 2.0, 0.7, 5.0], [1.0, 1.0, 2.0, 0.4]
        positive = [True, True, True, False]
        found = isr([0.5, 0.6, 0.7, 0.8], [0, 0, 1, 9], [0, 1, 2, 0], positive, losses, weight)
        assert found[3] == torch.tensor(0.4)
        before, after = ((torch.tensor(losses) * w)[:3].sum() for w in (torch.tensor(weight), found))
        torch.testing.assert_close(after, before)

    def test_without_positives_and_without_rows(self):
        assert isr([0.5, 0.1], [3, 3], [0, 0], [False, False]).tolist() == [1, 1]
        assert isr([], torch.zeros(0, dtype=torch.int64).tolist(), []).shape == (0,)


class TestCARL:
    def test_mean_of_one(self):
        scores, positive = torch.tensor([0.9, 0.1, 0.5, 0.7]), torch.tensor([True, True, False, True])
        weights = carl_weights(scores, positive, k=1.0, bias=0.2)
        plain = 0.2 + 0.8 * scores
        torch.testing.assert_close(weights[positive], plain[positive] * 3 / plain[positive].sum())
        assert weights[2] == 0

    @pytest.mark.parametrize("positive", [[False, False], [True, False]])
    def test_gradients_are_finite(self, positive):
        scores = torch.zeros(2, requires_grad=True)
        carl_weights(scores, torch.tensor(positive), k=0.5, bias=0.1).sum().backward()
        assert scores.grad.isfinite().all()


@pytest.fixture
def make_pisa(pyramid):
    def make_pisa(seed=0, **arguments):
        torch.manual_seed(seed)
        parts = {"bbox_head": Shared2FCBBoxHead.spec(fc_out_channels=16), **arguments}
        head = PISARoIHead(in_features=pyramid, num_classes=5, **parts)
        nn.init.normal_(head.bbox_head.fc_cls.weight, std=0.5)
        return head

    return make_pisa


class TestRoIHead:
    @pytest.mark.parametrize("counts", [(3, 2), (0, 0), (0, 2)])
    @pytest.mark.parametrize("regions", [0, 20])
    def test_every_parameter_gets_a_finite_gradient(
        self, make_pisa, make_features, make_targets, make_proposals, counts, regions
    ):
        features, batch = make_features()
        head, targets = make_pisa(), make_targets(*counts)
        losses = head.loss(features, make_proposals(targets, regions), targets, batch)
        assert list(losses) == ["loss_cls", "loss_bbox", "loss_carl"]
        losses.total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
        if not any(counts):
            assert losses["loss_carl"] == 0

    def test_no_proposal_and_no_ground_truth(self, make_pisa, make_features, make_targets):
        features, batch = make_features()
        for rows in (0, 4):
            none = Proposals(torch.zeros(2, rows, 4), torch.zeros(2, rows), torch.zeros(2, rows).bool())
            for add in (True, False):
                head = make_pisa(add_gt_as_proposals=add)
                assert head.loss(features, none, make_targets(0, 0), batch).total == 0

    def test_boxes_teach_the_scores(self, make_pisa, make_features, make_targets, make_proposals):
        features, batch = make_features()
        targets = make_targets(3, 2)
        head = make_pisa()
        head.loss(features, make_proposals(targets), targets, batch)["loss_carl"].backward()
        assert head.bbox_head.fc_cls.weight.grad.any()
        assert head.bbox_head.fc_reg.weight.grad.any()

    def test_weights_leave_the_sum_of_losses(self, make_pisa, make_features, make_targets, make_proposals):
        features, batch = make_features()
        targets = make_targets(3, 2)
        proposals = make_proposals(targets)
        everything = RandomSampler.spec(num=1000, pos_fraction=1.0)
        weighed = make_pisa(sampler=everything).loss(features, proposals, targets, batch)
        plain = make_pisa(sampler=everything, isr_k=None).loss(features, proposals, targets, batch)
        torch.testing.assert_close(weighed["loss_cls"], plain["loss_cls"])

    def test_parts_may_be_left_out(
        self, make_pisa, make_roi_head, make_features, make_targets, make_proposals
    ):
        features, batch = make_features()
        targets = make_targets(3, 2)
        proposals, sampler = make_proposals(targets), OHEMSampler.spec(num=12, pos_fraction=0.25)
        off = make_pisa(sampler=sampler, isr_k=None, carl_k=None)
        standard = make_roi_head(sampler=sampler)
        losses = off.loss(features, proposals, targets, batch)
        assert dict(losses) == dict(standard.loss(features, proposals, targets, batch))

    def test_a_loss_on_boxes(self, make_pisa, make_features, make_targets, make_proposals):
        features, batch = make_features()
        targets = make_targets(3, 2)
        head = make_pisa(bbox_head=Shared2FCBBoxHead.spec(fc_out_channels=16, loss_bbox=GIoULoss.spec()))
        assert head.loss(features, make_proposals(targets), targets, batch)["loss_carl"] > 0

    def test_negatives_weigh_as_the_sampler_says(
        self, make_pisa, make_features, make_targets, make_proposals
    ):
        features, batch = make_features()
        targets = make_targets(3, 2)
        sampler = ScoreHLRSampler.spec(num=16, pos_fraction=0.25)
        sample = make_pisa(sampler=sampler).sample(features, make_proposals(targets), targets, batch)
        assert sample.weight[sample.real & ~sample.positive].unique().numel() > 2
        assert (sample.weight[sample.positive] == 1).all()

    def test_a_head_without_coder_is_refused(self, pyramid):
        with pytest.raises(ConfigError, match="bbox_head: Bare has no coder and box loss to weigh by"):
            PISARoIHead(in_features=pyramid, num_classes=5, bbox_head=Bare.spec())

    def test_dump_and_pickle(self, make_pisa, pyramid):
        config = detcore.dump(make_pisa(carl_bias=0.3))
        again = detcore.build(config, in_features=pyramid, num_classes=5)
        assert detcore.dump(again) == config
        assert again.attention.carl == (1.0, 0.3)
        assert isinstance(pickle.loads(pickle.dumps(again)), PISARoIHead)


class Bare(BBoxHead):
    """A head of another family."""

    def __init__(
        self, *, in_channels: int = wired(), roi_feat_size: RoISize = wired(), num_classes: int = wired()
    ) -> None:
        super().__init__()

    def forward(self, features):
        raise AssertionError("not used")

    loss = class_losses = scores = decode = forward
