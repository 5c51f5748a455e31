"""Which parameters get which learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from detcore.errors import ConfigError

NORMS = (_NormBase, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    norm_decay_mult: float,
    bias_decay_mult: float,
    backbone_lr_mult: float,
) -> list[dict[str, Any]]:
    """The trainable parameters in groups of equal settings, each parameter once.

    Args:
        model: Its parameters below ``backbone`` are the backbone's.
        lr: Learning rate.
        weight_decay: Weight decay.
        norm_decay_mult: Factor on the weight decay of normalisation layers, biases included.
        bias_decay_mult: Factor on the weight decay of all other biases.
        backbone_lr_mult: Factor on the learning rate of the backbone.

    Raises:
        ConfigError: There is nothing to train, or ``backbone_lr_mult`` is set and there is no backbone.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    names = []
    for name, parameter, in_norm in _trainable(model):
        names.append(name)
        in_backbone = name.startswith("backbone.")
        decay = norm_decay_mult if in_norm else bias_decay_mult if name.endswith("bias") else 1.0
        key = (lr * (backbone_lr_mult if in_backbone else 1.0), weight_decay * decay)
        group = groups.setdefault(
            key, {"params": [], "lr": key[0], "initial_lr": key[0], "weight_decay": key[1]}
        )
        group["params"].append(parameter)
    if not groups:
        raise ConfigError(f"{type(model).__name__} has no trainable parameter")
    if backbone_lr_mult != 1.0 and not any(name.startswith("backbone.") for name in names):
        raise ConfigError(
            f"backbone_lr_mult is {backbone_lr_mult}, but {type(model).__name__} has no trainable parameter "
            "below 'backbone'"
        )
    return list(groups.values())


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Name, parameter and whether it belongs to a normalisation layer; shared parameters once."""
    seen = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield name, parameter, isinstance(module, NORMS)
