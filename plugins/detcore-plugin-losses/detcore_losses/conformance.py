"""Examples of this plugin's components for the conformance kit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    import torch

    from detcore.testing import Subject


@hookimpl
def detcore_conformance_examples() -> Iterable[Subject]:
    """Losses that the kit should know more of than their defaults tell."""
    from detcore.testing import Subject
    from detcore_losses import (
        GHMC,
        CIoULoss,
        CrossEntropyLoss,
        DistributionFocalLoss,
        GaussianFocalLoss,
        SeesawLoss,
    )

    return [
        Subject(CIoULoss.spec(), inputs={"gradcheck": False}),  # the paper's alpha counts as a constant
        Subject(CrossEntropyLoss.spec()),
        Subject(CrossEntropyLoss.spec(use_sigmoid=True), name="sigmoid"),
        Subject(DistributionFocalLoss.spec(), inputs={"loss": _distributions}),
        Subject(GaussianFocalLoss.spec(), inputs={"loss": _heat_maps}),
        Subject(GHMC.spec()),
        Subject(GHMC.spec(momentum=0.75), name="momentum", inputs={"loss": _labels, "gradcheck": False}),
        # compensation counts as a constant
        Subject(SeesawLoss.spec(), inputs={"loss": _seesaw, "gradcheck": False}),
    ]


def _distributions(rows: int, generator: torch.Generator) -> dict[str, Any]:
    import torch

    pred = torch.randn(rows, 8, generator=generator)
    return {"pred": pred, "target": 7 * torch.rand(rows, generator=generator)}


def _heat_maps(rows: int, generator: torch.Generator) -> dict[str, Any]:
    import torch

    target = torch.rand(rows, 4, generator=generator)
    target[:, 0] = 1
    return {"pred": torch.randn(rows, 4, generator=generator).sigmoid(), "target": target}


def _labels(rows: int, generator: torch.Generator, more: int = 0) -> dict[str, Any]:
    import torch

    from detcore.testing.subject import NUM_CLASSES

    pred = torch.randn(rows, NUM_CLASSES + more, generator=generator)
    return {"pred": pred, "target": torch.randint(NUM_CLASSES + 1, (rows,), generator=generator)}


def _seesaw(rows: int, generator: torch.Generator) -> dict[str, Any]:
    return _labels(rows, generator, more=2)
