"""Backbones, necks and other modules alone, against their goldens: outputs, gradients of a fixed loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detcore.serialize import build
from detcore.testing import goldens
from detcore.weights import without_weights
from detcore_mmdet.bridge import load, match_keys
from detcore_mmdet.parity.detectors import GRADIENT_RTOL, LOSS_RTOL, OUTPUT_ATOL, OUTPUT_RTOL, Arrays
from detcore_mmdet.parity.result import Result
from detcore_mmdet.translation import translation_of


def compare_module(name: str, seed: int = 0) -> Result:
    """The whole comparison of one module golden.

    Raises:
        TranslationError: The module does not exist here yet.
    """
    meta, data = goldens.model(name, seed)
    translation, result = translation_of(meta["config"]), Result()
    with without_weights():
        module = build(translation.config).eval()
    weights = goldens.weights(meta)
    keys = match_keys(module, weights, translation.report)
    load(module, weights, keys, name)
    inputs = [torch.from_numpy(array).requires_grad_() for array in goldens.rules().inputs(meta)]
    outputs = module(inputs[0] if len(inputs) == 1 else tuple(inputs))
    for i, output in enumerate(outputs):
        key = f"out/{i}"
        if list(output.shape) != meta["tensors"].get(key):
            result.problems.append(
                f"{key}: shape {list(output.shape)}, the reference has {meta['tensors'].get(key)}"
            )
            continue
        got = output.reshape(-1)[torch.from_numpy(data[f"{key}#idx"])]
        atol = OUTPUT_ATOL * max(float(data[f"{key}#stat"][1]), 1e-6)
        result.compare("forward", key, got, data[f"{key}#val"], rtol=OUTPUT_RTOL, atol=atol)
    if "gradcheck/L" in data:  # the largest modules were recorded without
        _compare_gradients(module, keys.mapped, outputs, inputs, meta["inputs"], data, result)
    return result


def _compare_gradients(
    module: Any,
    names: dict[str, str],
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    described: Sequence[dict[str, Any]],
    data: Arrays,
    result: Result,
) -> None:
    loss = torch.stack([output.square().mean() for output in outputs]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    result.compare("loss", "gradcheck/L", loss, data["gradcheck/L"].reshape(()), rtol=LOSS_RTOL)
    gradients = {f"gradin/{entry['name']}": t.grad for entry, t in zip(described, inputs, strict=True)}
    parameters = dict(module.named_parameters())
    for key in [k.removesuffix("#idx") for k in data if k.startswith("grad/") and k.endswith("#idx")]:
        gradients[key] = parameters[names[key.removeprefix("grad/")]].grad
    for key, gradient in gradients.items():
        if f"{key}#idx" not in data:
            continue
        wanted = data[f"{key}#val"]
        if gradient is None:
            result.compare("gradient", key, torch.zeros(len(wanted)), wanted, rtol=GRADIENT_RTOL, atol=1e-12)
            continue
        largest = float(gradient.abs().max())
        got = gradient.reshape(-1)[torch.from_numpy(data[f"{key}#idx"])]
        result.compare(
            "gradient",
            key,
            got,
            wanted,
            rtol=GRADIENT_RTOL,
            atol=GRADIENT_RTOL * largest,
            scale=largest or 1.0,
        )
