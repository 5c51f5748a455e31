from __future__ import annotations

import numpy as np
import pytest
from detcore_eval import VOCMetric

from detcore.errors import ConfigError, DataError

CASES = 120


def kit_average_precision(dataset, found, label, threshold, mode, plus):
    """The development kit's VOCevaldet and VOCap, one detection after another."""
    records, objects = dataset.records, {}
    for i, image_id in enumerate(records.image_ids.tolist()):
        rows = records.annotations.select(records[i].rows)
        objects[image_id] = [
            {"box": (x, y, x + w, y + h), "difficult": ignore, "found": False}
            for (x, y, w, h), other, ignore, every in zip(
                rows.boxes.tolist(),
                rows.labels.tolist(),
                rows.ignore.tolist(),
                rows.any_class.tolist(),
                strict=True,
            )
            if other == label or every
        ]
        for item in objects[image_id]:
            item["mine"] = True
    wanted = sum(not item["difficult"] for items in objects.values() for item in items)
    if not wanted:
        return None
    rows = []
    for image_id in sorted(found):
        ordered = sorted(found[image_id], key=lambda row: -np.float32(row[1]))
        rows += [
            (np.float32(score), image_id, np.float32(box)) for other, score, box in ordered if other == label
        ]
    rows.sort(key=lambda row: -row[0])
    true, false = [], []
    for _, image_id, box in rows:
        best, hit = 0.0, None
        b = [float(v) for v in box]
        for item in objects[image_id]:
            g = item["box"]
            w = min(b[2], g[2]) - max(b[0], g[0]) + plus
            h = min(b[3], g[3]) - max(b[1], g[1]) + plus
            if w > 0 and h > 0:
                area = (b[2] - b[0] + plus) * (b[3] - b[1] + plus) + (g[2] - g[0] + plus) * (
                    g[3] - g[1] + plus
                )
                overlap = w * h / (area - w * h)
                if overlap > best:
                    best, hit = overlap, item
        ok = hit is not None and best >= threshold
        true.append(int(ok and not hit["difficult"] and not hit["found"]))
        false.append(int(not ok or (not hit["difficult"] and hit["found"])))
        if ok and not hit["difficult"]:
            hit["found"] = True
    recall, precision, t, f = [], [], 0, 0
    for a, b in zip(true, false, strict=True):
        t, f = t + a, f + b
        recall.append(t / wanted)
        precision.append(t / (t + f) if t + f else 0.0)
    if mode == "11points":
        best_from = [
            max((p for p, r in zip(precision, recall, strict=True) if r >= k / 10), default=0)
            for k in range(11)
        ]
        return sum(best_from) / 11
    recall, precision = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = range(1, len(recall))
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in steps if recall[i] != recall[i - 1])


def run(dataset, found, detections, **parameters):
    metric = VOCMetric(**parameters)
    metric.start(dataset)
    for image_id, rows in found.items():
        metric.update([image_id], [detections(rows)])
    return metric


@pytest.mark.reliability(
    area="evaluation",
    fault="generated datasets with difficult objects, duplicates, tied scores and empty images (Pascal VOC)",
    outcome="the AP of each class equals the development kit's definition to 1e-9, by area and at 11 points",
)
@pytest.mark.parametrize("mode", ["area", "11points"])
@pytest.mark.parametrize("legacy", [False, True])
def test_equal_to_the_development_kit(generate, detections, mode, legacy, record_property):
    measured = 0
    for seed in range(CASES):
        dataset, found = generate(seed)
        metric = run(
            dataset, found, detections, eval_mode=mode, use_legacy_coordinate=legacy, iou_thrs=(0.5, 0.7)
        )
        values, reasons = metric.per_class(), metric.reasons()
        for label, (name, numbers) in enumerate(values.items()):
            for threshold in (0.5, 0.7):
                wanted = kit_average_precision(dataset, found, label, threshold, mode, int(legacy))
                got = numbers[f"AP{threshold * 100:g}"]
                assert (got is None) == (wanted is None)
                assert (f"AP/{name}" in reasons) == (got is None)
                if wanted is not None:
                    assert got == pytest.approx(wanted, abs=1e-9), (seed, name)
                    measured += 0 < wanted < 1
    record_property("tried", CASES)
    assert measured > CASES / 2


def test_the_numbers(in_memory, detections):
    dataset = in_memory(
        [4, 7], ["cat", "dog", "cow"], [(4, 0, (0, 0, 10, 10), 0, 0), (7, 1, (0, 0, 10, 10), 0, 0)]
    )
    found = {4: [(0, 0.9, (0, 0, 10, 10)), (0, 0.8, (0, 0, 10, 10))], 7: [(1, 0.5, (30, 30, 40, 40))]}
    metric = run(dataset, found, detections, classwise=True, iou_thrs=(0.5, 0.75))
    assert metric.compute() == {
        "AP": 0.5,
        "AP50": 0.5,
        "AP75": 0.5,
        "AP/cat": 1.0,
        "AP/dog": 0.0,
        "AP/cow": None,
    }
    assert metric.reasons()["AP/cow"] == "n/a: no ground truth of this class"


def test_difficult_objects(in_memory, detections):
    dataset = in_memory([1], ["cat"], [(1, 0, (0, 0, 10, 10), 1, 0), (1, 0, (20, 20, 30, 30), 0, 0)])
    twice = [(0, 0.9, (0, 0, 10, 10)), (0, 0.8, (0, 0, 10, 10)), (0, 0.7, (20, 20, 30, 30))]
    assert run(dataset, {1: twice}, detections).compute()["AP"] == 1.0
    only = in_memory([1], ["cat"], [(1, 0, (0, 0, 10, 10), 1, 0)])
    metric = run(only, {1: twice}, detections)
    assert metric.compute()["AP"] is None
    assert metric.reasons()["AP"] == "n/a: all ground truth is ignored"


@pytest.mark.parametrize("objects", [[], [(1, 0, (0, 0, 10, 10), 0, 0)]])
def test_nothing_found(in_memory, detections, objects):
    metric = run(in_memory([1, 2], ["cat"], objects), {1: [], 2: []}, detections)
    assert metric.compute()["AP"] == (0.0 if objects else None)


def test_unseen_images(in_memory, detections, caplog):
    objects = [(1, 0, (0, 0, 10, 10), 0, 0), (2, 0, (0, 0, 10, 10), 0, 0)]
    found = {2: [(0, 0.5, (0, 0, 10, 10))]}
    dataset = in_memory([1, 2], ["cat"], objects)
    assert run(dataset, found, detections).compute()["AP"] == 0.5
    assert "1 of 2 images were not evaluated; their objects count as missed" in caplog.text
    assert run(dataset, found, detections, unseen="skip").compute()["AP"] == 1.0


def test_wrong_use(in_memory, detections):
    with pytest.raises(DataError, match=r"call start\(dataset\) first"):
        VOCMetric().compute()
    with pytest.raises(DataError, match="the image id 9, which in memory does not have"):
        run(in_memory([1], ["cat"]), {9: []}, detections)
    with pytest.raises(ConfigError, match="iou_thrs should not name an overlap twice"):
        VOCMetric(iou_thrs=(0.5, 0.5))
    with pytest.raises(ConfigError, match="eval_mode"):
        VOCMetric(eval_mode="12points")
