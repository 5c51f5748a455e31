"""Weights find their places, or nothing is loaded."""

import pytest
import torch
from detcore_mmdet import Checkpoint, from_mmdet, import_detector

from detcore.errors import CheckpointError, ConfigError
from detcore.weights import load_weights, read_weights


def test_weights_are_renamed(retinanet, reference_weights):
    imported = import_detector(retinanet, reference_weights)
    assert not imported.detector.training
    assert torch.equal(
        imported.detector.head.retina_cls.weight, reference_weights["bbox_head.retina_cls.weight"]
    )
    assert imported.keys.fits
    assert imported.keys.mapped["bbox_head.retina_cls.bias"] == "head.retina_cls.bias"
    assert len(imported.keys.mapped) == len(reference_weights)


def test_normalisation_layers_are_renamed(retinanet):
    retinanet["bbox_head"]["norm_cfg"] = {"type": "BN"}
    retinanet["neck"]["norm_cfg"] = {"type": "BN"}
    state = from_mmdet(retinanet, None).state_dict()
    theirs = {n.replace("head.", "bbox_head.").replace(".norm.", ".bn."): t for n, t in state.items()}
    assert any(".bn." in name for name in theirs)
    keys = import_detector(retinanet, theirs).keys
    assert keys.mapped["bbox_head.cls_convs.0.bn.weight"] == "head.cls_convs.0.norm.weight"


def test_whole_files_and_class_names(retinanet, reference_weights):
    checkpoint = Checkpoint(reference_weights, {"dataset_meta": {"classes": ["a", "b", "c"]}})
    assert from_mmdet({"model": retinanet}, checkpoint).class_map.names == ("a", "b", "c")
    assert from_mmdet({"model": retinanet}, {"state_dict": reference_weights}).class_map.names[0] == "class0"
    cfg = {"model": retinanet, "train_dataloader": {"dataset": {"metainfo": {"classes": ("x", "y", "z")}}}}
    assert from_mmdet(cfg, None).class_map.names == ("x", "y", "z")


def test_counters_may_be_missing(retinanet, reference_weights):
    weights = {n: t for n, t in reference_weights.items() if not n.endswith("num_batches_tracked")}
    from_mmdet(retinanet, weights)


def test_weights_that_do_not_fit(retinanet, reference_weights):
    weights = dict(reference_weights)
    weights["bbox_head.retina_cls.bias"] = torch.zeros(5)
    weights["bbox_head.extra.weight"] = torch.zeros(5)
    del weights["neck.fpn_convs.0.conv.weight"]
    message = (
        r"1 missing: neck.fpn_convs.0.conv.weight; 1 unused: bbox_head.extra.weight; "
        r"1 of another shape: bbox_head.retina_cls.bias \(\[5\] there, \[27\] here\).*nothing was loaded"
    )
    with pytest.raises(CheckpointError, match=message):
        from_mmdet(retinanet, weights)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(retinanet, reference_weights, value):
    reference_weights["bbox_head.retina_cls.bias"][3] = value
    with pytest.raises(CheckpointError, match=r"bbox_head.retina_cls.bias holds NaN or infinity"):
        from_mmdet(retinanet, reference_weights)


def test_things_that_are_no_weights(retinanet):
    with pytest.raises(CheckpointError, match="expected tensors by name, got int under 'a'"):
        from_mmdet(retinanet, {"a": 1})


def test_channels_that_contradict_each_other(retinanet):
    retinanet["neck"]["in_channels"] = [256, 512, 1024, 2048]
    with pytest.raises(ConfigError, match=r"neck: in_channels \[256, 512, 1024, 2048\] is stated"):
        from_mmdet(retinanet, None)


def test_parts_are_no_detectors():
    with pytest.raises(ConfigError, match="ResNet is no detector"):
        from_mmdet({"type": "ResNet", "depth": 18}, None)


def test_addresses_of_weights(tmp_path, reference_weights):
    torch.save({"state_dict": reference_weights}, tmp_path / "a.pth")
    found = read_weights(f"mmdet://{tmp_path / 'a.pth'}")
    assert found.keys() == reference_weights.keys()


def test_addresses_load_whole_detectors(tmp_path, retinanet, reference_weights):
    torch.save({"state_dict": {**reference_weights}}, tmp_path / "a.pth")
    address = f"mmdet://{tmp_path / 'a.pth'}"
    detector = from_mmdet(retinanet, None)
    report = load_weights(detector, address)
    assert len(report.loaded) == len(reference_weights)
    assert torch.equal(detector.head.retina_cls.weight, reference_weights["bbox_head.retina_cls.weight"])


def test_addresses_load_into_another_number_of_classes(tmp_path, retinanet, reference_weights):
    torch.save(reference_weights, tmp_path / "a.pth")
    address = f"mmdet://{tmp_path / 'a.pth'}"
    retinanet["bbox_head"]["num_classes"] = 7
    detector = from_mmdet(retinanet, None)
    fresh = detector.head.retina_cls.weight.clone()
    with pytest.raises(CheckpointError, match=r"begin anew: reinit=\['head.retina_cls'\]"):
        load_weights(detector, address)
    report = load_weights(detector, address, reinit=["head.retina_cls"])
    assert report.reinitialised == ("head.retina_cls.weight", "head.retina_cls.bias")
    assert torch.equal(detector.head.retina_cls.weight, fresh)
    assert torch.equal(detector.head.retina_reg.bias, reference_weights["bbox_head.retina_reg.bias"])
