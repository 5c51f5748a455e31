import io
import json
import re

import pytest
import torch
from detcore_train import evaluate
from detcore_train.evaluation import Evaluation
from rich.console import Console

from detcore.errors import DataError
from detcore.structures import ClassMap


@pytest.fixture
def parts(toys, toy_detector):
    dataset = toys.resolve("datasets", "ToyDataset")(length=7, noise=0.0)
    toy_detector.class_map = dataset.class_map
    return toy_detector, dataset, toys.resolve("metrics", "ToyMetric")()


def test_batches_and_workers_change_nothing(parts):
    single = evaluate(*parts)
    seen = []
    batched = evaluate(*parts, batch_size=3, workers=1, report=seen.append)
    assert batched.values == pytest.approx(single.values)
    assert single.images == 7
    assert seen == [3, 3, 1]


def test_modes_are_restored(parts):
    detector = parts[0].train()
    detector.backbone.norm.eval()
    statistics = detector.backbone.norm.running_mean.clone()
    evaluate(*parts)
    assert detector.training
    assert detector.head.training
    assert not detector.backbone.norm.training
    assert torch.equal(detector.backbone.norm.running_mean, statistics)


def test_modes_are_restored_after_an_error(parts):
    detector, dataset, metric = parts
    metric.update = None
    with pytest.raises(TypeError):
        evaluate(detector.train(), dataset, metric)
    assert detector.training


def test_other_classes_are_refused(parts):
    detector, dataset, metric = parts
    detector.class_map = ClassMap(("cat", "dog"))
    with pytest.raises(
        DataError, match=r"detector's classes \(cat, dog\) are not the dataset's \(red, green\)"
    ):
        evaluate(detector, dataset, metric)


def test_a_detector_without_names_takes_the_datasets(parts, toy_detector):
    toy_detector.class_map = ClassMap(("class0", "class1"))
    assert evaluate(*parts).images == 7


def test_the_line_and_the_json():
    reasons = {"AP50": "n/a: no ground truth"}
    evaluation = Evaluation(
        {"AP": 0.35349, "AP50": None, "AP/cat": 0.2}, 3, 1.5, {"checkpoint": "x"}, reasons
    )
    assert evaluation.line() == "AP 0.353  AP50 n/a"
    data = json.loads(evaluation.to_json())
    assert data == {
        "values": {"AP": 0.35349, "AP50": None, "AP/cat": 0.2},
        "images": 3,
        "seconds": 1.5,
        "reasons": {"AP50": "n/a: no ground truth"},
        "checkpoint": "x",
    }
    console = Console(width=60, file=io.StringIO())
    console.print(evaluation.table())
    assert re.search(r"AP50 +│ n/a: no ground truth", console.file.getvalue())


def test_coco_metric_is_the_default(parts):
    assert {"AP", "AP50", "AP75"} <= set(evaluate(*parts[:2]).values)
