"""CocoMetric against pycocotools used as its own documentation says, on generated cases."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from detcore_data import CocoMetric, Collected
from detcore_data.coco_backends import evaluate
from detcore_data.records import Annotations, Records
from detcore_data.segmentations import Segmentations
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detcore.structures import ClassMap, ImageDetections

SIZE = (112, 128)
CASES = 240
CHUNKS = 8
#: COCO's own limits of area, and just beside them.
AREAS = (1023.5, 1024.0, 1024.5, 9215.5, 9216.0, 9216.5)


class Case:
    """A small dataset with detections: crowds, empty images, ties, too many detections, absent classes."""

    def __init__(self, seed):
        self.random = random = np.random.RandomState(seed)
        self.classes = random.randint(1, 5)
        self.ids = sorted(random.choice(1000, random.randint(1, 6), replace=False).tolist())
        random.shuffle(self.ids)
        self.category_ids = random.permutation(90)[: self.classes].tolist()
        self.max_dets = ((1, 10, 100), (1, 2, 3), (5,))[random.randint(3)]
        present = random.randint(0, self.classes + 1)  # classes from here on have no objects
        self.truth, self.found = [], {}
        for image_id in self.ids:
            if random.rand() < 0.8:
                for _ in range(random.randint(0, 7)):
                    if present:
                        self.truth.append(self.object(image_id, random.randint(present)))
            if random.rand() < 0.85:
                self.found[image_id] = self.detections(image_id)

    def box(self):
        w, h = np.exp(self.random.uniform(0.5, 4.7, 2)).clip(max=(SIZE[1] - 2, SIZE[0] - 2)).round(1)
        return [
            round(self.random.uniform(0, SIZE[1] - w), 1),
            round(self.random.uniform(0, SIZE[0] - h), 1),
            w,
            h,
        ]

    def mask(self, box):
        x, y, w, h = box
        polygon = [x, y, x + w, y, x + w, y + h, x + w / 2, y + h / 2, x, y + h]
        return quiet(lambda: coco_mask.merge(coco_mask.frPyObjects([polygon], *SIZE)))

    def object(self, image_id, label):
        box = self.box()
        area = box[2] * box[3] if self.random.rand() < 0.6 else self.random.choice(AREAS)
        crowd = int(self.random.rand() < 0.2)
        return {"image_id": image_id, "label": label, "bbox": box, "area": float(area), "iscrowd": crowd}

    def detections(self, image_id):
        random = self.random
        near = [row for row in self.truth if row["image_id"] == image_id]
        rows = []
        for row in near * random.randint(1, 4) + [None] * random.randint(0, 4):
            box, label = (
                (self.box(), random.randint(self.classes)) if row is None else (row["bbox"], row["label"])
            )
            if random.rand() < 0.2:
                label = random.randint(self.classes)
            shift = random.choice([0.0, 0.02, 0.1, 0.3]) * random.randn(4) * (box[2:] * 2)
            box = np.array(box) + shift
            box[:2] = box[:2].clip(0, (SIZE[1] - 2, SIZE[0] - 2))
            box[2:] = box[2:].clip(1, (SIZE[1], SIZE[0]) - box[:2])
            rows.append((box, random.randint(0, 8) / 8 if random.rand() < 0.5 else random.rand(), label))
        corners = torch.tensor([[x, y, x + w, y + h] for (x, y, w, h), _, _ in rows], dtype=torch.float32)
        scores = torch.tensor([score for _, score, _ in rows], dtype=torch.float32)
        labels = torch.tensor([label for _, _, label in rows], dtype=torch.int64)
        runs = [self.mask(box) for box, _, _ in rows]
        dense = quiet(lambda: coco_mask.decode(runs)) if runs else np.zeros((*SIZE, 0), np.uint8)
        masks = torch.from_numpy(dense).permute(2, 0, 1).bool()
        return ImageDetections(corners.reshape(-1, 4), scores, labels, masks)

    # ------------------------------------------------------------------------------------------ two sides

    def reference(self, iou_type):
        images = [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in self.ids]
        categories = [{"id": c, "name": f"c{c}"} for c in self.category_ids]
        rows = []
        for i, row in enumerate(self.truth, start=1):
            own = {"id": i, "category_id": self.category_ids[row["label"]], **row}
            rows.append({**own, "segmentation": self.mask(row["bbox"])})
        results = []
        for image_id, found in self.found.items():
            runs = quiet(
                lambda: coco_mask.encode(
                    np.asfortranarray(found.masks.permute(1, 2, 0).numpy().astype(np.uint8))  # noqa: B023
                )
            )
            for (x1, y1, x2, y2), score, label, run in zip(
                found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), runs, strict=True
            ):
                result = {
                    "image_id": image_id,
                    "category_id": self.category_ids[label],
                    "score": score,
                }
                shape = {"bbox": [x1, y1, x2 - x1, y2 - y1]} if iou_type == "bbox" else {"segmentation": run}
                results.append(result | shape)
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            truth = COCO()
            truth.dataset = {"images": images, "categories": categories, "annotations": rows}
            truth.createIndex()
            found = truth.loadRes(results) if results else COCO()
            evaluation = COCOeval(truth, found, iou_type)
            evaluation.params.maxDets = list(self.max_dets)
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation

    def dataset(self):
        class_map = ClassMap(tuple(f"c{c}" for c in self.category_ids), tuple(self.category_ids))
        segmentations, _ = Segmentations.parse(
            [
                [[x, y, x + w, y, x + w, y + h, x + w / 2, y + h / 2, x, y + h]]
                for x, y, w, h in (row["bbox"] for row in self.truth)
            ]
        )
        annotations = Annotations.of(
            boxes=np.array([row["bbox"] for row in self.truth]),
            labels=np.array([row["label"] for row in self.truth]),
            ignore=np.array([row["iscrowd"] for row in self.truth], dtype=np.bool_),
            areas=np.array([row["area"] for row in self.truth]),
        )
        place = {image_id: i for i, image_id in enumerate(self.ids)}
        image_of = np.array([place[row["image_id"]] for row in self.truth], dtype=np.int64)
        files = [f"{i}.png" for i in self.ids]
        sizes = [SIZE] * len(files)
        return InMemory(
            Records.of(class_map, "generated", files, self.ids, sizes, image_of, annotations, segmentations)
        )


class InMemory:
    """Only ground truth, no images."""

    def __init__(self, records):
        self.records, self.class_map = records, records.class_map


def quiet(function):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function()


def expected_numbers(evaluation, label=None):
    """AP, ..., ARl from pycocotools' arrays; -1 as it says."""

    def mean(values):
        if label is not None:
            values = values[..., label, :, :]
        return values

    def summarise(values):
        values = values[values > -1]
        return float(values.mean()) if values.size else -1.0

    precision, recall = mean(evaluation.eval["precision"]), mean(evaluation.eval["recall"])
    numbers = {
        "AP": summarise(precision[..., 0, -1]),
        "AP50": summarise(precision[0][..., 0, -1]),
        "AP75": summarise(precision[5][..., 0, -1]),
    }
    numbers |= {f"AP{size}": summarise(precision[..., i, -1]) for i, size in enumerate("sml", start=1)}
    counts = enumerate(evaluation.params.maxDets)
    numbers |= {f"AR{count}": summarise(recall[..., 0, i]) for i, count in counts}
    return numbers | {f"AR{size}": summarise(recall[..., i, -1]) for i, size in enumerate("sml", start=1)}


fast = pytest.mark.skipif(find_spec("faster_coco_eval") is None, reason="the extra [fast] is not installed")


@pytest.mark.reliability(
    area="evaluation",
    fault="generated datasets with crowd regions, empty images, classes without objects, tied scores, "
    "areas at the size limits, and more detections than count",
    outcome="all numbers of boxes and of masks equal pycocotools' to 1e-12; n/a with a reason where it says -1",
)
@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("backend", ["numpy", "pycocotools", pytest.param("faster_coco_eval", marks=fast)])
def test_equal_to_pycocotools(backend, chunk, record_property):
    seen = {"none": 0, "number": 0}
    for seed in range(chunk, CASES, CHUNKS):
        case = Case(seed)
        metric = CocoMetric(iou_types=("bbox", "segm"), max_dets=case.max_dets, backend=backend)
        metric.start(case.dataset())
        metric.update(list(case.found), list(case.found.values()))
        numbers, reasons = quiet(metric.compute), metric.reasons()
        wanted = {}
        for iou_type, prefix in (("bbox", ""), ("segm", "segm_")):
            evaluation = case.reference(iou_type)
            wanted |= {prefix + name: value for name, value in expected_numbers(evaluation).items()}
            if iou_type == "bbox":
                order = np.argsort(np.argsort(case.category_ids)).tolist()  # pycocotools sorts them
                by_class = [expected_numbers(evaluation, place) for place in order]
        assert numbers.keys() == wanted.keys()
        for name, value in wanted.items():
            if value == -1:
                assert numbers[name] is None, (seed, name)
                assert reasons[name].startswith("n/a: "), (seed, name)
                seen["none"] += 1
            else:
                assert numbers[name] == pytest.approx(value, abs=1e-12), (seed, name)
                assert name not in reasons
                seen["number"] += 1
        for (name, values), expected in zip(quiet(metric.per_class).items(), by_class, strict=True):
            for number, value in expected.items():
                own = None if value == -1 else pytest.approx(value, abs=1e-12)
                assert values[number] == own, (seed, name, number)
                assert (f"{number}/{name}" in reasons) == (value == -1)
    record_property("tried", len(range(chunk, CASES, CHUNKS)))
    assert min(seen.values()) > 30


def test_more_masks_than_pycocotools_takes_at_once():
    """Some releases fail on more than 255."""
    case = Case(1)
    for found in case.found.values():
        times = -(-300 // max(1, len(found.scores)))
        for name in ("boxes", "scores", "labels", "masks"):
            value = getattr(found, name)
            object.__setattr__(found, name, value.repeat(times, *[1] * (value.dim() - 1)))
    results = []
    for backend in ("numpy", "pycocotools"):
        metric = CocoMetric(iou_types=("segm",), max_dets=(300,), backend=backend)
        metric.start(case.dataset())
        metric.update(list(case.found), list(case.found.values()))
        results.append(quiet(metric.compute))
    assert results[0] == results[1]
    assert max(len(found.scores) for found in case.found.values()) > 255


def awkward(seed):
    """A case with objects twice, regions of any class, and boxes that are empty or inside out."""
    case = Case(seed)
    case.truth += [dict(row) for row in case.truth[::2]]
    if case.truth:
        case.truth[0] = {**case.truth[0], "bbox": [*case.truth[0]["bbox"][:2], 0.0, 5.0]}
    for found in case.found.values():
        found.boxes[::5, 2:] = found.boxes[::5, :2]
        found.boxes[1::5] = found.boxes[1::5][:, [2, 3, 0, 1]]
    collected = Collected(case.dataset(), masks=True)
    collected.add(list(case.found), list(case.found.values()))
    annotations = collected.records.annotations
    any_class = annotations.ignore & (torch.arange(len(annotations)) % 2 == 0)
    annotations = dataclasses.replace(annotations, any_class=any_class)
    return dataclasses.replace(collected.records, annotations=annotations), collected.found, case.max_dets


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_every_bit_is_equal(chunk, class_agnostic, monkeypatch):
    """Also where the work is done in pieces."""
    if chunk is not None:
        monkeypatch.setattr("detcore_data.coco_columns._CHUNK", chunk)
        monkeypatch.setattr("detcore_data.coco_matching._CHUNK", chunk)
    measured = 0
    for seed in range(1000, 1012):
        records, found, max_dets = awkward(seed)
        for iou_type in ("bbox", "segm"):
            ours, theirs = (
                quiet(lambda b=b: evaluate(records, found, iou_type, max_dets, b, class_agnostic))  # noqa: B023
                for b in ("numpy", "pycocotools")
            )
            assert np.array_equal(ours.precisions, theirs.precisions), (seed, iou_type)
            assert np.array_equal(ours.recalls, theirs.recalls), (seed, iou_type)
            assert np.array_equal(ours.thresholds, theirs.thresholds)
            measured += (theirs.precisions > 0).sum()
    assert measured > 1000


def test_the_reasons():
    case = Case(0)
    case.ids, case.classes, case.category_ids = [1], 4, [1, 2, 3, 4]
    base = {"image_id": 1, "bbox": [0.0, 0.0, 10.0, 10.0]}
    case.truth = [
        {**base, "label": 0, "area": 100.0, "iscrowd": 0},
        {**base, "label": 1, "area": 100.0, "iscrowd": 1},
        {**base, "label": 3, "area": 1024.0, "iscrowd": 0},
    ]
    metric = CocoMetric()
    metric.start(case.dataset())
    reasons = metric.reasons()
    assert reasons["APl"] == "n/a: no ground truth of this size"
    assert "APm" not in reasons  # an area of 32 * 32 is small and medium
    assert reasons["APm/c1"] == "n/a: no ground truth of this class of this size"
    assert reasons["AP/c2"] == "n/a: all ground truth of this class is ignored"
    assert reasons["AP/c3"] == "n/a: no ground truth of this class"
    assert not {"AP", "APs", "AP/c1", "APs/c4", "APm/c4"} & reasons.keys()
    case.truth = []
    metric.start(case.dataset())
    assert {reasons for name, reasons in metric.reasons().items() if "/" not in name} == {
        "n/a: no ground truth"
    }
