"""What is worked out for a tensor and worth keeping as long as that tensor is used."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class _Entry(NamedTuple, Generic[T]):
    tensor: weakref.ref[Tensor]
    version: int
    value: T


class Kept(Generic[T]):
    """Values that follow from a tensor, kept while that very tensor lives and nobody writes into it.

    Args:
        size: How many values are kept; those used last.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._entries: OrderedDict[Hashable, _Entry[T]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, tensor: Tensor, key: Hashable, make: Callable[[], T]) -> T:
        """The value kept for a tensor, or the one that ``make`` gives.

        Args:
            tensor: What the value follows from.
            key: What else it follows from.
            make: Works it out, from both alone.
        """
        # inference tensors do not tell whether they were written into; traced and fake ones are not for keeping
        if tensor.is_inference() or type(tensor) is not Tensor or torch.compiler.is_compiling():
            return make()
        place = (id(tensor), key)
        with self._lock:
            found = self._entries.pop(place, None)
            if found is None or found.tensor() is not tensor or found.version != tensor._version:
                # it may be asked for in another mode the next time
                with torch.inference_mode(False), torch.no_grad():
                    value = make()
                gone = weakref.ref(tensor, lambda _: self._entries.pop(place, None))
                found = _Entry(gone, tensor._version, value)
            self._entries[place] = found
            while len(self._entries) > self.size:
                self._entries.popitem(last=False)
            return found.value
