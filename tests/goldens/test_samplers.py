"""Samplers against the reference's numbers: sets where nothing is random, counts where something is."""

import pytest
import torch
import torch.nn.functional as F
from detcore_coders import DeltaXYWHBBoxCoder
from detcore_mmdet import translate
from detcore_samplers import PseudoSampler

from detcore import build
from detcore.interfaces.sampler import SamplingPredictions
from detcore.structures import Assignment, Priors
from detcore.testing.goldens import missing, read, task_cases

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


#: Those whose choice is random where there is one.
RANDOM = ("RandomSampler", "InstanceBalancedPosSampler", "IoUBalancedNegSampler", "CombinedSampler")


def cases(*classes, where=lambda case: True):
    return [pytest.param(c, id=c["id"]) for c in task_cases("samplers", *classes, where=where)]


def counted(case):
    return ".counts." in case["id"]


def binned(case):
    return ".bins." in case["id"]


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
    if "pos_priors" in outputs:
        priors = torch.cat((inputs["gt.bboxes"][:prepended], inputs["priors"]))
        assert torch.equal(priors[positive], outputs["pos_priors"])
    if "pos_is_gt" in outputs:
        assert torch.equal((positive < prepended).long(), outputs["pos_is_gt"].long())


@pytest.mark.parametrize("case", cases("PseudoSampler"))
def test_pseudo(case):
    inputs = read(case, "inputs")
    assignment = assigned(inputs)
    sample = PseudoSampler().sample(assignment)
    check_indices(sample, assignment, inputs, read(case, "outputs"), 0)
    assert sample.weight is None


def made(case):
    """The sampler as the bridge translates the reference's arguments, and whether ground truths join."""
    return build(translate({"type": case["cls"], **case["args"]})), case["args"]["add_gt_as_proposals"]


def seeded():
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("case", cases(*RANDOM, where=lambda c: not counted(c) and not binned(c)))
def test_random_that_takes_all(case):
    sampler, add_gt = made(case)
    inputs = read(case, "inputs")
    assignment = assigned(inputs, add_gt)
    sample = sampler.sample(assignment, generator=seeded())
    added = len(inputs["gt.bboxes"]) if add_gt else 0
    check_indices(sample, assignment, inputs, read(case, "outputs"), added)


@pytest.mark.parametrize("case", cases(*RANDOM, where=counted))
def test_random_counts(case):
    sampler, add_gt = made(case)
    inputs, outputs = read(case, "inputs"), read(case, "outputs")
    assignment = assigned(inputs, add_gt)
    objects = len(inputs["gt.bboxes"])
    available = assignment.gt_index[0][assignment.positive[0]].bincount(minlength=objects)
    assert torch.equal(available, outputs["available_pos_per_gt"])
    generator, drawn = seeded(), []
    for _ in range(25):
        sample = sampler.sample(assignment, generator=generator)
        assert outputs["num_pos_min"] == outputs["num_pos_max"] == outputs["num_expected_pos"]
        assert int(sample.positive.sum()) == outputs["num_expected_pos"]
        assert outputs["num_neg_min"] <= int(sample.negative.sum()) <= outputs["num_neg_max"]
        assert not (sample.positive & ~assignment.positive).any()
        assert not (sample.negative & ~assignment.negative).any()
        drawn.append(assignment.gt_index[0][sample.positive[0]].bincount(minlength=objects))
    if case["cls"] != "RandomSampler" and objects:  # 25 draws of each: what they cover overlaps
        lowest, highest = torch.stack(drawn).amin(0), torch.stack(drawn).amax(0)
        assert (lowest <= outputs["per_gt_max"]).all()
        assert (highest >= outputs["per_gt_min"]).all()
        quota = round(outputs["num_expected_pos"] / max(1, int((available > 0).sum()))) + 1
        if int(available.clamp(max=quota).sum()) >= outputs["num_expected_pos"]:
            assert (highest <= quota).all()
            assert (outputs["per_gt_max"] <= quota).all()


@pytest.mark.parametrize("case", cases("IoUBalancedNegSampler", where=binned))
def test_bins(case):
    sampler, add_gt = made(case)
    inputs, outputs = read(case, "inputs"), read(case, "outputs")
    assignment = assigned(inputs, add_gt)
    overlap, edges = assignment.quality[0], outputs["bin_edges"]
    generator, bins, floors = seeded(), [], []
    for _ in range(25):
        sample = sampler.sample(assignment, generator=generator)
        assert outputs["num_pos_min"] <= int(sample.positive.sum()) <= outputs["num_pos_max"]
        assert outputs["num_neg_min"] <= int(sample.negative.sum()) <= outputs["num_neg_max"]
        values, low = overlap[sample.negative[0]], case["args"]["floor_thr"]
        floor = values == 0 if low == 0 else values < low
        above = values[~floor]
        bins.append(torch.stack([((above >= lo) & (above < hi)).sum() for lo, hi in edges.unfold(0, 2, 1)]))
        floors.append(floor.sum())
    for found, name in ((torch.stack(bins), "bin_count"), (torch.stack(floors)[:, None], "floor_count")):
        least, most = (torch.as_tensor(outputs[f"{name}_{end}"]).reshape(-1) for end in ("min", "max"))
        assert (found.amin(0) <= most).all()
        assert (found.amax(0) >= least).all()
        same = least == most
        assert torch.equal(found[:, same], most[same].expand(len(found), -1))


def predictions(case, assignment, inputs, prepended):
    """What a softmax head with class-wise boxes hands over; the reference's labels end with background."""
    logits = inputs["cls_score"]
    background = logits.shape[-1] - 1
    labels = inputs["gt.labels"][assignment.gt_index[0]] if len(inputs["gt.labels"]) else background
    labels = torch.where(assignment.positive[0], labels, background)
    losses, scores = F.cross_entropy(logits, labels, reduction="none"), logits.softmax(-1)[:, :-1]
    boxes = torch.cat((inputs["gt.bboxes"][:prepended], inputs["priors"]))
    if "bbox_pred" in inputs:
        rows = torch.arange(len(logits))
        codes = inputs["bbox_pred"].unflatten(-1, (-1, 4))[rows, scores.argmax(-1)]
        coder = DeltaXYWHBBoxCoder(target_stds=(0.1, 0.1, 0.2, 0.2))
        boxes = coder.decode(Priors(boxes, torch.zeros(len(boxes), 2)), codes)
    return SamplingPredictions(losses[None], logits[None], boxes[None], scores[None])


@pytest.mark.parametrize("case", cases("OHEMSampler"))
def test_ohem(case):
    sampler, add_gt = made(case)
    inputs = read(case, "inputs")
    assignment = assigned(inputs, add_gt)
    added = len(inputs["gt.bboxes"]) if add_gt else 0
    sample = sampler.sample(assignment, predict=lambda: predictions(case, assignment, inputs, added))
    check_indices(sample, assignment, inputs, read(case, "outputs"), added)


@pytest.mark.parametrize("case", cases("ScoreHLRSampler"))
def test_score_hlr(case):
    sampler, _ = made(case)
    inputs, outputs = read(case, "inputs"), read(case, "outputs")
    assignment = assigned(inputs, True)
    seen = predictions(case, assignment, inputs, len(inputs["gt.bboxes"]))
    sample = sampler.sample(assignment, predict=lambda: seen, generator=seeded())
    assert int(sample.positive.sum()) == outputs["num_pos"]
    assert int(sample.negative.sum()) == outputs["num_neg"]
    ranked = outputs["neg_inds"][: case["call"]["num_valid_neg"]]  # the others are drawn at random
    assert sample.negative[0][ranked].all()
    if outputs["pos_inds"] is not None:
        assert torch.equal(sample.positive[0].nonzero()[:, 0], outputs["pos_inds"].sort().values)
    assert (sample.weight[0][sample.positive[0]] == 1).all()
    found, expected = sample.weight[0][ranked], outputs["neg_label_weights"][: len(ranked)]
    different = (found / expected - 1).abs() > 1e-4
    # the reference adds ranks to scores in float32: neighbours in score may change places there, and only they
    score = seen.scores[0].amax(-1)[ranked]
    rounding = torch.finfo(torch.float32).eps * len(score) * 2
    for i in different.nonzero()[:, 0].tolist():
        swapped = (score - score[i]).abs() < rounding
        assert swapped.sum() == 2
        torch.testing.assert_close(found[swapped].flip(0), expected[swapped], rtol=1e-4, atol=0)


def test_all_cases_are_there():
    counts = {
        "PseudoSampler": 5,
        "RandomSampler": 60,
        "InstanceBalancedPosSampler": 60,
        "IoUBalancedNegSampler": 26,
        "CombinedSampler": 60,
        "OHEMSampler": 24,
        "ScoreHLRSampler": 6,
    }
    assert {name: len(cases(name)) for name in counts} == counts
    assert sum(counts.values()) == len(cases())
