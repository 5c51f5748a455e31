"""Weights from elsewhere into a module: resolving an address, renaming, and loading that is all or nothing.

An address is a path (``.safetensors``, or anything that :func:`torch.save` wrote), or ``scheme://...``, which
an installed plugin resolves through the hook ``detcore_resolve_weights``.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from detcore import hooks
from detcore.errors import CheckpointError

#: (regular expression, replacement) pairs on the names of weights; see :func:`rename`.
RenameRules = Sequence[tuple[str, str]]

_SCHEME = re.compile(r"([a-zA-Z][\w+.-]+)://")
#: Which package resolves a scheme, for the error that says it is not installed.
_PACKAGE_OF_SCHEME = {"torchvision": "detcore-plugin-resnet", "mmdet": "detcore-plugin-mmdet"}
#: Entries under which training programs keep the weights in a larger file.
_WRAPPERS = ("state_dict", "model")
#: A counter that old files lack, and that nothing reads at the default momentum.
_OPTIONAL = "num_batches_tracked"

_skipping: ContextVar[bool] = ContextVar("detcore_without_weights", default=False)


@dataclass(frozen=True)
class LoadReport:
    """What was loaded from where.

    Args:
        address: Where the weights came from.
        loaded: Names in the module that were given values.
        skipped: Names in the file that were expected to have no place in the module.
        kept: Names in the module that were expected to have no value in the file.
    """

    address: str
    loaded: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


@contextmanager
def without_weights() -> Iterator[None]:
    """Inside, :func:`load_weights` does nothing: for models that are given a checkpoint right afterwards."""
    token = _skipping.set(True)
    try:
        yield
    finally:
        _skipping.reset(token)


def skipping_weights() -> bool:
    """Whether :func:`without_weights` is active."""
    return _skipping.get()


def rename(weights: Mapping[str, Tensor], rules: RenameRules) -> dict[str, Tensor]:
    """The weights under other names.

    Args:
        weights: Tensors by name.
        rules: Each is applied to every name with :func:`re.sub`, one after the other.

    Raises:
        ValueError: Two names become one.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new in renamed:
            raise ValueError(
                f"two weights get the name {new!r}, one of them {name!r}; correct the rename rules"
            )
        renamed[new] = tensor
    return renamed


def load_weights(
    module: nn.Module,
    address: str,
    *,
    prefix: str = "",
    renames: RenameRules = (),
    skip: Sequence[str] = (),
    may_lack: Sequence[str] = (),
) -> LoadReport | None:
    """Loads weights from an address into a module: everything fits, or nothing is changed.

    Args:
        module: The module.
        address: A path, or ``scheme://...``.
        prefix: Only names that begin with it are used, without it (``"backbone."`` in a detector's file).
        renames: From the names in the file to those in the module, applied after ``prefix``.
        skip: Beginnings of renamed names that are left out (``"fc."`` of a classifier).
        may_lack: Beginnings of the module's names that keep the values they have.

    Returns:
        What was loaded; None inside :func:`without_weights` and for a module on the meta device.

    Raises:
        CheckpointError: The address cannot be resolved or read, or the weights do not fit.
    """
    if skipping_weights() or any(tensor.is_meta for tensor in module.state_dict().values()):
        return None
    weights = read_weights(address)
    within = {
        name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)
    }
    if not within:
        raise CheckpointError(f"{address}: no weight's name begins with {prefix!r}; it has {_some(weights)}")
    try:
        renamed = rename(within, renames)
    except ValueError as cause:
        raise CheckpointError(f"{address}: {cause}") from cause
    return load_state(module, renamed, source=address, skip=skip, may_lack=may_lack)


def load_state(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    source: str,
    skip: Sequence[str] = (),
    may_lack: Sequence[str] = (),
) -> LoadReport:
    """Loads weights by name into a module: everything fits, or nothing is changed.

    Args:
        module: The module.
        weights: Tensors by the module's names.
        source: What to call their origin in errors.
        skip: As for :func:`load_weights`.
        may_lack: As for :func:`load_weights`.

    Raises:
        CheckpointError: Names are missing or left over, or shapes differ; the first of each are named.
    """
    own = module.state_dict()
    skipped = tuple(name for name in weights if name.startswith(tuple(skip)))
    used = {name: tensor for name, tensor in weights.items() if name not in skipped}
    absent = [name for name in own if name not in used]
    kept = tuple(name for name in absent if name.startswith(tuple(may_lack)))
    problems = {
        "missing": [name for name in absent if name not in kept and not name.endswith(_OPTIONAL)],
        "unexpected": [name for name in used if name not in own],
        "of another shape": [
            f"{name} ({list(used[name].shape)} in the file, {list(own[name].shape)} in the model)"
            for name in own
            if name in used and used[name].shape != own[name].shape
        ],
    }
    if any(problems.values()):
        found = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in problems.items() if names)
        raise CheckpointError(
            f"{source}: the weights do not fit {type(module).__name__} ({found}); nothing was loaded: "
            "give weights of this architecture, or change its parameters to those of the weights"
        )
    module.load_state_dict(used, strict=False)
    return LoadReport(source, tuple(used), skipped, kept)


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
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as cause:
        raise CheckpointError(
            f"{path}: damaged, or not written by torch.save ({cause}); fetch it again"
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
        raise CheckpointError(f"{path}: expected tensors by name, but these are none: {_some(other)}")
    return {str(name): tensor for name, tensor in content.items()}


def _some(names: Sequence[str] | Mapping[str, Any], limit: int = 5) -> str:
    listed = list(names)
    more = f", ... and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
