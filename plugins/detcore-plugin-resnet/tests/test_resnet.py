import copy
import pickle
import subprocess
import sys
import warnings

import pytest
import torch
import torchvision
from detcore_resnet import ResNet
from torch import nn

from detcore import registry
from detcore.errors import CheckpointError, ConfigError
from detcore.serialize import build, dump
from detcore.structures import FeatureSpec
from detcore.weights import without_weights


def small(depth=18, **arguments):
    """A narrow network, which has every kind of layer that the wide ones have."""
    torch.manual_seed(0)
    return ResNet(depth=depth, base_channels=8, **{"num_groups": 4, **arguments})


def randomise(net):
    """Running statistics, scales and offsets as after training, so that a mistake in any of them shows."""
    torch.manual_seed(1)
    for name, tensor in net.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.dim() == 1:
            tensor.normal_(0.5, 0.2)
    return net


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------------------------------- shapes and names


@pytest.mark.parametrize("size", [(64, 96), (75, 101), (33, 32), (1, 1)])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"depth": 18}, [(8, 4), (16, 8), (32, 16), (64, 32)]),
        ({"depth": 50}, [(32, 4), (64, 8), (128, 16), (256, 32)]),
        ({"depth": 50, "style": "caffe"}, [(32, 4), (64, 8), (128, 16), (256, 32)]),
        ({"depth": 50, "deep_stem": True, "avg_down": True}, [(32, 4), (64, 8), (128, 16), (256, 32)]),
        (
            {"depth": 50, "strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)},
            [(32, 4), (64, 8), (128, 8), (256, 8)],
        ),
        ({"depth": 18, "strides": (2, 1, 3, 2), "avg_down": True}, [(8, 8), (16, 8), (32, 24), (64, 48)]),
        ({"depth": 18, "out_indices": (1, 3)}, [(16, 8), (64, 32)]),
        (
            {"depth": 50, "num_stages": 3, "strides": (1, 2, 2), "dilations": (1, 1, 1), "out_indices": (2,)},
            [(128, 16)],
        ),
    ],
)
def test_out_features_describe_the_output(arguments, expected, size):
    net = small(**arguments).eval()
    assert net.out_features == tuple(FeatureSpec(*pair) for pair in expected)
    with torch.no_grad():
        outputs = net(torch.randn(1, 3, *size))
    shapes = [tuple(output.shape) for output in outputs]
    assert shapes == [
        (1, f.channels, -(-size[0] // f.stride), -(-size[1] // f.stride)) for f in net.out_features
    ]


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_parameters_are_torchvisions_by_name_and_shape(depth):
    with torch.device("meta"):
        ours, peer = ResNet(depth=depth), getattr(torchvision.models, f"resnet{depth}")()
    theirs = {name: t.shape for name, t in peer.state_dict().items() if not name.startswith("fc.")}
    assert {name: t.shape for name, t in ours.state_dict().items()} == theirs


@pytest.mark.parametrize("depth", [18, 50])
def test_outputs_are_torchvisions_with_the_same_weights(depth, pixels):
    peer = randomise(getattr(torchvision.models, f"resnet{depth}")()).eval()
    net = ResNet(depth=depth).eval()
    net.load_state_dict({name: t for name, t in peer.state_dict().items() if not name.startswith("fc.")})
    with torch.no_grad():
        outputs = net(pixels)
        x = peer.maxpool(peer.relu(peer.bn1(peer.conv1(pixels))))
        for output, stage in zip(outputs, (peer.layer1, peer.layer2, peer.layer3, peer.layer4), strict=True):
            x = stage(x)
            torch.testing.assert_close(output, x, rtol=1e-5, atol=1e-5)


def test_style_moves_the_stride_of_bottlenecks_only():
    def strides(net):
        return [conv.stride[0] for conv in (net.layer2[0].conv1, net.layer2[0].conv2)]

    assert strides(small(50, style="pytorch")) == [1, 2]
    assert strides(small(50, style="caffe")) == [2, 1]
    assert strides(small(18, style="pytorch")) == strides(small(18, style="caffe")) == [2, 1]


def test_reference_names_of_group_norms_become_ours():
    from detcore.weights import rename

    net = small(50, norm="GN")
    reference = {name.replace("bn", "gn"): t for name, t in net.state_dict().items()}
    assert "layer1.0.gn3.weight" in reference
    assert list(rename(reference, ResNet.reference_names)) == list(net.state_dict())


# -------------------------------------------------------------------------------------------------- behaviour


def test_residual_branches_begin_at_zero_where_asked():
    x = torch.rand(1, 8, 5, 5)
    block = small(zero_init_residual=True).eval().layer1[0]
    assert torch.equal(block(x), x)
    assert not torch.equal(small(zero_init_residual=False).eval().layer1[0](x), x)


@pytest.mark.parametrize("norm", ["BN", "GN"])
def test_a_batch_is_its_images(norm, pixels):
    net = randomise(small(50, norm=norm)).eval()
    with torch.no_grad():
        together, alone = net(pixels), [net(image[None]) for image in pixels]
    for level, output in enumerate(together):
        torch.testing.assert_close(output, torch.cat([one[level] for one in alone]))


def test_an_empty_batch_gives_empty_levels():
    outputs = small().eval()(torch.zeros(0, 3, 32, 32))
    assert [tuple(o.shape) for o in outputs] == [(0, 8, 8, 8), (0, 16, 4, 4), (0, 32, 2, 2), (0, 64, 1, 1)]


@pytest.mark.parametrize("arguments", [{"depth": 18}, {"depth": 50, "deep_stem": True, "avg_down": True}])
def test_every_trainable_parameter_gets_a_finite_gradient(arguments, pixels):
    net = small(**arguments)
    sum(output.square().mean() for output in net(pixels)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_channels_last_gives_the_same_numbers_in_that_format(pixels):
    net = randomise(small(50)).eval()
    with torch.no_grad():
        expected = net(pixels)
        outputs = net.to(memory_format=torch.channels_last)(pixels.to(memory_format=torch.channels_last))
    for output, other in zip(outputs, expected, strict=True):
        assert output.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(output, other)


@pytest.mark.parametrize("training", [True, False])
def test_compiles_in_one_graph(training, pixels):
    net = small(norm="GN", frozen_stages=1).train(training)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    for output, expected in zip(compiled(pixels), small(norm="GN").eval()(pixels), strict=True):
        torch.testing.assert_close(output, expected)
    torch._dynamo.reset()


def test_copies_and_pickles_are_whole(pixels):
    net = randomise(small(frozen_stages=1)).eval()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other.out_features == net.out_features
        assert torch.equal(other(pixels)[-1], net(pixels)[-1])
        other.train()
        assert not other.bn1.training


def test_one_channel_images():
    assert small(in_channels=1).eval()(torch.zeros(1, 1, 32, 32))[0].shape == (1, 8, 8, 8)


# --------------------------------------------------------------------------------------------------- freezing


def snapshot(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def step(net, pixels):
    """One step of training from loaded weights; what changed in it, by name."""
    net.load_state_dict(net.state_dict())
    net.train()
    before = snapshot(net)
    loss = sum(output.square().mean() for output in net(pixels))
    if trainable := [p for p in net.parameters() if p.requires_grad]:
        loss.backward()
        torch.optim.SGD(trainable, lr=0.1, weight_decay=0.1).step()
    return {name for name, tensor in snapshot(net).items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("frozen", [-1, 0, 1, 4])
@pytest.mark.parametrize("arguments", [{}, {"norm": "GN"}, {"depth": 50, "deep_stem": True}])
def test_frozen_stages_are_bit_identical_after_a_step_and_all_else_moves(frozen, arguments, pixels):
    net = randomise(small(**arguments, frozen_stages=frozen))
    parts = ("conv1.", "bn1.", "stem.", "layer1.", "layer2.", "layer3.", "layer4.")
    moving = parts if frozen < 0 else parts[3 + frozen :]
    assert step(net, pixels) == {name for name in net.state_dict() if name.startswith(moving)}


def test_freezing_holds_against_later_calls():
    net = small(frozen_stages=1)
    net.requires_grad_(True).train()
    assert not any(p.requires_grad for p in net.layer1.parameters())
    assert not net.bn1.training
    assert not any(module.training for module in net.layer1.modules())
    assert net.layer2[0].bn1.training
    assert net.layer2[0].conv1.weight.requires_grad


def test_norm_eval_keeps_statistics_but_trains_scales(pixels):
    changed = step(randomise(small(norm_eval=True)), pixels)
    assert not any("running" in name or "num_batches" in name for name in changed)
    assert "layer3.0.bn1.weight" in changed
    assert "layer3.0.bn1.running_mean" in step(randomise(small()), pixels)


@pytest.mark.parametrize("norm", ["BN", "GN"])
def test_norm_requires_grad_keeps_scales_but_trains_the_rest(norm, pixels):
    net = randomise(small(norm=norm, norm_requires_grad=False))
    trained = {name for name, _ in net.named_parameters() if ".bn" not in name and not name.startswith("bn1")}
    trained = {name for name in trained if "downsample.1" not in name}
    parameters = {name for name, _ in net.named_parameters()}
    assert step(net, pixels) & parameters == trained


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"frozen_stages": 1}, r"with frozen_stages=1, but"),
        ({"frozen_stages": 0, "norm_eval": True}, r"with frozen_stages=0 and norm_eval=True, but"),
        ({"norm_eval": True}, r"with norm_eval=True, but"),
    ],
)
def test_training_on_frozen_random_values_warns_once(arguments, named, pixels):
    net = small(**arguments)
    net.eval()(pixels)
    net.train()
    with pytest.warns(UserWarning, match=named + r" it holds no pretrained weights: .* Give `weights`"):
        net(pixels)
    net(pixels)  # warnings are errors in these tests


@pytest.mark.parametrize("arguments", [{}, {"norm": "GN", "norm_eval": True}])
def test_training_all_of_it_does_not_warn(arguments, pixels):
    small(**arguments)(pixels)


def test_loaded_weights_do_not_warn(pixels, tmp_path):
    net = small(frozen_stages=1)
    net.load_state_dict(small().state_dict())
    net(pixels)
    detector = nn.ModuleDict({"backbone": small(frozen_stages=1)})
    detector.load_state_dict(copy.deepcopy(detector).state_dict())
    detector["backbone"](pixels)
    torch.save(small().state_dict(), tmp_path / "net.pth")
    small(frozen_stages=1, weights=str(tmp_path / "net.pth"))(pixels)


def test_weights_for_other_modules_do_not_count_as_loaded(pixels):
    detector = nn.ModuleDict({"backbone": small(frozen_stages=1), "head": nn.Conv2d(8, 8, 1)})
    detector.load_state_dict({"head.weight": torch.zeros(8, 8, 1, 1)}, strict=False)
    with pytest.warns(UserWarning, match="holds no pretrained weights"):
        detector["backbone"](pixels)


# ---------------------------------------------------------------------------------------------------- weights


@pytest.fixture
def classifier(tmp_path):
    """The weights of an ImageNet classifier in a file, and the file's path."""
    weights = {**snapshot(randomise(small())), "fc.weight": torch.ones(1000, 64), "fc.bias": torch.ones(1000)}
    torch.save(weights, tmp_path / "resnet18.pth")
    return weights, str(tmp_path / "resnet18.pth")


def test_weights_come_from_a_file_without_the_classifier(classifier):
    weights, path = classifier
    net = small(weights=path)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in net.state_dict().items())


def test_fewer_stages_take_fewer_weights(classifier):
    weights, path = classifier
    net = small(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,), weights=path)
    assert torch.equal(net.layer2[1].conv2.weight, weights["layer2.1.conv2.weight"])


def test_other_architectures_are_refused_by_name(classifier):
    with pytest.raises(
        CheckpointError, match=r"resnet18\.pth: the weights do not fit ResNet \(.*missing: stem\.0\.weight"
    ):
        small(deep_stem=True, weights=classifier[1])
    with pytest.raises(
        CheckpointError, match=r"of another shape: conv1\.weight \(\[8, 3, 7, 7\] in the file, \[8, 4, 7, 7\]"
    ):
        small(in_channels=4, weights=classifier[1])


def test_without_weights_nothing_is_read_and_nothing_warns():
    with without_weights(), warnings.catch_warnings():
        warnings.simplefilter("error")
        net = small(frozen_stages=1, weights="/no/such/file.pth")
    assert net.frozen_stages == 1


# -------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 20}, r"depth: .*18, 34, 50, 101 or 152.*20"),
        ({"strides": (1, 2)}, r"strides=\(1, 2\) should have one entry for each of the num_stages=4 stages"),
        ({"dilations": (1,) * 5}, r"dilations=.* should have one entry for each of the num_stages=4 stages"),
        ({"out_indices": (2, 1)}, r"out_indices=\(2, 1\) should be stages in ascending order, each once"),
        ({"out_indices": ()}, r"out_indices=\(\) should be stages in ascending order"),
        ({"out_indices": (0, 4)}, r"out_indices=\(0, 4\) should be below num_stages=4; stages count from 0"),
        ({"out_indices": (1, 2)}, r"leaves the last of num_stages=4 stages without use; set num_stages=3"),
        ({"frozen_stages": 5}, r"frozen_stages=5 should be at most num_stages=4"),
        ({"frozen_stages": -2}, r"frozen_stages: .*-1.*-2"),
        ({"base_channels": 9, "deep_stem": True}, r"base_channels=9 should be even with deep_stem=True"),
        ({"norm": "GN", "num_groups": 5}, r"num_groups=5 does not divide the 64 channels"),
        ({"norm": "LN"}, r"norm: .*'BN', 'SyncBN' or 'GN'"),
        ({"frozen_stage": 1}, r"unknown parameter 'frozen_stage'; did you mean 'frozen_stages'\?"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message), torch.device("meta"):
        ResNet(**{"depth": 18, **arguments})


def test_is_registered_and_survives_a_config():
    assert registry.resolve("backbones", "ResNet") is ResNet
    net = small(50, style="caffe", norm="GN", out_indices=(1, 3))
    again = build(dump(net))
    assert dump(again) == dump(net)
    assert again.out_features == net.out_features


def test_importing_the_package_imports_no_torch():
    code = "import sys, detcore_resnet, detcore_resnet.hooks; print(*dir(detcore_resnet), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ResNet" in done.stdout.split()
    assert "torch" not in done.stdout.split()
    with pytest.raises(AttributeError, match="no attribute 'Resnet'"):
        sys.modules["detcore_resnet"].Resnet


@pytest.mark.parametrize("deep_stem", [False, True])
def test_layers_by_depth_have_every_parameter_once(deep_stem):
    backbone = ResNet(depth=34, base_channels=8, deep_stem=deep_stem)
    layers = backbone.depth_layers()
    assert len(layers) == 1 + 3 + 4 + 6 + 3
    assert layers[1:3] == (("layer1.0",), ("layer1.1",))
    found = [
        parameter
        for layer in layers
        for name in layer
        for parameter in backbone.get_submodule(name).parameters()
    ]
    assert sorted(map(id, found)) == sorted(map(id, backbone.parameters()))
