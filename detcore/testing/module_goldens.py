"""Checking a module (backbone, neck, ...) against its golden numbers: outputs, gradients of a fixed loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detcore.testing import goldens
from detcore.weights import RenameRules, load_state, rename


def load_reference_weights(module: nn.Module, meta: Mapping[str, Any], rules: RenameRules) -> None:
    """Gives a module the synthesised weights of its golden.

    Args:
        module: The module.
        meta: The golden's description.
        rules: From the reference's weight names to the module's.

    Raises:
        CheckpointError: The names or shapes do not fit.
    """
    load_state(module, rename(goldens.weights(meta), rules), source=meta["name"])


def module_problems(
    module: nn.Module,
    meta: Mapping[str, Any],
    data: Mapping[str, np.ndarray],
    rules: RenameRules = (),
    *,
    rtol: float = 1e-3,
    atol: float = 1e-4,
    gradient_rtol: float = 1e-2,
) -> list[str]:
    """What a module does otherwise than its golden says; empty where all agrees.

    Args:
        module: The module; gets the golden's weights and is run in evaluation mode. Several inputs are handed
            over as one tuple.
        meta: The golden's description.
        data: The golden's arrays.
        rules: From the reference's weight names to the module's.
        rtol: Relative tolerance of outputs and of the loss.
        atol: Absolute tolerance of outputs, in their standard deviations.
        gradient_rtol: Tolerance of gradients, relative to the value, and near zero to the spread of them all.
    """
    load_reference_weights(module, meta, rules)
    module.eval()
    inputs = [torch.from_numpy(array).requires_grad_() for array in goldens.rules().inputs(meta)]
    outputs = module(inputs[0] if len(inputs) == 1 else tuple(inputs))
    found = [
        goldens.compare(f"out/{i}", output, meta, data, rtol=rtol, atol=atol)
        for i, output in enumerate(outputs)
    ]
    recorded = sum(name.startswith("out/") for name in meta["tensors"])
    if recorded != len(outputs):
        found.append(f"{len(outputs)} outputs, the golden has {recorded}")
    if "gradcheck/L" in data:  # the largest modules were recorded without
        found += _gradient_problems(
            module, outputs, inputs, meta, data, rules, rtol=rtol, gradient_rtol=gradient_rtol
        )
    return [message for message in found if message]


def _gradient_problems(
    module: nn.Module,
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    meta: Mapping[str, Any],
    data: Mapping[str, np.ndarray],
    rules: RenameRules,
    *,
    rtol: float,
    gradient_rtol: float,
) -> list[str]:
    """Differences in the loss that goldens use (the sum of the outputs' mean squares) and its gradients."""
    loss = torch.stack([output.square().mean() for output in outputs]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    found = [difference("gradcheck/L", loss, data["gradcheck/L"], rtol)]
    for entry, tensor in zip(meta["inputs"], inputs, strict=True):
        name = f"gradin/{entry['name']}"
        if f"{name}#idx" in data:
            got = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            found.append(goldens.compare(name, got, meta, data, rtol=gradient_rtol, atol=gradient_rtol))
    return found + gradient_problems(module, data, rules, gradient_rtol)


def gradient_problems(
    module: nn.Module, data: Mapping[str, np.ndarray], rules: RenameRules, rtol: float
) -> list[str]:
    """Differences between the gradients that a module's parameters hold and the recorded ones.

    Args:
        module: After a backward pass.
        data: The golden's arrays.
        rules: From the reference's weight names to the module's.
        rtol: Tolerance, relative to the value, and near zero to the largest one of its tensor.
    """
    found = []
    parameters = dict(module.named_parameters())
    for key in [
        name.removesuffix("#norm") for name in data if name.startswith("grad/") and name.endswith("#norm")
    ]:
        (ours,) = rename({key.removeprefix("grad/"): torch.empty(0)}, rules)
        gradient = parameters[ours].grad
        if gradient is None:
            found.append(f"{key}: no gradient")
            continue
        found.append(difference(f"{key}#norm", gradient.norm(), data[f"{key}#norm"], rtol))
        values = gradient.reshape(-1)[torch.from_numpy(data[f"{key}#idx"])]
        slack = rtol * float(gradient.abs().max())
        found.append(difference(key, values, data[f"{key}#val"], rtol, slack))
    return [message for message in found if message]


def difference(name: str, got: Tensor, expected: np.ndarray, rtol: float, atol: float = 0.0) -> str:
    """Empty where ``got`` is close to ``expected``, else both."""
    array = got.detach().double().cpu().numpy()
    if np.allclose(array, expected, rtol=rtol, atol=atol):
        return ""
    return f"{name}: got {array}, expected {expected}"
