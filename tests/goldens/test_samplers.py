"""Samplers against the reference's numbers: sets where nothing is random, counts where something is."""

import pytest
import torch
from detcore_samplers import PseudoSampler, RandomSampler

from detcore.structures import Assignment
from detcore.testing.goldens import missing, read, task_cases

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


def cases(cls, where=lambda case: True):
    return [pytest.param(c, id=c["id"]) for c in task_cases("samplers", cls, where=where)]


def counted(case):
    return ".counts." in case["id"]


def assigned(inputs, prepend_gts=False):
    """The recorded assignment of one image; with ``prepend_gts`` as the owner of a sampler prepares it."""
    found = inputs["assign.gt_inds"]
    quality = inputs["assign.max_overlaps"]
    if prepend_gts:  # a ground truth that is its own proposal overlaps itself fully
        count = len(inputs["gt.bboxes"])
        found = torch.cat((torch.arange(1, count + 1), found))
        quality = torch.cat((torch.ones(count), quality))
    return Assignment((found - 1).clamp(min=0)[None], found.clamp(max=1)[None].to(torch.int8), quality[None])


def check_indices(sample, assignment, inputs, outputs, prepended):
    positive = sample.positive[0].nonzero()[:, 0]
    negative = sample.negative[0].nonzero()[:, 0]
    assert torch.equal(positive, outputs["pos_inds"])
    assert torch.equal(negative, outputs["neg_inds"])
    gt_index = assignment.gt_index[0, positive]
    assert torch.equal(gt_index, outputs["pos_assigned_gt_inds"])
    assert torch.equal(inputs["gt.labels"][gt_index], outputs["pos_gt_labels"])
    priors = torch.cat((inputs["gt.bboxes"][:prepended], inputs["priors"]))
    assert torch.equal(priors[positive], outputs["pos_priors"])


@pytest.mark.parametrize("case", cases("PseudoSampler"))
def test_pseudo(case):
    inputs = read(case, "inputs")
    assignment = assigned(inputs)
    sample = PseudoSampler().sample(assignment)
    check_indices(sample, assignment, inputs, read(case, "outputs"), 0)
    assert sample.weight is None


def random_sampler(case):
    args = dict(case["args"])
    return RandomSampler(**{k: v for k, v in args.items() if k != "add_gt_as_proposals"}), args[
        "add_gt_as_proposals"
    ]


@pytest.mark.parametrize("case", cases("RandomSampler", lambda c: not counted(c)))
def test_random_that_takes_all(case):
    sampler, add_gt = random_sampler(case)
    inputs = read(case, "inputs")
    assignment = assigned(inputs, add_gt)
    sample = sampler.sample(assignment, generator=torch.Generator().manual_seed(1))
    check_indices(
        sample, assignment, inputs, read(case, "outputs"), len(inputs["gt.bboxes"]) if add_gt else 0
    )


@pytest.mark.parametrize("case", cases("RandomSampler", counted))
def test_random_counts(case):
    sampler, add_gt = random_sampler(case)
    inputs, outputs = read(case, "inputs"), read(case, "outputs")
    assignment = assigned(inputs, add_gt)
    per_gt = assignment.gt_index[0][assignment.positive[0]].bincount(minlength=len(inputs["gt.bboxes"]))
    assert torch.equal(per_gt, outputs["available_pos_per_gt"])
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        sample = sampler.sample(assignment, generator=generator)
        assert outputs["num_pos_min"] == outputs["num_pos_max"] == outputs["num_expected_pos"]
        assert int(sample.positive.sum()) == outputs["num_expected_pos"]
        assert outputs["num_neg_min"] <= int(sample.negative.sum()) <= outputs["num_neg_max"]
        assert not (sample.positive & ~assignment.positive).any()
        assert not (sample.negative & ~assignment.negative).any()


def test_all_cases_are_there():
    assert (len(cases("PseudoSampler")), len(cases("RandomSampler"))) == (5, 60)
