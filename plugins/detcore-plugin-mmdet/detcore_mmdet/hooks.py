"""What this plugin listens to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    import typer
    from torch import Tensor

    from detcore.interfaces import Detector
    from detcore.weights import AdaptedWeights

_SCHEME = "mmdet://"


@hookimpl
def detcore_resolve_weights(address: str) -> Mapping[str, Tensor] | None:
    """Resolves ``mmdet://PATH``: a checkpoint of MMDetection, with its names."""
    if not address.startswith(_SCHEME):
        return None
    from detcore_mmdet.checkpoints import load_checkpoint

    return load_checkpoint(address.removeprefix(_SCHEME))


@hookimpl
def detcore_adapt_weights(
    address: str, weights: Mapping[str, Tensor], detector: Detector
) -> AdaptedWeights | None:
    """Gives the weights of ``mmdet://PATH`` the names of a detector of the same architecture."""
    if not address.startswith(_SCHEME):
        return None
    from detcore_mmdet.bridge import adapt

    return adapt(detector, weights, address)


@hookimpl
def detcore_add_commands(app: typer.Typer) -> None:
    """Adds ``detcore import-mmdet``."""
    from detcore_mmdet.commands import import_mmdet

    app.command("import-mmdet")(import_mmdet)
