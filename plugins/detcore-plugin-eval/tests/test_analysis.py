from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detcore_data import CocoDataset, CocoMetric, Collected, ShapesDataset
from detcore_eval import analyse
from detcore_eval import matching as matching_module
from detcore_eval.curves import Curve
from detcore_eval.errors import ERRORS, MEANING, GtState, State

from detcore.structures import ImageDetections

CASES = 120
BOX, FAR = (0, 0, 40, 40), (100, 60, 140, 100)
#: Overlaps the box by 0.43, and by 0.14.
OFF, WIDE = (16, 0, 56, 40), (30, 0, 70, 40)


def states(analysis):
    return [State(state) for state in analysis.errors.state]


# ---------------------------------------------------------------------------------- one case per definition

OBJECTS = [(1, 0, BOX, 0, 0)]


@pytest.mark.parametrize(
    ("objects", "rows", "wanted", "truth"),
    [
        (OBJECTS, [(0, 0.9, BOX)], ["TRUE"], ["FOUND"]),
        (OBJECTS, [(0, 0.9, OFF)], ["LOCALISATION"], ["NEARLY"]),
        (OBJECTS, [(0, 0.9, BOX), (0, 0.8, OFF)], ["TRUE", "LOCALISATION"], ["FOUND"]),
        (OBJECTS, [(1, 0.9, BOX)], ["CLASSIFICATION"], ["NEARLY"]),
        (OBJECTS, [(1, 0.9, OFF)], ["BOTH"], ["MISSED"]),
        (OBJECTS, [(0, 0.9, BOX), (0, 0.8, BOX)], ["TRUE", "DUPLICATE"], ["FOUND"]),
        (OBJECTS, [(0, 0.9, FAR)], ["BACKGROUND"], ["MISSED"]),
        (OBJECTS, [], [], ["MISSED"]),
        ([], [(0, 0.9, FAR)], ["BACKGROUND"], []),
        # the nearer object of the class counts, and localisation comes before classification
        ([(1, 0, BOX, 0, 0), (1, 1, OFF, 0, 0)], [(0, 0.9, OFF)], ["LOCALISATION"], ["NEARLY", "MISSED"]),
        ([(1, 0, BOX, 1, 0)], [(0, 0.9, BOX)], ["EXCUSED"], ["IGNORED"]),
        ([(1, 0, BOX, 1, 0)], [(0, 0.9, (5, 5, 9, 9)), (0, 0.8, BOX)], ["EXCUSED", "EXCUSED"], ["IGNORED"]),
        ([(1, 0, BOX, 1, 0)], [(1, 0.9, BOX)], ["BACKGROUND"], ["IGNORED"]),
        ([(1, 0, BOX, 1, 1)], [(1, 0.9, BOX)], ["EXCUSED"], ["IGNORED"]),
    ],
)  # fmt: skip
def test_definitions(in_memory, collect, objects, rows, wanted, truth):
    analysis = analyse(collect(in_memory([1], ["cat", "dog"], objects), {1: rows}), score=0.0)
    assert [state.name for state in states(analysis)] == wanted
    assert [GtState(state).name for state in analysis.gt_state] == truth


def test_below_the_score(in_memory, collect):
    rows = [(0, 0.9, OFF), (0, 0.3, BOX), (1, 0.2, FAR)]
    collected = collect(in_memory([1], ["cat", "dog"], OBJECTS), {1: rows})
    low, high = analyse(collected, score=0.1), analyse(collected, score=0.5)
    assert states(low) == states(high) == [State.LOCALISATION, State.TRUE, State.BACKGROUND]
    assert low.gt_state.tolist() == [GtState.FOUND]
    assert high.gt_state.tolist() == [GtState.NEARLY]
    assert (low.error_counts["background"], high.error_counts["background"]) == (1, 0)


def test_too_many(in_memory, collect):
    rows = [(0, 0.9, FAR), (0, 0.8, FAR), (0, 0.7, BOX), (1, 0.1, FAR)]
    analysis = analyse(collect(in_memory([1], ["cat", "dog"], OBJECTS), {1: rows}), max_dets=2, score=0.0)
    assert states(analysis) == [State.BACKGROUND, State.BACKGROUND, State.UNCOUNTED, State.BACKGROUND]


@pytest.mark.parametrize(
    ("rows", "fixed"),
    [
        ([(0, 0.9, OFF)], {"localisation": 1.0}),
        ([(1, 0.9, BOX)], {"classification": 1.0}),
        ([(1, 0.9, OFF), (0, 0.8, BOX)], {}),  # of a class without objects: it costs nothing
        ([(0, 0.9, FAR), (0, 0.8, BOX)], {"background": 0.5, "false positives": 0.5}),
        ([(0, 0.9, BOX), (0, 0.8, BOX)], {}),  # after all objects are found, nothing is lost
        ([], {"missed": 1.0, "false negatives": 1.0}),
    ],
)
def test_what_an_error_costs(in_memory, collect, rows, fixed):
    analysis = analyse(collect(in_memory([1], ["cat", "dog"], OBJECTS), {1: rows}))
    nearly = {"false negatives": 1.0} if fixed.keys() & {"localisation", "classification"} else {}
    wanted = dict.fromkeys((*MEANING, "false positives", "false negatives"), 0.0) | nearly | fixed
    assert analysis.gains == pytest.approx(wanted)


def test_a_duplicate_costs(in_memory, collect):
    objects = [(1, 0, BOX, 0, 0), (1, 0, FAR, 0, 0)]
    rows = [(0, 0.9, BOX), (0, 0.8, BOX), (0, 0.7, FAR)]
    analysis = analyse(collect(in_memory([1], ["cat"], objects), {1: rows}))
    base = (51 * 1 + 50 * 2 / 3) / 101
    assert analysis.gains["duplicate"] == pytest.approx(1 - base)


def test_confusion(in_memory, collect):
    objects = [(1, 0, BOX, 0, 0), (1, 1, FAR, 0, 0), (2, 1, BOX, 0, 0), (2, 0, FAR, 1, 0)]
    found = {
        1: [(0, 0.9, BOX), (0, 0.8, FAR), (1, 0.7, OFF), (0, 0.1, BOX)],
        2: [(0, 0.9, FAR)],
    }
    analysis = analyse(collect(in_memory([1, 2], ["cat", "dog"], objects), found), score=0.5)
    assert analysis.confusion.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]


def test_worst_images(in_memory, collect):
    objects = [(1, 0, BOX, 0, 0), (2, 0, BOX, 0, 0), (3, 0, BOX, 0, 0), (5, 0, BOX, 1, 0)]
    found = {
        1: [(0, 0.9, BOX)],
        2: [(0, 0.9, FAR), (0, 0.3, FAR)],
        3: [(1, 0.8, BOX), (0, 0.7, FAR), (0, 0.6, BOX)],
        5: [(0, 0.9, BOX)],
    }
    dataset = in_memory([5, 3, 2, 1], ["cat", "dog"], objects)
    worst = analyse(collect(dataset, found), score=0.5).worst_images(10)
    assert [(row.position, row.wrong, row.missed) for row in worst] == [(1, 2, 0), (2, 1, 1)]
    assert worst[0].types == {"classification": 1, "background": 1}
    assert worst[1].types == {"background": 1, "missed": 1}


def test_the_suggested_score(in_memory, collect):
    objects = [(1, 0, BOX, 0, 0), (2, 0, BOX, 0, 0)]
    found = {1: [(0, 0.9, BOX), (0, 0.5, FAR)], 2: [(0, 0.6, BOX), (0, 0.4, FAR)]}
    analysis = analyse(collect(in_memory([1, 2], ["cat"], objects), found))
    assert analysis.suggested == (pytest.approx(0.6), 1.0)
    assert analysis.score == pytest.approx(0.6)
    assert (analysis.classes[0].threshold, analysis.classes[0].f1) == (pytest.approx(0.6), 1.0)


def test_equal_scores_stay_together():
    curve = Curve.of(np.array([0.5, 0.5, 0.5]), np.array([True, False, False]), 1)
    assert curve.best_threshold() == (0.5, 0.5)


# ----------------------------------------------------------------------------------------------- invariants


@pytest.mark.reliability(
    area="evaluation",
    fault="generated datasets with ignored regions, ties, empty images: error types, confusion, curves",
    outcome="the analysis has COCO's AP and AR per class to 1e-12; every detection and object has one state, "
    "counts add up, regions to ignore are never errors, and no error type has a negative cost",
)
def test_invariants(generate, collect, record_property):
    seen = dict.fromkeys(State, 0)
    for seed in range(CASES):
        dataset, found = generate(seed)
        collected = collect(dataset, found)
        analysis = analyse(collected, max_dets=(100, 3)[seed % 2], score=(None, 0.0, 0.4)[seed % 3])
        for state in states(analysis):
            seen[state] += 1
        check_against_coco(dataset, found, analysis, (100, 3)[seed % 2], collect)
        check_counts(analysis)
        check_confusion(analysis)
        for name, gain in analysis.gains.items():
            assert (gain is None) == (analysis.to_dict()["AP"] is None)
            assert gain is None or -1e-12 <= gain <= 1 + 1e-12, (seed, name)
        json.dumps(analysis.to_dict(), allow_nan=False)
    record_property("tried", CASES)
    assert min(seen.values()) > 5, seen


def check_against_coco(dataset, found, analysis, max_dets, collect):
    metric = CocoMetric(max_dets=(max_dets,))
    metric.start(dataset)
    metric._collected.found = collect(dataset, found).found
    rows = metric.per_class()
    for row in analysis.classes:
        wanted = rows[row.name]
        got = {"AP": row.ap, "AP50": row.ap50, "AP75": row.ap75, f"AR{max_dets}": row.recall}
        for name, value in got.items():
            assert value == (None if wanted[name] is None else pytest.approx(wanted[name], abs=1e-12))
        assert bool(row.note) == (row.ap is None or row.detections == 0)


def check_counts(analysis):
    flat, data = analysis.flat, analysis.to_dict()
    assert sum(data["detections"].values()) == int((flat.det_scores >= analysis.score).sum())
    assert sum(data["objects"].values()) == len(flat.gt_labels)
    assert data["objects"]["ignored"] == int(flat.gt_ignore.sum())
    assert data["objects"]["missed"] == data["errors"]["missed"]["count"]
    assert data["detections"]["true"] == data["objects"]["found"]
    target = analysis.errors.target[analysis.errors.target >= 0]
    assert not flat.gt_ignore[target].any()
    true = analysis.errors.target[analysis.errors.state == State.TRUE]
    assert len(set(true.tolist())) == len(true)
    worst = analysis.worst_images(len(flat.positions))
    assert sum(row.missed for row in worst) == data["objects"]["missed"]
    wrong = sum(data["detections"][state.name.lower()] for state in ERRORS)
    assert sum(row.wrong for row in worst) == wrong
    assert all(sum(row.types.values()) == row.wrong + row.missed > 0 for row in worst)


def check_confusion(analysis):
    flat, matrix = analysis.flat, analysis.confusion
    classes = len(flat.names)
    looked = flat.det_scores >= analysis.score
    counted = looked & ~np.isin(analysis.errors.state, (State.EXCUSED, State.UNCOUNTED))
    objects = np.bincount(flat.gt_labels[~flat.gt_ignore], minlength=classes)
    assert matrix[:-1].sum(axis=1).tolist() == objects.tolist()
    assert (
        matrix[:, :-1].sum(axis=0).tolist()
        == np.bincount(flat.det_labels[counted], minlength=classes).tolist()
    )
    true = (analysis.errors.state == State.TRUE) & looked
    assert np.diag(matrix)[:-1].sum() == true.sum()
    assert matrix[-1, -1] == 0


def test_in_parts(generate, collect, monkeypatch):
    for seed in range(20):
        collected = collect(*generate(seed))
        whole = analyse(collected)
        with monkeypatch.context() as patch:
            patch.setattr(matching_module, "_PAIRS", 1)
            parts = analyse(collected)
        assert parts.to_dict() == whole.to_dict()
        for field in ("found", "own_gt", "other_gt", "excused"):
            assert np.array_equal(getattr(parts.matching, field), getattr(whole.matching, field))


def test_nothing_at_all(in_memory, collect):
    analysis = analyse(collect(in_memory([1, 2], ["cat", "dog"]), {}))
    data = analysis.to_dict()
    assert data["AP"] is None
    assert [row["note"] for row in data["classes"]] == ["n/a: no ground truth"] * 2
    assert (data["suggested_score"], data["confusion"], analysis.worst_images(5)) == (None, [], [])
    assert {row["count"] for row in data["errors"].values()} == {0}


def test_only_ignored(in_memory, collect):
    analysis = analyse(collect(in_memory([1], ["cat"], [(1, 0, BOX, 1, 0)]), {1: [(0, 0.5, BOX)]}))
    assert analysis.classes[0].note == "n/a: all ground truth is ignored"
    assert analysis.error_counts == dict.fromkeys(analysis.error_counts, 0)


def test_wrong_overlaps(in_memory, collect):
    with pytest.raises(ValueError, match=r"0 < background < overlap <= 1, got 0\.5 and 0\.5"):
        analyse(collect(in_memory([1], ["cat"]), {}), background=0.5)


def test_masks(tmp_path):
    folder = ShapesDataset(root=tmp_path, length=6, size=(48, 64)).folder
    dataset = CocoDataset(annotations=folder / "instances.json", images=folder / "images", with_masks=True)
    collected, metric = Collected(dataset, masks=True), CocoMetric(iou_types=("segm",))
    metric.start(dataset)
    random = torch.Generator().manual_seed(0)
    for index in range(len(dataset)):
        item = dataset[index]
        masks = item["masks"].as_subclass(torch.Tensor)
        shifts = torch.randint(0, 6, (len(masks), 2), generator=random).tolist()
        moved = [mask.roll(shift, (0, 1)) for mask, shift in zip(masks, shifts, strict=True)]
        masks = torch.stack(moved) if moved else masks
        boxes = torch.zeros(len(masks), 4)  # only masks are compared
        found = ImageDetections(boxes, torch.rand(len(masks), generator=random), item["labels"], masks)
        collected.add([item["image_id"]], [found])
        metric.update([item["image_id"]], [found])
    analysis = analyse(collected, iou_type="segm")
    wanted = metric.per_class()
    for row in analysis.classes:
        assert row.ap == pytest.approx(wanted[row.name]["AP"], abs=1e-12)
        assert row.ap50 == pytest.approx(wanted[row.name]["AP50"], abs=1e-12)
    assert 0 < np.mean([row.ap for row in analysis.classes]) < 1
    assert analyse(collected).classes[0].ap == 0  # as boxes, nothing was found
