"""Necks against the reference's numbers: outputs, and gradients with respect to weights and features."""

import pytest
from detcore_fpn import FPN

from detcore.structures import FeatureSpec
from detcore.testing.goldens import missing, model, model_names
from detcore.testing.module_goldens import module_problems

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


def fpn(config):
    """Our FPN for the reference's arguments; all that it does not know is handed on, to fail there."""
    rest = {name: value for name, value in config.items() if name != "type"}
    norm = dict(rest.pop("norm_cfg", None) or {})
    norm.pop("requires_grad", None)
    if norm:
        rest["norm"] = norm.pop("type")
    activation = rest.pop("act_cfg", None)
    upsample = dict(rest.pop("upsample_cfg", {}))
    # The ratio of the levels' sizes in any case: with another factor they could not be added.
    assert upsample.pop("scale_factor", 2) == 2
    if upsample:
        rest["upsample_mode"] = upsample.pop("mode")
    features = tuple(FeatureSpec(channels, 4 * 2**i) for i, channels in enumerate(rest.pop("in_channels")))
    return FPN(in_features=features, activation=activation and activation["type"], **rest, **norm, **upsample)


def cases():
    for seed in (0, 1):
        for name in model_names("neck_fpn", seed=seed):
            if model(name, seed)[0]["config"]["type"] == "FPN":
                yield pytest.param(name, seed, id=f"{name}-{seed}")


@pytest.mark.parametrize(("name", "seed"), list(cases()))
def test_fpn_gives_the_references_numbers(name, seed):
    meta, data = model(name, seed)
    neck = fpn(meta["config"])
    assert (
        module_problems(neck, meta, data, FPN.reference_names, rtol=1e-4, atol=1e-4, gradient_rtol=1e-3) == []
    )
    finest = meta["inputs"][0]["shape"][-1] * 4
    widths = [meta["tensors"][f"out/{i}"][-1] for i in range(len(neck.out_features))]
    assert [-(-finest // feature.stride) for feature in neck.out_features] == widths
