"""RetinaNet for detcore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detcore_retina.retina_head import RetinaHead

__all__ = ["RetinaHead"]


def __getattr__(name: str) -> Any:
    if name == "RetinaHead":
        from detcore_retina.retina_head import RetinaHead

        return RetinaHead
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
