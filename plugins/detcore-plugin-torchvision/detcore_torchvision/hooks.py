"""What this plugin listens to. Addresses ``torchvision://...`` themselves are resolved by detcore-plugin-resnet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    import typer
    from torch import Tensor

    from detcore.interfaces import Detector
    from detcore.weights import AdaptedWeights


@hookimpl
def detcore_adapt_weights(
    address: str, weights: Mapping[str, Tensor], detector: Detector
) -> AdaptedWeights | None:
    """Gives the weights of a detector of torchvision, wherever they lie, detcore's names and rows."""
    if not any(name.startswith("backbone.fpn.") for name in weights):
        return None
    from detcore_torchvision.bridge import adapt

    return adapt(detector, weights, address)


@hookimpl
def detcore_add_commands(app: typer.Typer) -> None:
    """Adds ``detcore import-torchvision``."""
    from detcore_torchvision.commands import import_torchvision

    app.command("import-torchvision")(import_torchvision)
