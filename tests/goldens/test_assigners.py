"""Assigners against the reference's numbers."""

import pytest
import torch
from detcore_assigners import ATSSAssigner, MaxIoUAssigner

from detcore.boxes import pairwise_overlap
from detcore.structures import Predictions, PriorLevel, Priors, Targets
from detcore.testing.goldens import missing, read, task_cases

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


def cases(cls, where=lambda case: True):
    return [pytest.param(c, id=c["id"]) for c in task_cases("assigners", cls, where=where)]


def given_overlaps(case):
    return case.get("call", {}).get("method") == "assign_wrt_overlaps"


def maxiou(case):
    """The assigner of a case, with the reference's defaults and quirks."""
    args = {"ignore_iof_thr": -1, **case["args"]}
    if case["id"] == "assigners.maxiou.neg_list":
        args["neg_iou_thr"] = (
            0.0,
            0.0,
        )  # the reference takes a list for no range at all; an empty range says so
    return MaxIoUAssigner(**args, match_without_overlap=True, ignore_in_empty_images=False)


def structures(inputs, levels=()):
    boxes = torch.cat((inputs["gt.bboxes"], inputs.get("ignore.bboxes", torch.zeros(0, 4))))
    labels = torch.cat(
        (inputs["gt.labels"], torch.zeros(len(boxes) - len(inputs["gt.labels"]), dtype=torch.int64))
    )
    ignore = torch.arange(len(boxes)) >= len(inputs["gt.labels"])
    priors = inputs["pred.priors"]
    return Priors(priors, torch.ones(len(priors), 2), levels), Targets.stack(
        [{"boxes": boxes, "labels": labels, "ignore": ignore}]
    )


def levels_of(case):
    """One row per level: grids are not recorded, and their shapes do not matter."""
    return tuple(PriorLevel(1, n, 1, (1.0, 1.0)) for n in case["call"]["num_level_priors"])


def check(assignment, targets, outputs):
    """Our tensors in the reference's words: gt_inds is -1, 0, i + 1; what takes no part overlaps below 0."""
    state, index = assignment.state[0].long(), assignment.gt_index[0]
    assert torch.equal(torch.where(state == 1, index + 1, state), outputs["gt_inds"])
    label = torch.where(state == 1, targets.labels[0, index], -1)
    assert torch.equal(label, outputs["labels"])
    torch.testing.assert_close(
        assignment.quality[0], outputs["max_overlaps"].clamp(min=0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("tiled", [False, True], ids=["dense", "tiled"])
@pytest.mark.parametrize("case", cases("MaxIoUAssigner", lambda c: not given_overlaps(c)))
def test_max_iou(case, tiled):
    priors, targets = structures(read(case, "inputs"))
    if tiled:  # the shapes of the grids are not recorded; any gives the same
        priors = priors.replace(levels=(PriorLevel(1, len(priors), 1, (1.0, 1.0)),))
    check(maxiou(case).assign(priors, targets), targets, read(case, "outputs"))


@pytest.mark.parametrize("case", cases("MaxIoUAssigner", given_overlaps))
def test_max_iou_of_given_overlaps(case):
    inputs = read(case, "inputs")
    overlaps = inputs["overlaps"][None]
    part = (overlaps >= 0).any(dim=1)  # the reference marks ignored priors by overlaps of -1
    targets = Targets.stack([{"boxes": torch.zeros(overlaps.shape[1], 4), "labels": inputs["gt.labels"]}])
    assignment = maxiou(case).assign_overlaps(overlaps, targets.matchable, part)
    check(assignment, targets, read(case, "outputs"))


@pytest.mark.parametrize("case", cases("ATSSAssigner"))
def test_atss(case):
    inputs = read(case, "inputs")
    priors, targets = structures(inputs, levels_of(case))
    predictions = None
    if "pred.scores" in inputs:
        predictions = Predictions(inputs["pred.scores"][None], inputs["pred.bboxes"][None])
    args = {"ignore_iof_thr": -1, **case["args"]}
    assigner = ATSSAssigner(
        **args, ignored_candidates=True, match_single_candidate=False, ignore_in_empty_images=False
    )
    check(assigner.assign(priors, targets, predictions), targets, read(case, "outputs"))


def touched(inputs):
    """Whether every ground truth overlaps some prior."""
    return bool((pairwise_overlap(inputs["gt.bboxes"], inputs["pred.priors"]) > 0).any(1).all())


@pytest.mark.parametrize("case", cases("MaxIoUAssigner", lambda c: not given_overlaps(c)))
def test_max_iou_without_the_quirks(case):
    """Our defaults give other numbers only where a decision says so."""
    inputs, outputs = read(case, "inputs"), read(case, "outputs")
    if case["id"].endswith("neg_list"):  # a range here, silently nothing there
        assert MaxIoUAssigner(**case["args"]).neg_iou_range == (0.1, 0.5)
        return
    priors, targets = structures(inputs)
    assignment = MaxIoUAssigner(**case["args"]).assign(priors, targets)
    if touched(inputs) or case["args"]["min_pos_iou"] > 0:
        check(assignment, targets, outputs)
    else:
        assert (assignment.quality[assignment.positive] > 0).all()
        assert (outputs["gt_inds"][assignment.positive[0]] > 0).all()


@pytest.mark.parametrize("case", cases("ATSSAssigner", lambda c: "scores" not in str(c["inputs"])))
def test_atss_without_the_quirks(case):
    inputs, outputs = read(case, "inputs"), read(case, "outputs")
    priors, targets = structures(inputs, levels_of(case))
    state = ATSSAssigner(**case["args"]).assign(priors, targets).state[0]
    expected = outputs["gt_inds"].clamp(max=1)
    if case["id"].endswith("all_ignored"):
        assert (state[expected == -1] == -1).all()
        assert not (state == 1).any()
    else:
        assert torch.equal(state.long(), expected)


def test_all_cases_are_there():
    for cls, count in (("MaxIoUAssigner", 126), ("ATSSAssigner", 19)):
        assert len(cases(cls)) == count
