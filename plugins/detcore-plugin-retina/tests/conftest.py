"""A small pyramid, and heads for it."""

import pytest
import torch
from detcore_retina import RetinaHead

from detcore.structures import FeatureSpec, ImageBatch
from detcore.testing.data import make_targets

torch.set_num_threads(1)  # tensors this small lose more to waking threads than they gain

SIZE = (96, 128)
PYRAMID = tuple(FeatureSpec(8, stride) for stride in (8, 16, 32))


@pytest.fixture
def make_head():
    def make(seed=0, **parameters):
        torch.manual_seed(seed)
        defaults = {"in_features": PYRAMID, "num_classes": 3, "feat_channels": 8, "stacked_convs": 1}
        head = RetinaHead(**{**defaults, "prior_prob": 0.1, **parameters})
        for parameter in head.parameters():  # far from the initial state, in which nothing is detected
            parameter.data += 0.1 * torch.randn_like(parameter)
        return head

    return make


@pytest.fixture
def features():
    torch.manual_seed(1)
    return tuple(torch.randn(2, f.channels, SIZE[0] // f.stride, SIZE[1] // f.stride) for f in PYRAMID)


@pytest.fixture
def batch():
    """Two images, the second one smaller than the batch."""
    return ImageBatch.of(torch.zeros(2, 3, *SIZE), [SIZE, (80, 100)], [SIZE, (96, 128)])


@pytest.fixture
def targets():
    return make_targets("typical", size=SIZE)
