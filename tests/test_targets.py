import pytest
import torch

from detcore import targets as building
from detcore.structures import Assignment, ImageBatch, Priors, Sample, Targets


@pytest.fixture
def targets():
    return Targets.stack(
        [
            {"boxes": [[0.0, 0, 4, 4], [2.0, 2, 8, 8]], "labels": [2, 1]},
            {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
        ]
    )


@pytest.fixture
def assignment():
    state = torch.tensor([[1, 0, -1, 1], [0, 0, 0, -1]], dtype=torch.int8)
    return Assignment(torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0]]), state, torch.zeros(2, 4))


@pytest.fixture
def sample(assignment):
    return Sample(assignment.positive, assignment.negative)


def test_positives_are_gathered_from_all_images(assignment, sample, targets):
    chosen = building.positives(assignment, sample, targets)
    assert chosen.image.tolist() == [0, 0]
    assert chosen.prior.tolist() == [0, 3]
    assert chosen.labels.tolist() == [1, 2]
    assert chosen.boxes.tolist() == [[2, 2, 8, 8], [0, 0, 4, 4]]
    assert chosen.weight is None
    assert chosen.gather(torch.arange(8).reshape(2, 4)).tolist() == [0, 3]
    assert chosen.gather(torch.rand(2, 4, 5)).shape == (2, 5)


def test_only_sampled_positives_and_their_weights(assignment, targets):
    positive = torch.tensor([[False, False, False, True], [False] * 4])
    weight = torch.arange(8.0).reshape(2, 4)
    sample = Sample(positive, assignment.negative, weight)
    chosen = building.positives(assignment, sample, targets)
    assert chosen.prior.tolist() == [3]
    assert chosen.weight.tolist() == [3]
    assert building.class_labels(assignment, positive, targets, 5).tolist() == [[5, 5, 5, 2], [5, 5, 5, 5]]
    assert building.class_weights(sample, 2.0).tolist() == [[0, 1, 0, 6], [4, 5, 6, 0]]


def test_labels_and_weights(assignment, sample, targets):
    assert building.class_labels(assignment, sample.positive, targets, 3).tolist() == [
        [1, 3, 3, 2],
        [3, 3, 3, 3],
    ]
    assert building.class_weights(sample).tolist() == [[1, 1, 0, 1], [1, 1, 1, 0]]


def test_an_image_counts_at_least_one_of_each_sort(sample):
    assert building.sampled_count(sample, positives_only=True) == 2 + 1
    assert building.sampled_count(sample, positives_only=False) == (2 + 1) + (1 + 3)
    nothing = Sample(torch.zeros(3, 4, dtype=torch.bool), torch.zeros(3, 4, dtype=torch.bool))
    assert building.sampled_count(nothing, positives_only=False) == 6


def test_dense_targets_are_averaged_over_processes(assignment, sample, targets, monkeypatch):
    monkeypatch.setattr(building, "reduce_mean", lambda value: value * 10)
    wanted = building.dense_targets(
        assignment, sample, targets, num_classes=3, pos_weight=2.0, subsampled=False
    )
    assert wanted.count == 30
    assert wanted.labels.tolist() == [[1, 3, 3, 2], [3, 3, 3, 3]]
    assert wanted.weights.tolist() == [[2, 1, 0, 2], [1, 1, 1, 0]]
    assert wanted.positives.prior.tolist() == [0, 3]
    subsampled = building.dense_targets(assignment, sample, targets, num_classes=3, subsampled=True)
    assert subsampled.count == 70


def test_usable_narrows_what_is_valid():
    boxes = torch.tensor([[0.0, 0, 8, 8], [-3.0, 0, 5, 8], [4.0, 4, 20, 20]])
    priors = Priors(boxes, torch.ones(3, 2), valid=torch.tensor([[False, True, True]]))
    batch = ImageBatch.of(torch.zeros(1, 3, 16, 16))
    assert building.usable(priors, batch, None) is priors
    assert building.usable(priors, batch, 0).valid.tolist() == [[False, False, False]]
    assert building.usable(priors, batch, 4).valid.tolist() == [[False, True, False]]
    assert building.usable(priors.replace(valid=None), batch, 4).valid.tolist() == [[True, True, False]]


def test_centerness():
    box = torch.tensor([10.0, 20.0, 30.0, 60.0])
    points = torch.tensor([[20.0, 40.0], [15.0, 40.0], [20.0, 30.0], [10.0, 40.0], [5.0, 40.0], [99.0, 99.0]])
    expected = [1.0, (5 / 15) ** 0.5, (10 / 30) ** 0.5, 0.0, 0.0, 0.0]
    torch.testing.assert_close(building.centerness(points, box.expand(6, 4)), torch.tensor(expected))


def test_centerness_of_boxes_without_extent_is_finite():
    boxes = torch.tensor([[5.0, 5.0, 5.0, 5.0], [5.0, 5.0, 5.0, 9.0]])
    assert building.centerness(torch.tensor([[5.0, 5.0], [5.0, 7.0]]), boxes).tolist() == [0, 0]
    assert building.centerness(torch.zeros(0, 2), torch.zeros(0, 4)).shape == (0,)
