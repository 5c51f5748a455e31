"""Translation of losses: their options, and the switches that give the reference's numbers."""

import pytest
from detcore_mmdet import TranslationError, translate

import detcore

RETINA = {
    "type": "RetinaHead",
    "num_classes": 4,
    "in_channels": 8,
    "feat_channels": 8,
    "anchor_generator": {"type": "AnchorGenerator", "scales": [8], "ratios": [1.0], "strides": [8, 16]},
}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"type": "GHMC", "bins": 30, "use_sigmoid": True}, {"bins": 30, "bias_correction": False}),
        (
            {"type": "GHMR", "mu": 0.1, "momentum": 0.7},
            {"mu": 0.1, "momentum": 0.7, "bias_correction": False},
        ),
        ({"type": "BalancedL1Loss", "beta": 0.5}, {"beta": 0.5, "smooth": False}),
        ({"type": "SIoULoss"}, {"neg_gamma": False}),
        ({"type": "SIoULoss", "neg_gamma": True, "eps": 1e-5}, {"neg_gamma": True, "eps": 1e-5}),
        ({"type": "EIoULoss", "smooth_point": 0.2}, {"smooth_point": 0.2}),
        ({"type": "BoundedIoULoss", "beta": 0.3}, {"beta": 0.3}),
        ({"type": "QualityFocalLoss", "use_sigmoid": True, "beta": 1.0}, {"beta": 1.0}),
        (
            {"type": "VarifocalLoss", "iou_weighted": False, "alpha": 0.5},
            {"iou_weighted": False, "alpha": 0.5},
        ),
        ({"type": "GaussianFocalLoss", "pos_weight": 0.25}, {"pos_weight": 0.25}),
        ({"type": "DiceLoss", "naive_dice": True, "eps": 1.0}, {"naive_dice": True, "eps": 1.0}),
        ({"type": "DiceLoss", "activate": False, "use_sigmoid": False}, {"activate": False}),
        ({"type": "KnowledgeDistillationKLDivLoss", "T": 4}, {"temperature": 4}),
        ({"type": "KnowledgeDistillationKLDivLoss"}, {}),
        ({"type": "AssociativeEmbeddingLoss", "pull_weight": 0.1}, {"pull_weight": 0.1}),
        (
            {"type": "SeesawLoss", "num_classes": 6, "p": 0.5, "return_dict": True},
            {"num_classes": 6, "p": 0.5, "count_ignored": True},
        ),
        ({"type": "SeesawLoss"}, {"num_classes": 1203, "count_ignored": True}),
    ],
)
def test_options(given, wanted):
    found = translate({**given, "loss_weight": 0.5} if given["type"] != "AssociativeEmbeddingLoss" else given)
    assert found.pop("type") == given["type"]
    assert found.pop("loss_weight", 0.5) == 0.5
    assert found == wanted
    loss = detcore.build({"type": given["type"], **found})
    assert type(loss).__name__ == given["type"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"type": "GHMC", "use_sigmoid": False}, "use_sigmoid: False of GHMC has no counterpart"),
        ({"type": "DiceLoss", "use_sigmoid": False}, "use_sigmoid: False of DiceLoss has no counterpart"),
        ({"type": "SeesawLoss", "use_sigmoid": True}, "use_sigmoid: True of SeesawLoss has no counterpart"),
        ({"type": "MSELoss", "beta": 1}, "the option 'beta' of MSELoss"),
    ],
)
def test_what_has_no_counterpart_is_said(given, message):
    with pytest.raises(TranslationError, match=message):
        translate(given)


@pytest.mark.parametrize("name", ["QualityFocalLoss", "VarifocalLoss", "GHMC", "SeesawLoss"])
def test_in_a_head(name):
    loss = {"type": name, **({"num_classes": 4} if name == "SeesawLoss" else {})}
    head = detcore.build(translate({**RETINA, "loss_cls": loss}))
    assert type(head.loss_cls).__name__ == name


def test_seesaw_for_another_number_of_classes_is_refused():
    config = translate({**RETINA, "loss_cls": {"type": "SeesawLoss", "num_classes": 5}})
    with pytest.raises(detcore.ConfigError, match="SeesawLoss has num_classes=5, but its owner supplies 4"):
        detcore.build(config)
