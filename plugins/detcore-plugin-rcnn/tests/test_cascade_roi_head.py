"""The RoI head of Cascade R-CNN."""

import pytest
import torch
from detcore_assigners import MaxIoUAssigner
from detcore_postprocess import NMSPostprocess
from detcore_rcnn import CascadeRoIHead, FCNMaskHead, Shared2FCBBoxHead, SingleRoIExtractor, StandardRoIHead
from detcore_rcnn.box_losses import regions_as_priors
from detcore_rcnn.prediction import refine
from detcore_rcnn.sampling import flat
from detcore_samplers import PseudoSampler, RandomSampler

import detcore
from detcore.errors import ConfigError
from detcore.structures import Proposals

SMALL = Shared2FCBBoxHead.spec(fc_out_channels=16, reg_class_agnostic=True)
MASK = FCNMaskHead.spec(num_convs=1, conv_out_channels=6)
ALL = NMSPostprocess(score_thr=0.01, nms_pre=None, min_bbox_size=None, max_per_img=12)


@pytest.fixture
def make_cascade(pyramid):
    def make_cascade(seed=0, **arguments):
        torch.manual_seed(seed)
        parts = {"bbox_head": SMALL, "postprocess": ALL, **arguments}
        head = CascadeRoIHead(in_features=pyramid, num_classes=5, **parts)
        for bbox_head in head.bbox_head:
            torch.nn.init.normal_(bbox_head.fc_cls.weight, std=0.5)
            torch.nn.init.normal_(bbox_head.fc_reg.weight, std=0.2)
        return head

    return make_cascade


@pytest.mark.parametrize("counts", [(3, 2), (0, 0), (0, 2), (1, 1), (500, 500)])
@pytest.mark.parametrize("regions", [0, 20])
def test_every_parameter_gets_a_finite_gradient(
    make_cascade, make_features, make_targets, make_proposals, counts, regions
):
    features, batch = make_features()
    targets = make_targets(*counts, masks=True)
    head = make_cascade(mask_head=MASK)
    losses = head.loss(features, make_proposals(targets, regions), targets, batch)
    assert list(losses) == [f"s{i}.loss_{name}" for i in range(3) for name in ("cls", "bbox", "mask")]
    losses.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_the_first_stage_is_a_standard_head(
    make_cascade, make_features, make_targets, make_proposals, pyramid
):
    features, batch = make_features()
    targets = make_targets(3, 2)
    proposals = make_proposals(targets)
    head = make_cascade(sampler=PseudoSampler())
    alone = StandardRoIHead(
        in_features=pyramid, num_classes=5, bbox_head=head.bbox_head[0], sampler=PseudoSampler()
    )
    expected = alone.loss(features, proposals, targets, batch)
    losses = head.loss(features, proposals, targets, batch)
    assert {name: losses[f"s0.{name}"] for name in expected} == expected


def test_weights_of_stages(make_cascade, make_features, make_targets, make_proposals):
    features, batch = make_features()
    targets = make_targets(3, 2)
    proposals = make_proposals(targets)
    default = make_cascade(sampler=PseudoSampler()).loss(features, proposals, targets, batch)
    other = make_cascade(sampler=PseudoSampler(), stage_loss_weights=(2, 1, 0)).loss(
        features, proposals, targets, batch
    )
    torch.testing.assert_close(other["s0.loss_cls"], 2 * default["s0.loss_cls"])
    torch.testing.assert_close(other["s1.loss_cls"], 2 * default["s1.loss_cls"])
    assert other["s2.loss_cls"] == 0


def test_later_stages_see_refined_regions_and_no_ground_truth_twice(
    make_cascade, make_features, make_targets, make_proposals
):
    features, batch = make_features()
    targets = make_targets(3, 2)
    proposals = make_proposals(targets)
    seen = []

    class Watching(PseudoSampler):
        def sample(self, assignment, *, predict=None, generator=None):
            seen.append(assignment)
            return super().sample(assignment)

    head = make_cascade(sampler=Watching(), assigner=MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.5))
    head.loss(features, proposals, targets, batch)
    valid = int(proposals.valid.sum())
    for assignment in seen:
        # the regions, and each ground truth once
        assert (assignment.state >= 0).sum() == valid + 5
    stage = head.stages[0]
    sample = stage.sample(features, proposals, targets, batch)
    _, output = stage.loss(features, sample, targets)
    boxes = refine(stage.bbox_head, output, sample.boxes, batch.sizes[sample.image], sample.labels)
    kept = sample.real & ~sample.added
    again = head.stages[1].assigner.assign(
        regions_as_priors(boxes.reshape(2, -1, 4)).replace(valid=kept.reshape(2, -1)), targets
    )
    assert torch.equal(seen[1].state[:, 3:], again.state)


def test_detections_average_logits_and_take_the_last_boxes(make_cascade, make_features):
    features, batch = make_features(1)
    box = torch.tensor([[[20, 20, 60, 60.0]]])
    head = make_cascade()
    found = head.predict(features, Proposals(box, torch.ones(1, 1), torch.ones(1, 1).bool()), batch)
    regions, logits = box[0], []
    for stage in head.stages:
        output = stage.bbox_head(stage.pool(features, regions, torch.tensor([0])))
        logits.append(output.logits)
        regions = refine(stage.bbox_head, output, regions, batch.sizes)
    scores = (sum(logits) / 3).softmax(-1)[0, :-1]
    assert found.valid[0].sum() == (scores > 0.01).sum()
    torch.testing.assert_close(found.scores[0, 0], scores.max())
    torch.testing.assert_close(found.boxes[0, 0], regions[0])


def test_masks_are_averaged(make_cascade, make_features, make_targets, make_proposals):
    features, batch = make_features()
    head = make_cascade(mask_head=MASK, mask_roi_extractor=SingleRoIExtractor.spec(output_size=14))
    found = head.predict(features, make_proposals(make_targets(3, 2)), batch)
    assert found.masks.shape == (2, 12, 28, 28)
    pooled = head.mask_roi_extractor[0](features, found.boxes[1, :1], torch.tensor([1]))
    masks = [mask_head.masks(mask_head(pooled), found.labels[1, :1]) for mask_head in head.mask_head]
    torch.testing.assert_close(found.masks[1, 0], (sum(masks) / 3)[0])


def test_one_stage(make_cascade, make_features, make_targets, make_proposals):
    features, batch = make_features()
    proposals = make_proposals(make_targets(3, 2))
    head = make_cascade(
        stage_loss_weights=(1,), assigner=MaxIoUAssigner.spec(pos_iou_thr=0.5, neg_iou_thr=0.5)
    )
    assert head.predict(features, proposals, batch).valid.any()


def test_no_proposal(make_cascade, make_features):
    features, batch = make_features()
    for rows in (4, 0):
        none = Proposals(torch.zeros(2, rows, 4), torch.zeros(2, rows), torch.zeros(2, rows).bool())
        assert not make_cascade().predict(features, none, batch).valid.any()


def test_defaults_of_the_paper(pyramid):
    head = CascadeRoIHead(in_features=pyramid, num_classes=5)
    assert [h.bbox_coder.target_stds for h in head.bbox_head] == [
        (0.1, 0.1, 0.2, 0.2),
        (0.05, 0.05, 0.1, 0.1),
        (0.033, 0.033, 0.067, 0.067),
    ]
    assert [a.pos_iou_thr for a in head.assigner] == [0.5, 0.6, 0.7]
    assert len({id(h) for h in head.bbox_head}) == 3
    assert all(isinstance(s, RandomSampler) for s in head.sampler)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bbox_head": (SMALL, SMALL)}, "bbox_head: 2 for 3 stages; give one for each of stage_loss_weights"),
        (
            {
                "bbox_head": Shared2FCBBoxHead(
                    in_channels=8, roi_feat_size=7, num_classes=5, fc_out_channels=4
                )
            },
            r"bbox_head: the 3 stages would share the weights of one instance; give Shared2FCBBoxHead\.spec",
        ),
        ({"mask_roi_extractor": SingleRoIExtractor.spec()}, "mask_roi_extractor needs a mask_head"),
        ({"stage_loss_weights": ()}, "stage_loss_weights"),
    ],
)
def test_what_does_not_fit(make_cascade, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_cascade(**arguments)


def test_dump(make_cascade, pyramid):
    head = make_cascade(mask_head=MASK, mask_roi_extractor=SingleRoIExtractor.spec(output_size=14))
    config = detcore.dump(head)
    again = detcore.build(config, in_features=pyramid, num_classes=5)
    assert detcore.dump(again) == config
    assert again.state_dict().keys() == head.state_dict().keys()


def test_flat_keeps_images_apart():
    boxes, image = flat(
        Proposals(torch.arange(24.0).reshape(2, 3, 4), torch.zeros(2, 3), torch.ones(2, 3).bool())
    )
    assert boxes.shape == (6, 4)
    assert image.tolist() == [0, 0, 0, 1, 1, 1]
