"""Region features from one level of a pyramid."""

import pytest
import torch
from detcore_rcnn import SingleRoIExtractor
from torchvision.ops import roi_align

from detcore.errors import ConfigError
from detcore.structures import FeatureSpec

BOXES = torch.tensor(
    [[0, 0, 20, 20], [0, 0, 120, 110], [3.5, 4.5, 100, 130], [10, 10, 500, 600], [5, 5, 5, 5.0]]
)
IMAGE = torch.tensor([1, 0, 1, 0, 0])


def test_each_region_is_read_from_the_level_of_its_size(pyramid, make_features):
    features, _ = make_features()
    extractor = SingleRoIExtractor(in_features=pyramid, output_size=(3, 2))
    pooled = extractor(features, BOXES, IMAGE)
    assert pooled.shape == (5, 8, 3, 2)
    for row, level in enumerate((0, 1, 0, 3, 0)):
        roi = torch.cat((IMAGE[row : row + 1, None], BOXES[row : row + 1]), 1)
        alone = roi_align(features[level], roi, (3, 2), 1 / pyramid[level].stride, 0, True)
        torch.testing.assert_close(pooled[row], alone[0])


def test_description(pyramid):
    extractor = SingleRoIExtractor(in_features=pyramid)
    assert (extractor.out_channels, extractor.output_size) == (8, (7, 7))


def test_finest_scale(pyramid, make_features):
    features, _ = make_features()
    box, image = torch.tensor([[0, 0, 60, 60.0]]), torch.tensor([0])
    first = roi_align(features[0], torch.cat((image[:, None], box), 1), (7, 7), 1 / 4, 0, True)
    second = roi_align(features[1], torch.cat((image[:, None], box), 1), (7, 7), 1 / 8, 0, True)
    torch.testing.assert_close(SingleRoIExtractor(in_features=pyramid)(features, box, image), first)
    smaller = SingleRoIExtractor(in_features=pyramid, finest_scale=30)
    torch.testing.assert_close(smaller(features, box, image), second)


def test_scale_factor_keeps_centre_and_level(pyramid, make_features):
    features, _ = make_features()
    box, image = torch.tensor([[20, 30, 60, 50.0]]), torch.tensor([0])
    larger = torch.tensor([[0, 20, 80, 60.0]])
    scaled = SingleRoIExtractor(in_features=pyramid, roi_scale_factor=2)(features, box, image)
    torch.testing.assert_close(scaled, SingleRoIExtractor(in_features=pyramid)(features, larger, image))


def test_no_region_is_connected_to_the_pyramid(pyramid, make_features):
    features, _ = make_features()
    features = tuple(f.requires_grad_() for f in features)
    pooled = SingleRoIExtractor(in_features=pyramid)(features, torch.zeros(0, 4), torch.zeros(0).long())
    assert pooled.shape == (0, 8, 7, 7)
    pooled.sum().backward()
    assert all(f.grad is not None and not f.grad.any() for f in features[:4])


def test_degenerate_regions_are_finite(pyramid, make_features):
    features, _ = make_features()
    boxes = torch.tensor([[5, 5, 5, 5], [9, 9, 3, 3], [-900, -900, -800, -800], [3e3, 2e3, 4e3, 3e3]]).float()
    pooled = SingleRoIExtractor(in_features=pyramid)(features, boxes, torch.zeros(4).long())
    assert pooled.isfinite().all()


def test_one_level(make_features):
    features, _ = make_features()
    extractor = SingleRoIExtractor(in_features=(FeatureSpec(8, 4),), num_levels=1)
    expected = roi_align(features[0], torch.cat((IMAGE[:, None], BOXES), 1), (7, 7), 1 / 4, 0, True)
    torch.testing.assert_close(extractor(features, BOXES, IMAGE), expected)


def test_half_precision_keeps_the_coordinates(pyramid, make_features):
    features, _ = make_features()
    extractor = SingleRoIExtractor(in_features=pyramid)
    half = extractor(tuple(f.bfloat16() for f in features), BOXES, IMAGE)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), extractor(features, BOXES, IMAGE), rtol=0.05, atol=0.05)


def test_too_many_levels():
    with pytest.raises(
        ConfigError, match="num_levels=4, but the pyramid has 1; lower it, or use None for all"
    ):
        SingleRoIExtractor(in_features=(FeatureSpec(8, 4),))


def test_levels_of_different_channels():
    with pytest.raises(ConfigError, match=r"same number of channels; got \[8, 16\]"):
        SingleRoIExtractor(in_features=(FeatureSpec(8, 4), FeatureSpec(16, 8)), num_levels=None)
