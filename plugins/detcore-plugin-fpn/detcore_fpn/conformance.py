"""Examples of this plugin's components for the conformance kit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from detcore.testing import Subject


@hookimpl
def detcore_conformance_examples() -> Iterable[Subject]:
    """The pyramids of Faster R-CNN and RetinaNet, narrow."""
    from detcore.testing import Subject
    from detcore_fpn import FPN

    return [
        Subject(FPN.spec(out_channels=16, num_outs=5)),
        Subject(
            FPN.spec(out_channels=16, num_outs=5, start_level=1, add_extra_convs="on_input"), name="retina"
        ),
    ]
