"""Test-time augmentation around real detectors."""

import pytest
import torch
from detcore_fpn import FPN
from detcore_postprocess import AugmentedDetector, NMSPostprocess
from detcore_resnet import ResNet
from detcore_retina import RetinaHead

from detcore import build, dump
from detcore.detectors import SingleStageDetector
from detcore.structures import ImageBatch
from detcore.weights import without_weights


@pytest.fixture(scope="module")
def retinanet():
    torch.manual_seed(0)
    with without_weights():
        detector = SingleStageDetector(
            num_classes=3,
            backbone=ResNet.spec(depth=18),
            neck=FPN.spec(out_channels=16, num_outs=5),
            head=RetinaHead.spec(
                feat_channels=16,
                stacked_convs=1,
                postprocess=NMSPostprocess.spec(score_thr=0.0, nms_pre=50, max_per_img=20),
            ),
        )
    return detector.eval()


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(1)
    return ImageBatch.of(torch.randn(2, 3, 64, 96), sizes=[(64, 96), (50, 60)])


def test_one_version_is_the_detector_itself(retinanet, batch):
    plain = retinanet(batch)
    found = AugmentedDetector(detector=retinanet, flip=False, max_per_img=20).eval()(batch)
    assert plain.valid.any()
    for name in ("boxes", "scores", "labels", "valid"):
        torch.testing.assert_close(getattr(found, name), getattr(plain, name))


def test_mirrored_images_give_mirrored_detections(retinanet, batch):
    """An image and its mirror image have the same versions, so that what is found is mirrored."""
    model = AugmentedDetector(detector=retinanet, scales=(1.0, 1.5), max_per_img=20).eval()
    found = model(batch.replace(pixels=batch.pixels[:1], **_first(batch)))
    mirror = model(batch.replace(pixels=batch.pixels[:1].flip(-1), **_first(batch)))
    torch.testing.assert_close(mirror.scores, found.scores, rtol=1e-4, atol=1e-5)
    boxes = torch.stack((96 - mirror.boxes[..., 2], 96 - mirror.boxes[..., 0]), -1)
    torch.testing.assert_close(boxes, found.boxes[..., [0, 2]], rtol=1e-3, atol=1e-2)


def _first(batch):
    return {name: value[:1] for name, value in vars(batch).items() if name != "pixels"}


def test_it_is_a_detector_in_files(retinanet):
    config = dump(AugmentedDetector(detector=retinanet, scales=(0.5, 1.0)))
    assert config["type"] == "detcore-plugin-postprocess:AugmentedDetector"
    with without_weights():
        model = build(config, kind="detectors")
    assert model.num_classes == 3
    assert {name.removeprefix("detector.") for name in model.state_dict()} == set(retinanet.state_dict())
