import pytest
import torch
from detcore_resnet import ResLayer, ResNet
from safetensors.torch import save_file

from detcore.errors import CheckpointError, ConfigError
from detcore.serialize import build, dump


def small(**arguments):
    torch.manual_seed(0)
    return ResLayer(**{"in_channels": 32, "roi_feat_size": 6, "depth": 50, "base_channels": 2, **arguments})


def regions(rows=3, size=(6, 6)):
    return torch.randn(rows, 32, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("arguments", "size", "expected"),
    [
        ({}, (6, 6), (64, 3, 3)),
        ({"roi_feat_size": (7, 5)}, (7, 5), (64, 4, 3)),
        ({"stride": 1, "dilation": 2}, (6, 6), (64, 6, 6)),
        ({"stage": 1, "depth": 18}, (6, 6), (4, 3, 3)),
        ({"style": "caffe", "avg_down": True}, (6, 6), (64, 3, 3)),
    ],
)
@pytest.mark.parametrize("rows", [0, 3])
def test_channels_and_size_are_as_stated(arguments, size, expected, rows):
    head = small(**arguments).eval()
    assert (head.out_channels, *head.output_size) == expected
    assert head(regions(rows, size)).shape == (rows, *expected)


def test_it_is_the_last_stage_of_the_network():
    net = ResNet(depth=50, base_channels=2).eval()
    head = small().eval()
    own = {name: value for name, value in net.state_dict().items() if name.startswith("layer4.")}
    head.load_state_dict(own)
    x = regions()
    assert torch.equal(head(x), net.layer4(x))


def test_a_batch_is_its_rows():
    head, x = small().eval(), regions()
    torch.testing.assert_close(head(x), torch.cat([head(row[None]) for row in x]))


def test_statistics_are_kept_on_request_only():
    for keep in (False, True):
        head = small(norm_eval=keep)
        before = head.layer4[0].bn1.running_mean.clone()
        head(regions()).square().mean().backward()
        assert torch.equal(head.layer4[0].bn1.running_mean, before) is keep
        assert all(p.grad.isfinite().all() for p in head.parameters())


def test_scales_are_kept_on_request():
    head = small(norm_requires_grad=False)
    trained = {name for name, p in head.named_parameters() if p.requires_grad}
    assert trained == {
        name for name, _ in head.named_parameters() if "conv" in name or "downsample.0" in name
    }


def test_weights_of_the_whole_network_are_taken(tmp_path):
    net = ResNet(depth=50, base_channels=2)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    head = small(weights=str(tmp_path / "net.safetensors"))
    assert torch.equal(head.layer4[2].conv3.weight, net.layer4[2].conv3.weight)
    with pytest.raises(CheckpointError, match=r"layer3\.0\.conv1"):
        small(stage=2, depth=101, weights=str(tmp_path / "net.safetensors"))


def test_it_comes_back_from_its_configuration():
    head = small(stage=2, style="caffe")
    config = dump(head)
    assert config["type"] == "detcore-plugin-resnet:ResLayer"
    assert dump(build(config)) == config


def test_groups_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="num_groups=5 does not divide"):
        small(norm="GN", num_groups=5)


@pytest.mark.slow
def test_it_compiles():
    head, x = small().eval(), regions()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(head, fullgraph=True)(x), head(x), rtol=1e-4, atol=1e-4)
