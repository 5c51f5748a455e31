"""Which arithmetic a device is fast in."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import torch

#: "32": single precision; "bf16": bfloat16 where it is safe, single elsewhere; "auto": bf16 where the device has it.
InferencePrecision = Literal["auto", "32", "bf16"]
PRECISIONS = ("auto", "32", "bf16")


def resolve_precision(precision: InferencePrecision, device: torch.device) -> Literal["32", "bf16"]:
    """``precision`` with "auto" resolved.

    Args:
        precision: What was asked for.
        device: Where the network is.

    Raises:
        ValueError: It is none of the choices.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision should be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "auto":
        return precision
    return "bf16" if has_bfloat16(device) else "32"


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware; where it does not, bfloat16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and _processor_has_bfloat16()


@functools.cache
def _processor_has_bfloat16(description: str = "/proc/cpuinfo") -> bool:
    """As Linux describes the processor (AVX512_BF16, AMX); False where nothing is known."""
    try:
        lines = Path(description).read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags
