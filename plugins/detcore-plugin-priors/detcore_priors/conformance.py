"""Examples of this plugin's components for the conformance kit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from detcore.testing import Subject


@hookimpl
def detcore_conformance_examples() -> Iterable[Subject]:
    """The anchors of well-known detectors."""
    from detcore.testing import Subject
    from detcore_priors import (
        AnchorGenerator,
        LegacyAnchorGenerator,
        LegacySSDAnchorGenerator,
        SSDAnchorGenerator,
        YOLOAnchorGenerator,
    )

    ssd: dict[str, Any] = {
        "ratios": ((2.0,), (2.0, 3.0), (2.0,)),
        "min_sizes": (21.0, 45.0, 99.0),
        "max_sizes": (45.0, 99.0, 153.0),
    }
    return [
        Subject(AnchorGenerator.spec(ratios=(0.5, 1.0, 2.0), octave_base_scale=4, scales_per_octave=3)),
        Subject(AnchorGenerator.spec(ratios=(1.0,), scales=(8,), center_offset=0.5), name="centred"),
        Subject(LegacyAnchorGenerator.spec(ratios=(0.5, 1.0, 2.0), scales=(8.0,))),
        Subject(SSDAnchorGenerator.spec(**ssd)),
        Subject(LegacySSDAnchorGenerator.spec(**ssd)),
        Subject(
            YOLOAnchorGenerator.spec(
                base_sizes=(((10, 13), (16, 30)), ((30, 61), (62, 45)), ((116, 90), (156, 198)))
            )
        ),
    ]
