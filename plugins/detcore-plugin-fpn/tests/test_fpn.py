import copy
import subprocess
import sys

import pytest
import torch
from detcore_fpn import FPN
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from detcore import registry
from detcore.errors import ConfigError
from detcore.serialize import build, dump
from detcore.structures import FeatureSpec

IN = (FeatureSpec(8, 4), FeatureSpec(12, 8), FeatureSpec(16, 16), FeatureSpec(20, 32))


def fpn(in_features=IN, **arguments):
    torch.manual_seed(0)
    return FPN(in_features=in_features, **{"out_channels": 6, "num_outs": 4, **arguments})


def features(size=(64, 96), batch=2, in_features=IN):
    torch.manual_seed(1)
    return tuple(
        torch.randn(batch, f.channels, -(-size[0] // f.stride), -(-size[1] // f.stride)) for f in in_features
    )


@pytest.mark.parametrize("size", [(64, 96), (75, 101), (1, 1)])
@pytest.mark.parametrize(
    ("arguments", "strides"),
    [
        ({}, (4, 8, 16, 32)),
        ({"num_outs": 6}, (4, 8, 16, 32, 64, 128)),
        ({"num_outs": 5, "start_level": 1, "add_extra_convs": "on_input"}, (8, 16, 32, 64, 128)),
        ({"num_outs": 5, "start_level": 1, "add_extra_convs": "on_lateral"}, (8, 16, 32, 64, 128)),
        ({"num_outs": 5, "start_level": 1, "add_extra_convs": "on_output"}, (8, 16, 32, 64, 128)),
        ({"num_outs": 2, "start_level": 1, "end_level": 2}, (8, 16)),
        ({"num_outs": 4, "start_level": 1, "end_level": 2, "add_extra_convs": True}, (8, 16, 32, 64)),
        ({"num_outs": 1, "start_level": 3}, (32,)),
    ],
)
def test_out_features_describe_the_output(arguments, strides, size):
    neck = fpn(**arguments)
    assert neck.out_features == tuple(FeatureSpec(6, stride) for stride in strides)
    shapes = [tuple(level.shape) for level in neck(features(size))]
    assert shapes == [(2, 6, -(-size[0] // s), -(-size[1] // s)) for s in strides]


def test_levels_of_equal_stride_as_dilated_backbones_have():
    dilated = (FeatureSpec(8, 8), FeatureSpec(12, 8), FeatureSpec(16, 8))
    neck = fpn(dilated)
    assert [f.stride for f in neck.out_features] == [8, 8, 8, 16]
    assert [level.shape[-1] for level in neck(features(in_features=dilated))] == [12, 12, 12, 6]


@pytest.mark.parametrize("extra", ["pool", "on_input", "on_output"])
def test_outputs_are_torchvisions_with_the_same_weights(extra):
    blocks = {"pool": LastLevelMaxPool(), "on_input": LastLevelP6P7(20, 6), "on_output": LastLevelP6P7(6, 6)}
    peer = FeaturePyramidNetwork([f.channels for f in IN], 6, blocks[extra])
    neck = fpn(
        num_outs=5 if extra == "pool" else 6,
        add_extra_convs=extra if extra != "pool" else False,
        relu_before_extra_convs=extra != "pool",
    )
    theirs = list(peer.state_dict().values())
    weights = [t for name, t in peer.state_dict().items() if "extra" not in name]
    weights += [t for name, t in peer.state_dict().items() if "extra" in name]
    assert len(weights) == len(theirs)
    neck.load_state_dict(dict(zip(neck.state_dict(), weights, strict=True)))
    expected = peer({str(i): level for i, level in enumerate(features())})
    for level, other in zip(neck(features()), expected.values(), strict=True):
        torch.testing.assert_close(level, other, rtol=1e-5, atol=1e-5)


def test_true_means_on_input():
    one, other = fpn(num_outs=6, add_extra_convs=True), fpn(num_outs=6, add_extra_convs="on_input")
    assert all(torch.equal(a, b) for a, b in zip(one(features()), other(features()), strict=True))


def test_relu_spares_the_first_extra_convolution():
    neck, plain = (
        fpn(num_outs=6, add_extra_convs=True, relu_before_extra_convs=relu) for relu in (True, False)
    )
    outputs, without = neck(features()), plain(features())
    assert torch.equal(outputs[4], without[4])
    assert not torch.equal(outputs[5], without[5])
    assert torch.equal(outputs[5], neck.fpn_convs[5](outputs[4].relu()))


@pytest.mark.parametrize(("lateral", "biases"), [(True, 4), (False, 0)])
def test_norms_take_the_place_of_biases(lateral, biases):
    neck = fpn(norm="GN", num_groups=2, no_norm_on_lateral=lateral, activation="ReLU")
    names = list(neck.state_dict())
    assert sum(name.endswith("conv.bias") for name in names) == biases
    assert sum(name.endswith("norm.weight") for name in names) == 8 - biases
    assert all(level.min() == 0 for level in neck(features()))


@pytest.mark.parametrize("norm", ["BN", "GN"])
def test_reference_names_of_norms_become_ours(norm):
    from detcore.weights import rename

    neck = fpn(norm=norm, num_groups=2)
    reference = {name.replace("norm", norm.lower()): t for name, t in neck.state_dict().items()}
    assert f"fpn_convs.0.{norm.lower()}.weight" in reference
    assert list(rename(reference, FPN.reference_names)) == list(neck.state_dict())


def test_upsampling_modes_differ_as_interpolation_does():
    levels = features()
    nearest, bilinear, aligned = (
        fpn(upsample_mode=mode, align_corners=align)(levels)
        for mode, align in (("nearest", False), ("bilinear", False), ("bilinear", True))
    )
    assert torch.equal(nearest[3], bilinear[3])
    assert not torch.allclose(nearest[2], bilinear[2])
    assert not torch.allclose(bilinear[2], aligned[2])


@pytest.mark.parametrize(
    "arguments", [{}, {"norm": "GN", "num_groups": 2, "num_outs": 6, "add_extra_convs": True}]
)
def test_a_batch_is_its_images_and_may_be_empty(arguments):
    neck, levels = fpn(**arguments), features()
    single = [neck(tuple(level[i : i + 1] for level in levels)) for i in range(2)]
    for i, level in enumerate(neck(levels)):
        torch.testing.assert_close(level, torch.cat([one[i] for one in single]))
    for level, full in zip(neck(features(batch=0)), neck(levels), strict=True):
        assert level.shape == (0, *full.shape[1:])


@pytest.mark.parametrize("extra", [False, "on_input", "on_lateral", "on_output"])
@pytest.mark.parametrize("activation", [None, "ReLU"])
def test_gradients_reach_everything_and_inputs_are_left_as_they_are(extra, activation):
    neck = fpn(num_outs=6, add_extra_convs=extra, activation=activation, relu_before_extra_convs=bool(extra))
    levels = tuple(level.requires_grad_() for level in features())
    before = [level.detach().clone() for level in levels]
    sum(level.square().mean() for level in neck(levels)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in neck.parameters())
    assert all(level.grad is not None for level in levels)
    assert all(torch.equal(a, b) for a, b in zip(levels, before, strict=True))


def test_compiles_in_one_graph():
    neck = fpn(num_outs=6, add_extra_convs="on_output")
    compiled = torch.compile(neck, fullgraph=True, backend="eager")
    for level, expected in zip(compiled(features()), neck(features()), strict=True):
        torch.testing.assert_close(level, expected)
    torch._dynamo.reset()


def test_channels_last_stays():
    neck = fpn(num_outs=5).to(memory_format=torch.channels_last)
    levels = tuple(level.to(memory_format=torch.channels_last) for level in features())
    for level, expected in zip(neck(levels), fpn(num_outs=5)(features()), strict=True):
        assert level.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(level, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start_level": 4}, r"start_level=4 is beyond the 4 levels of in_features, which count from 0"),
        ({"end_level": 4}, r"end_level=4 is beyond the 4 levels of in_features, .*-1 means the last"),
        ({"start_level": 2, "end_level": 1}, r"end_level=1 is before start_level=2: no level would be used"),
        (
            {"start_level": 1, "num_outs": 2},
            r"num_outs=2 is fewer than the 3 levels from start_level=1 to level 3; raise",
        ),
        (
            {"end_level": 2, "num_outs": 2},
            r"num_outs=2 is fewer than the 3 levels from start_level=0 to level 2",
        ),
        ({"in_features": ()}, r"start_level=0 is beyond the 0 levels"),
        ({"relu_before_extra_convs": True}, r"relu_before_extra_convs=True needs add_extra_convs"),
        ({"no_norm_on_lateral": True}, r"no_norm_on_lateral=True needs norm"),
        ({"align_corners": True}, r"align_corners=True needs upsample_mode='bilinear', got 'nearest'"),
        ({"norm": "GN"}, r"num_groups=32 does not divide the 6 channels"),
        ({"add_extra_convs": "on_inputs"}, r"add_extra_convs: .*'on_input', 'on_lateral' or 'on_output'"),
        ({"out_channels": 0}, r"out_channels: .*0"),
        ({"num_out": 4}, r"unknown parameter 'num_out'; did you mean 'num_outs'\?"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        fpn(**arguments)


def test_a_wrong_number_of_levels_is_named():
    with pytest.raises(ValueError, match="FPN was built for 4 levels of features, got 3"):
        fpn()(features()[1:])


def test_a_spec_waits_for_its_features():
    spec = FPN.spec(out_channels=6, num_outs=4)
    assert spec.build(in_features=IN).out_features == fpn().out_features
    with pytest.raises(ConfigError, match=r"in_features: FPN needs it from its owner, .*use FPN\.spec"):
        FPN(out_channels=6, num_outs=4)


def test_is_registered_and_survives_a_config():
    assert registry.resolve("necks", "FPN") is FPN
    neck = fpn(num_outs=6, add_extra_convs="on_lateral", norm="GN", num_groups=3)
    again = build(dump(neck))
    assert dump(again) == dump(neck)
    assert copy.deepcopy(again).out_features == neck.out_features


def test_importing_the_package_imports_no_torch():
    code = "import sys, detcore_fpn; print(*dir(detcore_fpn), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "FPN" in done.stdout.split()
    assert "torch" not in done.stdout.split()
    with pytest.raises(AttributeError, match="no attribute 'Fpn'"):
        sys.modules["detcore_fpn"].Fpn
