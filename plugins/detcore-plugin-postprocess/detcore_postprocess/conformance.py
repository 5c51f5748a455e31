"""What this plugin adds to the conformance kit: checks of mergers, and variants of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from detcore.testing import Subject
    from detcore.testing.checking import Check


@hookimpl
def detcore_add_checks() -> Iterable[Check]:
    """What holds for every merger, this plugin's and others'."""
    from detcore_postprocess.checks import CHECKS

    return CHECKS


@hookimpl
def detcore_conformance_examples() -> Iterable[Subject]:
    """Mergers with their defaults and with other parts."""
    from detcore.testing import Subject
    from detcore_postprocess import NMS, NMSMerger, SoftNMS, WeightedBoxesFusion

    return [
        Subject(NMSMerger.spec()),
        Subject(NMSMerger.spec(nms=SoftNMS.spec(method="gaussian")), name="soft"),
        Subject(NMSMerger.spec(nms=NMS.spec(overlap="ios")), name="ios"),
        Subject(WeightedBoxesFusion.spec()),
        Subject(WeightedBoxesFusion.spec(conf_type="max"), name="max"),
    ]
