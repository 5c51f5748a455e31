"""Comparison of what components return: tensors inside dataclasses, mappings and sequences."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from detcore.component import Component, Spec
from detcore.errors import join_path

#: Relative difference that float32 arithmetic in another order may make.
RTOL = 1e-4
ATOL = 1e-5


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything that is no container, each with its path."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name), join_path(path, field.name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, join_path(path, key))
        if hasattr(value, "metrics"):
            yield from leaves(value.metrics, join_path(path, "metrics"))
    elif isinstance(value, (list, tuple)):
        names = getattr(value, "_fields", None) or range(len(value))
        for name, item in zip(names, value, strict=True):
            yield from leaves(item, join_path(path, name))
    elif not isinstance(value, (Component, Spec)):
        yield path, value


def tensors(value: Any) -> list[Tensor]:
    """All tensors inside ``value``."""
    return [leaf for _, leaf in leaves(value) if isinstance(leaf, Tensor)]


def snapshot(value: Any) -> dict[str, Any]:
    """The leaves by path, tensors copied, to be compared later."""
    return {path: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for path, leaf in leaves(value)}


def difference(got: Any, wanted: Any, *, rtol: float = 0.0, atol: float = 0.0) -> str | None:
    """The first thing in which two values differ, in words, or None.

    Integers, booleans and everything that is no tensor must be equal, shapes and dtypes too. NaN equals NaN.

    Args:
        got: A value.
        wanted: What it should be.
        rtol: Relative tolerance of floating point values.
        atol: Absolute tolerance of floating point values, in their units.
    """
    ours, theirs = dict(leaves(got)), dict(leaves(wanted))
    if ours.keys() != theirs.keys():
        odd = sorted(map(str, ours.keys() ^ theirs.keys()))
        return f"has other parts: {', '.join(odd)}"
    for path, value in ours.items():
        other = theirs[path]
        where = f"{path}: " if path else ""
        if isinstance(value, Tensor) and isinstance(other, Tensor):
            found = _tensor_difference(value, other, rtol, atol)
            if found:
                return where + found
        elif isinstance(value, float) and isinstance(other, float):
            if abs(value - other) > atol + rtol * abs(other):
                return f"{where}{value!r}, expected {other!r}"
        elif isinstance(value, Tensor) or isinstance(other, Tensor) or value != other:
            return f"{where}{value!r}, expected {other!r}"
    return None


def _tensor_difference(got: Tensor, wanted: Tensor, rtol: float, atol: float) -> str | None:
    if got.shape != wanted.shape:
        return f"shape {list(got.shape)}, expected {list(wanted.shape)}"
    if got.dtype != wanted.dtype:
        return f"{got.dtype}, expected {wanted.dtype}"
    got, wanted = got.detach(), wanted.detach()
    if got.is_floating_point():
        close = torch.isclose(got, wanted, rtol=rtol, atol=atol, equal_nan=True)
    else:
        close = got == wanted
    return None if bool(close.all()) else describe_first(~close, got, wanted)


def describe_first(wrong: Tensor, got: Tensor, wanted: Tensor | None = None) -> str:
    """Where ``wrong`` is first true, how often it is, and what is there."""
    index = tuple(wrong.nonzero()[0].tolist())
    text = f"{int(wrong.sum())} of {wrong.numel()} values"
    value = got[index] if index else got
    text += f", first at {list(index)}: {value.tolist()}" if index else f": {value.tolist()}"
    if wanted is not None:
        expected = wanted[index] if index else wanted
        text += f", expected {expected.tolist()}"
    return text
