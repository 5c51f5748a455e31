"""Weights find their places; what is not translated is named."""

import pytest
import torch
from detcore_torchvision import TorchvisionImportError, from_torchvision, import_detector
from detcore_torchvision.names import modern
from torch import nn
from torchvision.models import detection
from torchvision.models.detection import backbone_utils
from torchvision.models.detection.anchor_utils import AnchorGenerator

from detcore.errors import CheckpointError, ConfigError
from detcore.serialize import build, dump

SMALL = ("retinanet_r18", "faster_rcnn_r18", "mask_rcnn_r18")
OFFICIAL = ("retinanet", "retinanet_v2", "faster_rcnn", "faster_rcnn_v2", "mask_rcnn", "mask_rcnn_v2")


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_has_a_place(make, name):
    model = make(name)
    imported = import_detector(model)
    names = {n for n in model.state_dict() if not n.endswith("num_batches_tracked")}
    assert names <= set(imported.keys.mapped)
    assert imported.keys.fits
    own = imported.detector.state_dict()
    key = "backbone.body.layer3.0.downsample.1.running_var"
    assert imported.keys.mapped[key] == "backbone.layer3.0.downsample.1.running_var"
    assert torch.equal(own[imported.keys.mapped[key]], model.state_dict()[key])
    assert build(dump(imported.detector)).state_dict().keys() == own.keys()


def test_rows_of_classes(make):
    imported = import_detector(make("mask_rcnn_r18"))
    there, own = make("mask_rcnn_r18").state_dict(), imported.detector.state_dict()
    theirs = there["roi_heads.box_predictor.cls_score.weight"]
    assert torch.equal(own["roi_head.bbox_head.fc_cls.weight"], torch.cat((theirs[1:], theirs[:1])))
    boxes = there["roi_heads.box_predictor.bbox_pred.bias"]
    assert torch.equal(own["roi_head.bbox_head.fc_reg.bias"], boxes[4:])
    masks = there["roi_heads.mask_predictor.mask_fcn_logits.weight"]
    assert torch.equal(own["roi_head.mask_head.conv_logits.weight"], masks[1:])
    key = "roi_heads.box_predictor.cls_score.weight"
    assert imported.keys.converted[key] == "background moved from first to last"
    assert len(imported.keys.converted) == 6


@pytest.mark.parametrize("name", SMALL)
def test_a_state_dict_gives_the_same_network(make, name):
    model = make(name)
    from_model, from_weights = from_torchvision(model), from_torchvision(model.state_dict())
    for key, tensor in from_model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(tensor, from_weights.state_dict()[key])


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_architecture_follows_from_names_and_shapes(name, builders):
    """Whatever torchvision's builders make with default settings, its state dict gives the same configuration."""
    from detcore_torchvision.description import describe
    from detcore_torchvision.skeletons import skeleton_of

    with torch.device("meta"):
        model = builders[name](num_classes=7)
    told = describe(skeleton_of(model.state_dict())).config
    want = describe(model).config
    assert told["backbone"].pop("frozen_stages") == 1  # as for pretrained ones; the model trains all of them
    assert want["backbone"].pop("frozen_stages") == -1
    assert told == want


def test_files_of_older_versions():
    old = {
        "backbone.fpn.inner_blocks.2.weight": "backbone.fpn.inner_blocks.2.0.weight",
        "backbone.fpn.layer_blocks.0.bias": "backbone.fpn.layer_blocks.0.0.bias",
        "head.classification_head.conv.6.weight": "head.classification_head.conv.3.0.weight",
        "head.regression_head.conv.0.bias": "head.regression_head.conv.0.0.bias",
        "rpn.head.conv.weight": "rpn.head.conv.0.0.weight",
        "roi_heads.mask_head.mask_fcn4.bias": "roi_heads.mask_head.3.0.bias",
    }
    assert {name: modern(name) for name in old} == old
    assert all(modern(name) == name for name in old.values())


def test_older_layouts_load(make):
    model = make("faster_rcnn_r18")
    want = from_torchvision(model).state_dict()
    old = {}
    for name, tensor in model.state_dict().items():
        name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for blocks in ("inner_blocks", "layer_blocks"):
            for i in range(4):
                name = name.replace(f"{blocks}.{i}.0.", f"{blocks}.{i}.")
        old[name] = tensor
    assert "backbone.fpn.inner_blocks.0.weight" in old
    got = from_torchvision({"model": old, "epoch": 3}).state_dict()
    assert all(torch.equal(got[n], t) for n, t in want.items() if not n.endswith("num_batches_tracked"))


def test_what_a_frozen_normalisation_adds(make):
    assert from_torchvision(make("retinanet_r18")).backbone.bn1.eps == 1e-5
    weights = make("retinanet_r18").state_dict()
    assert from_torchvision(weights).backbone.bn1.eps == 1e-5
    detector = from_torchvision(weights, frozen_bn_eps=0.0)
    assert detector.backbone.bn1.eps == 0
    assert detector.backbone.norm_eval
    assert not detector.backbone.layer2[0].bn1.weight.requires_grad


# --------------------------------------------------------------------------------------------------- classes


def test_categories_name_the_classes_and_leave_out_the_unused(make):
    model, names = make("retinanet_r18"), [f"c{i}" for i in range(91)]
    names[0], names[12], names[90] = "__background__", "N/A", "N/A"
    detector = from_torchvision(model, categories=names)
    assert len(detector.class_map) == 88
    assert detector.class_map.names[10:12] == ("c11", "c13")
    assert detector.class_map.ids[10:12] == (11, 13)
    logits = model.head.classification_head.cls_logits.bias.view(9, 91)
    assert torch.equal(detector.head.retina_cls.bias.view(9, 88)[:, 11], logits[:, 13])
    kept = from_torchvision(model, categories=names, keep_unused=True)
    assert len(kept.class_map) == 90
    assert kept.class_map.names[11] == "N/A 12"
    assert from_torchvision(model).class_map.names[:2] == ("class1", "class2")


def test_unused_labels_left_out_of_a_softmax_change_next_to_nothing(make, noise, exact_nms):
    """Given that training has pushed them down, as it has in published weights."""
    import copy

    model, names = copy.deepcopy(make("faster_rcnn_r18")), [f"c{i}" for i in range(91)]
    names[12] = names[26] = "N/A"
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[[12, 26]] = -20.0
        (there,) = model(noise((120, 150)))
        detector = from_torchvision(model, categories=names)
        batch = detector.preprocess(noise((120, 150)))
        (here,) = detector(batch).to_original(batch).unpad()
    ids = torch.tensor(detector.class_map.ids)[here.labels]
    assert torch.equal(ids, there["labels"])
    torch.testing.assert_close(here.scores, there["scores"], rtol=1e-4, atol=1e-5)


def test_a_wrong_number_of_categories(make):
    with pytest.raises(
        ConfigError, match="categories has 3 names, the model 91 outputs; give one name for each"
    ):
        from_torchvision(make("retinanet_r18"), categories=["a", "b", "c"])


# ---------------------------------------------------------------------------------------------------- errors


def test_models_that_are_not_translated():
    with torch.device("meta"):
        fcos = detection.fcos_resnet50_fpn(weights=None, weights_backbone=None)
        ssd = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
        keypoints = detection.keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None)
        mobile = detection.fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None)
    for model, message in (
        (fcos, "FCOS: is not translated: the bridge has no translation of FCOS's head yet"),
        (ssd, "SSD: is not translated: the bridge has no translation of SSD's head"),
        (keypoints, "KeypointRCNN: is not translated: detcore has no keypoint head yet"),
    ):
        with pytest.raises(TorchvisionImportError, match=message):
            from_torchvision(_materialised(model))
        with pytest.raises(TorchvisionImportError, match=message.split(": ", 2)[-1]):
            from_torchvision(_materialised(model).state_dict())
    with pytest.raises(TorchvisionImportError, match="only ResNet is translated"):
        from_torchvision(_materialised(mobile))
    with pytest.raises(TorchvisionImportError, match=r"backbone\.body is no ResNet"):
        from_torchvision(_materialised(mobile).state_dict())
    with pytest.raises(
        TorchvisionImportError, match="is a Linear; only RetinaNet or FasterRCNN is translated"
    ):
        from_torchvision(nn.Linear(1, 1))
    with pytest.raises(
        TorchvisionImportError, match=r"the weights \(first: weight, bias\) are of no RetinaNet"
    ):
        from_torchvision(nn.Linear(1, 1).state_dict())


def _materialised(model):
    model = model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.zero_()
    return model


def test_all_parts_without_counterpart_are_named():
    body = backbone_utils.resnet_fpn_backbone(backbone_name="resnext50_32x4d", weights=None)
    generator = AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((1.0,), (1.0,), (1.0,), (1.0,), (2.0,)))
    model = detection.FasterRCNN(body, 3, rpn_anchor_generator=generator, box_head=nn.Flatten())
    with pytest.raises(TorchvisionImportError) as caught:
        from_torchvision(model)
    message = str(caught.value)
    assert "backbone.body.layer1: ResNeXt and wide ResNets have no counterpart" in message
    assert (
        "rpn.anchor_generator.aspect_ratios: the ratios of a level should be the same everywhere" in message
    )
    assert "roi_heads.box_head: is a Flatten; only TwoMLPHead or FastRCNNConvFCHead is translated" in message


def test_weights_that_do_not_fit(make):
    weights = dict(make("faster_rcnn_r18").state_dict())
    weights["roi_heads.extra.weight"] = torch.zeros(3)
    del weights["backbone.body.layer1.0.conv1.weight"]
    with pytest.raises(CheckpointError) as caught:
        from_torchvision(weights)
    message = str(caught.value)
    assert "1 missing: backbone.layer1.0.conv1.weight; 1 unused: roi_heads.extra.weight" in message
    assert "nothing was loaded: give the model itself" in message


def test_weights_that_are_not_finite(make):
    weights = dict(make("retinanet_r18").state_dict())
    weights["head.regression_head.bbox_reg.bias"] = torch.full((36,), float("nan"))
    with pytest.raises(
        CheckpointError, match=r"the given weights: head\.regression_head\.bbox_reg\.bias holds NaN"
    ):
        from_torchvision(weights)


def test_anchors_that_weights_do_not_tell():
    backbone = backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    generator = AnchorGenerator(((8, 12),) * 5, ((1.0, 2.0),) * 5)
    model = detection.FasterRCNN(backbone, 3, rpn_anchor_generator=generator)
    with pytest.raises(
        TorchvisionImportError, match="the weights are for 4 anchors in a cell, not the usual 3"
    ):
        from_torchvision(model.state_dict())
    assert from_torchvision(model).rpn_head.num_anchors == 4
