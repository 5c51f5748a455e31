"""Examples of this plugin's components for the conformance kit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from detcore.testing import Subject


@hookimpl
def detcore_conformance_examples() -> Iterable[Subject]:
    """Small backbones and stages, trained whole and in part."""
    from detcore.testing import Subject
    from detcore_resnet import ResLayer, ResNet

    return [
        Subject(ResNet.spec(depth=18, base_channels=16, frozen_stages=-1, norm_eval=False)),
        Subject(ResNet.spec(depth=50, base_channels=8, frozen_stages=1), name="frozen"),
        Subject(ResLayer.spec(depth=50, base_channels=1)),
        Subject(ResLayer.spec(depth=18, base_channels=1, norm_eval=True), name="kept"),
    ]
