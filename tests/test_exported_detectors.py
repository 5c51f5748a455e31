"""Whole detectors as files: what the READMEs show, and every family in both formats."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from detcore_atss import ATSSHead
from detcore_export import export, load
from detcore_fpn import FPN
from detcore_rcnn import FCNMaskHead, RPNHead, Shared2FCBBoxHead, SingleRoIExtractor, StandardRoIHead
from detcore_resnet import ResNet
from detcore_retina import RetinaHead
from typer.testing import CliRunner

import detcore
from detcore import SingleStageDetector, TwoStageDetector
from detcore.cli.app import app
from detcore.structures import ClassMap

README = Path(__file__).parents[1] / "plugins" / "detcore-plugin-export" / "README.md"


def one_stage(head, extra):
    neck = FPN.spec(out_channels=16, start_level=2, num_outs=3, add_extra_convs=extra)
    small = head.spec(feat_channels=16, stacked_convs=1, num_groups=4)
    return SingleStageDetector(num_classes=3, backbone=ResNet(depth=18), neck=neck, head=small)


def two_stage(masks, start):
    """With the backbone's levels from ``start`` on, and one more; the time to export grows with the levels."""
    own = {"mask_roi_extractor": SingleRoIExtractor.spec(output_size=14, num_levels=4 - start),
           "mask_head": FCNMaskHead.spec(conv_out_channels=8)} if masks else {}  # fmt: skip
    return TwoStageDetector(
        num_classes=3,
        backbone=ResNet(depth=18),
        neck=FPN.spec(out_channels=16, start_level=start, num_outs=5 - start),
        rpn_head=RPNHead.spec(feat_channels=16),
        roi_head=StandardRoIHead.spec(
            bbox_roi_extractor=SingleRoIExtractor.spec(output_size=7, num_levels=4 - start),
            bbox_head=Shared2FCBBoxHead.spec(fc_out_channels=32),
            **own,
        ),
    )


def finding(detector):
    """The detector with weights by which it finds something, although it is not trained."""
    for path, parameter in detector.eval().named_parameters():
        if path.endswith(("retina_cls.bias", "atss_cls.bias")):
            parameter.data.fill_(-2.0)
        if path.endswith(("_cls.weight", "_reg.weight")):
            parameter.data.mul_(30)
    return detector


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "format", "size"),
    [
        pytest.param(lambda: one_stage(RetinaHead, "on_input"), "onnx", "dynamic", id="retinanet-onnx"),
        pytest.param(lambda: one_stage(ATSSHead, "on_output"), "onnx", (128, 160), id="atss-onnx"),
        pytest.param(lambda: two_stage(True, 1), "onnx", (128, 160), id="mask_rcnn-onnx"),
        pytest.param(lambda: two_stage(False, 2), "torch-export", "dynamic", id="faster_rcnn-torch-export"),
    ],
)
def test_families(make, format, size, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / ("model.onnx" if format == "onnx" else "model.pt2")
    done = export(finding(make()), path, format=format, size=size)
    assert [c.batch for c in done.comparisons] == [1, 2, 5] * (2 if size == "dynamic" else 1)
    assert done.detections >= 50 * len(done.comparisons)
    assert set(done.differences) >= {"boxes", "scores"}


@pytest.mark.slow
def test_from_a_checkpoint_by_the_command(tmp_path):
    torch.manual_seed(0)
    detector = finding(one_stage(RetinaHead, "on_input"))
    detector.class_map = ClassMap(("ant", "bee", "cow"))
    detcore.save(detector, tmp_path / "model")
    arguments = [
        "export",
        str(tmp_path / "model"),
        "--format",
        "torch-export",
        "--batch",
        "2",
        "--size",
        "128x160",
    ]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "checked on 2 x 128x160: 200 detections" in result.output
    images = torch.randint(0, 256, (2, 3, 128, 160), dtype=torch.uint8)
    found = load(tmp_path / "model.pt2")
    assert found.class_map.names == ("ant", "bee", "cow")
    with torch.no_grad():
        assert torch.equal(found(images).boxes, detector(list(images)).boxes)


def test_readme_blocks_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    scope = {}
    for text in re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(text, "README.md", "exec"), scope)
    assert scope["names"] == ["heron", "stork"]
    assert scope["boxes"].shape == (1, 100, 4)
    assert scope["run"].class_map.names == ("heron", "stork")
