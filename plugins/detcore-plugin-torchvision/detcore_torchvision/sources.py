"""What a detector is imported from: a model, weights, or the name of published weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from detcore.errors import CheckpointError
from detcore.weights import read_weights

SCHEME = "torchvision://"
#: Models whose first published weights were trained with nothing added to the variance.
_NO_EPS = frozenset(
    f"{model}_ResNet50_FPN_Weights.COCO_V1"
    for model in ("RetinaNet", "FasterRCNN", "MaskRCNN", "KeypointRCNN")
)


@dataclass(frozen=True)
class Source:
    """A model or weights, with what is known of them.

    Args:
        title: What to call it in messages.
        weights: By torchvision's names.
        model: The model; None where only its weights are there.
        categories: Names by torchvision's label; None where unknown.
        frozen_bn_eps: See :func:`~detcore_torchvision.skeletons.skeleton_of`.
        device: Where the detector should be; None for the CPU.
    """

    title: str
    weights: Mapping[str, Tensor]
    model: nn.Module | None = None
    categories: Sequence[str] | None = None
    frozen_bn_eps: float | None = None
    device: torch.device | None = None


def source_of(
    source: nn.Module | Mapping[str, Tensor] | str,
    *,
    categories: Sequence[str] | None = None,
    frozen_bn_eps: float | None = None,
) -> Source:
    """A source from a model, a state dict, an address or the name of published weights.

    Raises:
        CheckpointError: The weights are unknown, or cannot be read.
    """
    if isinstance(source, nn.Module):
        device = next((p.device for p in source.parameters()), None)
        return Source(type(source).__name__, source.state_dict(), source, categories, None, device)
    if not isinstance(source, str):
        inner = source.get("model", source.get("state_dict"))
        weights = inner if isinstance(inner, Mapping) else source
        return Source("the given weights", weights, None, categories, frozen_bn_eps)
    address = address_of(source)
    published = _published(address)
    if published is not None:
        categories = categories or published.meta.get("categories")
        if frozen_bn_eps is None and str(published) in _NO_EPS:
            frozen_bn_eps = 0.0
    return Source(address, read_weights(address), None, categories, frozen_bn_eps)


def address_of(source: str) -> str:
    """The address that a name means: published weights, a model's builder, a path, or an address already."""
    if "://" in source:
        return source
    from torchvision.models import list_models

    name = source.partition(".")[0]
    is_weights = name.endswith("_Weights") and "." in source
    return f"{SCHEME}{source}" if is_weights or source in list_models() else source


def _published(address: str) -> Any:
    """The published weights behind an address; None where there are none."""
    if not address.startswith(SCHEME):
        return None
    from torchvision.models import get_model_weights, get_weight

    name = address.removeprefix(SCHEME)
    try:
        return get_weight(name) if "." in name else next(iter(get_model_weights(name)))
    except (ValueError, KeyError, TypeError, StopIteration) as cause:
        raise CheckpointError(f"{address}: torchvision publishes no such weights") from cause


def categories_of(address: str) -> Sequence[str] | None:
    """The categories of published weights; None where the address is another, or they have none."""
    published = _published(address) if address.startswith(SCHEME) else None
    return None if published is None else published.meta.get("categories")
