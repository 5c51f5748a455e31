import pytest
import torch
from detcore_train import SGD, AdamW
from detcore_train.optimizers.groups import group_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from detcore.errors import ConfigError


def groups(optimizer, model, **options):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[p]: (group["lr"], group["weight_decay"])
        for group in optimizer.build(model, **options).param_groups
        for p in group["params"]
    }


def test_every_trainable_parameter_is_in_one_group(toy_detector):
    toy_detector.backbone.stem.requires_grad_(False)
    found = groups(SGD(lr=0.1, weight_decay=0.01), toy_detector)
    assert set(found) == {n for n, p in toy_detector.named_parameters() if p.requires_grad}
    assert set(found.values()) == {(0.1, 0.01)}


def test_factors_on_decay_and_on_the_backbone(toy_detector):
    optimizer = AdamW(
        lr=0.1, weight_decay=0.5, norm_decay_mult=0.0, bias_decay_mult=0.1, backbone_lr_mult=0.2
    )
    found = groups(optimizer, toy_detector)
    assert found["backbone.conv.weight"] == pytest.approx((0.02, 0.5))
    assert found["backbone.conv.bias"] == pytest.approx((0.02, 0.05))
    assert found["backbone.norm.weight"] == pytest.approx((0.02, 0.0))
    assert found["backbone.norm.bias"] == pytest.approx((0.02, 0.0))
    assert found["head.out.weight"] == pytest.approx((0.1, 0.5))


def test_the_linear_rule_scales_every_group(toy_detector):
    found = groups(SGD(lr=0.1, backbone_lr_mult=0.5), toy_detector, lr_scale=0.25)
    assert {lr for lr, _ in found.values()} == {0.025, 0.0125}


def test_shared_parameters_are_there_once(toy_detector):
    toy_detector.backbone.twin = toy_detector.head.out
    found = [p for g in SGD(lr=0.1).build(toy_detector).param_groups for p in g["params"]]
    assert len(found) == len(set(found))


def test_a_step_is_torchs(toy_detector):
    for parameter in toy_detector.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = toy_detector.head.out.weight.detach().clone()
    SGD(lr=0.5, momentum=0.0, weight_decay=0.0).build(toy_detector).step()
    torch.testing.assert_close(toy_detector.head.out.weight, before - 0.5)


def test_nothing_to_train(toy_detector):
    toy_detector.requires_grad_(False)
    with pytest.raises(ConfigError, match="SingleStageDetector has no trainable parameter"):
        SGD(lr=0.1).build(toy_detector)


def test_no_backbone_to_slow_down():
    with pytest.raises(
        ConfigError, match=r"backbone_lr_mult is 0\.1, but Linear has no trainable parameter below"
    ):
        SGD(lr=0.1, backbone_lr_mult=0.1).build(nn.Linear(1, 1))


def test_ranges():
    with pytest.raises(ConfigError, match="lr"):
        SGD(lr=0.0)
    with pytest.raises(ConfigError, match="nesterov needs a momentum above 0"):
        SGD(lr=0.1, momentum=0.0, nesterov=True)
    with pytest.raises(ConfigError, match="betas"):
        AdamW(lr=0.1, betas=(0.9, 1.0))


def test_rules_stand_in_for_the_general_factors(toy_detector):
    optimizer = SGD(
        lr=0.1,
        weight_decay=0.5,
        norm_decay_mult=0.0,
        backbone_lr_mult=0.2,
        rules=(
            {"match": "backbone.norm.*", "decay_mult": 0.5},
            {"match": "backbone.conv.weight", "lr_mult": 3.0},
            {"match": "backbone.*", "lr_mult": 0.5, "decay_mult": 0.1},
        ),
    )
    found = groups(optimizer, toy_detector)
    assert found["backbone.norm.weight"] == pytest.approx(
        (0.05, 0.25)
    )  # lr of the third rule, decay of the first
    assert found["backbone.conv.weight"] == pytest.approx((0.3, 0.05))
    assert found["backbone.stem.weight"] == pytest.approx((0.05, 0.05))
    assert found["head.out.weight"] == pytest.approx((0.1, 0.5))
    assert set(found) == {name for name, _ in toy_detector.named_parameters()}


@pytest.mark.parametrize(
    ("match", "message"),
    [
        (
            "backbone.nrom.*",
            r"rules\[0\] 'backbone\.nrom\.\*' matches no parameter; did you mean 'backbone\.norm\.\*'",
        ),
        ("backbone.norm", r"matches no parameter; did you mean 'backbone\.norm\.\*'\?"),
        ("head.out.wieght", r"did you mean 'head\.out\.weight'"),
        ("zzz", r"names begin with 'backbone\.', 'head\.'"),
    ],
)
def test_a_rule_that_matches_nothing_names_the_nearest(toy_detector, match, message):
    with pytest.raises(ConfigError, match=message):
        SGD(lr=0.1, rules=({"match": match, "lr_mult": 0.5},)).build(toy_detector)


def test_a_rule_in_vain(toy_detector):
    with pytest.raises(ConfigError, match=r"rules\[0\] 'head\.\*' states neither lr_mult nor decay_mult"):
        SGD(lr=0.1, rules=({"match": "head.*"},)).build(toy_detector)
    twice = ({"match": "head.*", "lr_mult": 0.5}, {"match": "head.out.*", "lr_mult": 2.0})
    with pytest.raises(ConfigError, match=r"rules\[1\] 'head\.out\.\*' has no effect, since rules before it"):
        SGD(lr=0.1, rules=twice).build(toy_detector)
    with pytest.raises(ConfigError, match="lr_mlut"):
        SGD(lr=0.1, rules=({"match": "head.*", "lr_mlut": 0.5},))


def test_a_rule_may_match_frozen_parameters(toy_detector):
    toy_detector.backbone.stem.requires_grad_(False)
    found = groups(SGD(lr=0.1, rules=({"match": "backbone.stem.*", "lr_mult": 0.5},)), toy_detector)
    assert "backbone.stem.weight" not in found


def test_layer_decay_goes_by_depth(toy_detector):
    """The toy's layers are stem, norm, conv: in the order of registration."""
    found = groups(AdamW(lr=1.0, layer_decay=0.5, backbone_lr_mult=0.1), toy_detector)
    assert found["backbone.stem.weight"][0] == pytest.approx(0.1 * 0.5**3)
    assert found["backbone.norm.bias"][0] == pytest.approx(0.1 * 0.5**2)
    assert found["backbone.conv.weight"][0] == pytest.approx(0.1 * 0.5)
    assert found["head.out.weight"][0] == 1.0


def test_layer_decay_needs_layers(toy_detector):
    toy_detector.backbone.depth_layers = lambda: (("stem",), ("conv",))
    with pytest.raises(
        ConfigError, match=r"depth_layers\(\) has no layer with the parameter 'backbone\.norm\.weight'"
    ):
        SGD(lr=0.1, layer_decay=0.9).build(toy_detector)
    with pytest.raises(
        ConfigError, match=r"layer_decay is 0\.9, but Linear has no trainable parameter below"
    ):
        SGD(lr=0.1, layer_decay=0.9).build(nn.Linear(1, 1))
    other = nn.ModuleDict({"backbone": nn.Linear(1, 1)})
    with pytest.raises(ConfigError, match=r"Linear has no depth_layers\(\)"):
        SGD(lr=0.1, layer_decay=0.9).build(other)


def test_the_table_of_groups(toy_detector):
    toy_detector.backbone.stem.requires_grad_(False)
    optimizer = SGD(lr=0.1, weight_decay=0.01, backbone_lr_mult=0.5).build(toy_detector)
    backbone, head, frozen = group_table(optimizer, toy_detector)
    assert (backbone["lr"], backbone["weight_decay"]) == (0.05, 0.01)
    assert head["parameters"] == ["head.out.weight", "head.out.bias"]
    assert head["values"] == sum(p.numel() for p in toy_detector.head.parameters())
    assert (frozen["lr"], frozen["parameters"]) == (0.0, ["backbone.stem.weight", "backbone.stem.bias"])


@given(
    st.lists(
        st.fixed_dictionaries(
            {"match": st.sampled_from(["*", "backbone.*", "*.bias", "head.*", "*norm*"])},
            optional={"lr_mult": st.floats(0, 3), "decay_mult": st.floats(0, 3)},
        ),
        max_size=4,
    ),
    st.sampled_from([1.0, 0.7]),
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_parameter_is_in_one_group_whatever_the_rules(toy_detector, rules, layer_decay):
    try:
        optimizer = SGD(lr=0.1, rules=tuple(rules), layer_decay=layer_decay).build(toy_detector)
    except ConfigError:
        return
    found = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in toy_detector.parameters())
    keys = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert len(set(keys)) == len(keys)
