"""Examples of this plugin's components for the conformance kit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from detcore.testing import Subject


@hookimpl
def detcore_conformance_examples() -> Iterable[Subject]:
    """The anchors of RetinaNet."""
    from detcore.testing import Subject
    from detcore_priors import AnchorGenerator

    return [
        Subject(AnchorGenerator.spec(ratios=(0.5, 1.0, 2.0), octave_base_scale=4, scales_per_octave=3)),
        Subject(AnchorGenerator.spec(ratios=(1.0,), scales=(8,), center_offset=0.5), name="centred"),
    ]
