"""What this plugin listens to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from torch import Tensor


@hookimpl
def detcore_resolve_weights(address: str) -> Mapping[str, Tensor] | None:
    """Resolves ``torchvision://`` addresses."""
    from detcore_resnet.torchvision_weights import resolve

    return resolve(address)
