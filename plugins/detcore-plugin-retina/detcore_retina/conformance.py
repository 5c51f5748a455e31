"""Examples of this plugin's components, and of a whole detector, for the conformance kit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from detcore.testing import Subject


@hookimpl
def detcore_conformance_examples() -> Iterable[Subject]:
    """Narrow heads, and a small RetinaNet."""
    from detcore_fpn import FPN
    from detcore_losses import GIoULoss
    from detcore_postprocess import AugmentedDetector, EnsembleDetector, TiledDetector, TransformedDetector
    from detcore_resnet import ResNet

    from detcore.detectors import SingleStageDetector
    from detcore.testing import Subject
    from detcore_retina import RetinaHead

    small = RetinaHead.spec(feat_channels=16, stacked_convs=1)
    detector = SingleStageDetector.spec(
        backbone=ResNet.spec(depth=18, base_channels=8),
        neck=FPN.spec(out_channels=16, start_level=1, num_outs=5, add_extra_convs="on_input"),
        head=small,
    )
    return [
        Subject(small),
        Subject(small.replace(loss_bbox=GIoULoss.spec(), norm="GN", num_groups=4), name="giou"),
        Subject(detector),
        Subject(AugmentedDetector.spec(detector=detector)),
        Subject(EnsembleDetector.spec(detectors=(detector, detector))),
        Subject(TiledDetector.spec(detector=detector, tile=(48, 64))),
        Subject(TransformedDetector.spec(detector=detector)),
    ]
