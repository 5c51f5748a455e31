"""Weights that torchvision publishes, by address.

``torchvision://ResNet50_Weights.IMAGENET1K_V2`` names them exactly. ``torchvision://resnet50`` means the
first that were published for the model (IMAGENET1K_V1, COCO_V1), which the literature's detectors start from.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping

import torch
from torch import Tensor

from detcore.errors import CheckpointError, did_you_mean

SCHEME = "torchvision://"


def resolve(address: str) -> Mapping[str, Tensor] | None:
    """The weights behind a ``torchvision://`` address, from torchvision's cache or its server.

    Args:
        address: ``torchvision://MODEL`` or ``torchvision://ENUM.NAME``.

    Returns:
        Tensors by name; None for addresses of others.

    Raises:
        CheckpointError: torchvision knows no such weights, or they cannot be fetched.
    """
    if not address.startswith(SCHEME):
        return None
    from torchvision.models import get_model_weights, get_weight, list_models

    name = address.removeprefix(SCHEME)
    try:
        weights = get_weight(name) if "." in name else next(iter(get_model_weights(name)))
    except (ValueError, KeyError, TypeError, StopIteration) as cause:
        near = did_you_mean(name, list_models())
        examples = "torchvision://resnet50 or torchvision://ResNet50_Weights.IMAGENET1K_V2"
        remedy = near or f"an address looks like {examples}"
        raise CheckpointError(f"{address}: torchvision publishes no such weights; {remedy}") from cause
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as cause:
        raise CheckpointError(
            f"{address}: cannot be fetched from {weights.url} ({cause}); fetch that file elsewhere and give "
            f"its path as the address, or put it into {torch.hub.get_dir()}/checkpoints"
        ) from cause
    return state
