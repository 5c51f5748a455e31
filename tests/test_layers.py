import pytest
import torch
from torch import nn

from detcore.layers import ConvNormAct, is_batch_norm, make_norm


@pytest.mark.parametrize(
    ("name", "kind"), [("BN", nn.BatchNorm2d), ("SyncBN", nn.SyncBatchNorm), ("GN", nn.GroupNorm)]
)
def test_make_norm_gives_the_named_layer(name, kind):
    norm = make_norm(name, 8, num_groups=4, eps=0.5)
    assert type(norm) is kind
    assert norm.eps == 0.5
    assert norm(torch.randn(2, 8, 3, 3)).shape == (2, 8, 3, 3)
    assert is_batch_norm(norm) == (name != "GN")


def test_make_norm_refuses_groups_that_do_not_divide():
    with pytest.raises(ValueError, match=r"num_groups=32 does not divide the 48 channels .* use a divisor"):
        make_norm("GN", 48)


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (3, 3), (5, 2)])
def test_conv_norm_act_keeps_the_size_by_default(kernel, dilation):
    layer = ConvNormAct(3, 4, kernel, dilation=dilation)
    assert layer(torch.randn(1, 3, 7, 9)).shape == (1, 4, 7, 9)


@pytest.mark.parametrize("norm", [None, "BN", "GN"])
def test_conv_norm_act_has_a_bias_exactly_without_a_norm(norm):
    layer = ConvNormAct(3, 4, norm=norm, num_groups=2)
    assert (layer.conv.bias is not None) == (norm is None)
    assert ("norm.weight" in layer.state_dict()) == (norm is not None)


def test_conv_norm_act_is_its_three_steps():
    layer, x = ConvNormAct(3, 4, stride=2, norm="GN", num_groups=2), torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(layer(x), layer.norm(layer.conv(x)).relu())
    bare = ConvNormAct(3, 4, activation=None)
    assert torch.equal(bare(x), bare.conv(x))
    assert bare(x).min() < 0


@pytest.mark.parametrize("norm", [None, "BN", "GN"])
def test_gradients_pass_the_activation_in_place(norm):
    layer = ConvNormAct(2, 4, norm=norm, num_groups=2).double()
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
