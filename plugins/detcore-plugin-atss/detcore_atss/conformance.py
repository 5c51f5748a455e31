"""Examples of this plugin's components for the conformance kit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from detcore.testing import Subject


@hookimpl
def detcore_conformance_examples() -> Iterable[Subject]:
    """A narrow head."""
    from detcore.testing import Subject
    from detcore_atss import ATSSHead

    return [Subject(ATSSHead.spec(feat_channels=16, stacked_convs=1, num_groups=4))]
