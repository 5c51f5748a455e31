"""``tta_model`` and ``tta_pipeline``."""

import pytest
import torch
from detcore_mmdet import TranslationError, augmentation_of, augmented
from detcore_postprocess import AugmentedDetector

from detcore import build


def config(scales=((1333, 800), (666, 400), (2000, 1200)), flips=(1.0, 0.0), nms=None, **changes):
    """As the reference's own files have it."""
    resizes = [{"type": "Resize", "scale": scale, "keep_ratio": True} for scale in scales]
    steps = [
        resizes,
        [{"type": "RandomFlip", "prob": p} for p in flips],
        [{"type": "PackDetInputs", "meta_keys": ()}],
    ]
    return {
        "model": {"type": "RetinaNet"},
        "test_pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "Resize", "scale": (1333, 800), "keep_ratio": True},
        ],
        "tta_model": {
            "type": "DetTTAModel",
            "tta_cfg": {"nms": nms or {"type": "nms", "iou_threshold": 0.6}, "max_per_img": 50},
        },
        "tta_pipeline": [{"type": "LoadImageFromFile"}, {"type": "TestTimeAug", "transforms": steps}],
        **changes,
    }


def test_the_usual():
    found = augmentation_of(config())
    assert found.problems == ()
    assert found.config == {
        "type": "AugmentedDetector",
        "scales": [1.0, 0.4996, 1.5004],
        "flip": True,
        "max_per_img": 50,
        "merger": {"type": "NMSMerger", "iou_threshold": 0.6},
    }
    assert found.options == "--scales 1,0.4996,1.5004 --flip"
    assert "brought to the size of tests first" in str(found.notes[0])


def test_soft_nms_and_no_flip():
    nms = {"type": "soft_nms", "iou_threshold": 0.5, "method": "gaussian", "min_score": 0.05}
    found = augmentation_of(config(scales=[(640, 640)], flips=(0.0,), nms=nms, test_pipeline=[]))
    assert found.config["scales"] == [1.0]
    assert not found.config["flip"]
    assert found.config["merger"]["nms"] == {"type": "SoftNMS", "method": "gaussian", "min_score": 0.05}
    assert found.options == "--scales 1 --merge soft_nms"


def test_nothing_to_translate():
    assert augmentation_of({"model": {"type": "RetinaNet"}}) is None
    with pytest.raises(TranslationError, match="neither tta_model nor tta_pipeline"):
        augmented(None, {"model": {}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scales": [(1333, 800), (1333, 600)]}, r"\(1333, 600\) is no multiple of the scale of tests"),
        ({"scales": [1.5]}, "should be two lengths in pixels"),
        ({"flips": (1.0,)}, r"flips with probabilities \[1.0\]"),
        ({"flips": (0.5, 0.0)}, r"flips with probabilities \[0.5, 0.0\]"),
        ({"nms": {"type": "wbf"}}, "the suppression 'wbf' has no counterpart"),
        ({"tta_model": {"type": "MyTTAModel", "x": 1}}, "'MyTTAModel' has no counterpart in detcore"),
    ],
)
def test_what_has_no_counterpart(changes, message):
    with pytest.raises(TranslationError, match=message):
        augmented(None, config(**changes))


def test_around_a_detector():
    detector = build(
        {
            "type": "SingleStageDetector",
            "num_classes": 2,
            "backbone": {"type": "ResNet", "depth": 18, "base_channels": 8},
            "neck": {
                "type": "FPN",
                "out_channels": 16,
                "start_level": 1,
                "num_outs": 5,
                "add_extra_convs": "on_input",
            },
            "head": {"type": "RetinaHead", "feat_channels": 16, "stacked_convs": 1},
        }
    )
    model = augmented(detector, config())
    assert isinstance(model, AugmentedDetector)
    assert model.detector is detector
    assert model([torch.randint(256, (3, 64, 64), dtype=torch.uint8)]).boxes.shape == (1, 50, 4)
