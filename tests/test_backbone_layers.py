"""What backbones tell of the depth of their layers."""

import pytest
import torch
from torch import nn

from detcore.interfaces import Backbone
from detcore.structures import FeatureSpec


class Stages(Backbone):
    """Own parameters, a single convolution, containers, and something without parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(3))
        self.stem = nn.Conv2d(3, 4, 1)
        self.relu = nn.ReLU()
        self.blocks = nn.ModuleList([nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)])
        self.stages = nn.ModuleDict({"a": nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))})
        self.last = nn.Sequential(nn.Conv2d(4, 4, 1))
        self.out_features = (FeatureSpec(4, 1),)

    def forward(self, pixels):
        return (self.stem(pixels),)


def test_layers_are_in_the_order_of_registration():
    assert Stages().depth_layers() == (
        ("embedding",),
        ("stem",),
        ("blocks.0",),
        ("blocks.2",),
        ("stages.a",),
        ("last.0",),
    )


@pytest.mark.parametrize("backbone", [Stages()])
def test_each_parameter_is_in_one_layer(backbone):
    prefixes = [name for layer in backbone.depth_layers() for name in layer]
    for name, _ in backbone.named_parameters():
        assert sum(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes) == 1
