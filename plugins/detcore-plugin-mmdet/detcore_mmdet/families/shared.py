"""Options that many components share: normalisation, activation, convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detcore_mmdet.options import Options

_NORMS = {"BN": "BN", "BN2d": "BN", "SyncBN": "SyncBN", "MMSyncBN": "SyncBN", "GN": "GN"}
_NO_CONV = "a plugin would have to bring that convolution"


def norm(
    o: Options, *, default: str | None = None, eps: bool = False, requires_grad: bool = False
) -> dict[str, Any]:
    """``norm_cfg`` as ``norm``, ``num_groups`` and, where they exist, ``norm_eps``, ``norm_requires_grad``.

    Args:
        o: The component's options.
        default: The reference's type where the option is absent.
        eps: Whether the component has ``norm_eps``.
        requires_grad: Whether the component has ``norm_requires_grad``.
    """
    given = o.take_raw("norm_cfg", {"type": default} if default else None)
    if given is None:
        return {}
    n = o.replaced(norm_cfg=given).options("norm_cfg")
    if n.type not in _NORMS:
        o.problem("norm_cfg.type", f"the normalisation {n.type!r} has no counterpart in detcore")
        return {}
    result: dict[str, Any] = {"norm": _NORMS[n.type]}
    if n.type == "GN":
        result["num_groups"] = n.take("num_groups", 32)
    else:
        n.only("momentum", 0.1)
    if eps:
        result |= {"norm_eps": n.take("eps")} if n.has("eps") else {}
    else:
        n.only("eps", 1e-5)
    if requires_grad:
        result |= {} if n.take("requires_grad", True) else {"norm_requires_grad": False}
    else:
        n.only("requires_grad", True)
    return result


def activation(o: Options, *, default: str | None = "ReLU") -> str | None:
    """``act_cfg`` as the name of an activation, or None for none."""
    given = o.take_raw("act_cfg", {"type": default} if default else None)
    if given is None:
        return None
    a = o.replaced(act_cfg=given).options("act_cfg")
    a.take("inplace")  # memory only
    name = a.type
    if name != "ReLU":
        o.problem("act_cfg.type", f"the activation {name!r} has no counterpart in detcore")
        return None
    return name


def plain_convolutions(o: Options) -> None:
    """Options that replace convolutions; the plain one is all there is."""
    conv = o.take("conv_cfg")
    if conv is not None and conv.get("type") not in ("Conv", "Conv2d"):
        o.problem("conv_cfg", f"the convolution {conv.get('type')!r} has no counterpart in detcore", _NO_CONV)
    dcn = o.take("dcn")
    if dcn is not None:
        o.problem("dcn", f"the convolution {dcn.get('type')!r} has no counterpart in detcore", _NO_CONV)
    o.take("stage_with_dcn")  # without dcn it says nothing


def in_features(o: Options, strides: Sequence[int] | None = None) -> dict[str, Any]:
    """``in_channels``: noted for a check in a detector, whose parts are wired; written out for a part alone.

    Args:
        o: The component's options.
        strides: The strides of the levels; 4, 8, 16, ... where the reference does not tell them.
    """
    given = o.take("in_channels")
    if given is None:
        return {}
    channels = list(given) if isinstance(given, (list, tuple)) else [given] * len(strides or [0])
    if not o.alone:
        o.report.channels[str(o.place)] = tuple(channels)
        return {}
    if strides is None:
        strides = [4 * 2**i for i in range(len(channels))]
        o.note("in_channels", f"stand-alone: the strides of the input levels are taken to be {list(strides)}")
    return {"in_features": [{"channels": c, "stride": s} for c, s in zip(channels, strides, strict=True)]}
