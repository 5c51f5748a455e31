"""Assigners that look at geometry only, against the reference's numbers; built as the bridge builds them."""

import pytest
import torch
from detcore_assigners import GridAssigner, PointAssigner, RegionAssigner, UniformAssigner
from detcore_assigners.grid import cells
from detcore_mmdet import translate
from detcore_mmdet.parity.scenes import scene_of

from detcore import build
from detcore.boxes import aligned_overlap, contains
from detcore.structures import PriorLevel
from detcore.testing.goldens import missing, read, task_cases

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

COUNTS = {
    "ApproxMaxIoUAssigner": 26,
    "CenterRegionAssigner": 36,
    "GridAssigner": 20,
    "PointAssigner": 20,
    "RegionAssigner": 39,
    "UniformAssigner": 12,
}


def raises(case):
    return "raises" in case


def cases(*classes, where=lambda case: not raises(case)):
    found = [task_cases("assigners", cls, where=where) for cls in classes]
    return pytest.mark.parametrize("case", [pytest.param(c, id=c["id"]) for some in found for c in some])


def assigned(case):
    """Scene and assignment of a case."""
    scene = scene_of(case, read(case, "inputs"))
    return scene, build(translate({"type": case["cls"], **case["args"]})).assign(*scene)


def gt_inds(assignment):
    """The reference's numbers: -1, 0, i + 1."""
    state, index = assignment.state[0].long(), assignment.gt_index[0]
    return torch.where(state == 1, index + 1, state)


@cases(*COUNTS)
def test_as_the_reference(case):
    scene, assignment = assigned(case)
    outputs = read(case, "outputs")
    assert torch.equal(gt_inds(assignment), outputs["gt_inds"])
    label = torch.where(assignment.positive, scene.targets.labels.gather(1, assignment.gt_index), -1)[0]
    # RegionAssigner there calls what is not positive 0
    assert torch.equal(label, outputs["labels"].where(outputs["gt_inds"] > 0, torch.tensor(-1)))
    if case["cls"] in ("ApproxMaxIoUAssigner", "GridAssigner"):
        wanted = outputs["max_overlaps"].clamp(min=0)
        torch.testing.assert_close(assignment.quality[0], wanted, rtol=1e-5, atol=1e-6)


@cases("ApproxMaxIoUAssigner")
def test_approx_max_iou_in_tiles(case):
    """The shapes of the grids are not recorded; any gives the same."""
    scene, assignment = assigned(case)
    priors = scene.priors.replace(levels=(PriorLevel(1, len(scene.priors), 1, (1.0, 1.0)),))
    tiled = build(translate({"type": case["cls"], **case["args"]})).assign(priors, scene.targets)
    assert torch.equal(tiled.state, assignment.state)
    assert torch.equal(tiled.gt_index, assignment.gt_index)
    assert torch.equal(tiled.quality, assignment.quality)


@cases("CenterRegionAssigner")
def test_shadows(case):
    """(prior, class) pairs; the reference repeats a pair for every ground truth of the class."""
    scene, assignment = assigned(case)
    pairs = assignment.ignored_pairs
    valid = pairs.valid[0]
    labels = scene.targets.labels[0, pairs.gt[0, valid]]
    ours = list(zip(pairs.prior[0, valid].tolist(), labels.tolist(), strict=True))
    assert set(ours) == set(map(tuple, read(case, "outputs")["shadowed_labels"].tolist()))
    assert len(ours) == len(set(ours))


@cases("GridAssigner")
def test_responsible_cells(case):
    inputs = read(case, "inputs")
    scene = scene_of(case, inputs)
    index, inside = cells(scene.priors, scene.targets)
    responsible = torch.zeros(len(scene.priors), dtype=torch.bool)
    responsible[index[inside & scene.targets.matchable[..., None]]] = True
    assert torch.equal(responsible, inputs["pred.responsible_flags"].bool())


@cases("UniformAssigner")
def test_uniform_pairs(case):
    """All choices, in the reference's order: by rank, then the way, then the ground truth."""
    scene, assignment = assigned(case)
    outputs, objects = read(case, "outputs"), int(scene.targets.valid.sum())
    if not objects or not len(scene.priors):
        assert not assignment.pairs.valid.any()
        return

    def ordered(values):
        return values[0].reshape(objects, 2, -1).permute(2, 1, 0).flatten()

    prior, gt, valid = (ordered(getattr(assignment.pairs, name)) for name in ("prior", "gt", "valid"))
    assert torch.equal(valid, outputs["pos_idx"])
    assert torch.equal(scene.predictions.boxes[0, prior], outputs["pos_predicted_boxes"])
    assert torch.equal(scene.targets.boxes[0, gt], outputs["target_boxes"])


@cases("PointAssigner", "UniformAssigner", where=raises)
def test_few_priors_are_enough(case):
    """The reference wants as many priors as a ground truth may take."""
    scene, assignment = assigned(case)
    if case["cls"] == "PointAssigner":
        assert assignment.positive.all()  # two points, three for each ground truth
    else:
        valid = aligned_overlap(
            scene.priors.boxes[assignment.pairs.prior], scene.targets.boxes[0, assignment.pairs.gt]
        )
        assert torch.equal(assignment.pairs.valid, valid >= 0.15)
        assert (assignment.state[0, assignment.pairs.prior] != 0).all()


@cases("PointAssigner")
def test_point_of_equals_the_first(case):
    """Only exact ties come out otherwise."""
    inputs, outputs, aux = (read(case, part) for part in ("inputs", "outputs", "aux"))
    scene = scene_of(case, inputs)
    mine = gt_inds(PointAssigner(**case["args"]).assign(scene.priors, scene.targets))
    differing = (mine != outputs["gt_inds"]).nonzero()[:, 0]
    assert set(differing.tolist()) <= set(aux["fragile_inds"].tolist())
    assert len(differing) == 0 or case["id"].endswith(".ties")


@cases("GridAssigner")
def test_grid_in_its_own_cell(case):
    """Positives are a subset: those of a cell that does not hold the ground truth's centre are gone."""
    args = dict(case["args"])
    if isinstance(args["neg_iou_thr"], list):
        args["neg_iou_thr"] = tuple(args["neg_iou_thr"])
    scene = scene_of(case, read(case, "inputs"))
    mine = GridAssigner(**args).assign(scene.priors, scene.targets)
    theirs = read(case, "outputs")["gt_inds"]
    index, inside = cells(scene.priors, scene.targets)
    for prior in mine.positive[0].nonzero()[:, 0].tolist():
        gt = int(mine.gt_index[0, prior])
        assert prior in index[0, gt][inside[0, gt]].tolist()
    # whoever wins, in a cell that is no ground truth's nothing changes
    others = torch.ones(len(scene.priors), dtype=torch.bool)
    others[index[inside & scene.targets.matchable[..., None]]] = False
    assert torch.equal(mine.state[0, others].long(), theirs[others])


@cases("RegionAssigner")
def test_region_with_positives_first(case):
    """What is positive there is positive here; no order makes an ignored prior negative."""
    scene = scene_of(case, read(case, "inputs"))
    mine = RegionAssigner(**case["args"]).assign(scene.priors, scene.targets)
    theirs = read(case, "outputs")["gt_inds"]
    assert mine.positive[0][theirs > 0].all()
    assert torch.equal(mine.negative[0], theirs == 0)


@cases("UniformAssigner")
def test_uniform_by_the_highest_iou(case):
    scene = scene_of(case, read(case, "inputs"))
    mine = UniformAssigner(**case["args"]).assign(*scene)
    pairs = mine.pairs
    own = aligned_overlap(scene.priors.boxes[pairs.prior[0]], scene.targets.boxes[0, pairs.gt[0]])
    matched = set(pairs.prior[pairs.valid].tolist())
    assert set(mine.positive[0].nonzero()[:, 0].tolist()) == matched
    for prior in matched:
        here = pairs.valid[0] & (pairs.prior[0] == prior)
        assert mine.quality[0, prior] == own[here].max()
        assert own[here & (pairs.gt[0] == mine.gt_index[0, prior])].max() == own[here].max()


@cases("CenterRegionAssigner")
def test_positives_are_inside(case):
    scene, assignment = assigned(case)
    inside = contains(scene.targets.boxes[0], scene.priors.centers).T
    prior = assignment.positive[0].nonzero()[:, 0]
    assert inside[assignment.gt_index[0, prior], prior].all()


def test_all_cases_are_there():
    for cls, count in COUNTS.items():
        assert len(task_cases("assigners", cls)) == count
