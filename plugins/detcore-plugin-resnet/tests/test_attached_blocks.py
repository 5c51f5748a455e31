"""Blocks inside of residual blocks."""

import pytest
import torch
from detcore_resnet import ResNet
from safetensors.torch import save_file
from torch import nn

from detcore.component import wired
from detcore.errors import ConfigError
from detcore.interfaces import Block


class Shift(Block):
    """Adds a number, and remembers how it was made."""

    def __init__(self, *, in_channels: int = wired(), by: float = 0.0) -> None:
        super().__init__()
        self.out_channels, self.in_channels = in_channels, in_channels
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, x):
        return x + self.by


class Conv(Block):
    """A convolution that also has a number."""

    def __init__(
        self,
        *,
        in_channels: int = wired(),
        out_channels: int = wired(),
        stride: int = wired(1),
        dilation: int = wired(1),
    ) -> None:
        super().__init__()
        self.out_channels, self.stride, self.dilation = out_channels, stride, dilation
        self.weight = nn.Parameter(torch.full((out_channels, in_channels, 3, 3), 0.01))
        self.extra = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return (
            nn.functional.conv2d(x, self.weight, None, self.stride, self.dilation, self.dilation) * self.extra
        )


def net(blocks, depth=50, **arguments):
    torch.manual_seed(0)
    return ResNet(depth=depth, base_channels=8, blocks=blocks, zero_init_residual=False, **arguments)


def names_of(network, cls):
    return [name for name, module in network.named_modules() if isinstance(module, cls)]


@pytest.mark.parametrize(
    ("depth", "position", "channels"),
    [(50, "after_conv1", 16), (50, "after_conv2", 16), (50, "after_conv3", 64), (50, None, 64),
     (18, "after_conv1", 16), (18, "after_conv2", 16), (18, None, 16)],
)  # fmt: skip
def test_they_go_where_they_are_placed(depth, position, channels):
    placement = {"block": Shift.spec(), "stages": (1,)} | ({"position": position} if position else {})
    network = net([placement], depth)
    found = [m for m in network.modules() if isinstance(m, Shift)]
    assert names_of(network, Shift) == [f"layer2.{i}.shift" for i in range(4 if depth == 50 else 2)]
    assert {block.in_channels for block in found} == {channels}
    x = torch.randn(1, 3, 32, 32)
    plain = net([], depth).eval()
    changed = network.eval()
    changed.load_state_dict(plain.state_dict(), strict=False)
    for ours, theirs in zip(changed(x), plain(x), strict=True):
        assert torch.equal(ours, theirs)
    found[-1].by.data.fill_(1.0)
    same = [torch.equal(ours, theirs) for ours, theirs in zip(changed(x), plain(x), strict=True)]
    assert same == [True, False, False, False]


def test_convolutions_are_replaced_with_their_strides():
    network = net([{"block": Conv.spec(), "stages": (2, 3), "position": "conv2", "skip_first": True}],
                  strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))  # fmt: skip
    assert names_of(network, Conv) == [
        f"layer{s}.{i}.conv2" for s, n in ((3, 6), (4, 3)) for i in range(1, n)
    ]
    everywhere = net(
        [{"block": Conv.spec(), "position": "conv2"}], strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)
    )
    assert [everywhere.layer2[i].conv2.stride for i in (0, 1)] == [2, 1]
    assert everywhere.layer4[1].conv2.dilation == 2
    assert torch.all(everywhere.layer4[1].conv2.weight == 0.01)  # initial values are the block's business
    assert [tuple(o.shape[2:]) for o in everywhere.eval()(torch.zeros(1, 3, 33, 32))] == [
        (9, 8),
        (5, 4),
        (3, 2),
        (3, 2),
    ]


def test_pretrained_weights_of_a_plain_network_are_taken(tmp_path):
    plain = net([])
    save_file(plain.state_dict(), tmp_path / "plain.safetensors")
    placements = [{"block": Shift.spec(by=3.0)}, {"block": Conv.spec(), "position": "conv2"}]
    network = net(placements, weights=str(tmp_path / "plain.safetensors"))
    assert torch.equal(network.layer1[0].conv2.weight, plain.layer1[0].conv2.weight)
    assert network.layer1[0].shift.by.item() == 3.0


def test_they_train_and_freeze_with_their_stage():
    network = net([{"block": Shift.spec()}, {"block": Conv.spec(), "position": "conv2"}], frozen_stages=1)
    network.load_state_dict(network.state_dict())
    sum(level.square().mean() for level in network(torch.randn(2, 3, 32, 32))).backward()
    for name, parameter in network.named_parameters():
        frozen = name.startswith(("conv1", "bn1", "layer1"))
        assert (parameter.grad is None) is frozen, name


@pytest.mark.parametrize(
    ("placements", "arguments", "message"),
    [
        ([{"block": Shift.spec(), "stages": (4,)}], {}, r"blocks\.0\.stages=\(4,\) should be below num_stages=4"),
        ([{"block": Shift.spec(), "position": "conv3"}], {}, "position"),
        ([{"block": Shift.spec(), "position": "after_conv3"}], {"depth": 18}, "'after_conv3' should be one of"),
        ([{"block": Shift.spec()}, {"block": Shift.spec()}], {}, "the name 'shift' is taken; give that Shift a `name`"),
        ([{"block": Shift.spec(), "name": "conv1"}], {}, "the name 'conv1' is taken"),
        ([{"block": Shift.spec(), "position": "conv2"}], {}, "Shift has 16 channels and stride 1, in place of"),
        ([{"block": Conv.spec(), "position": "conv2"}] * 2, {}, "2 of them stand in for conv2"),
        ([{"block": Conv.spec(out_channels=3)}], {}, "Conv makes 3 channels at stride 1 of 32 at 1"),
        ([{"block": Shift.spec(), "stage": (1,)}], {}, "stage"),
        ([{"block": Shift(in_channels=32)}], {}, "expected a Block"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(placements, arguments, message):
    with pytest.raises(ConfigError, match=message):
        net(placements, **arguments)


def test_names_of_their_own():
    network = net(
        [{"block": Shift.spec(), "stages": (0,)}, {"block": Shift.spec(), "stages": (0,), "name": "other"}]
    )
    assert names_of(network, Shift)[:2] == ["layer1.0.shift", "layer1.0.other"]
