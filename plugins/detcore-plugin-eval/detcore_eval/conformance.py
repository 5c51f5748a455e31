"""Examples of this plugin's components for the conformance kit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from detcore.component import Component, Spec
    from detcore.testing import Subject


@hookimpl
def detcore_conformance_examples() -> Iterable[Spec[Any] | Component | Subject]:
    """KITTI's metric for classes and sizes that the kit's pictures have; both ways to interpolate VOC's."""
    from detcore_eval import KittiMetric, VOCMetric

    overlaps = dict.fromkeys("abc", 0.5)
    return [
        KittiMetric.spec(min_overlaps=overlaps, min_heights=(0, 0, 0)),
        VOCMetric.spec(iou_thrs=(0.5, 0.75), classwise=True),
        VOCMetric.spec(eval_mode="11points"),
    ]
