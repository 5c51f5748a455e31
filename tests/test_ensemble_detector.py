"""Ensembles and tiles around real detectors: on disk, in files, and beside the detectors alone."""

import re
from pathlib import Path

import pytest
import torch
from detcore_fpn import FPN
from detcore_postprocess import (
    AugmentedDetector,
    EnsembleDetector,
    NMSPostprocess,
    TiledDetector,
    TransformedDetector,
    WeightedBoxesFusion,
)
from detcore_resnet import ResNet
from detcore_retina import RetinaHead

import detcore
from detcore.detectors import ImagePreprocessor, SingleStageDetector
from detcore.structures import ClassMap
from detcore.testing import checks_of, run_check
from detcore.weights import without_weights


def retinanet(seed, names, *, depth=18, start_level=1, preprocessor=ImagePreprocessor.spec()):
    torch.manual_seed(seed)
    with without_weights():
        detector = SingleStageDetector(
            num_classes=len(names),
            backbone=ResNet.spec(depth=depth, base_channels=8),
            neck=FPN.spec(out_channels=16, num_outs=5, start_level=start_level),
            head=RetinaHead.spec(
                feat_channels=16,
                stacked_convs=1,
                postprocess=NMSPostprocess.spec(score_thr=0.0, nms_pre=50, max_per_img=20),
            ),
            preprocessor=preprocessor,
        )
    detector.class_map = ClassMap(names)
    return detector.eval()


@pytest.fixture(scope="module")
def members():
    """Other strides, another order of the channels, another size, another order of the classes."""
    grey = ImagePreprocessor.spec(mean=(90, 90, 90), std=(60, 60, 60), channel_order="bgr", min_size=80)
    return (
        retinanet(0, ("cat", "dog", "bird")),
        retinanet(1, ("bird", "cat", "dog"), start_level=0, preprocessor=grey),
    )


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(3)
    return [
        torch.randint(256, (3, 64, 96), dtype=torch.uint8),
        torch.randint(256, (3, 50, 70), dtype=torch.uint8),
    ]


def test_an_ensemble_of_one_is_the_detector_itself(members, images):
    for detector in members:
        batch = detector.preprocess(images)
        plain = detector(batch).to_original(batch)
        found = EnsembleDetector(detectors=(detector,), max_per_img=20).eval()(images)
        assert plain.valid.any()
        for name in ("boxes", "scores", "labels", "valid"):
            assert torch.equal(getattr(found, name), getattr(plain, name))


@pytest.mark.parametrize("name", ["model.safetensors", "folder"])
def test_ensembles_are_saved_and_loaded(members, images, tmp_path, name):
    """The state of all members, and how their labels correspond."""
    model = EnsembleDetector(
        detectors=(AugmentedDetector(detector=members[0]), TiledDetector(detector=members[1], tile=48)),
        merger=WeightedBoxesFusion.spec(iou_thr=0.5),
        weights=(2.0, 1.0),
        max_per_img=30,
    ).eval()
    expected = model(images)
    again = detcore.load(detcore.save(model, tmp_path / name))
    assert again.class_map.names == ("cat", "dog", "bird")
    assert again.detectors[1].class_map.names == ("bird", "cat", "dog")
    assert again.orders.tolist() == [[0, 1, 2], [2, 0, 1]]
    found = again(images)
    for field in ("boxes", "scores", "labels", "valid"):
        assert torch.equal(getattr(found, field), getattr(expected, field))
    again.class_map = ClassMap(("Katze", "Hund", "Vogel"))
    assert again.detectors[1].class_map.names == ("Vogel", "Katze", "Hund")


def test_tiled_detectors_are_saved_and_loaded(members, images, tmp_path):
    model = TiledDetector(detector=members[0], tile=(32, 48), overlap=0.25, max_per_img=10).eval()
    again = detcore.load(detcore.save(model, tmp_path / "tiled"))
    assert torch.equal(again(images).boxes, model(images).boxes)


@pytest.mark.slow
@pytest.mark.parametrize("cls", [AugmentedDetector, EnsembleDetector, TiledDetector, TransformedDetector])
def test_the_conformance_kit_passes(cls):
    inner = SingleStageDetector.spec(
        backbone=ResNet.spec(depth=18, base_channels=8, frozen_stages=-1),
        neck=FPN.spec(out_channels=8, num_outs=5),
        head=RetinaHead.spec(feat_channels=8, stacked_convs=1),
    )
    parts = {"detectors": (inner, inner)} if cls is EnsembleDetector else {"detector": inner}
    for check in checks_of(cls):
        if check.name.startswith("detector_"):
            run_check(cls.spec(num_classes=3, **parts), check.name)


def test_the_guide_runs():
    page = Path(__file__).parents[1] / "docs" / "test-time.md"
    (block,) = re.findall(
        r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    exec(compile(block, str(page), "exec"), {"__name__": "guide"})
