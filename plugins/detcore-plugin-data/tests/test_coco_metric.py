from __future__ import annotations

import contextlib
import io
import json
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from detcore_data import CocoDataset, CocoMetric, KittiDataset, ShapesDataset
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detcore.errors import ConfigError, DataError
from detcore.structures import ImageDetections

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
fast = pytest.mark.skipif(find_spec("faster_coco_eval") is None, reason="the extra [fast] is not installed")
backends = pytest.mark.parametrize(
    "backend", ["numpy", "pycocotools", pytest.param("faster_coco_eval", marks=fast)]
)


def detections(boxes=(), scores=(), labels=(), masks=None):
    return ImageDetections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
        masks,
    )


def reference(path, found, ids, iou_type="bbox"):
    """pycocotools on files, as its own documentation uses it."""
    rows = [
        {
            "image_id": image_id,
            "category_id": ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for image_id, item in found.items()
        for (x1, y1, x2, y2), score, label in zip(
            item.boxes.tolist(), item.scores.tolist(), item.labels.tolist(), strict=True
        )
    ]
    results = path.parent / "results.json"
    results.write_text(json.dumps(rows))
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NAMES, evaluation.stats.tolist(), strict=True))


def noisy(data, seed, ids=None):
    """Detections near the truth, some missing, some twice, some wrong, scores with ties."""
    random = torch.Generator().manual_seed(seed)
    found = {}
    for i in range(len(data)):
        rows = data.records[i].rows
        boxes = data.records.annotations.boxes[rows].float()
        boxes = torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1).repeat(2, 1)
        labels = data.records.annotations.labels[rows].repeat(2)
        n = len(labels)
        boxes = boxes + torch.randn(n, 4, generator=random) * (boxes[:, 2:] - boxes[:, :2]).mean() * 0.08
        wrong = torch.rand(n, generator=random) < 0.2
        labels = torch.where(wrong, (labels + 1) % len(data.class_map), labels)
        kept = torch.rand(n, generator=random) < 0.8
        scores = torch.randint(1, 20, (n,), generator=random) / 20
        found[data.records[i].image_id] = ImageDetections(boxes[kept], scores[kept], labels[kept])
    return found


def run(data, found, **parameters):
    metric = CocoMetric(**parameters)
    metric.start(data)
    for image_id, item in found.items():
        metric.update([image_id], [item])
    return metric


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = ShapesDataset(
        root=tmp_path_factory.mktemp("shapes"), length=60, size=(160, 200), max_objects=9
    ).folder
    path = folder / "instances.json"
    data = json.loads(path.read_text())
    random = np.random.RandomState(0)
    number = {1: 90, 2: 3, 3: 7}
    for row in data["categories"]:
        row["id"] = number[row["id"]]
    for row in data["annotations"]:
        row["category_id"] = number[row["category_id"]]
        row["iscrowd"] = int(random.rand() < 0.15)
        row["area"] *= random.choice([1, 5])  # areas decide the size, not boxes
    path.write_text(json.dumps(data))
    return CocoDataset(annotations=path, images=folder / "images"), path


@backends
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_pycocotools(shapes, seed, backend):
    data, path = shapes
    found = noisy(data, seed)
    numbers = run(data, found, backend=backend).compute()
    expected = reference(path, found, data.class_map.ids)
    assert list(numbers) == list(NAMES)
    assert min(expected.values()) > 0.05
    assert numbers == {name: pytest.approx(value, abs=1e-12) for name, value in expected.items()}


@backends
def test_per_class(shapes, backend):
    data, path = shapes
    found = noisy(data, 3)
    metric = run(data, found, backend=backend, classwise=True)
    numbers, by_class = metric.compute(), metric.per_class()
    assert list(by_class) == list(data.class_map.names)
    for label, name in enumerate(data.class_map.names):
        only = CocoDataset(annotations=path, images=path.parent / "images", classes=(name,))
        own = {
            i: ImageDetections(
                d.boxes[d.labels == label], d.scores[d.labels == label], d.labels[d.labels == label] * 0
            )
            for i, d in found.items()
        }
        assert by_class[name] == run(only, own, backend=backend).compute()
        assert numbers[f"AP/{name}"] == by_class[name]["AP"]
    mean = sum(by_class[name]["AP"] for name in by_class) / 3
    assert numbers["AP"] == pytest.approx(mean, rel=1e-12)


@backends
def test_proposals_have_no_class(shapes, backend):
    data, path = shapes
    found = noisy(data, 4)
    proposals = {i: item.replace(labels=torch.zeros_like(item.labels)) for i, item in found.items()}
    one_class = json.loads(path.read_text())
    one_class["categories"] = [{"id": 7, "name": "object"}]
    for row in one_class["annotations"]:
        row["category_id"] = 7
    other = path.parent / "one_class.json"
    other.write_text(json.dumps(one_class))
    expected = reference(other, proposals, (7,))
    for detections in (found, proposals):
        metric = run(data, detections, backend=backend, class_agnostic=True)
        assert metric.compute() == {name: pytest.approx(value, abs=1e-12) for name, value in expected.items()}
        assert metric.per_class() == {}


@backends
def test_the_truth_itself(shapes, backend):
    data, _ = shapes
    found = {}
    for i in range(len(data)):
        item = data[i]
        real = ~item["ignore"]
        boxes = item["boxes"].as_subclass(torch.Tensor)[real]
        found[item["image_id"]] = ImageDetections(boxes, torch.ones(len(boxes)), item["labels"][real])
    assert run(data, found, backend=backend).compute()["AP"] == pytest.approx(1.0)


@backends
def test_nothing_found(coco, backend):
    data = CocoDataset(**coco.write())
    numbers = run(data, {i: detections() for i in (3, 5, 8)}, backend=backend).compute()
    assert (numbers["AP"], numbers["APs"], numbers["AR100"]) == (0.0, 0.0, 0.0)
    assert (numbers["APm"], numbers["APl"], numbers["ARl"]) == (None, None, None)


@backends
def test_nothing_to_find(coco, backend):
    coco.data["annotations"] = []
    data = CocoDataset(**coco.write())
    metric = run(data, {3: detections([(1, 1, 5, 5)], [0.5], [0])}, backend=backend, classwise=True)
    assert set(metric.compute().values()) == {None}


@backends
def test_crowd_regions_excuse_detections(coco, backend):
    coco.data["annotations"] = [
        coco.box(1, 3, 7, [0, 0, 8, 8]),
        coco.box(2, 3, 7, [10, 5, 20, 20], iscrowd=1),
    ]
    data = CocoDataset(**coco.write())
    inside = detections([(12, 8, 16, 12), (20, 10, 25, 15), (0, 0, 8, 8)], [0.9, 0.8, 0.7], [1, 1, 1])
    assert run(data, {3: inside}, backend=backend).compute()["AP"] == pytest.approx(1.0)


@backends
@pytest.mark.parametrize(("boxes", "recall"), [([0, 4], 0.85), ([4, 0], 0.7)])
def test_of_two_objects_that_overlap_alike_the_later_one_is_taken(coco, backend, boxes, recall):
    coco.data["annotations"] = [coco.box(i, 3, 7, [x, 0, 20, 20]) for i, x in enumerate(boxes, start=1)]
    data = CocoDataset(**coco.write())
    found = detections([(2, 0, 22, 20), (0, 0, 20, 20)], [0.9, 0.8], [1, 1])  # the second is the object at 0
    assert run(data, {3: found}, backend=backend).compute()["AR100"] == pytest.approx(recall)


@backends
def test_dont_care_excuses_every_class(tmp_path, backend):
    for name in ("labels", "images"):
        (tmp_path / name).mkdir()
    rest = "1 1 1 1 1 1 1"
    (tmp_path / "labels" / "0.txt").write_text(
        f"Car 0 0 0 0 0 8 8 {rest}\nDontCare 0 0 0 10 5 30 25 {rest}\n"
    )
    from PIL import Image

    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "0.png")
    data = KittiDataset(root=tmp_path, annotations="labels", images="images", classes=("Van", "Car"))
    found = detections([(12, 8, 16, 12), (12, 8, 16, 12), (0, 0, 8, 8)], [0.9, 0.8, 0.7], [0, 1, 1])
    metric = run(data, {0: found}, backend=backend)
    assert metric.compute()["AP"] == pytest.approx(1.0)
    assert metric.per_class()["Van"]["AP"] is None


@backends
def test_masks(coco, backend):
    for row in coco.data["annotations"]:
        x, y, w, h = row["bbox"]
        row["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    data = CocoDataset(**coco.write(), with_masks=True)
    found = {}
    for i in range(3):
        item = data[i]
        masks = item["masks"].as_subclass(torch.Tensor)
        boxes = torch.zeros(len(masks), 4)  # only masks are right
        found[item["image_id"]] = ImageDetections(boxes, torch.ones(len(masks)), item["labels"], masks)
    numbers = run(data, found, iou_types=("bbox", "segm"), backend=backend, classwise=True).compute()
    assert numbers["AP"] == 0
    assert numbers["segm_AP"] == pytest.approx(1.0)
    assert numbers["segm_AP/cat"] == pytest.approx(1.0)
    with pytest.raises(DataError, match="iou_types has 'segm' but the dataset no masks; use with_masks=True"):
        CocoMetric(iou_types=("segm",)).start(CocoDataset(**coco.write()))
    with pytest.raises(
        DataError, match="detections of image 3: iou_types has 'segm' but the detections no masks"
    ):
        run(data, {3: detections([(1, 1, 5, 5)], [0.5], [0])}, iou_types=("segm",))


def test_max_dets(shapes):
    data, _ = shapes
    found = noisy(data, 5)
    usual, few = run(data, found).compute(), run(data, found, max_dets=(1, 2)).compute()
    assert [name for name in few if name.startswith("AR")] == ["AR1", "AR2", "ARs", "ARm", "ARl"]
    assert few["AR1"] == usual["AR1"]
    assert few["AP"] < usual["AP"]


# ------------------------------------------------------------------------------------------------------ use


def test_order_and_batches_do_not_matter(shapes):
    data, _ = shapes
    found = noisy(data, 1)
    expected = run(data, found).compute()
    metric = CocoMetric()
    metric.start(data)
    ids = list(reversed(found))
    metric.update(ids[:7], [found[i] for i in ids[:7]])
    metric.update(ids[7:], [found[i] for i in ids[7:]])
    assert metric.compute() == expected
    metric.update(ids[:3], [found[i] for i in ids[:3]])  # as a distributed sampler does
    assert metric.compute() == expected
    metric.start(data)
    metric.update(ids, [found[i] for i in ids])
    assert metric.compute() == expected


def test_evaluated_once(shapes, caplog):
    data, _ = shapes
    found = noisy(data, 6)
    some = dict(list(found.items())[:30])
    metric = run(data, some)
    first = metric.compute()
    assert metric.compute() == first
    assert metric.per_class()
    assert caplog.text.count("30 of 60 images were not evaluated") == 1
    metric.update(list(found), list(found.values()))
    assert metric.compute() == run(data, found).compute() != first
    metric.start(data)
    assert metric.compute()["AP"] == 0.0


@backends
def test_nothing_is_printed(coco, backend, capsys):
    data = CocoDataset(**coco.write())
    run(data, {i: detections([(1, 1, 5, 5)], [0.5], [0]) for i in (3, 5, 8)}, backend=backend).compute()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_unseen_images(coco, caplog):
    data = CocoDataset(**coco.write())
    found = {5: detections([(0, 0, 4, 4)], [0.5], [0])}
    assert run(data, found).compute()["AP"] == pytest.approx(0.5)
    assert "2 of 3 images were not evaluated; their objects count as missed" in caplog.text
    caplog.clear()
    assert run(data, found, unseen="skip").compute()["AP"] == pytest.approx(1.0)
    assert "2 of 3 images were not evaluated; they are left out" in caplog.text


@pytest.mark.parametrize(
    ("ids", "found", "message"),
    [
        (
            [4],
            [detections()],
            r"the image id 4, which .*instances\.json does not have; its 3 ids begin with \[3, 5, 8\]",
        ),
        ([3, 5], [detections()], "update got 2 image ids but 1 detections"),
        ([3], [detections([(0, 0, 1, 1)], [0.5], [3])], r"image 3: labels should be 0\.\.2, got \[3\]"),
        ([3], [detections([(0, 0, 1, 1)], [0.5], [-1])], r"image 3: labels should be 0\.\.2, got \[-1\]"),
        (
            [3],
            [detections([(0, 0, 1, 1)], [float("nan")], [0])],
            "image 3: scores that are no finite numbers",
        ),
        (
            [3],
            [detections([(0, 0, 1, float("inf"))], [0.5], [0])],
            "image 3: boxes that are no finite numbers",
        ),
    ],
)
def test_wrong_updates(coco, ids, found, message):
    metric = CocoMetric()
    metric.start(CocoDataset(**coco.write()))
    with pytest.raises(DataError, match=message):
        metric.update(ids, found)


def test_not_started():
    with pytest.raises(DataError, match=r"call start\(dataset\) first"):
        CocoMetric().update([], [])
    with pytest.raises(DataError, match=r"call start\(dataset\) first"):
        CocoMetric().compute()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_dets": (100, 10)}, r"max_dets should rise, got \(100, 10\)"),
        ({"max_dets": ()}, "max_dets"),
        ({"classwise": True, "class_agnostic": True}, "classwise and class_agnostic exclude each other"),
        ({"iou_types": ("box",)}, "iou_types"),
        ({"backend": "mine"}, "backend"),
    ],
)
def test_wrong_parameters(parameters, message):
    with pytest.raises(ConfigError, match=message):
        CocoMetric(**parameters)


def test_a_backend_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"needs the package faster-coco-eval: pip install \"detcore-plugin-data\[fast\]\""
    ):
        CocoMetric(backend="faster_coco_eval")
    assert CocoMetric().backend == "numpy"
