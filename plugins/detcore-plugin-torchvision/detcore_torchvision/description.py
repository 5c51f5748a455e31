"""A detector of torchvision as detcore's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torchvision.models.detection import FCOS, FasterRCNN, KeypointRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD

from detcore.errors import Problem
from detcore_torchvision.heads import retina_head_of, roi_head_of, rpn_head_of
from detcore_torchvision.networks import Config, backbone_of, preprocessor_of
from detcore_torchvision.problems import Findings

#: Why a detector of torchvision is not translated.
MISSING = {
    "FCOS": "the bridge has no translation of FCOS's head yet",
    "SSD": "the bridge has no translation of SSD's head and of its backbones yet",
    "KeypointRCNN": "detcore has no keypoint head yet",
}


@dataclass(frozen=True)
class Description:
    """What a model is made of.

    Args:
        config: detcore's configuration, without the number of classes.
        notes: What was decided, or differs in training.
    """

    config: Config
    notes: tuple[Problem, ...]


def describe(model: Any) -> Description:
    """The configuration of a model; its weights are not looked at.

    Args:
        model: RetinaNet, Faster R-CNN or Mask R-CNN on a ResNet with a feature pyramid, of torchvision.

    Raises:
        TorchvisionImportError: Parts or settings have no counterpart; all of them are named.
    """
    findings, title = Findings(), type(model).__name__
    for kind in (KeypointRCNN, FCOS, SSD):
        if isinstance(model, kind):
            findings.problem("", f"is not translated: {MISSING[kind.__name__]}")
            findings.check(title)
    if not findings.is_a("", model, RetinaNet, FasterRCNN):
        findings.check(title)
    backbone, neck = backbone_of(model, findings)
    parts: Config = {"backbone": backbone, "neck": neck}
    if isinstance(model, RetinaNet):
        parts |= {"type": "SingleStageDetector", "head": retina_head_of(model, findings)}
    else:
        rpn, roi = rpn_head_of(model.rpn, findings), roi_head_of(model.roi_heads, findings)
        parts |= {"type": "TwoStageDetector", "rpn_head": rpn, "roi_head": roi}
    parts["preprocessor"] = preprocessor_of(model.transform, findings)
    findings.check(title)
    return Description(parts, tuple(findings.notes))
