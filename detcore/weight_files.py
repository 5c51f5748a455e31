"""Files of weights, and addresses that plugins resolve: tensors by name, and nothing that could run.

An address is a path (``.safetensors``, a checkpoint's folder, or anything that :func:`torch.save` wrote), or
``scheme://...``, which an installed plugin resolves through the hook ``detcore_resolve_weights``.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from detcore import hooks
from detcore.errors import CheckpointError

#: The weights' file in the folder of a checkpoint.
WEIGHTS = "model.safetensors"

_SCHEME = re.compile(r"([a-zA-Z][\w+.-]+)://")
#: Which package resolves a scheme, for the error that says it is not installed.
_PACKAGE_OF_SCHEME = {"torchvision": "detcore-plugin-resnet", "mmdet": "detcore-plugin-mmdet"}
#: Entries under which training programs keep the weights in a larger file.
_WRAPPERS = ("state_dict", "model")


def read_weights(address: str) -> dict[str, Tensor]:
    """The tensors behind an address, by the names that they have there, on the CPU.

    Raises:
        CheckpointError: Nobody resolves the address, or what it leads to is missing, damaged, or holds other
            things than tensors.
    """
    scheme = _SCHEME.match(address)
    return _from_plugins(address, scheme[1]) if scheme else _from_file(Path(address).expanduser())


def _from_plugins(address: str, scheme: str) -> dict[str, Tensor]:
    found = hooks.manager().hook.detcore_resolve_weights(address=address)
    if found is not None:
        return dict(found)
    package = _PACKAGE_OF_SCHEME.get(scheme)
    remedy = (
        f"install {package}, or give a path"
        if package
        else "give a path, or install a plugin that resolves it"
    )
    raise CheckpointError(f"{address}: no installed plugin resolves {scheme}:// addresses; {remedy}")


def _from_file(path: Path) -> dict[str, Tensor]:
    if (path / WEIGHTS).is_file():
        path = path / WEIGHTS
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file of weights; give the path of a .safetensors or .pth file"
        )
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as cause:
            raise CheckpointError(
                f"{path}: damaged, or not a safetensors file ({cause}); fetch it again"
            ) from cause
    return _tensors_of(_unpickled(path), path)


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as cause:
        raise CheckpointError(
            f"{path}: holds more than tensors and plain data, or is no file of weights; unpickling it could "
            "run its code: where you trust it, save its weights alone as .safetensors and give that file"
        ) from cause
    except Exception as cause:  # what a damaged file makes torch raise is not limited to a list of classes
        raise CheckpointError(
            f"{path}: damaged, or not written by torch.save ({type(cause).__name__}: {cause}); fetch it again"
        ) from cause


def _tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    """The weights in a file's content: the mapping itself, or the one that it wraps."""
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path}: expected tensors by name, found {type(content).__name__} without any")
    other = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if other:
        raise CheckpointError(f"{path}: expected tensors by name, but these are none: {some(other)}")
    return {str(name): tensor for name, tensor in content.items()}


def some(names: Sequence[str] | Mapping[str, Any], limit: int = 5) -> str:
    """The first names, and how many more there are."""
    listed = list(names)
    more = f", ... and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
