"""Which parameters get which learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from detcore.errors import ConfigError
from detcore_train.optimizers.rules import ParameterRule, factors_by_rule

NORMS = (_NormBase, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_BACKBONE = "backbone."


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    norm_decay_mult: float = 1.0,
    bias_decay_mult: float = 1.0,
    backbone_lr_mult: float = 1.0,
    layer_decay: float = 1.0,
    rules: Sequence[ParameterRule] = (),
) -> list[dict[str, Any]]:
    """The trainable parameters in groups of equal settings, each parameter once.

    Args:
        model: Its parameters below ``backbone`` are the backbone's.
        lr: Learning rate.
        weight_decay: Weight decay.
        norm_decay_mult: Factor on the weight decay of normalisation layers, biases included.
        bias_decay_mult: Factor on the weight decay of all other biases.
        backbone_lr_mult: Factor on the learning rate of the backbone.
        layer_decay: Factor on the learning rate from each layer of the backbone to the one before it; the last
            layer has it once.
        rules: Factors for parameters by name, in place of those above; the first that matches counts.

    Raises:
        ConfigError: There is nothing to train; a factor for the backbone is set and there is no backbone, or none
            with layers; or a rule is in vain.
    """
    trainable = list(_trainable(model))
    if not trainable:
        raise ConfigError(f"{type(model).__name__} has no trainable parameter")
    by_rule = factors_by_rule(rules, [name for name, _ in model.named_parameters(remove_duplicate=False)])
    backbone = [name for name, *_ in trainable if name.startswith(_BACKBONE)]
    for setting, factor in (("backbone_lr_mult", backbone_lr_mult), ("layer_decay", layer_decay)):
        if factor != 1.0 and not backbone:
            raise ConfigError(
                f"{setting} is {factor}, but {type(model).__name__} has no trainable parameter below 'backbone'"
            )
    below = _layers_below(model) if layer_decay != 1.0 else lambda name: 0
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter, in_norm in trainable:
        lr_mult = backbone_lr_mult * layer_decay ** below(name) if name.startswith(_BACKBONE) else 1.0
        decay_mult = norm_decay_mult if in_norm else bias_decay_mult if name.endswith("bias") else 1.0
        stated = by_rule[name]
        key = (lr * stated.get("lr_mult", lr_mult), weight_decay * stated.get("decay_mult", decay_mult))
        group = groups.setdefault(
            key, {"params": [], "lr": key[0], "initial_lr": key[0], "weight_decay": key[1]}
        )
        group["params"].append(parameter)
    return list(groups.values())


def group_table(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[dict[str, Any]]:
    """What each group of an optimizer holds, as plain values: learning rate, weight decay, size and names.

    Args:
        optimizer: Any optimizer over parameters of the model.
        model: Gives the names. Its parameters in no group come last, with the learning rate 0.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    left = dict(names)
    rows = []
    for group in optimizer.param_groups:
        lr = float(group.get("initial_lr", group["lr"]))
        rows.append(_row(lr, float(group.get("weight_decay", 0.0)), group["params"], names))
        for parameter in group["params"]:
            left.pop(parameter, None)
    return [*rows, _row(0.0, 0.0, list(left), names)] if left else rows


def _row(
    lr: float, weight_decay: float, parameters: list[nn.Parameter], names: dict[nn.Parameter, str]
) -> dict[str, Any]:
    return {
        "lr": lr,
        "weight_decay": weight_decay,
        "values": sum(parameter.numel() for parameter in parameters),
        "parameters": [names.get(parameter, "?") for parameter in parameters],
    }


def _layers_below(model: nn.Module) -> Callable[[str], int]:
    """For the name of a backbone's parameter, how many layers it is from the end; 1 for the last."""
    backbone = model.get_submodule(_BACKBONE.rstrip("."))
    ask = getattr(backbone, "depth_layers", None)
    if ask is None:
        raise ConfigError(
            f"layer_decay needs a backbone that tells its layers; {type(backbone).__name__} has no depth_layers()"
        )
    layers: tuple[tuple[str, ...], ...] = ask()
    places = {_BACKBONE + name: len(layers) - i for i, layer in enumerate(layers) for name in layer}

    def below(name: str) -> int:
        path = name
        while path not in places:
            path, dot, _ = path.rpartition(".")
            if not dot:
                raise ConfigError(
                    f"layer_decay: {type(backbone).__name__}.depth_layers() has no layer with the parameter "
                    f"{name!r}; add it there"
                )
        return places[path]

    return below


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Name, parameter and whether it belongs to a normalisation layer; shared parameters once."""
    seen = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield name, parameter, isinstance(module, NORMS)
