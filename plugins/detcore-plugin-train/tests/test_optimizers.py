import pytest
import torch
from detcore_train import SGD, AdamW
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
