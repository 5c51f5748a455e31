"""Examples of this plugin's components for the conformance kit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from detcore.testing import Subject


@hookimpl
def detcore_conformance_examples() -> Iterable[Subject]:
    """Losses that the kit should know more of than their defaults tell."""
    from detcore.testing import Subject
    from detcore_losses import CIoULoss, CrossEntropyLoss

    return [
        Subject(CIoULoss.spec(), inputs={"gradcheck": False}),  # the paper's alpha counts as a constant
        Subject(CrossEntropyLoss.spec()),
        Subject(CrossEntropyLoss.spec(use_sigmoid=True), name="sigmoid"),
    ]
