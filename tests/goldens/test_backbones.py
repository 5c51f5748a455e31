"""Backbones against the reference's numbers: outputs, and gradients with respect to weights and images."""

import pytest
import torch
from detcore_resnet import ResNet

from detcore.testing.goldens import missing, model, model_names
from detcore.testing.module_goldens import module_problems

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

#: Arguments of the reference that mean parts of other packages: those cases are test_parity's, through the bridge.
BRIDGED = {"dcn", "plugins", "conv_cfg"}


def resnet(config):
    """Our ResNet for the reference's arguments; all that it does not know is handed on, to fail there."""
    rest = dict(config)
    deep = rest.pop("type") == "ResNetV1d"
    norm = dict(rest.pop("norm_cfg", {"type": "BN"}))
    arguments = {"norm": norm.pop("type"), "norm_requires_grad": norm.pop("requires_grad", True)}
    arguments |= {"norm_eps" if name == "eps" else name: value for name, value in norm.items()}
    if deep:
        arguments |= {"deep_stem": True, "avg_down": True}
    return ResNet(**rest, **arguments)


def cases():
    for seed in (0, 1):
        for name in model_names("backbone_resnet", seed=seed):
            config = model(name, seed)[0]["config"]
            if config["type"] in ("ResNet", "ResNetV1d") and not BRIDGED & config.keys():
                marks = [pytest.mark.slow] if config["depth"] > 50 else []
                yield pytest.param(name, seed, id=f"{name}-{seed}", marks=marks)


@pytest.mark.parametrize(("name", "seed"), list(cases()))
def test_resnet_gives_the_references_numbers(name, seed):
    meta, data = model(name, seed)
    backbone = resnet(meta["config"])
    assert (
        module_problems(
            backbone, meta, data, ResNet.reference_names, rtol=1e-4, atol=1e-4, gradient_rtol=5e-3
        )
        == []
    )


@pytest.mark.parametrize(("name", "seed"), list(cases()))
def test_out_features_are_those_of_the_reference(name, seed):
    meta, _ = model(name, seed)
    with torch.device("meta"):
        features = resnet(meta["config"]).out_features
    height, width = meta["inputs"][0]["shape"][-2:]
    expected = [meta["tensors"][f"out/{i}"][1:] for i in range(len(features))]
    assert [[f.channels, -(-height // f.stride), -(-width // f.stride)] for f in features] == expected
