"""Batch normalisation folded into convolutions."""

import copy

import pytest
import torch
from torch import nn

from detcore.folding import fold_norms
from detcore.layers import ConvNormAct, tower


def lively(network):
    """Statistics, scales and offsets as of a trained network."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return network.eval()


@pytest.mark.parametrize(
    ("network", "norms"),
    [
        (ConvNormAct(3, 8, norm="BN"), 1),
        (tower(3, 8, 3, norm="BN"), 3),
        (nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()), 1),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)), 0),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8, affine=False)), 1),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8, track_running_stats=False)), 0),
        (tower(3, 8, 2, norm="GN", num_groups=2), 0),
        (ConvNormAct(3, 8), 0),
    ],
    ids=[
        "layer", "tower", "sequence", "relu between", "no scale", "statistics of the batch", "group norm", "no norm",
    ],
)  # fmt: skip
def test_equal_values(network, norms):
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine and module.track_running_stats:
            lively(module)
    network.eval()
    x = torch.randn(2, 3, 9, 7)
    expected, folded = network(x), copy.deepcopy(network)
    assert fold_norms(folded) == norms
    torch.testing.assert_close(folded(x), expected, rtol=1e-5, atol=1e-5)
    assert fold_norms(folded) == 0


def test_a_convolution_that_two_norms_follow_is_folded_into_each():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            conv = nn.Conv2d(3, 4, 1)
            self.levels = nn.ModuleList(nn.Sequential(conv, lively(nn.BatchNorm2d(4))) for _ in range(2))

        def forward(self, x):
            return [level(x) for level in self.levels]

    network, x = Shared().eval(), torch.randn(1, 3, 2, 2)
    expected = network(x)
    assert fold_norms(network) == 2
    torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)


def test_what_somebody_listens_to_stays():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    seen = []
    network[0].register_forward_hook(lambda *_: seen.append(1))
    assert fold_norms(network) == 0


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"call eval\(\) first"):
        fold_norms(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
