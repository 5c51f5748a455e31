"""Where in a network the first value that is not finite arises."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Origin:
    """The first place with a value that is not finite.

    Args:
        module: Name of the module; empty for the detector itself.
        type: Its class.
        where: "parameter", "input" (a value computed between the modules before) or "output".
        detail: Which parameter or buffer, or what was found.
    """

    module: str
    type: str
    where: str
    detail: str

    def __str__(self) -> str:
        name = f"{self.module or 'the detector'} ({self.type})"
        if self.where == "parameter":
            return f"before any computation, in {self.detail} of {name}"
        if self.where == "input":
            return f"between modules, in what is given to {name}: {self.detail}"
        if not self.module:
            return f"after all modules, whose outputs are finite, in the losses that are made of them: {self.detail}"
        return f"in the output of {name}: {self.detail}"


class Trace:
    """Watches a forward pass; :attr:`origin` tells where the first value that is not finite was seen."""

    def __init__(self) -> None:
        self.origin: Origin | None = None

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Watches what is computed inside the ``with`` block."""
        handles = []
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(self._before(name), with_kwargs=True))
            handles.append(module.register_forward_hook(self._after(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._look("input", name, module, (args, kwargs))

        return hook

    def _after(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self._look("output", name, module, output)

        return hook

    def _look(self, where: str, name: str, module: nn.Module, value: Any) -> None:
        if self.origin is None:
            found = describe(value)
            if found:
                self.origin = Origin(name, type(module).__name__, where, found)


def bad_state(model: nn.Module) -> Origin | None:
    """The first parameter or buffer that is not finite."""
    for name, module in model.named_modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for part, value in own:
            if describe(value):
                return Origin(name, type(module).__name__, "parameter", f"{part} ({describe(value)})")
    return None


def describe(value: Any) -> str:
    """How many values of the tensors in a structure are not finite; empty where all are."""
    for tensor in tensors(value):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            nan, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
            counts = [f"{n} {what}" for n, what in ((nan, "NaN"), (infinite, "infinite")) if n]
            return f"{' and '.join(counts)} of {tensor.numel()} values, shape {list(tensor.shape)}"
    return ""


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors(getattr(value, field.name))


def backward(total: Tensor) -> str:
    """Computes the gradients; returns the operation whose derivative is the first to be NaN, and its line.

    Args:
        total: The sum of the losses, computed inside :func:`torch.autograd.set_detect_anomaly`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            total.backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            found = re.search(r"Function '(\w+)' returned nan", str(error))
            if found is None:
                raise
            return found[1] + _line(str(w.message) for w in caught)
    return ""


def _line(messages: Iterator[str]) -> str:
    """Where the operation was computed: the innermost line that is not torch's own."""
    for message in messages:
        frames = re.findall(r'File "([^"]+)", line (\d+), in (\w+)\n\s+(.*)', message)
        own = [frame for frame in frames if f"{_TORCH}/" not in frame[0].replace("\\", "/")]
        if own:
            file, line, function, text = own[-1]
            return f" at {file}:{line} in {function}: {text.strip()}"
    return ""


_TORCH = torch.__path__[0].replace("\\", "/")
