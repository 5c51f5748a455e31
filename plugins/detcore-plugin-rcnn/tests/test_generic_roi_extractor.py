"""Region features from all levels of a pyramid."""

import pytest
import torch
from detcore_rcnn import GenericRoIExtractor, SingleRoIExtractor
from torchvision.ops import roi_align

from detcore.errors import ConfigError
from detcore.structures import FeatureSpec

BOXES = torch.tensor([[0, 0, 20, 20], [3.5, 4.5, 100, 90], [5, 5, 5, 5.0]])
IMAGE = torch.tensor([1, 0, 1])


def of_level(features, pyramid, level):
    rois = torch.cat((IMAGE[:, None], BOXES), 1)
    return roi_align(features[level], rois, (3, 2), 1 / pyramid[level].stride, 2, True)


def test_sum_of_the_levels(pyramid, make_features):
    features, _ = make_features()
    extractor = GenericRoIExtractor(in_features=pyramid, output_size=(3, 2), sampling_ratio=2)
    expected = sum(of_level(features, pyramid, level) for level in range(4))
    torch.testing.assert_close(extractor(features, BOXES, IMAGE), expected)
    assert (extractor.out_channels, extractor.output_size) == (8, (3, 2))


def test_concatenation(pyramid, make_features):
    features, _ = make_features()
    extractor = GenericRoIExtractor(
        in_features=pyramid, output_size=(3, 2), sampling_ratio=2, num_levels=None, aggregation="concat"
    )
    pooled = extractor(features, BOXES, IMAGE)
    assert pooled.shape[1] == extractor.out_channels == 40
    torch.testing.assert_close(pooled[:, 16:24], of_level(features, pyramid, 2))


def test_convolution_before(pyramid, make_features):
    features, _ = make_features()
    extractor = GenericRoIExtractor(in_features=pyramid, pre_kernel_size=5)
    pooled = extractor(features, BOXES, IMAGE)
    assert (pooled >= 0).all()
    pooled.sum().backward()
    assert extractor.pre_module.conv.weight.grad.any()


def test_no_region(pyramid, make_features):
    features, _ = make_features()
    features = tuple(f.requires_grad_() for f in features)
    for arguments in ({}, {"aggregation": "concat"}, {"pre_kernel_size": 3}):
        extractor = GenericRoIExtractor(in_features=pyramid, **arguments)
        pooled = extractor(features, torch.zeros(0, 4), torch.zeros(0).long())
        assert pooled.shape == (0, extractor.out_channels, 7, 7)
        pooled.sum().backward()
    assert all(f.grad is not None and not f.grad.any() for f in features[:4])


def test_one_level_is_the_single_extractor(make_features):
    features, _ = make_features()
    parts = {"in_features": (FeatureSpec(8, 4),), "num_levels": 1, "roi_scale_factor": 1.3}
    single, generic = SingleRoIExtractor(**parts), GenericRoIExtractor(**parts)
    torch.testing.assert_close(generic(features, BOXES, IMAGE), single(features, BOXES, IMAGE))


def test_even_kernels_are_refused(pyramid):
    with pytest.raises(ConfigError, match="pre_kernel_size should be odd, got 4"):
        GenericRoIExtractor(in_features=pyramid, pre_kernel_size=4)


def test_in_a_head(make_roi_head, make_features, make_targets, make_proposals):
    features, batch = make_features()
    targets = make_targets(3, 2)
    head = make_roi_head(bbox_roi_extractor=GenericRoIExtractor.spec(aggregation="concat"))
    assert head.bbox_head.shared_fcs[0].in_features == 32 * 49
    head.loss(features, make_proposals(targets), targets, batch).total.backward()
