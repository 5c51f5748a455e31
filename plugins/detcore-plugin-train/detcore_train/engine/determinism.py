"""Arithmetic that gives the same bits each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.utils.deterministic

#: A module whose settings are properties, which type checkers do not see.
_settings: Any = torch.utils.deterministic


@contextmanager
def deterministic_arithmetic(wanted: bool | Literal["warn"], device: str) -> Iterator[None]:
    """Inside, torch takes algorithms whose result does not differ from run to run.

    On a CPU it always does: it costs little there. On other devices it costs speed and memory, and is only done
    where it is wanted.

    Args:
        wanted: True refuses operations that have no such algorithm; "warn" warns of each once.
        device: What is computed on: "cpu", "cuda", "mps".

    Raises:
        RuntimeError: torch's own, where such an operation is refused; it names the operation.
    """
    if not wanted and device != "cpu":
        yield
        return
    mode = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, fill = torch.backends.cudnn.benchmark, _settings.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.use_deterministic_algorithms(True, warn_only=wanted is not True)
    torch.backends.cudnn.benchmark = False
    _settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])
        torch.backends.cudnn.benchmark, _settings.fill_uninitialized_memory = benchmark, fill
