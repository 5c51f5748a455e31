"""Detectors made for inference only."""

import copy

import pytest
import torch
from detcore_fpn import FPN
from detcore_rcnn import FCNMaskHead, RPNHead, StandardRoIHead
from detcore_resnet import ResNet
from detcore_retina import RetinaHead
from torch import nn

import detcore
from detcore import SingleStageDetector, TwoStageDetector, optimize_for_inference
from detcore.errors import CheckpointError, ConfigError
from detcore.precision import _processor_has_bfloat16, has_bfloat16, resolve_precision


def retinanet():
    torch.manual_seed(0)
    model = SingleStageDetector(
        num_classes=3,
        backbone=ResNet(depth=18, base_channels=16, zero_init_residual=False),
        neck=FPN.spec(out_channels=16, start_level=1, num_outs=4, add_extra_convs="on_output", norm="BN"),
        head=RetinaHead.spec(feat_channels=16, stacked_convs=2, norm="BN"),
    )
    nn.init.normal_(model.head.retina_cls.weight, std=0.3)
    nn.init.constant_(model.head.retina_cls.bias, -1.0)
    return settled(model)


def mask_rcnn():
    torch.manual_seed(0)
    model = TwoStageDetector(
        num_classes=3,
        backbone=ResNet(depth=18, base_channels=16, zero_init_residual=False),
        neck=FPN.spec(out_channels=16, num_outs=5),
        rpn_head=RPNHead.spec(feat_channels=16),
        roi_head=StandardRoIHead.spec(mask_head=FCNMaskHead.spec(num_convs=1, conv_out_channels=8)),
    )
    return settled(model)


def settled(model):
    """With statistics as of a trained network."""
    model.train()
    with torch.no_grad():
        for seed in range(3):
            model.features(model.preprocess(images(seed)))
    return model


def images(seed=9):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(256, (3, 64, 96), generator=generator, dtype=torch.uint8) for _ in range(2)]


MODELS = pytest.mark.parametrize("build", [retinanet, mask_rcnn])


@MODELS
def test_single_precision_differs_by_rounding(build):
    model = build()
    fast = optimize_for_inference(model, "32")
    norms = [m for m in fast.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not norms
    model.eval()
    with torch.no_grad():
        pyramids = [one.features(one.preprocess(images())) for one in (model, fast)]
    for expected, found in zip(*pyramids, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        expected, found = model(images()), fast(images())
    assert expected.valid.any()
    assert torch.equal(found.valid, expected.valid)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)


@MODELS
def test_bfloat16_is_near_and_gives_float32(build):
    model = build()
    fast = optimize_for_inference(model, "bf16")
    found = fast(images())
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    with torch.no_grad():
        expected = model.eval()(images())
    best, near = expected.scores.amax(1), found.scores.amax(1)
    torch.testing.assert_close(near, best, rtol=0.05, atol=0.02)
    if found.masks is not None:
        assert found.masks.dtype == torch.float32


def test_logits_of_bfloat16():
    model = retinanet()
    fast = optimize_for_inference(model, "bf16")
    model.eval()
    batch = model.preprocess(images())
    with torch.no_grad():
        expected = model.head(model.features(batch), batch)
        with torch.autocast("cpu", torch.bfloat16):
            found = fast.detector.head(fast.features(batch), batch)
    assert found.logits.dtype == found.codes.dtype == torch.float32
    error = (found.logits - expected.logits).abs().mean() / expected.logits.abs().mean()
    assert error < 0.02


def test_the_original_is_untouched_and_trains_on():
    model = retinanet()
    before = copy.deepcopy(model.state_dict())
    fast = optimize_for_inference(model)
    first = fast(images()).scores
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    target = [{"boxes": torch.tensor([[1.0, 2, 30, 40]]), "labels": torch.tensor([1])}] * 2
    model(images(), target).total.backward()
    assert torch.equal(fast(images()).scores, first)


def test_it_can_neither_train_nor_be_saved(tmp_path):
    model = retinanet()
    fast = optimize_for_inference(model)
    with pytest.raises(ValueError, match="can only predict; train the one that it was made from"):
        fast.train()(images(), None)
    assert not fast.detector.training
    with pytest.raises(ValueError, match="can only predict"):
        fast.loss(None, None)
    with pytest.raises(CheckpointError, match="can only predict; save the one that it was made from"):
        fast.state_dict()
    with pytest.raises(ConfigError):
        detcore.save(fast, tmp_path / "x")
    assert fast.class_map == model.class_map
    assert fast.num_classes == 3


def test_precisions(tmp_path):
    cpu = torch.device("cpu")
    assert resolve_precision("bf16", cpu) == "bf16"
    assert resolve_precision("32", cpu) == "32"
    assert resolve_precision("auto", cpu) == ("bf16" if has_bfloat16(cpu) else "32")
    assert not has_bfloat16(torch.device("meta"))
    with pytest.raises(ValueError, match="precision should be one of auto, 32, bf16, got '64'"):
        resolve_precision("64", cpu)
    described = tmp_path / "cpuinfo"
    for flags, has in (("fma avx512_bf16", True), ("amx_bf16 x", True), ("avx512f bf16x", False)):
        described.write_text(f"processor : 0\nflags : {flags}\n")
        _processor_has_bfloat16.cache_clear()
        assert _processor_has_bfloat16(str(described)) is has
    _processor_has_bfloat16.cache_clear()
    assert not _processor_has_bfloat16(str(tmp_path / "absent"))
    _processor_has_bfloat16.cache_clear()
