from __future__ import annotations

import numpy as np
import pytest
import torch
from detcore_data import KittiDataset, KittiObjects
from detcore_eval import KittiMetric
from PIL import Image

from detcore.errors import DataError

NAMES = ("Car", "Pedestrian", "Cyclist", "Van")
EVERY = ("Car", "Pedestrian", "Cyclist", "Van", "Person_sitting", "DontCare", "Tram")
OVERLAPS = {"Car": 0.7, "Pedestrian": 0.5, "Cyclist": 0.5}
LEVELS = {"easy": (40, 0, 0.15), "moderate": (25, 1, 0.3), "hard": (25, 2, 0.5)}
CASES = 40


class Kitti:
    """What a KittiDataset has for the metric: its class map and records, and all objects."""

    def __init__(self, base, images):
        self.class_map, self.records = base.class_map, base.records
        rows = [(i, *row) for i, objects in images.items() for row in objects]
        self.objects = KittiObjects(
            image_ids=torch.tensor([row[0] for row in rows], dtype=torch.int64),
            names=tuple(row[1] for row in rows),
            boxes=torch.tensor([row[2] for row in rows], dtype=torch.float64).reshape(-1, 4),
            truncation=torch.tensor([row[3] for row in rows], dtype=torch.float64),
            occlusion=torch.tensor([row[4] for row in rows], dtype=torch.int64),
        )


def overlap(a, b, own):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1])
    return w * h / (area if own else area + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def statistics(objects, found, name, level, threshold):
    """One image, as the development kit goes through it; the threshold is None in its first pass."""
    height, occlusion, truncation = LEVELS[level]
    limit = OVERLAPS[name]
    kinds = []
    for other, box, cut, hidden in objects:
        same = other == name
        near = (name, other) in (("Car", "Van"), ("Pedestrian", "Person_sitting"))
        beyond = hidden > occlusion or cut > truncation or box[3] - box[1] < height
        kinds.append(0 if same and not beyond else 1 if near or same else -1)
    states = []
    for label, _, box in found:
        low = int(abs(box[3] - box[1])) < height
        states.append(1 if low else 0 if NAMES[label] == name else -1)
    taken = [threshold is not None and score < threshold for _, score, _ in found]
    assigned, scores, true = [False] * len(found), [], 0
    for (_, box, _, _), kind in zip(objects, kinds, strict=True):
        if kind == -1:
            continue
        choice, best, chose_low = None, 0.0, False
        top = -np.inf
        for j, (_, score, other) in enumerate(found):
            if states[j] == -1 or assigned[j] or taken[j]:
                continue
            value = overlap(other, box, False)
            if value <= limit:
                continue
            if threshold is None:
                if score > top:
                    choice, top = j, score
            elif states[j] == 0 and (value > best or chose_low):
                choice, best, chose_low = j, value, False
            elif states[j] == 1 and choice is None:
                choice, chose_low = j, True
        if choice is None:
            continue
        assigned[choice] = True
        if kind == 0 and states[choice] == 0:
            true += 1
            scores.append(found[choice][1])
    false = 0
    for j, (_, _, box) in enumerate(found):
        if assigned[j] or states[j] != 0 or taken[j]:
            continue
        regions = [other for region, other, _, _ in objects if region == "DontCare"]
        false += not any(overlap(box, other, True) > limit for other in regions)
    return kinds.count(0), scores, true, false


def kit(images, found, name, level, points):
    passes = [statistics(images[i], found[i], name, level, None) for i in images]
    count, scores = sum(row[0] for row in passes), sorted((s for row in passes for s in row[1]), reverse=True)
    if not count:
        return None
    thresholds, aim = [], 0.0
    for i, score in enumerate(scores):
        here = (i + 1) / count
        following = (i + 2) / count if i < len(scores) - 1 else here
        if following - aim < aim - here and i < len(scores) - 1:
            continue
        thresholds.append(score)
        aim += 1 / 40
    precision = [0.0] * 41
    for i, threshold in enumerate(thresholds[:41]):
        rows = [statistics(images[j], found[j], name, level, threshold) for j in images]
        true, false = sum(row[2] for row in rows), sum(row[3] for row in rows)
        precision[i] = true / (true + false) if true else 0.0
    for i in range(41):
        precision[i] = max(precision[i:])
    return sum(precision[1:]) / 40 if points == 40 else sum(precision[::4]) / 11


def generated(seed, in_memory, crowded):
    random = np.random.RandomState(seed)
    images, found = {}, {}
    for image_id in range(random.randint(12, 16) if crowded else random.randint(1, 5)):
        objects = []
        for _ in range(random.randint(8, 14) if crowded else random.randint(0, 7)):
            name = EVERY[random.choice(7, p=[0.4, 0.15, 0.1, 0.1, 0.1, 0.1, 0.05])]
            w, h = random.randint(15, 80), random.choice([24, 25, 26, 39, 40, 41, 60])
            x, y = random.randint(0, 400), random.randint(0, 200)
            cut = random.choice(
                [0.0, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6], p=[0.5, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05]
            )
            objects.append((name, (x, y, x + w, y + h), cut, random.choice(4, p=[0.6, 0.2, 0.1, 0.1])))
        rows = []
        for name, box, _, _ in objects * random.randint(1, 3):
            label = NAMES.index(name) if name in NAMES and random.rand() < 0.8 else random.randint(4)
            shift = random.choice([0, 0.02, 0.05, 0.2]) * random.randn(4) * 20
            x1, y1, x2, y2 = (float(np.float32(v)) for v in np.array(box) + shift)
            score = random.randint(1, 10) / 10 if random.rand() < 0.3 else random.rand()
            if random.rand() < 0.85:
                rows.append((label, float(np.float32(score)), (x1, y1, max(x2, x1 + 1), max(y2, y1 + 1))))
        images[image_id], found[image_id] = objects, rows
    return Kitti(in_memory(list(images), NAMES), images), images, found


@pytest.mark.reliability(
    area="evaluation",
    fault="generated street scenes with occlusion, truncation, low boxes, vans, sitting persons and DontCare (KITTI)",
    outcome="the AP of each class and difficulty equals the development kit's definition to 1e-9",
)
@pytest.mark.parametrize("points", [40, 11])
def test_equal_to_the_development_kit(in_memory, detections, points, record_property):
    measured = 0
    for seed in range(CASES):
        dataset, images, found = generated(seed, in_memory, crowded=seed % 4 == 0)
        metric = KittiMetric(recall_points=points, sample_once=True)
        metric.start(dataset)
        metric.update(list(found), [detections(rows) for rows in found.values()])
        numbers, reasons = metric.compute(), metric.reasons()
        for name in OVERLAPS:
            for level in LEVELS:
                wanted = kit(images, found, name, level, points)
                got = numbers[f"AP_{level}/{name}"]
                assert (got is None) == (wanted is None) == (f"AP_{level}/{name}" in reasons)
                if wanted is not None:
                    assert got == pytest.approx(wanted, abs=1e-9), (seed, name, level)
                    measured += wanted > 0
    record_property("tried", CASES)
    assert measured > CASES


def test_many_objects_need_no_repetition(in_memory, detections):
    for seed in range(3):
        dataset, _, found = generated(seed, in_memory, crowded=True)
        metric = KittiMetric(min_overlaps={"Car": 0.7}, min_heights=(20, 20, 20), max_truncations=(1, 1, 1))
        metric.difficulties = {k: v._replace(occlusion=9) for k, v in metric.difficulties.items()}
        metric.start(dataset)
        metric.update(list(found), [detections(rows) for rows in found.values()])
        assert dataset.objects.names.count("Car") > 40
        got = metric.compute()["AP_easy/Car"]
        metric.sample_once = True
        assert got == pytest.approx(metric.compute()["AP_easy/Car"], abs=1e-12)


def scene(in_memory, *objects):
    return Kitti(in_memory([0], NAMES), {0: objects})


def measure(dataset, rows, detections, **parameters):
    metric = KittiMetric(**parameters)
    metric.start(dataset)
    metric.update([0], [detections(rows)])
    return metric


BOX, ELSEWHERE = (0, 0, 50, 50), (100, 0, 150, 50)


def test_all_found(in_memory, detections):
    dataset = scene(in_memory, ("Car", BOX, 0.0, 0))
    rows = [(0, 0.9, BOX)]
    assert measure(dataset, rows, detections).compute()["AP_easy/Car"] == pytest.approx(1.0)
    assert measure(dataset, rows, detections, sample_once=True).compute()["AP_easy/Car"] == 0.0
    assert measure(dataset, [], detections).compute()["AP_easy/Car"] == 0.0


@pytest.mark.parametrize(
    "other", [("Van", ELSEWHERE, 0.0, 0), ("DontCare", ELSEWHERE, -1.0, -1), ("Car", ELSEWHERE, 0.0, 3)]
)
def test_what_excuses(in_memory, detections, other):
    dataset = scene(in_memory, ("Car", BOX, 0.0, 0), other)
    rows = [(0, 0.95, ELSEWHERE), (0, 0.9, BOX)]
    assert measure(dataset, rows, detections).compute()["AP_hard/Car"] == pytest.approx(1.0)
    alone = scene(in_memory, ("Car", BOX, 0.0, 0))
    assert measure(alone, rows, detections).compute()["AP_hard/Car"] == pytest.approx(0.5)


def test_reasons(in_memory, detections):
    metric = measure(scene(in_memory, ("Car", BOX, 0.0, 1)), [], detections)
    numbers, reasons = metric.compute(), metric.reasons()
    assert reasons["AP_easy/Car"] == "n/a: no ground truth of this class that is easy"
    assert reasons["AP_easy"] == "n/a: no ground truth that is easy"
    assert reasons["AP_hard/Cyclist"] == "n/a: no ground truth of this class"
    assert {name for name, value in numbers.items() if value is None} == reasons.keys()
    empty = measure(scene(in_memory), [], detections)
    assert set(empty.compute().values()) == {None}
    assert empty.reasons().keys() == empty.compute().keys()


def test_files(tmp_path, detections):
    for name in ("labels", "images"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (200, 80)).save(tmp_path / "images" / "0.png")
    rest = "1 1 1 1 1 1 1"
    lines = [
        f"Van 0 0 0 0 0 50 50 {rest}",
        f"Car 0.2 1 0 100 0 150 50 {rest}",
        f"DontCare -1 -1 -10 50 0 99 79 {rest}",
    ]
    (tmp_path / "labels" / "0.txt").write_text("\n".join(lines))
    data = KittiDataset(
        root=tmp_path, annotations="labels", images="images", classes=("Car",), merge={"Van": "Car"}
    )
    metric = measure(data, [(0, 0.9, BOX), (0, 0.8, ELSEWHERE), (0, 0.7, (60, 10, 90, 60))], detections)
    numbers = metric.compute()
    assert numbers["AP_easy/Car"] is None
    assert numbers["AP"] == numbers["AP_moderate/Car"] == pytest.approx(1.0)
    assert list(numbers) == ["AP", "AP_easy", "AP_moderate", "AP_hard", *(f"AP_{x}/Car" for x in LEVELS)]


def test_wrong_use(in_memory):
    dataset = in_memory([0], ["cat"])
    with pytest.raises(DataError, match=r"classes \(cat\) are none of KITTI's \(Car, Pedestrian, Cyclist\)"):
        KittiMetric().start(dataset)
    with pytest.raises(DataError, match="min_overlaps: the dataset has no class 'cot'; did you mean 'cat'"):
        KittiMetric(min_overlaps={"cot": 0.5}).start(dataset)
    with pytest.raises(DataError, match=r"call start\(dataset\) first"):
        KittiMetric().compute()
    with pytest.raises(ValueError, match="min_overlaps names no class"):
        KittiMetric(min_overlaps={})
