"""From proposals to samples."""

import pytest
import torch
from detcore_assigners import ATSSAssigner, MaxIoUAssigner
from detcore_rcnn.box_losses import regions_as_priors
from detcore_rcnn.sampling import sample_regions, with_ground_truths
from detcore_samplers import PseudoSampler, RandomSampler

from detcore.errors import ConfigError
from detcore.structures import Proposals, Targets

ASSIGNER = MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False)


def sample(proposals, targets, num=16, sampler=None, **arguments):
    sampler = sampler or RandomSampler(num=num, pos_fraction=0.25)
    return sample_regions(
        proposals, targets, None, assigner=ASSIGNER, sampler=sampler, num_classes=5, **arguments
    )


def test_fixed_size(make_targets, make_proposals):
    targets = make_targets(3, 0)
    proposals = make_proposals(targets, 40)
    found = sample(proposals, targets)
    assert found.boxes.shape == (32, 4)
    assert found.image.tolist() == [0] * 16 + [1] * 16
    assert found.real.all()
    assert found.positive.sum() == 4
    assert (found.labels[found.positive] < 5).all()
    assert (found.labels[~found.positive] == 5).all()


def test_no_more_rows_than_there_are(make_targets, make_proposals):
    targets = make_targets(3, 1)
    found = sample(make_proposals(targets, 6), targets, num=512)
    assert found.boxes.shape == (2 * (3 + 3 + 6), 4)
    assert found.real.sum() == 2 * 6 + 2 * 3 + 2 * 1
    assert not found.weight[~found.real].any()
    assert not found.boxes[~found.real].any()


def test_ground_truths_are_positives_of_themselves(make_targets, make_proposals):
    targets = make_targets(3, 2)
    far = make_proposals(targets).replace(boxes=torch.full((2, 23, 4), 500.0))
    found = sample(far, targets, sampler=PseudoSampler())
    assert found.positive.sum() == 5
    torch.testing.assert_close(found.boxes[found.positive], found.gt_boxes[found.positive])
    torch.testing.assert_close(found.gt_boxes[found.positive], targets.boxes[targets.valid])
    assert torch.equal(found.labels[found.positive], targets.labels[targets.valid])
    assert not sample(far, targets, sampler=PseudoSampler(), add_gt_as_proposals=False).positive.any()


def test_positives_know_their_ground_truth(make_targets, make_proposals):
    targets = make_targets(4, 4)
    found = sample(make_proposals(targets), targets, sampler=PseudoSampler())
    of_gt = targets.boxes[found.image, found.gt_index]
    torch.testing.assert_close(found.gt_boxes[found.positive], of_gt[found.positive])
    torch.testing.assert_close(found.gt_boxes[~found.positive], found.boxes[~found.positive])


def test_regions_to_ignore_take_no_part(make_targets, make_proposals):
    targets = make_targets(3, 3)
    ignored = targets.replace(ignore=targets.valid)
    found = sample(make_proposals(targets), ignored, sampler=PseudoSampler())
    assert not found.positive.any()
    for box in targets.boxes[0]:
        assert not ((found.boxes == box).all(1) & found.real).any()


def test_weight_of_positives(make_targets, make_proposals):
    targets = make_targets(3, 2)
    found = sample(make_proposals(targets), targets, pos_weight=3.0)
    assert (found.weight[found.positive] == 3).all()
    assert (found.weight[found.real & ~found.positive] == 1).all()


def test_generator_decides(make_targets, make_proposals):
    targets = make_targets(3, 2)
    proposals = make_proposals(targets, 100)
    picks = [sample(proposals, targets, generator=torch.Generator().manual_seed(s)).boxes for s in (1, 1, 2)]
    assert torch.equal(picks[0], picks[1])
    assert not torch.equal(picks[0], picks[2])


@pytest.mark.parametrize("counts", [(0, 0), (1, 1), (500, 3)])
def test_numbers_of_objects(make_targets, make_proposals, counts):
    targets = make_targets(*counts)
    found = sample(make_proposals(targets, 30), targets, num=64)
    assert found.boxes.shape[0] == 2 * min(64, targets.boxes.shape[1] * 2 + 30)
    assert found.boxes.isfinite().all()
    for image, count in enumerate(counts):
        assert min(16, count) <= found.positive[found.image == image].sum() <= (16 if count else 0)


def test_no_proposal(make_targets):
    targets = make_targets(2, 0)
    none = Proposals(torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0).bool())
    found = sample(none, targets)
    assert found.real.tolist() == [True, True, False, False]
    assert sample(none, targets, add_gt_as_proposals=False).boxes.shape == (0, 4)


def test_batch_equals_singles(make_targets, make_proposals):
    targets = make_targets(3, 2)
    proposals = make_proposals(targets)
    both = sample(proposals, targets, sampler=PseudoSampler())
    for i in range(2):
        one = Targets(*(getattr(targets, f)[i : i + 1] for f in ("boxes", "labels", "valid", "ignore")))
        mine = Proposals(*(getattr(proposals, f)[i : i + 1] for f in ("boxes", "scores", "valid")))
        single = sample(mine, one, sampler=PseudoSampler())
        rows = both.image == i
        for field in ("boxes", "real", "positive", "labels", "weight", "gt_index", "gt_boxes"):
            assert torch.equal(getattr(single, field), getattr(both, field)[rows])


def test_ground_truths_come_first(make_targets, make_proposals):
    targets = make_targets(3, 2)
    proposals = make_proposals(targets)
    assignment = ASSIGNER.assign(regions_as_priors(proposals.boxes), targets)
    joined, both = with_ground_truths(proposals, assignment, targets)
    assert joined.boxes.shape[1] == 3 + proposals.boxes.shape[1]
    assert both.gt_index[:, :3].tolist() == [[0, 1, 2], [0, 1, 0]]
    assert both.state[:, :3].tolist() == [[1, 1, 1], [1, 1, -1]]
    assert joined.valid[:, :3].tolist() == [[True] * 3, [True, True, False]]


def test_an_assigner_that_needs_a_grid_is_refused(make_roi_head):
    with pytest.raises(ConfigError, match="assigner: ATSSAssigner reads levels, which proposals do not have"):
        make_roi_head(assigner=ATSSAssigner(topk=9))
